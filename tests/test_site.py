"""The site's pages before they are rendered: sounds, texts, links, slides, and their origin."""

import base64
import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import soundfile as sf
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from experiments.execute_notebooks import strip
from experiments.site import SOURCES, media, pages, run, slides, text
from helpers.display import listening
from helpers.store import ROOT

CHAPTERS = {
    path.relative_to(ROOT): nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
}
ADDRESS = "https://github.com/someone/course"


@pytest.fixture
def row():
    """The output of a cell with two players, the second half as loud as the first."""
    tone = np.sin(np.arange(16_000) / 5)
    return listening.players({"a & b": 0.5 * tone, "half": 0.25 * tone}).data


@pytest.fixture
def store(tmp_path):
    return media.Media(tmp_path / "media")


def png() -> str:
    """A picture as a notebook holds it."""
    figure, out = plt.figure(figsize=(1, 1)), io.BytesIO()
    figure.savefig(out)
    plt.close(figure)
    return base64.b64encode(out.getvalue()).decode()


# --- sounds and pictures -------------------------------------------------------------------------


def test_players_become_files_sample_for_sample(row, store):
    wavs = re.findall(r"base64,([^\"]+)\"", row)
    found = store.row(row)
    assert [one["title"] for one in found] == ["a & b", "half"]
    for one, wav in zip(found, wavs, strict=True):
        ours, sr = sf.read(store.folder / one["file"], dtype="int16")
        theirs, _ = sf.read(io.BytesIO(base64.b64decode(wav)), dtype="int16")
        assert sr == 16_000
        assert np.array_equal(ours, theirs)
        assert one["seconds"] == 1.0
    assert found[0]["rms"] == pytest.approx(2 * found[1]["rms"], rel=1e-3)
    shown = media.players_html(found, "../")
    assert shown.count("<audio controls") == 2
    assert "<figcaption>a &amp; b</figcaption>" in shown
    assert f"src='../media/{found[1]['file']}'" in shown


def test_a_file_is_named_by_what_is_in_it(row, store):
    assert [one["file"] for one in store.row(row)] == [one["file"] for one in store.row(row)]
    assert len(list(store.folder.iterdir())) == 2
    assert len(store.rows) == 2


def test_a_figure_describes_itself():
    figure, axes = plt.subplots(1, 2)
    axes[0].plot([1, 2], label="speech")
    axes[0].set(title="Power", xlabel="Time (s)", ylabel="Level (dB)")
    axes[0].legend()
    axes[1].bar(["noisy", "low-pass"], [1, 2])
    words = run.describe(figure)
    assert words == "2 panels; Power, Level (dB) over Time (s), with speech; with noisy, low-pass"
    plt.close(figure)


# --- a page --------------------------------------------------------------------------------------


def chapter(row: str, heard: bool = True) -> tuple:
    """A committed notebook, stripped as ours are, and its run on the sample."""

    def notebook(told: str, figure: str) -> nbformat.NotebookNode:
        both = [
            new_output("stream", name="stdout", text=told),
            new_output("display_data", {"image/png": png(), "text/plain": figure}),
        ]
        plays = [new_output("display_data", {"text/html": row, "text/plain": "HTML"})]
        code = [
            new_code_cell("import this", id="setup"),
            new_code_cell("# NBVAL_CHECK_OUTPUT\nplay()", id="play", outputs=both + plays * heard),
            new_code_cell("look()", id="look", outputs=both),
        ]
        return new_notebook(cells=[new_markdown_cell("# 01. Title\n\nWhy?", id="title"), *code])

    committed = notebook("of the slice", "<Figure size>")
    strip(committed)
    return committed, notebook("of the sample", "2 panels; a, b")


