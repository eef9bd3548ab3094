"""`denoiser denoise` in an environment of its own that holds nothing but requirements-light.txt.

`make test-light` runs it: pip fetches the packages.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from helpers.__main__ import main
from helpers.store import ROOT


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The folder of a virtual environment with the light part alone."""
    folder = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
    subprocess.run([*install, "-r", "requirements-light.txt"], check=True, cwd=ROOT)
    return folder


def run(light, *arguments):
    """The command line of that environment, away from the project and its variables."""
    call = [light / "bin" / "denoiser", *map(str, arguments)]
    return subprocess.run(
        call, capture_output=True, text=True, check=False, cwd=light, env={"PATH": "/usr/bin"}
    )


@pytest.mark.parametrize("method", ["waveform", "spectrogram"])
def test_it_denoises_as_the_whole_environment_does(light, tmp_path, method):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(3):
        sf.write(tmp_path / "in" / f"{i}.wav", rng.normal(0, 0.1, 44_100), 44_100)
    done = run(light, "denoise", tmp_path / "in", tmp_path / "light", "--method", method)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert main(["denoise", str(tmp_path / "in"), str(tmp_path / "whole"), "--method", method]) == 0
    for i in range(3):
        found, expected = (
            sf.read(tmp_path / name / f"{i}.flac", dtype="int16")[0].astype(int)
            for name in ("light", "whole")
        )
        assert np.abs(found - expected).max() <= 1


def test_nothing_heavy_is_in_it(light):
    names = {path.name for path in light.glob("lib/*/site-packages/*")}
    assert "ai_edge_litert" in names
    assert not names & {"tensorflow", "keras", "scipy", "pandas", "librosa", "jupyterlab"}
    size = sum(path.stat().st_size for path in Path(light).rglob("*") if path.is_file())
    assert size < 220e6
    print(f"{size / 1e6:.0f} MB")


def test_what_needs_more_says_so_in_one_line(light, tmp_path):
    done = run(light, "train", "spectrogram", "--out", tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: train needs ")
    assert line.endswith(", which is not installed; `pip install -r requirements.txt` brings it")
