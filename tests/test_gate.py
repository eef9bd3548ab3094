"""`helpers.denoise.gate` and `account`: what is removed by frequency, and what is said of it."""

import itertools

import numpy as np
import pytest

from helpers import audio
from helpers.denoise.account import Account
from helpers.denoise.gate import WIN_LENGTH, FrequencyGate

SR = 16_000


def hiss(low, high, rms, seed=0):
    """Noise between two frequencies, float32 (32000, 1)."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(2 * SR))
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
    speech = hiss(100, 8_000, 0.1)
    noise = hiss(4_000, 8_000, 0.003, seed=1)  # 24 to 30 dB lower: within the fade
    gate = FrequencyGate(1)
    frames = np.lib.stride_tricks.sliding_window_view(
        np.stack([speech.T, noise.T]), WIN_LENGTH, axis=2
    )[:, :, ::256]
    gains = gate.gains(np.abs(np.fft.rfft(frames)) ** 2)
    assert np.abs(np.diff(gains[:, 20:], axis=1)).max() < 0.15


@pytest.mark.parametrize("cuts", [(1, 2, 3), (511, 512, 513), (7_000,), range(100, 30_000, 977)])
def test_blocks_change_nothing_by_frequency(cuts):
    rng = np.random.default_rng(1)
    kept, removed = rng.normal(0, 0.1, (2, 32_000, 2)).astype(np.float32)
    np.testing.assert_allclose(gated(kept, removed, cuts), gated(kept, removed), atol=1e-7)


# --- in words -----------------------------------------------------------------------------------


def tone(hz, rms):
    return np.float32(rms * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(2 * SR) / SR))[:, None]


SPEECH = hiss(100, 7_000, 0.1)
HISS = hiss(4_000, 8_000, 0.05)


@pytest.mark.parametrize(
    ("removed", "low", "words"),
    [
        (HISS, None, "noise above 4.0 kHz reduced"),
        (hiss(2_500, 5_000, 0.05), None, "noise at 2.5-5.0 kHz reduced"),
        (tone(2_300, 0.05), None, "noise near 2.3 kHz reduced"),
        (0 * HISS, None, "no noise found above 1.5 kHz"),
        (1e-3 * HISS, None, "no noise found above 1.5 kHz"),
        (HISS, tone(120, 0.05), "noise above 4.0 kHz reduced; hum at 120 Hz left as it is"),
        (HISS, tone(50, 0.05), "noise above 4.0 kHz reduced; hum at 50 Hz left as it is"),
        (
            HISS,
            hiss(20, 150, 0.05),
            "noise above 4.0 kHz reduced; rumble below 200 Hz left as it is",
        ),
        (
            HISS,
            hiss(20, 1_400, 0.05),
            "noise above 4.0 kHz reduced; noise below 1.5 kHz left as it is",
        ),
        (HISS, 0 * HISS + 0.05, "noise above 4.0 kHz reduced; a constant offset left as it is"),
    ],
)
@pytest.mark.parametrize("block", [160, 64_000])
def test_what_was_done_is_said(removed, low, words, block):
    account, low = Account(), 0 * removed if low is None else low
    noisy, by_model = SPEECH + removed + low, removed + low
    for start in range(0, len(noisy), block):
        account.add(*(x[start : start + block] for x in (noisy, by_model, removed)))
    assert account.words() == words


@pytest.mark.parametrize(
    ("n_samples", "words"),
    [
        (0, "no noise found above 1.5 kHz"),
        (4_000, "noise above 4.0 kHz reduced"),
    ],
)
def test_of_a_short_input_something_is_said_too(n_samples, words):
    account = Account()
    account.add(*(x[:n_samples] for x in (SPEECH + HISS, HISS, HISS)))
    assert account.words() == words


def test_asking_early_changes_nothing():
    """What is said after half a segment is not counted once more."""
    asked, whole = Account(), Account()
    for account in (asked, whole):
        for part in np.array_split(np.stack([SPEECH + HISS, HISS, HISS]), 20, axis=1):
            account.add(*part)
            if account is asked:
                account.words()
    assert np.array_equal(asked.power, whole.power)
