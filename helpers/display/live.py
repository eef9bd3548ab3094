"""The page of `web/` as the output of a cell: speak, and hear yourself denoised, in JupyterLab.

Page, engine and weights lie in the output itself, so nothing is asked from any server; a cell is
1.3 MB larger for each method. Taught in `09_real_time`.
"""

import base64
import html
import json
import re
from collections.abc import Sequence

from IPython.display import HTML

from helpers import models
from helpers.store import ROOT

HEIGHT = 760  # px, until the page has said how tall it is


def live(methods: Sequence[str] = ("spectrogram",)) -> HTML:
    """The page with the weights of some methods, the first chosen, in a frame of its own.

    It needs a browser that gives the microphone: a notebook from this machine or over https. Raises
    models.WeightsError where a method's weights for browsers are missing.
    """
    frame = html.escape(page(methods), quote=True)
    return HTML(
        f'<div class="denoiser-live"><iframe srcdoc="{frame}" allow="microphone" '
        f'title="Denoiser" style="width: 100%; height: {HEIGHT}px; border: 0"></iframe></div>'
    )


def page(methods: Sequence[str]) -> str:
    """The page as one text that needs no other file, with the weights of some methods."""
    web = ROOT / "web"
    style, engine, script = (
        (web / name).read_text("utf-8") for name in ("style.css", "denoiser.js", "page.js")
    )
    weights = json.dumps({method: weights_of(method) for method in methods})
    parts = {  # what stands in index.html, and what takes its place
        r'<meta http-equiv="Content-Security-Policy".*?>': "",
        r'<link rel="icon".*?>': "",
        r'<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        r"<body>": '<body class="inlined">',
        r'<script src="denoiser.js"></script>': (
            f'<script type="application/json" id="weights">{weights}</script>\n'
            f'<script id="engine">{engine}</script>'
        ),
        r'<script src="page.js"></script>': f"<script>{script}</script>",
    }
    text = (web / "index.html").read_text("utf-8")
    for pattern, new in parts.items():
        text, n = re.subn(pattern, lambda _, new=new: new, text)
        if n != 1:
            raise ValueError(f"web/index.html: {pattern} stands in it {n} times, not once")
    return text


def weights_of(method: str) -> dict:
    """The index of a method's float16 weights, and the weights as base64."""
    folder = models.weights_path(method).parent / "web"
    paths = [folder / f"{method}{ending}" for ending in (".json", ".bin")]
    for path in paths:
        if not path.exists():
            raise models.WeightsError(f"{path}: missing; run `python -m experiments export`")
    index, binary = (path.read_bytes() for path in paths)
    return {"index": json.loads(index), "base64": base64.b64encode(binary).decode()}
