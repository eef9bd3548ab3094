"""`helpers.evaluation.peaq`: what must hold of it, and that its values stay what they were.

That they are right is tested only where `../shared/peaq` lies beside the course: pairs of sounds
and what two other implementations make of them, none of which can be passed on.
"""

import time

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from helpers.data import noise
from helpers.evaluation.peaq import ear, grade, peaq
from helpers.store import ROOT

SHARED = ROOT.parent / "shared" / "peaq"
REFERENCE = SHARED / "reference.csv"
PAIRS = pd.read_csv(REFERENCE) if REFERENCE.exists() else pd.DataFrame({"pair": []})


@pytest.mark.skipif(PAIRS.empty, reason="no ../shared/peaq here")
@pytest.mark.parametrize("pair", sorted(set(PAIRS.pair)))
def test_agrees_with_two_implementations(pair):
    """Each variable within the larger of 5 % and 1.5 times their spread; the ODG within 0.25."""
    rows = PAIRS[PAIRS.pair == pair]
    names = (rows.reference.iloc[0], pair)
    (clean, sr), (test, _) = (sf.read(SHARED / "pairs" / f"{name}.flac") for name in names)
    ours = peaq(clean, test, sr)
    for name in grade.MOVS:
        theirs = rows[name].to_numpy()
        distance = np.abs(ours[name] - theirs)
        if name.startswith("Bandwidth"):
            assert np.isnan(ours[name]) == np.isnan(theirs).any(), name
            assert np.isnan(ours[name]) or np.nanmin(distance) <= 3, name
        else:
            allowed = np.maximum(0.05 * np.abs(theirs), 1.5 * np.ptp(theirs))
            assert (distance <= allowed).any(), f"{name}: {ours[name]:.4f}, theirs {theirs}"
    assert np.nanmin(np.abs(ours["ODG"] - rows.ODG)) <= 0.25


def test_values_on_the_sample_stay_what_they_were(speech):
    """A regression: these are this implementation's own values, at 40 dB of pink noise."""
    added = noise.pink(len(speech), 16_000, np.random.default_rng(0), 0, 8_000)
    clean, _, noisy = noise.mix(speech, added, 40)
    found = peaq(clean, noisy)
    assert {name: found[name] for name in PINNED} == pytest.approx(PINNED, rel=0.01)


PINNED = {
    **{"TotalNMR": 0.4514, "WinModDiff1": 19.798, "ADB": 1.867, "EHS": 0.4181},
    **{"AvgModDiff1": 3.395, "AvgModDiff2": 26.917, "RmsNoiseLoud": 1.0257, "MFPD": 0.882},
    **{"RelDistFrames": 0.2571, "DI": -1.3053, "ODG": -3.0843},
}


def test_grade_of_known_variables():
    """At the lowest value of every variable only the biases speak; the grade keeps its range."""
    lowest = dict(zip(grade.MOVS, grade.LOWEST, strict=True))
    hidden = 1 / (1 + np.exp(-np.array(grade.HIDDEN_BIAS)))
    index, odg = grade.grade(lowest)
    assert index == pytest.approx(hidden @ grade.OUTPUT + grade.OUTPUT_BIAS)
    assert grade.WORST < odg < grade.BEST


def test_identical_signals_are_faultless(speech):
    scores = peaq(speech, speech)
    assert scores["ODG"] == pytest.approx(0.2, abs=0.05)
    assert scores["RelDistFrames"] == scores["ADB"] == scores["MFPD"] == 0


def test_grade_falls_with_the_noise(speech):
    added = noise.white(len(speech), 16_000, np.random.default_rng(0), 0, 8_000)
    clips = [noise.mix(speech, added, snr_db) for snr_db in (60, 50, 40, 30, 20)]
    grades = [peaq(clean, noisy)["ODG"] for clean, _, noisy in clips]
    assert grades == sorted(grades, reverse=True)
    assert grades[0] - grades[-1] > 2


def test_bands_tile_the_spectrum():
    centre, inside = ear.bands()
    assert centre.shape == (109,)
    assert np.all(np.diff(centre) > 0)
    covered = inside.sum(axis=1)[5:760]  # bins well within 80 Hz to 18 kHz
    np.testing.assert_allclose(covered, 1, atol=1e-9)


def test_spreading_goes_further_upwards_when_louder():
    quiet, loud = (np.full((1, 109), 1e-12) for _ in range(2))
    quiet[0, 50], loud[0, 50] = 1e2, 1e8
    above = [ear.spread(x)[0, 60] / ear.spread(x)[0, 50] for x in (quiet, loud)]
    assert above[1] > 10 * above[0]
    below = [ear.spread(x)[0, 40] / ear.spread(x)[0, 50] for x in (quiet, loud)]
    assert below[1] == pytest.approx(below[0], rel=0.3)


def test_bandwidth_needs_energy_above_8_khz():
    narrow, wide = (np.full((5, 1025), 1e-3) for _ in range(2))
    narrow[:, :300], wide[:, :600] = 1, 1
    assert np.isnan(grade.bandwidths(narrow, narrow)).all()
    assert grade.bandwidths(wide, narrow) == (600, 300)


def test_silence_gives_numbers():
    silent = np.zeros(32_000)
    assert np.isfinite(peaq(silent, silent)["ODG"])


def test_unequal_or_short_signals_are_refused(speech):
    with pytest.raises(ValueError, match="equal lengths"):
        peaq(speech, speech[:-1])
    with pytest.raises(ValueError, match="needs a second"):
        peaq(speech[:8_000], speech[:8_000])


def test_ten_seconds_in_two():
    ten = np.random.default_rng(0).uniform(-0.1, 0.1, 480_000)
    peaq(ten[:48_000], ten[:48_000], 48_000)
    start = time.process_time()
    peaq(ten, 0.9 * ten, 48_000)
    assert time.process_time() - start < 2
