"""`helpers.denoise.gate`: energies block by block, and the two reasons to leave an input alone."""

import numpy as np
import pytest

from helpers.denoise.gate import GATE_DB, LOW_SHARE, Change, Energy

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
