"""`helpers.denoise.gate`: energies block by block, and the two reasons to leave an input alone."""

import itertools

import numpy as np
import pytest

from helpers import audio
from helpers.denoise.gate import (
    GATE_DB,
    LOW_SHARE,
    WIN_LENGTH,
    Change,
    Energy,
    FrequencyGate,
)

SR = 16_000


def tone(hz, amplitude):
    """With fades, since a sudden start has all frequencies."""
    fade = amplitude * np.hanning(2 * SR)
    return np.float32(fade * np.sin(2 * np.pi * hz * np.arange(2 * SR) / SR))[:, None]


def change_of(noise, block=2 * SR):
    change, speech = Change(), tone(440, 0.5) + tone(3_000, 0.1)
    noisy = speech + noise
    for start in range(0, len(noisy), block):
        change.add(noisy[start : start + block], speech[start : start + block])
    return change


def test_snr_and_low_share_are_those_of_the_noise():
    change = change_of(tone(1_000, 0.03) + tone(6_000, 0.04))
    assert change.snr_db == pytest.approx(20 * np.log10(0.1 / 0.04), abs=0.01)  # above 2 kHz
    assert change.low_share == pytest.approx(9 / 25, abs=0.01)


def test_energy_is_shared_out_by_an_edge():
    energy = Energy(2)
    noise = np.random.default_rng(0).standard_normal((SR, 2))
    energy.add(noise)
    assert energy.total == pytest.approx(np.sum(noise**2))
    assert energy.low / energy.total == pytest.approx(2_000 / 8_000, abs=0.01)
    assert energy.low + energy.high == pytest.approx(energy.total)


def test_blocks_do_not_matter():
    noise = tone(1_500, 0.1) + tone(3_000, 0.1)
    whole, cut = change_of(noise), change_of(noise, block=777)
    cut.add(np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))
    assert cut.snr_db == pytest.approx(whole.snr_db)
    assert cut.low_share == pytest.approx(whole.low_share)


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        (tone(6_000, 0.1), ""),
        (tone(6_000, 0.1) + tone(500, 0.03), "whole band"),
        (tone(6_000, 0.01) + tone(500, 0.1), "clean"),
        (0 * tone(500, 1.0), "clean"),
    ],
)
def test_why_an_input_is_left(noise, reason):
    change = change_of(noise)
    assert change.why_leave(GATE_DB, LOW_SHARE) == reason
    assert change.why_leave(np.inf, 1.0) == ""


# --- by frequency -------------------------------------------------------------------------------


def hiss(low, high, rms):
    """Noise between two frequencies, float32 (32000, 1)."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(2 * SR))
    hz = np.fft.rfftfreq(2 * SR, 1 / SR)
    samples = np.fft.irfft(spectrum * ((hz >= low) & (hz <= high)))
    return np.float32(samples * rms / np.std(samples))[:, None]


def gated(kept, removed, cuts=()):
    """What is removed in the end, as long as what went in."""
    gate, parts = FrequencyGate(kept.shape[1]), []
    zeros = np.zeros((WIN_LENGTH, kept.shape[1]), np.float32)
    kept, removed = np.concatenate([kept, zeros]), np.concatenate([removed, zeros])
    for start, end in itertools.pairwise([0, *cuts, len(kept)]):
        parts.append(gate.process(kept[start:end], removed[start:end]))
    return np.concatenate(parts)[: len(kept) - WIN_LENGTH]


def level_db(samples):
    return 10 * np.log10(np.mean(np.float64(samples) ** 2) + 1e-20)


def test_nothing_removed_stays_exactly_nothing():
    speech = hiss(100, 7_000, 0.1)
    assert not gated(speech, 0 * speech).any()


def test_loud_noise_is_removed_as_it_was():
    speech, noise = hiss(100, 7_000, 0.1), hiss(4_500, 7_000, 0.05)
    assert level_db(gated(speech, noise) - noise) < level_db(noise) - 20  # but at its edges


def test_each_frequency_is_judged_for_itself():
    """Faint noise below 4 kHz passes beside loud noise above: 35 dB and 6 dB under the speech."""
    speech, faint, loud = hiss(100, 8_000, 0.1), hiss(2_000, 3_900, 0.1), hiss(4_100, 8_000, 0.05)
    faint = 10 ** (-35 / 20) * faint
    removed = gated(speech, faint + loud)[4_000:]  # the start is unsettled
    assert level_db(audio.band_limit(removed[:, 0], SR, 2_100, 3_700)) < level_db(faint) - 15
    inside = [audio.band_limit(x[:, 0], SR, 4_300, 7_800) for x in (removed, loud[4_000:])]
    assert level_db(inside[0]) == pytest.approx(level_db(inside[1]), abs=0.1)


@pytest.mark.parametrize(("low", "high", "share"), [(100, 1_200, 0), (1_800, 2_500, 1)])
def test_what_lies_below_the_edge_is_not_removed(low, high, share):
    noise = hiss(low, high, 0.1)
    removed = gated(0.1 * noise, noise)
    assert np.sum(removed**2) / np.sum(noise**2) == pytest.approx(share, abs=0.01)


def test_noise_that_begins_late_is_removed_after_a_while():
    speech, noise = np.tile(hiss(100, 8_000, 0.1), (8, 1)), np.tile(hiss(4_000, 8_000, 0.1), (8, 1))
    noise[: 4 * 2 * SR] = 0
    removed = gated(speech, noise)
    assert not removed[: 4 * 2 * SR - WIN_LENGTH].any()
    late = slice(6 * 2 * SR, None)  # 4 s after it began
    assert level_db(removed[late]) == pytest.approx(level_db(noise[late]), abs=0.5)


def test_gains_move_slowly_enough_not_to_click():
    speech, noise = hiss(100, 8_000, 0.1), hiss(4_000, 8_000, 0.003)  # 24 to 30 dB: within the fade
    gate = FrequencyGate(1)
    frames = np.lib.stride_tricks.sliding_window_view(
        np.stack([speech.T, noise.T]), WIN_LENGTH, axis=2
    )[:, :, ::256]
    gains = gate.gains(np.abs(np.fft.rfft(frames)) ** 2)
    assert np.abs(np.diff(gains[:, 20:], axis=1)).max() < 0.3


@pytest.mark.parametrize("cuts", [(1, 2, 3), (511, 512, 513), (7_000,), range(100, 30_000, 977)])
def test_blocks_change_nothing_by_frequency(cuts):
    rng = np.random.default_rng(1)
    kept, removed = rng.normal(0, 0.1, (2, 32_000, 2)).astype(np.float32)
    np.testing.assert_allclose(gated(kept, removed, cuts), gated(kept, removed), atol=1e-7)
