"""The slides of a chapter, by rules: what starts one, what comes at a click, what is left out.

A heading starts a slide. Code and its output stand below it, one cell on each slide. A prediction
has a slide of its own, its answer comes at a click, and so does the sentence on what to see. The
imports and the readers' exercise cells are left out.
"""

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ANSWER = re.compile(r"<details><summary>(.*?)</summary>\s*(.*?)\s*</details>", re.DOTALL)
PARTS = re.compile(r"\n{2,}(?=\*\*Predict|## |<details>|\*?See\b|\*See)|(?<=</details>)\n+")
AIMS = re.compile(r"^\d\. .*(?:\n {2,}.*)*$", re.MULTILINE)
FEW_WORDS = 45  # may stand above the code that follows


def slides(notebook: NotebookNode) -> NotebookNode:
    """A new notebook whose cells say what they are to nbconvert, from a page (`pages.page`)."""
    cells, code, where = [title(notebook.cells[0].source)], 0, ""
    for cell in notebook.cells[1:]:
        if cell.cell_type == "markdown":
            for part in prose(cell.source):
                if part.source.startswith("## "):
                    where = part.source.splitlines()[0].removeprefix("## ")
                elif kind(part) == "subslide":
                    part.source = running_head(where) + part.source
                cells.append(part)
            continue
        code += 1
        if code == 1 or cell.id.startswith("exercise"):
            continue
        if not may_stand_above(cells[-1]):
            cells.append(typed(new_markdown_cell(running_head(where)), "subslide"))
        cells.append(typed(new_code_cell(cell.source, outputs=cell.outputs), "-"))
    return new_notebook(cells=cells, metadata=notebook.metadata)


def belongs_above(part: str) -> bool:
    """Whether the first words of a cell speak of the output before it, and fit below that."""
    opens = part.startswith(("## ", "**Predict", "**1"))
    return part.startswith(("See", "*See")) or (not opens and len(part.split()) <= FEW_WORDS // 2)


def running_head(where: str) -> str:
    """The name of the section, small, above what belongs to it."""
    return f'<p class="where">{where}</p>\n\n'


def may_stand_above(cell: NotebookNode) -> bool:
    """Whether code may follow a cell on the same slide: a few words, and no question."""
    few = cell.cell_type == "markdown" and len(cell.source.split()) <= FEW_WORDS
    return few and kind(cell) in ("slide", "subslide") and "**Predict" not in cell.source


def typed(cell: NotebookNode, slide_type: str) -> NotebookNode:
    """The cell with the type that nbconvert reads."""
    cell.metadata["slideshow"] = {"slide_type": slide_type}
    return cell


def kind(cell: NotebookNode) -> str:
    """The type of a cell of slides."""
    return cell.metadata["slideshow"]["slide_type"]


def title(head: str) -> NotebookNode:
    """The first slide: title, question, and what one can do afterwards."""
    paragraphs = head.split("\n\n")
    aims = "\n".join(AIMS.findall(head))
    return typed(new_markdown_cell("\n\n".join([*paragraphs[:2], aims])), "slide")


def prose(text: str) -> list[NotebookNode]:
    """The slides of a Markdown cell."""
    cells = []
    for part in filter(None, (one.strip() for one in PARTS.split(text))):
        if answer := ANSWER.fullmatch(part):
            cells.append(typed(new_markdown_cell(f"**{answer[1]}.** {answer[2]}"), "fragment"))
        elif not cells and belongs_above(part):
            cells.append(typed(new_markdown_cell(part), "fragment"))
        else:
            starts = "slide" if part.startswith("## ") else "subslide"
            cells.append(typed(new_markdown_cell(part), starts))
    return cells
