"""The course as pages with sound, for Sphinx and nbconvert to render (`make site`).

Text, figures and numbers are those of the committed notebooks. A cell that plays something is shown
as it ran on the bundled sample, with its picture and its numbers, for they belong to what is heard.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat

from experiments.execute_notebooks import all_notebooks
from experiments.site import pages, run, slides, text
from experiments.site.media import Media, players_html
from helpers.store import ROOT, alone

FOLDER = ROOT / "output" / "site"
SOURCES = ROOT / "experiments" / "site" / "source"
DOCUMENTS = ("README.md", "data/README.md", "data/results/README.md", "data/sample/README.md")
DOCUMENTS += ("helpers/README.md", "helpers/tool/README.md", "experiments/README.md")
DOCUMENTS += ("experiments/LABBOOK.md", "web/README.md")
EXAMPLE = "data/sample/sample-clean/9002/1/9002-1-0001.flac"  # of web/index.html


def build(names: Sequence[str] = (), jobs: int = 2) -> None:
    """Run the notebooks, all or those whose names begin so, and lay out what is to be rendered.

    FOLDER then has `source/` for Sphinx, `slides/` for nbconvert, `rows.json` with all rows of
    players for the tests, and `run/`, which is kept from one build to the next. Raises
    store.FileError where another process is at it.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with alone(FOLDER):
        lay_out(names, jobs)


def lay_out(names: Sequence[str], jobs: int) -> None:
    """`build`, by the one process that may."""
    found = [path for path in all_notebooks() if not names or path.name.startswith(tuple(names))]
    ran = run.run_all(found, FOLDER / "run", jobs)
    for name in ("source", "slides", "html"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    source = FOLDER / "source"
    shutil.copytree(SOURCES, source)
    media = Media(source / "extra" / "media")
    made = {
        path.relative_to(ROOT): pages.page(
            nbformat.read(path, as_version=4), ran[path], media, up_from(path.relative_to(ROOT))
        )
        for path in found
    }
    chapters = {path: made[path] for path in made if path.parent == Path("notebooks")}
    there = {*made, *map(Path, DOCUMENTS), Path("LICENSE")}
    write_slides(chapters, there)
    write_texts(source, chapters, media)
    write_pages(source, made, there)
    copy_try(source / "extra" / "try")
    (FOLDER / "rows.json").write_text(json.dumps(media.rows))
    print(f"{len(made)} notebooks, {len(media.rows)} rows of players")


def up_from(inside: Path) -> str:
    """From a page to the site's top: "../" for one folder, and so on."""
    return "../" * (len(inside.parts) - 1)


def write_slides(chapters: dict, there: set[Path]) -> None:
    """The slides of each chapter, for nbconvert; their links lead to the pages."""
    (FOLDER / "slides").mkdir()
    for path, chapter in chapters.items():
        deck = slides.slides(chapter)
        for cell in deck.cells:
            if cell.cell_type == "markdown":
                kept = text.with_links(cell.source, path, there, pages.repository())
                cell.source = text.to_pages(kept, path, "../")
        nbformat.write(deck, FOLDER / "slides" / path.name)


def write_texts(source: Path, chapters: dict, media: Media) -> None:
    """The pages of `source`, with what the chapters add to them."""
    glossary = source / "glossary.md"
    glossary.write_text(text.link_glossary(glossary.read_text("utf-8"), chapters), "utf-8")
    teachers = source / "for_teachers.md"
    teachers.write_text(text.of_chapters(teachers.read_text("utf-8"), chapters), "utf-8")
    index = source / "index.md"
    head = index.read_text("utf-8").replace("<!-- chapters -->", text.table_of_chapters(chapters))
    shown = [row for row in media.rows if row[-1]["title"].startswith("denoiser spectrogram")]
    player = players_html(shown[0], "") if shown else ""
    index.write_text(head.replace("<!-- players -->", player), "utf-8")


def write_pages(source: Path, made: dict, there: set[Path]) -> None:
    """The notebooks and the documents of the course, at their places below `source`."""
    address, extra = pages.repository(), source / "extra"
    shutil.copytree(ROOT / "figures", source / "figures")  # of which Sphinx takes what is shown
    for name in (*DOCUMENTS, "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    for name in DOCUMENTS:
        words = (source / name).read_text("utf-8")
        words = text.with_links(words, Path(name), there, address)
        (source / name).write_text(words, "utf-8")
    for path, notebook in made.items():
        twin = Path("notebooks/solutions") / path.name
        is_chapter = path.parent == Path("notebooks")
        if twin in made and twin != path:
            pages.add_solutions(notebook, made[twin])
        links = pages.run_links(path, address, up_from(path), is_chapter)
        plays = any("<audio" in json.dumps(cell.get("outputs", [])) for cell in notebook.cells)
        pages.add_head(notebook, links, up_from(path), plays)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = text.with_links(cell.source, path, there, address)
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, source / path)
        (extra / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, extra / path)
        if address:
            (extra / "colab" / path).parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(pages.colab_notebook(ROOT / path, address), extra / "colab" / path)


def copy_try(place: Path) -> None:
    """The page of the light engine, with its weights and its example (web/README.md)."""
    shutil.copytree(ROOT / "web", place / "web", ignore=shutil.ignore_patterns("*.md"))
    shutil.copytree(ROOT / "data" / "models" / "web", place / "data" / "models" / "web")
    (place / EXAMPLE).parent.mkdir(parents=True)
    shutil.copyfile(ROOT / EXAMPLE, place / EXAMPLE)
