"""A committed notebook as a page of the site: players that play, pictures with texts, solutions."""

import html
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from experiments.site import run
from experiments.site.media import PLAYER, Media, bench_html, players_html
from helpers.quick import QUICK
from helpers.store import ROOT

LIVE = ("denoiser-live", "run this cell to speak")  # the page of web/ in a cell, and its place
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_KERNEL = "<p class='needs-python'>This part needs Python: run the page to use it.</p>"
VOICE = "<p class='voice'>from the bundled sample</p>"
WHOSE = """What you hear are **synthetic voices**, the bundled sample, and nobody's recording. A
cell with players shows that sample in its picture and its numbers too; everything else on this page
is the course's own run on a slice of LibriSpeech, whose audio is not ours to publish. To change
code and do the exercises, run the notebook: [how to start]({up}README.md)."""
HASTY = " *This is a quick build: its trainings were cut short.*"
COLAB = """# Only in Colab: fetch the course and its packages, once
import os
import pathlib
import subprocess
import sys

COURSE = pathlib.Path("{place}")
if not COURSE.exists():
    subprocess.run(["git", "clone", "--depth", "1", "{repository}", COURSE], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "-r", "requirements.txt"]
    subprocess.run(pip, cwd=COURSE, check=True)
os.chdir(COURSE / "notebooks")
sys.path.insert(0, str(COURSE))
"""


# --- cells ---------------------------------------------------------------------------------------


def has_sound(cell: NotebookNode) -> bool:
    """Whether a cell that ran has given players."""
    return any("<audio" in html_of(output) for output in cell.get("outputs", []))


def html_of(output: NotebookNode) -> str:
    """The HTML of an output, "" where it has none."""
    return output.get("data", {}).get("text/html", "")


def figure_texts(cell: NotebookNode) -> list[str]:
    """What the figures of a cell that ran say of themselves, in their order."""
    data = (output.get("data", {}) for output in cell.get("outputs", []))
    return [one.get("text/plain", "") for one in data if "image/png" in one]


def page(committed: NotebookNode, ran: NotebookNode, media: Media, up: str) -> NotebookNode:
    """The committed notebook with players that play, and pictures with texts; the same object.

    `ran`: the same on the sample, see `run.run`. `up`: from the page to the site's top. Raises
    ValueError where a player of the committed notebook did not come back.
    """
    by_id = {cell.id: cell for cell in ran.cells}
    bench = NO_KERNEL
    if run.GRID in by_id:
        bench = bench_html(by_id[run.GRID], run.SETTINGS, media, up)
    for cell in committed.cells:
        if cell.cell_type != "code":
            continue
        again = by_id[cell.id]
        heard = has_sound(again)
        if not heard and "run this cell to listen" in json.dumps(cell.outputs):
            raise ValueError(f"{cell.id}: its players are not in the run on the sample")
        outputs = again.outputs if heard else cell.outputs
        cell.outputs = converted(outputs, figure_texts(again), media, up, bench)
        if heard:
            cell.outputs.append(html_output(VOICE))
        cell.source = re.sub(r"^# NBVAL_CHECK_OUTPUT\n", "", cell.source)
        cell.metadata = NotebookNode()
    setup = next(cell for cell in committed.cells if cell.cell_type == "code")
    setup.metadata["tags"] = ["hide-input"]  # the imports
    return committed


def html_output(text: str) -> NotebookNode:
    """An output that is HTML."""
    return new_output("display_data", {"text/html": text})


