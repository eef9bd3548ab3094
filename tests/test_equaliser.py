"""`helpers.equaliser`: random frequency responses within their bounds."""

import numpy as np
import pytest

from helpers import equaliser


@pytest.fixture
def responses():
    """A function giving what the equaliser does to each frequency, in dB, for twenty seeds."""

    def measure():
        impulse = np.zeros(4_096)
        impulse[0] = 1
        equalised = [equaliser.equalise(impulse, np.random.default_rng(i)) for i in range(20)]
        return 20 * np.log10(np.abs(np.fft.rfft(equalised)))

    return measure


def test_equaliser_stays_within_its_gains(responses, monkeypatch):
    monkeypatch.setattr(equaliser, "TILT_RANGE", (0.0, 0.0))
    assert np.abs(responses()).max() <= equaliser.LARGEST_DB + 0.01
    assert np.abs(responses()).max() > equaliser.LARGEST_DB - 1


def test_equaliser_tilts_about_1_khz(responses, monkeypatch):
    monkeypatch.setattr(equaliser, "LARGEST_DB", 0.0)
    at = [int(f / 8_000 * 2_048) for f in (1_000, 2_000, 4_000, 8_000)]
    low, middle, high, top = responses()[:, at].T
    assert np.allclose(low, 0, atol=0.05)
    assert np.allclose([high, top], [2 * middle, 3 * middle], atol=0.1)
    assert middle.min() < -0.5
    assert middle.max() > 2
    assert equaliser.TILT_RANGE[0] <= middle.min() <= middle.max() <= equaliser.TILT_RANGE[1]
