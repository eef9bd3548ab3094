"""Links of the site's texts, its glossary and its table of chapters."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nbformat import NotebookNode

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
APART = re.compile(  # where no term is looked for: code, equations, links, tags, headings, pictures
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|<[^>]+>|^#.*?$",
    re.DOTALL | re.MULTILINE,
)
ENTRY = re.compile(r"^((?:\S.*\n)+)((?:  .*\n)+)", re.MULTILINE)  # terms, and what they mean
QUESTION = re.compile(r"^(?:\*\*Question:\*\* )?(.+\?)$", re.MULTILINE)
MINUTES = re.compile(r"Runs in \*\*(.*?)\*\*")


# --- links ---------------------------------------------------------------------------------------


def with_links(text: str, place: Path, there: set[Path], address: str) -> str:
    """Markdown whose links lead to pages of the site, or to a public copy, or nowhere.

    `place`: of the text in the course; `there`: the files of the course that the site has;
    `address`: of a public copy, "" where there is none: then the words stand alone.
    """

    def changed(found: re.Match) -> str:
        words, target = found[1], found[2]
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return found[0]
        inside = Path(os.path.normpath(place.parent / path))
        if inside in there:
            return found[0]
        if inside / "README.md" in there:
            return f"[{words}]({path.rstrip('/')}/README.md{'#' * bool(anchor)}{anchor})"
        return f"[{words}]({address}/blob/HEAD/{inside.as_posix()})" if address else words

    return LINK.sub(changed, text)


def to_pages(text: str, place: Path, up: str) -> str:
    """Markdown whose links to sources lead to the pages made of them; after `with_links`."""

    def changed(found: re.Match) -> str:
        path, _, anchor = found[2].partition("#")
        if "://" in path or not path.endswith((".ipynb", ".md")):
            return found[0]
        page = Path(os.path.normpath(place.parent / path)).with_suffix(".html")
        return f"[{found[1]}]({up}{page.as_posix()}{'#' * bool(anchor)}{anchor})"

    return LINK.sub(changed, text)


# --- the glossary --------------------------------------------------------------------------------


def first_use(terms: list[str], text: str) -> re.Match | None:
    """Where one of some terms first stands in the prose of a Markdown text, None if nowhere."""
    prose = APART.sub(lambda found: "\0" * len(found[0]), text)
    patterns = (re.escape(term) if term.isupper() else f"(?i:{re.escape(term)})" for term in terms)
    return re.search(rf"(?<![\w-])(?:{'|'.join(patterns)})s?(?![\w-])", prose)


def entries(glossary: str) -> Iterator[tuple[list[str], re.Match]]:
    """The terms of each entry of the glossary's source, and where it stands."""
    begin = glossary.index("{glossary}\n") + len("{glossary}\n")
    for found in ENTRY.finditer(glossary, begin):
        yield found[1].splitlines(), found


def link_glossary(glossary: str, chapters: Mapping[Path, NotebookNode]) -> str:
    """The glossary with a link to each term's first use, where a link back is put in.

    `chapters`: in the order of the course; their Markdown is changed. The title cells are left out:
    they name what is to come. A term that no chapter uses stays without.
    """
    parts, end = [], 0
    for terms, found in entries(glossary):
        parts.append(glossary[end : found.end()])
        end = found.end()
        if link := link_first_use(terms, chapters):
            parts.append(f"\n  First in {link}.\n")
    return "".join([*parts, glossary[end:]])


def link_first_use(terms: list[str], chapters: Mapping[Path, NotebookNode]) -> str:
    """Mark the first use of an entry, and give HTML that leads there; "" where there is none."""
    anchor = "first-" + re.sub(r"\W+", "-", terms[0].lower())
    for path, notebook in chapters.items():
        for cell in notebook.cells[1:]:
            if cell.cell_type != "markdown" or not (found := first_use(terms, cell.source)):
                continue
            word = cell.source[slice(*found.span())]
            marked = f'<span id="{anchor}"></span>{{term}}`{word} <{terms[0]}>`'
            cell.source = cell.source[: found.start()] + marked + cell.source[found.end() :]
            page = path.with_suffix(".html").as_posix()
            return f'{{raw-html}}`<a href="{page}#{anchor}">{title_of(notebook)}</a>`'
    return ""


def title_of(notebook: NotebookNode) -> str:
    """The first line of a notebook without its mark."""
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ")


# --- the first page ------------------------------------------------------------------------------


def table_of_chapters(chapters: Mapping[Path, NotebookNode]) -> str:
    """A Markdown table: chapter, question, minutes."""
    lines = ["| chapter | its question | runs in |", "|---|---|---|"]
    for path, notebook in chapters.items():
        head = notebook.cells[0].source
        question, minutes = QUESTION.search(head), MINUTES.search(head)
        name = f"[{title_of(notebook)}]({path.as_posix()})"
        asked = question[1][0].upper() + question[1][1:] if question else ""
        row = (name, asked, minutes[1] if minutes else "")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def of_chapters(text: str, chapters: Mapping[Path, NotebookNode]) -> str:
    """A page with a section for each chapter, headed `## NN. ...`, with links to page and slides.

    Sections of chapters that are not in `chapters` are left out.
    """
    by_number, kept = {path.name[:2]: path for path in chapters}, []
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        head = re.match(r"## (\d\d)\. .*\n", section)
        if head and (path := by_number.get(head[1])):
            slides = f'<a href="slides/{path.stem}.slides.html">Slides</a>'
            links = f"\n[The chapter]({path.as_posix()}) · {slides}\n"
            section = head[0] + links + section[head.end() :]
        if not head or head[1] in by_number:
            kept.append(section)
    return "".join(kept)