def converted(
    outputs: Sequence, texts: Sequence[str], media: Media, up: str, bench: str
) -> list[NotebookNode]:
    """Outputs with files instead of what is inlined, and with a text for each picture.

    `bench`: the HTML that takes the place of widgets.
    """
    titles = [found["title"] for one in outputs for found in PLAYER.finditer(html_of(one))]
    unnamed = f"Spectrograms of what is played here: {'; '.join(titles)}"
    made, texts = [], iter(texts)
    for output in outputs:
        if output.output_type == "stream":
            if made and made[-1].get("name") == output.name:
                made[-1].text += output.text
            else:
                made.append(new_output("stream", name=output.name, text=output.text))
            continue
        data, text = output.data, html_of(output)
        if "image/png" in data:
            told = next(texts, "<")
            text = media.picture(data["image/png"], unnamed if told[:1] == "<" else told, up)
        elif WIDGET in data:
            text = bench
        elif any(mark in text for mark in LIVE):
            text = live_html(up)
        elif "<audio" in text:
            text = players_html(media.row(text), up)
        elif text:
            text = table_html(text)
        made.append(html_output(text) if text else new_output("display_data", data))
    return made


def table_html(text: str) -> str:
    """A table of pandas in a box that can be scrolled, also by the keyboard."""
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = text.replace("<th></th>", "<td></td>").replace(' border="1"', "")
    return f"<div class='table-box' tabindex='0' role='region' aria-label='Table'>{text}</div>"


def live_html(up: str) -> str:
    """The page of web/, for a cell that shows it in a notebook."""
    return (
        f"<iframe class='live' src='{up}try/web/index.html' title='Denoiser: speak, or open a file'"
        " allow='microphone' loading='lazy'></iframe>"
    )


# --- what stands around the cells ----------------------------------------------------------------


def add_solutions(notebook: NotebookNode, solutions: NotebookNode) -> None:
    """Below each exercise its solution, folded; the cells have the same ids in both notebooks."""
    solved = {cell.id: cell for cell in solutions.cells if cell.id.startswith("exercise")}
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code" and cell.id in solved:
            title = f"Solution of exercise {cell.id.removeprefix('exercise-')}"
            text = f"```python\n{solved[cell.id].source}\n```"
            folded = f"<details class='solution'><summary>{title}</summary>\n\n{text}\n</details>"
            cells.append(new_markdown_cell(folded, id=f"solution-{cell.id}"))
    notebook.cells = cells


def add_head(notebook: NotebookNode, links: str, up: str, plays: bool) -> None:
    """Below the title the links of `run_links`, and whose voices one hears where there are some."""
    title, _, rest = notebook.cells[0].source.partition("\n")
    whose = f":::{{note}}\n{WHOSE.format(up=up)}{HASTY if QUICK else ''}\n:::\n" if plays else ""
    notebook.cells[0].source = "\n".join([title, "", links, "", whose, rest])


def repository() -> str:
    """The address of a public copy, from pyproject.toml: "https://github.com/OWNER/NAME" or "".

    Raises ValueError for another form: Binder and Colab are asked for GitHub's.
    """
    with open(ROOT / "pyproject.toml", "rb") as file:
        address = tomllib.load(file)["tool"]["denoiser"]["repository"]
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(f"pyproject.toml: {address!r} is not https://github.com/OWNER/NAME")
    return address


def run_links(inside: Path, address: str, up: str, slides: bool) -> str:
    """The row below a title: where the page can be run, and as what it can be had.

    `inside`: the notebook's path in the course; `address`: see `repository`; without it no badges.
    """
    name, links = address.removeprefix("https://github.com/"), []
    if address:
        binder = f"https://mybinder.org/v2/gh/{name}/HEAD?labpath={inside.as_posix()}"
        colab = f"https://colab.research.google.com/github/{name}/blob/gh-pages/colab/{inside}"
        links = [("Run this page on Binder", binder), ("Run it in Colab", colab)]
    links.append(("Notebook", f"{up}{inside.as_posix()}"))
    if slides:
        links.append(("Slides", f"{up}slides/{inside.stem}.slides.html"))
    anchors = (f'<a href="{html.escape(link)}">{text}</a>' for text, link in links)
    return f'<p class="run-links">{" ".join(anchors)}</p>'


def colab_notebook(path: Path, address: str, place="/content/course") -> NotebookNode:
    """The notebook with a first cell that fetches the course into `place`."""
    notebook = nbformat.read(path, as_version=4)
    source = COLAB.format(repository=address, place=place)
    notebook.cells.insert(0, new_code_cell(source, id="colab"))
    return notebook
