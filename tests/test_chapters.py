"""The chapters as a reader finds them: short, with a question, exercises, and a summary."""

import re
import statistics
from pathlib import Path

import nbformat
import pytest

from experiments import execute_notebooks
from experiments.execute_notebooks import DURATION, duration
from helpers.store import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
APPENDICES = sorted((ROOT / "notebooks" / "appendix").glob("*.ipynb"))
MOST_WORDS, MOST_CELLS, MEDIAN_LINES, MOST_LINES = 1_500, 30, 6, 20
CHECK = "# NBVAL_CHECK_OUTPUT"

chapters = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
chapters_and_appendices = pytest.mark.parametrize(
    "path", CHAPTERS + APPENDICES, ids=lambda path: path.stem
)


def cells(path: Path, kind: str) -> list:
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if cell.cell_type == kind and cell.source.strip()]


def bold_items(text: str) -> list[str]:
    """The bold phrase with which each item of a numbered list begins."""
    return re.findall(r"^\d\. \*\*(.+?)\*\*", text, re.MULTILINE)


@chapters_and_appendices
def test_a_chapter_keeps_its_bounds(path):
    words = sum(len(cell.source.split()) for cell in cells(path, "markdown"))
    lines = [len(cell.source.splitlines()) for cell in cells(path, "code")]
    assert words <= MOST_WORDS
    assert len(lines) <= MOST_CELLS
    assert statistics.median(lines) <= MEDIAN_LINES
    assert max(lines) <= MOST_LINES


@chapters
def test_a_chapter_begins_with_a_question_and_ends_with_its_answers(path):
    texts = [cell.source for cell in cells(path, "markdown")]
    assert re.match(rf"# {path.stem[:2]}\. ", texts[0])
    assert "?" in texts[0].split("After this chapter")[0]
    assert DURATION.search(texts[0])
    objectives = bold_items(texts[0])
    assert 3 <= len(objectives) <= 5
    (summary,) = [text for text in texts if text.startswith("## Summary")]
    assert bold_items(summary) == objectives
    assert not re.search(r"\bruns? \d+\b", "\n".join(texts)), "a number of the lab book"


@chapters
def test_sound_comes_early(path):
    first = [cell.source for cell in cells(path, "code")[:5]]
    assert any("players(" in source or "Audio(" in source for source in first)


@chapters
def test_predictions_have_folded_answers(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert text.count("**Predict.**") >= 2
    assert text.count("<details>") == text.count("</details>") >= text.count("**Predict.**")


def exercises(path: Path) -> dict[str, str]:
    return {cell.id: cell.source for cell in cells(path, "code") if cell.id.startswith("exercise")}


@chapters
def test_each_exercise_is_checked_and_has_a_solution_that_runs(path):
    """The check of an exercise, from its first `if` on, stands in the solution as it is."""
    asked, solved = exercises(path), exercises(path.parent / "solutions" / path.name)
    assert 2 <= len(asked) <= 4
    assert solved.keys() == asked.keys()
    hints = {cell.id: cell.source for cell in cells(path, "markdown")}
    for name, source in asked.items():
        assert "# your code" in source
        assert "..." in source.partition("\nif ")[0], "the reader's part is not left open"
        check = source.partition("\nif ")[2]
        assert "assert " in check
        assert "<summary>Hint</summary>" in hints[f"{name}-text"]
        first, _, rest = solved[name].partition("\n")
        assert first == CHECK
        before, _, solved_check = rest.partition("\nif ")
        assert solved_check == check
        assert not re.search(r"(= |return )\.\.\.$", before, re.MULTILINE), "unsolved"


@chapters
def test_a_solution_printed_that_it_is_right(path):
    twin = path.parent / "solutions" / path.name
    for cell in cells(twin, "code"):
        if cell.id.startswith("exercise"):
            assert "right" in "".join(output.get("text", "") for output in cell.outputs)


def test_readme_has_the_minutes_that_the_chapters_took():
    rows = re.findall(
        r"\(notebooks/(\w+\.ipynb)\) \| .* \| (.+) \|", (ROOT / "README.md").read_text()
    )
    assert [name for name, _ in rows] == [path.name for path in CHAPTERS]
    for name, minutes in rows:
        title = cells(ROOT / "notebooks" / name, "markdown")[0].source
        assert minutes == re.search(r"Runs in \*\*(.*?)\*\*", title)[1], name


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "10 s"), (41, "50 s"), (89, "90 s"), (95, "2 min"), (400, "7 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_copies_that_jupyterlab_keeps_are_no_notebooks(tmp_path, monkeypatch):
    for name in ("notebooks/01_a.ipynb", "notebooks/.ipynb_checkpoints/01_a-checkpoint.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(execute_notebooks, "ROOT", tmp_path)
    assert execute_notebooks.all_notebooks() == [tmp_path / "notebooks" / "01_a.ipynb"]