def test_a_cell_that_plays_is_that_of_the_sample_and_the_others_are_committed(row, store):
    committed, ran = chapter(row)
    assert "run this cell to listen" in json.dumps(committed)
    page = pages.page(committed, ran, store, "../")
    _, setup, play, look = page.cells
    assert setup.metadata["tags"] == ["hide-input"]
    assert play.source == "play()"
    told, figure, players, voice = play.outputs
    assert told.text == "of the sample"
    assert 'alt="2 panels; a, b"' in figure.data["text/html"]
    assert players.data["text/html"].count("<audio") == 2
    assert voice.data["text/html"] == pages.VOICE
    assert look.outputs[0].text == "of the slice"
    assert 'alt="2 panels; a, b"' in look.outputs[1].data["text/html"]
    assert "run this cell" not in json.dumps(page)


def test_a_picture_without_words_of_its_own_has_those_of_its_players(row, store):
    picture = new_output("display_data", {"image/png": png(), "text/plain": "<Image object>"})
    plays = new_output("display_data", {"text/html": row})
    made = pages.converted([picture, plays], ["<Image object>"], store, "../", bench="")
    assert 'alt="Spectrograms of what is played here: a &amp; b; half"' in str(made[0].data)


def test_a_player_that_is_lost_is_an_error(row, store):
    committed, ran = chapter(row)
    ran.cells[2].outputs = []
    with pytest.raises(ValueError, match="play: its players"):
        pages.page(committed, ran, store, "../")


def test_widgets_tables_and_the_live_page_need_no_kernel(store):
    outputs = [
        new_output("display_data", {pages.WIDGET: {}, "text/plain": "VBox()"}),
        new_output("display_data", {"text/html": '<table border="1"><th></th></table>'}),
        new_output("display_data", {"text/html": "<i>run this cell to speak</i>"}),
    ]
    made = pages.converted(outputs, [], store, "../", bench="<b>bench</b>")
    widget, table, live = (output.data["text/html"] for output in made)
    assert widget == "<b>bench</b>"
    assert "tabindex='0'" in table
    assert "<td></td>" in table
    assert "src='../try/web/index.html'" in live


def test_an_exercise_has_its_solution_below():
    exercise = new_code_cell("x = ...", id="exercise-1")
    notebook = new_notebook(cells=[exercise, new_markdown_cell("end", id="end")])
    solved = new_notebook(cells=[new_code_cell("x = 1", id="exercise-1")])
    pages.add_solutions(notebook, solved)
    assert [cell.id for cell in notebook.cells] == ["exercise-1", "solution-exercise-1", "end"]
    assert "Solution of exercise 1" in notebook.cells[1].source
    assert "\n\n```python\nx = 1\n```\n" in notebook.cells[1].source


# --- run this page -------------------------------------------------------------------------------


def test_one_setting_gives_every_button_its_address_and_without_it_there_are_none():
    inside = Path("notebooks/02_noise.ipynb")
    without = pages.run_links(inside, "", "../", slides=True)
    assert re.findall('href="(.*?)"', without) == [
        "../notebooks/02_noise.ipynb",
        "../slides/02_noise.slides.html",
    ]
    links = re.findall('href="(.*?)"', pages.run_links(inside, ADDRESS, "../", slides=False))
    assert links == [
        "https://mybinder.org/v2/gh/someone/course/HEAD?labpath=notebooks/02_noise.ipynb",
        "https://colab.research.google.com/github/someone/course/blob/gh-pages/colab/"
        "notebooks/02_noise.ipynb",
        "../notebooks/02_noise.ipynb",
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pages.repository() == project["tool"]["denoiser"]["repository"]


@pytest.mark.parametrize("address", ["someone/course", "https://example.org/a/b", f"{ADDRESS}/x"])
def test_another_form_of_address_is_refused(address, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(f'[tool.denoiser]\nrepository = "{address}"\n')
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="is not https"):
        pages.repository()
    (tmp_path / "pyproject.toml").write_text(f'[tool.denoiser]\nrepository = "{ADDRESS}"\n')
    assert pages.repository() == ADDRESS


def test_the_first_cell_in_colab_fetches_the_course(tmp_path):
    """From a repository on this disk; its packages are one that is there already."""
    origin, place = tmp_path / "origin", tmp_path / "course"
    for name in ("helpers", "notebooks"):
        (origin / name).mkdir(parents=True)
    (origin / "helpers" / "__init__.py").write_text("FOUND = True\n")
    (origin / "notebooks" / "01.ipynb").write_text("{}")
    (origin / "requirements.txt").write_text("numpy\n")
    git = ["git", "-C", str(origin), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "course"]):
        subprocess.run([*git, *command], check=True)
    path = ROOT / next(iter(CHAPTERS))
    cell, title, *_ = pages.colab_notebook(path, f"file://{origin}", place).cells
    assert title.source.startswith("# 01. ")
    code = f"{cell.source}\nimport helpers\nprint(helpers.FOUND, os.getcwd())"
    for _ in range(2):  # the second time nothing is fetched
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stdout == f"True {place}/notebooks\n", done.stderr


