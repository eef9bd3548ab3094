"""Execute every notebook in full mode and keep its outputs, without audio (`make notebooks`).

`python -m experiments notebooks [NOTEBOOK...]`
"""

import base64
import io
import math
import os
import re
import time
from pathlib import Path

import nbclient
import nbformat
from PIL import Image

from helpers.store import ROOT

PLAYER = re.compile(r"<audio.*?</audio>", re.DOTALL)
DURATION = re.compile(r"(Runs in \*\*).*?(\*\* on 2 CPU cores)")
LIVE = re.compile(r'<div class="denoiser-live">.*</div>', re.DOTALL)  # weights and all
PLACEHOLDER = "<i>run this cell to listen</i>"


def smaller(png: str) -> str:
    """A base64 PNG in 256 colours, which figures of noise need to stay small."""
    picture, out = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return min(png, base64.b64encode(out.getvalue()).decode(), key=len)


def strip(notebook: nbformat.NotebookNode) -> None:
    """Placeholders for audio players, smaller figures, and nothing that changes from run to run."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                output.data["image/png"] = smaller(png)
            html = output.get("data", {}).get("text/html")
            if html:
                html = LIVE.sub("<i>run this cell to speak</i>", "".join(html))
                output.data["text/html"] = PLAYER.sub(PLACEHOLDER, html)


def duration(seconds: float) -> str:
    """In words, for example `20 s` or `3 min`."""
    return f"{10 * math.ceil(seconds / 10)} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def all_notebooks() -> list[Path]:
    """Chapters, appendices and solutions, without the copies that JupyterLab keeps of them."""
    found = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def execute_notebooks(names: list[str]) -> None:
    """Execute these notebooks, or all, one after the other.

    Each one's seconds are printed, and written into its first cell.
    """
    os.environ.pop("DENOISER_QUICK", None)
    for path in map(Path, names or all_notebooks()):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}
        )
        client.execute()
        strip(notebook)
        seconds = time.perf_counter() - start
        title = notebook.cells[0]
        title.source = DURATION.sub(rf"\g<1>{duration(seconds)}\g<2>", title.source)
        nbformat.write(notebook, path)
        print(f"{path.name}: {seconds:.0f} s", flush=True)
