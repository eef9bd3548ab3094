"""The house: data flows one way, chapters import no experiment, frames belong to who uses them."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from experiments import peers
from helpers import audio, models, store
from helpers.denoise import baselines, systems
from helpers.denoise.engine import KerasEngine
from helpers.evaluation import metrics
from helpers.models import ablation, spectrogram, waveform

NOTEBOOKS = sorted((store.ROOT / "notebooks").rglob("*.ipynb"))


def imported_modules(path: Path) -> list[str]:
    """The modules of ours that a notebook imports, without `helpers.`, sorted."""
    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                found |= {full_name(node.module, alias.name) for alias in node.names}
    ours = [name for name in found if name.split(".")[0] in store.OURS]
    return sorted(name.removeprefix("helpers.") for name in ours)


def full_name(package: str, name: str) -> str:
    """The module that `from package import name` reads."""
    place = store.ROOT / package.replace(".", "/") / name
    return f"{package}.{name}" if place.is_dir() or place.with_suffix(".py").exists() else package


# --- the order of imports -----------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_imports_no_experiment_and_nothing_of_the_tool(path):
    modules = imported_modules(path)
    assert not [name for name in modules if name.startswith(("experiments", "tool"))]


def test_readme_of_the_helpers_says_what_each_chapter_imports():
    readme = (store.ROOT / "helpers" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\d\d) \| (.*) \|$", readme, re.MULTILINE))
    chapters = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
    assert rows == {path.stem[:2]: ", ".join(imported_modules(path)) for path in chapters}
    for wing in (store.ROOT / "helpers").iterdir():
        if (wing / "__init__.py").exists():
            assert f"`{wing.name}/`" in readme


@pytest.fixture
def copy_of_the_house(tmp_path):
    """The packages and their contract, to be spoilt; `check()` gives exit code and output."""
    for name in store.OURS:
        shutil.copytree(
            store.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(store.ROOT / "pyproject.toml", tmp_path)

    def check() -> tuple[int, str]:
        command = Path(sys.executable).with_name("lint-imports")
        done = subprocess.run(
            [command, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    check.root = tmp_path
    return check


def test_the_house_keeps_its_contract(copy_of_the_house):
    code, text = copy_of_the_house()
    assert code == 0, text
    assert "2 kept, 0 broken" in text


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("helpers/audio.py", "from helpers.data import noise"),
        ("helpers/data/noise.py", "from helpers.models import losses"),
        ("helpers/models/losses.py", "from helpers.denoise import gate"),
        ("helpers/denoise/gate.py", "from helpers.evaluation import tables"),
        ("helpers/evaluation/tables.py", "from helpers.display import plots"),
        ("helpers/display/plots.py", "from helpers.tool import files"),
        ("helpers/evaluation/tables.py", "from experiments import kept"),
        ("helpers/tool/files.py", "from experiments import kept"),
        ("experiments/kept.py", "from helpers.tool import files"),
    ],
)
def test_an_import_against_the_order_is_found(copy_of_the_house, module, line):
    with open(copy_of_the_house.root / module, "a") as file:
        file.write(f"\n{line}\n")
    code, text = copy_of_the_house()
    assert code == 1
    assert "1 broken" in text


# --- one table of systems -----------------------------------------------------------------------


def test_every_system_stands_in_one_table_and_can_be_made():
    assert systems.names("ours") == models.METHODS
    assert set(systems.PEERS) == set(peers.MAKERS)
    for name, row in systems.TABLE.items():
        assert (row.make is None) == (row.kind == "peer") == bool(row.package), name
    styles = [row.style for row in systems.TABLE.values()]
    assert len({repr(style) for style in styles}) == len(styles)


def test_a_system_hears_the_noisy_clip_only_and_an_oracle_the_clean_one_too():
    clean, noisy = np.zeros(4), np.ones(4)
    seen = []
    systems.apply(lambda *given: seen.append(given), clean, noisy)
    systems.apply(systems.Oracle(lambda *given: seen.append(given)), clean, noisy)
    assert [len(given) for given in seen] == [1, 2]
    told = {name for name in systems.TABLE if name.startswith("oracle")}
    made = systems.make(*told, *systems.names("floor"))
    assert {name for name, one in made.items() if isinstance(one, systems.Oracle)} == told


# --- the frame size that looks adjustable -------------------------------------------------------


@pytest.fixture
def other_picture_frames(monkeypatch):
    """Other frames for the pictures, as if WIN_LENGTH and HOP_LENGTH of audio were edited."""
    monkeypatch.setattr(audio.stft, "__defaults__", (400, 200))
    monkeypatch.setattr(audio.istft, "__defaults__", (200,))
    monkeypatch.setattr(audio, "WIN_LENGTH", 400)
    monkeypatch.setattr(audio, "HOP_LENGTH", 200)


def test_frames_of_the_pictures_change_no_system_and_no_metric(speech, request, monkeypatch):
    noisy = speech + np.random.default_rng(0).normal(0, 0.05, len(speech)).astype("float32")

    def network(package, file):
        return lambda frame, *caches: (0.5 * frame, *caches), [None, (1,)]

    monkeypatch.setattr(peers, "onnx_network", network)
    made = systems.make(*systems.names("floor", "classical", "ceiling", "oracle"))
    made["GTCRN"] = peers.gtcrn()

    def results():
        scores = metrics.score(speech, baselines.low_pass(noisy))
        pictures = ablation.griffin_lim(np.abs(audio.stft(speech, 512, 256)), len(speech), 2)
        return {name: systems.apply(one, speech, noisy) for name, one in made.items()} | {
            "invented": pictures,
            "scores": np.array([scores[name] for name in metrics.METRICS]),
        }

    before = results()
    request.getfixturevalue("other_picture_frames")
    for name, after in results().items():
        # not to the last bit: ESTOI differs by it with the place of its arrays in memory
        np.testing.assert_allclose(after, before[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("method", models.METHODS)
def test_a_trained_model_keeps_its_frames_whatever_its_module_says(method, monkeypatch):
    before = KerasEngine(method)
    for module in (spectrogram, waveform):
        monkeypatch.setattr(module, "HOP_LENGTH", 64)
        monkeypatch.setattr(module, "WIN_LENGTH", 128)
    after = KerasEngine(method)
    assert (after.win_length, after.hop_length) == (before.win_length, before.hop_length)
