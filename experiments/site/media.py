"""Sounds and pictures of the site as files beside its pages, and the HTML that shows them."""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
from nbformat import NotebookNode
from PIL import Image

from experiments.execute_notebooks import smaller

PLAYER = re.compile(
    r'(?:<b>(?P<title>[^<]*)</b><br>\s*)?<audio[^>]*>\s*<source src="data:audio/wav;base64,'
    r'(?P<wav>[^"]+)".*?</audio>',
    re.DOTALL,
)
LABELS = {"kind": "noise", "low": "from (Hz)", "snr_db": "SNR (dB)", "denoiser": "denoiser"}


class Media:
    """The folder of sounds and pictures; a file is named by what is in it, so none is there twice.

    `rows`: of each row of players the titles, files, seconds, and RMS of full scale as the notebook
    made them, for the tests.
    """

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, []
        folder.mkdir(parents=True)

    def save(self, content: bytes, ending: str) -> str:
        """Write a file, unless it is there, and give its name."""
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{ending}"
        (self.folder / name).write_bytes(content)
        return name

    def sound(self, wav: str) -> dict:
        """A base64 WAV as FLAC, sample for sample: its file, seconds and RMS."""
        samples, sr = sf.read(io.BytesIO(base64.b64decode(wav)), dtype="int16")
        out = io.BytesIO()
        sf.write(out, samples, sr, format="FLAC", subtype="PCM_16")
        rms = float(np.sqrt(np.mean((samples / 32768.0) ** 2)))
        facts = {"seconds": len(samples) / sr, "rms": rms}
        return {"file": self.save(out.getvalue(), "flac")} | facts

    def row(self, text: str) -> list[dict]:
        """The players of an output: title, file, seconds and RMS of each."""
        row = []
        for found in PLAYER.finditer(text):
            title = " ".join(html.unescape(found["title"] or "sound").split())
            row.append({"title": title} | self.sound(found["wav"]))
        self.rows.append(row)
        return row

    def picture(self, png: str, alt: str, up: str, lossy: bool = False) -> str:
        """A base64 PNG as an image with a text for those who do not see it."""
        content = base64.b64decode(smaller(png))
        image, ending = Image.open(io.BytesIO(content)), "png"
        if lossy:
            out, ending = io.BytesIO(), "webp"
            image.convert("RGB").save(out, "webp", quality=80)
            content = out.getvalue()
        size = 'width="{}" height="{}"'.format(*image.size)
        source = f"{up}media/{self.save(content, ending)}"
        return f'<img src="{source}" alt="{html.escape(alt)}" {size} loading="lazy">'


def players_html(row: Sequence[Mapping], up: str) -> str:
    """A row of players, as figures with captions. `up`: from the page to the site's top."""
    figures = (
        f"<figure><figcaption>{html.escape(one['title'])}</figcaption>"
        f"<audio controls preload='metadata' src='{up}media/{one['file']}' "
        f"aria-label='{html.escape(one['title'], quote=True)}'></audio></figure>"
        for one in row
    )
    label = "Players of one row, all with one gain"
    return f"<div class='players' role='group' aria-label='{label}'>{''.join(figures)}</div>"


def bench_html(cell: NotebookNode, settings: Mapping[str, list], media: Media, up: str) -> str:
    """The bench without a kernel: menus of settings, whose pictures and players lie ready.

    `cell`: the one that displayed them all, a picture and its players in turn.
    """
    states = {}
    for picture, sound in zip(cell.outputs[::2], cell.outputs[1::2], strict=True):
        row = media.row(sound.data["text/html"])
        alt = "Spectrograms, side by side: " + "; ".join(one["title"] for one in row[1:])
        image = media.picture(picture.data["image/png"], alt, up, lossy=True)
        values = picture.metadata["bench"].values()
        states["|".join(map(str, values))] = {"image": image, "players": players_html(row, up)}
    menus = "".join(
        f"<label>{LABELS[name]} <select name='{name}'>"
        + "".join(f"<option>{value}</option>" for value in values)
        + "</select></label>"
        for name, values in settings.items()
    )
    first = next(iter(states.values()))
    table = json.dumps(states).replace("</", "<\\/")
    return (
        f"<div class='bench'><form class='menus' aria-label='Settings of the bench'>{menus}</form>"
        f"<div class='picture'>{first['image']}</div><div class='sound'>{first['players']}</div>"
        f"<script type='application/json'>{table}</script></div>"
    )