# --- texts ---------------------------------------------------------------------------------------


def test_links_lead_to_pages_or_to_a_public_copy_or_nowhere():
    there = {Path("README.md"), Path("notebooks/02_noise.ipynb"), Path("data/results/README.md")}
    source = (
        "[a](02_noise.ipynb) [b](../helpers/models/waveform.py) [c](https://x.org) "
        "[d](../data/results) [e](#here) ![f](x.png)"
    )
    place = Path("notebooks/03.ipynb")
    assert text.with_links(source, place, there, "") == (
        "[a](02_noise.ipynb) b [c](https://x.org) [d](../data/results/README.md) [e](#here) "
        "![f](x.png)"
    )
    linked = text.with_links(source, place, there, ADDRESS)
    assert text.to_pages("[a](02_noise.ipynb#x) [d](../data/README.md)", place, "../") == (
        "[a](../notebooks/02_noise.html#x) [d](../data/README.html)"
    )
    assert f"[b]({ADDRESS}/blob/HEAD/helpers/models/waveform.py)" in linked


@pytest.mark.parametrize(
    ("terms", "source", "found"),
    [
        (["mask"], "unmasked, a mask-like thing, two masks", "masks"),
        (["SNR"], "the snr, `SNR`, $SNR$, [SNR](x), and SNR", "SNR"),
        (["pink"], "## Pink\n\n<b title='pink'>x</b>\n\n```\npink\n```\nPink it is", "Pink"),
        (["phase"], "phrase", None),
    ],
)
def test_a_term_is_found_in_prose_only(terms, source, found):
    match = text.first_use(terms, source)
    assert (match and match[0]) == found
    assert match is None or source.rindex(found) == match.start()


def test_every_term_of_the_glossary_is_used_and_linked_both_ways():
    chapters = json.loads(json.dumps({str(path): one for path, one in CHAPTERS.items()}))
    chapters = {Path(path): nbformat.from_dict(one) for path, one in chapters.items()}
    source = (SOURCES / "glossary.md").read_text()
    entries = [terms for terms, _ in text.entries(source)]
    linked = text.link_glossary(source, chapters)
    unused = [
        t for t, found in text.entries(linked) if "First in" not in linked[found.end() :][:20]
    ]
    assert len(entries) > 50
    assert not unused
    prose = "".join(c.source for one in chapters.values() for c in one.cells)
    for anchor in re.findall(r"#(first-[\w-]+)", linked):
        assert prose.count(f'<span id="{anchor}">') == 1


def test_teachers_find_every_chapter_with_minutes_and_questions():
    """A chapter without a plan for a class fails here: write its section in for_teachers.md."""
    page = (SOURCES / "for_teachers.md").read_text()
    parts = re.split(r"^## (\d\d)\. (.*)$", page, flags=re.MULTILINE)
    plans = {parts[i]: (parts[i + 1], parts[i + 2]) for i in range(1, len(parts), 3)}
    for path, notebook in CHAPTERS.items():
        title, plan = plans[path.name[:2]]
        assert text.title_of(notebook) == f"{path.name[:2]}. {title}"
        assert sum(map(int, re.findall(r"^\| (\d+) \|", plan, re.M))) == 90
        assert "**Before:**" in plan
        assert plan.count("<summary>") >= 3
        headings = re.findall(
            r"^## (.*)$", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE
        )
        for where in re.findall(r"^\| \d+ \| .* \| (.*) \|$", plan, re.MULTILINE):
            left = where
            for heading in headings:
                left = left.replace(heading, "")
            assert not left.strip(", "), f"{path.name} has no section {left}"


