"""`denoiser inspect` and the low-pass of the command line."""

import numpy as np
import pytest
import soundfile as sf

from helpers import audio
from helpers.__main__ import main
from helpers.data import noise
from helpers.denoise import baselines
from helpers.denoise.filtering import CUTOFF, LowPass

SR = audio.SAMPLE_RATE


@pytest.fixture
def tree(tmp_path, speech):
    """A folder with a noisy recording, a clean one below it, and a file that is no sound."""
    hiss = noise.white(len(speech), SR, np.random.default_rng(0), 3_000, 6_000)
    noisy = noise.mix(speech, hiss, 0.0)[2]
    for name, samples in (("a.wav", noisy), ("deep/b.wav", speech), ("deep/b.flac", noisy)):
        audio.write(tmp_path / "in" / name, samples)
    (tmp_path / "in" / "bad.wav").write_text("no sound")
    return tmp_path / "in"


def test_inspect_says_where_the_noise_lies_and_writes_nothing(tree, capsys):
    before = sorted(tree.rglob("*"))
    assert main(["inspect", str(tree)]) == 1  # of the bad file
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "file"
    assert len(rows) == 3  # two of one stem as well
    noisy, again, clean = rows[0], rows[1], rows[2]
    for row in (noisy, again):
        assert "3.0-6.0" in row
        assert row.endswith("noise at 3.0-6.0 kHz reduced")
    assert clean.endswith("no noise found above 1.5 kHz")
    assert f"error: {tree / 'bad.wav'}: not readable as audio" in err
    assert sorted(tree.rglob("*")) == before


def test_inspect_estimates_the_snr_in_the_band(tree, speech, capsys):
    clean, added, _ = noise.mix(
        speech, noise.white(len(speech), SR, np.random.default_rng(0), 3_000, 6_000), 0.0
    )
    inside = [np.sum(audio.band_limit(x, SR, 3_000, 6_000) ** 2) for x in (clean, added)]
    assert main(["inspect", str(tree / "a.wav")]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    found = float(row.split("3.0-6.0")[1].split()[0])
    assert found == pytest.approx(10 * np.log10(inside[0] / inside[1]), abs=3)


def test_inspect_draws_a_figure_for_each_file(tree, tmp_path, capsys):
    (tree / "bad.wav").unlink()
    assert main(["inspect", str(tree), "--plot", str(tmp_path / "plots")]) == 0
    found = sorted(str(p.relative_to(tmp_path / "plots")) for p in tmp_path.rglob("*.png"))
    assert found == ["a.wav.png", "deep/b.flac.png", "deep/b.wav.png"]


@pytest.mark.parametrize("problem", ["missing", "empty"])
def test_inspect_refuses_in_one_line(tmp_path, problem, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / problem)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / problem}: ")


# --- the low-pass of the command line -----------------------------------------------------------


@pytest.mark.parametrize("cut", [37, 160, 5_000, 48_000])
def test_the_running_low_pass_is_the_rival_of_every_table(speech, cut):
    columns = np.stack([speech, speech[::-1]], axis=1)
    stream = LowPass().stream(2)
    parts = [stream.process(columns[i : i + cut]) for i in range(0, len(columns), cut)]
    running = np.concatenate([*parts, stream.finish()])
    assert running.dtype == np.float32
    assert CUTOFF == baselines.CUTOFF
    whole = np.stack([baselines.low_pass(one) for one in columns.T], axis=1)
    np.testing.assert_allclose(running, whole, atol=1e-5)


def test_low_pass_on_the_command_line(tree, tmp_path, capsys):
    call = ["denoise", str(tree / "a.wav"), "--method", "low-pass", "--cutoff", "2000"]
    assert main([*call, str(tmp_path / "a.flac")]) == 0
    assert "with the low-pass method" in capsys.readouterr().out
    denoised = sf.read(tmp_path / "a.flac")[0]
    expected = baselines.low_pass(audio.read(tree / "a.wav"), cutoff=2_000.0)
    np.testing.assert_allclose(denoised, expected, atol=2**-14)
    assert main([*call, str(tmp_path / "b.flac"), "--mix", "0"]) == 0
    np.testing.assert_allclose(sf.read(tmp_path / "b.flac")[0], sf.read(tree / "a.wav")[0])


def test_a_cutoff_that_does_nothing_is_said(tree, tmp_path, capsys):
    call = ["denoise", str(tree / "a.wav"), str(tmp_path / "a.flac")]
    assert main([*call, "--cutoff", "2000"]) == 0
    assert "note: --cutoff is for --method low-pass" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*call, "--method", "low-pass", "--cutoff", "9000"])
    for cutoff, mix in ((50, 1.0), (4_000, 2.0)):
        with pytest.raises(ValueError, match="choose"):
            LowPass(cutoff, mix)