def test_sections_of_chapters_have_links_or_are_left_out():
    source = "# T\n\n## Before\nx\n\n## 01. A\ny\n\n## 02. B\nz\n"
    assert text.of_chapters(source, {Path("notebooks/02_b.ipynb"): None}) == (
        "# T\n\n## Before\nx\n\n## 02. B\n\n[The chapter](notebooks/02_b.ipynb) · "
        '<a href="slides/02_b.slides.html">Slides</a>\nz\n'
    )


def test_first_page_asks_the_question_of_each_chapter():
    table = text.table_of_chapters(CHAPTERS).splitlines()[2:]
    assert len(table) == len(CHAPTERS)
    for row in table:
        _, name, question, minutes, _ = (part.strip() for part in row.split("|"))
        assert name.startswith("[")
        assert question.endswith("?")
        assert minutes.endswith(("min", "s"))


# --- slides --------------------------------------------------------------------------------------


def test_slides_by_rules():
    words = (
        "## Part\n\nA few words.\n\n**Predict.** What?\n\n<details><summary>Answer</summary>\n\n"
        "This.\n</details>"
    )
    cells = [
        new_markdown_cell("# 01. Title\n\nWhy?\n\nRuns.\n\n1. **One** thing;\n2. **two** things."),
        new_code_cell("import this"),
        new_markdown_cell(words),
        new_code_cell("play()"),
        new_markdown_cell("See the difference."),
        new_code_cell("x = ...", id="exercise-1"),
    ]
    made = slides.slides(new_notebook(cells=cells)).cells
    assert [(slides.kind(cell), cell.source) for cell in made] == [
        ("slide", "# 01. Title\n\nWhy?\n\n1. **One** thing;\n2. **two** things."),
        ("slide", "## Part\n\nA few words."),
        ("subslide", '<p class="where">Part</p>\n\n**Predict.** What?'),
        ("fragment", "**Answer.** This."),
        ("subslide", '<p class="where">Part</p>\n\n'),
        ("-", "play()"),
        ("fragment", "See the difference."),
    ]


# --- what a run depends on, citation -------------------------------------------------------------


def test_a_run_is_kept_until_code_or_data_change(tmp_path):
    place, notebook = tmp_path / "course", new_notebook(cells=[new_code_cell("1")])
    for part in run.PARTS:
        (place / part).mkdir(parents=True)
    code = place / "helpers" / "a.py"
    code.write_text("1")
    first = run.digest(place, notebook)
    (place / "helpers" / "README.md").write_text("words")
    assert run.digest(place, notebook) == first
    code.write_text("2")
    assert run.digest(place, notebook) != first
    code.write_text("1")
    notebook.cells[0].source = "2"
    assert run.digest(place, notebook) != first


def test_a_copy_of_the_course_has_the_sample_and_no_other_sound(tmp_path):
    run.copy_course(tmp_path / "site" / "course")
    sounds = {path for path in tmp_path.rglob("*") if path.suffix in (".flac", ".wav", ".ogg")}
    sample = tmp_path / "site" / "course" / "data" / "sample"
    assert sounds
    assert all(path.is_relative_to(sample) for path in sounds)
    code = "from helpers.data import corpus; print(corpus.find_corpus(), corpus.find_noise())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=run.environment(tmp_path / "site" / "course"),
        cwd=tmp_path / "site" / "course",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(sample), "None"]


def test_citation_says_what_the_project_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{cited["version"]}"' in project
    assert f'license = "{cited["license"]}"' in project
    assert cited["title"] in (ROOT / "README.md").read_text().splitlines()[0]
    (holder,) = re.findall(r"^Copyright \(c\) \d{4} (\S.*)$", (ROOT / "LICENSE").read_text(), re.M)
    assert [author["name"] for author in cited["authors"]] == [holder]
    assert not {"url", "repository-code"} & set(cited)  # the address has one place: pyproject.toml
