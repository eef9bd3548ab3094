"""What was done to a recording, in plain words: which noise was reduced, and what was left.

The long-term spectra (P. Welch, 1967) of the input, of what the model would remove and of what was
removed tell it. Used by the command line; seen in `06_recognition`.
"""

import numpy as np

from helpers import audio
from helpers.audio import SAMPLE_RATE
from helpers.denoise.gate import EDGE_HZ

LENGTH = 4_096  # samples of a segment: bins of 3.9 Hz, so that mains of 50 and 60 Hz are told
WINDOW = audio.hann(LENGTH)
HZ = np.arange(LENGTH // 2 + 1) * SAMPLE_RATE / LENGTH
NOTHING_DB = -35.0  # removed, against the input above EDGE_HZ: less is not worth a word
LEFT_DB = -20.0  # left, against the whole input: more is worth one
HUM_HZ, RUMBLE_HZ, OFFSET_HZ = 400.0, 200.0, 8.0  # up to where each lies
SPEECH_HZ = 65.0  # below it there is no speech, so all is noise
TINY = 1e-20


class Account:
    """The long-term spectra of a signal that is denoised, block by block, at 16 kHz."""

    def __init__(self):
        self.power = np.zeros((3, len(HZ)))  # the input, what the model removes, what is removed
        self.waiting = np.zeros((3, 0))

    def add(self, noisy: np.ndarray, by_model: np.ndarray, removed: np.ndarray) -> None:
        """Go on with the next block: the input, what the model would remove, and what is removed.

        Each `(samples, channels)`; the channels are heard together.
        """
        block = np.stack([noisy, by_model, removed]).mean(axis=2)
        self.waiting = np.concatenate([self.waiting, block], axis=1)
        while self.waiting.shape[1] >= LENGTH:
            self.power += power_of(self.waiting[:, :LENGTH])
            self.waiting = self.waiting[:, LENGTH // 2 :]

    @property
    def is_faint(self) -> bool:
        """Whether next to nothing was removed."""
        noisy, _, removed = self._spectra()
        return bool(removed.sum() <= 10 ** (NOTHING_DB / 10) * noisy[HZ >= EDGE_HZ].sum())

    @property
    def band(self) -> tuple[float, float]:
        """Between which frequencies, in Hz, all but 2 % of what was removed lies."""
        return band(self._spectra()[2])

    @property
    def snr_db(self) -> float:
        """An estimate of the input's SNR within `band`, in dB: what stays over what goes."""
        (noisy, _, removed), (low, high) = self._spectra(), self.band
        inside = (low <= HZ) & (high >= HZ)
        gone = removed[inside].sum()
        return db(max(noisy[inside].sum() - gone, 0), gone)

    def words(self) -> str:
        """For example "noise above 3.4 kHz reduced; hum at 120 Hz left as it is"."""
        if self.is_faint:
            return f"no noise found above {EDGE_HZ / 1000:g} kHz"
        noisy, by_model, removed = self._spectra()
        left = np.clip(by_model - removed, 0, None) * (HZ < EDGE_HZ)
        left = np.where(HZ < SPEECH_HZ, noisy, left)
        done = f"{band_words(*band(removed))} reduced"
        if db(left.sum(), noisy.sum()) < LEFT_DB:
            return done
        return f"{done}; {low_noise(left)} left as it is"

    def _spectra(self) -> np.ndarray:
        """The three of them; of a signal shorter than a segment too."""
        if self.power.any():
            return self.power
        return power_of(np.pad(self.waiting, ((0, 0), (0, LENGTH - self.waiting.shape[1]))))


def power_of(segments: np.ndarray) -> np.ndarray:
    """Power spectra `(n, bins)` of segments `(n, LENGTH)`."""
    return np.abs(np.fft.rfft(segments * WINDOW)) ** 2


def db(power: float, reference: float) -> float:
    """A ratio of powers in dB."""
    return 10 * np.log10((power + TINY) / (reference + TINY))


def band(power: np.ndarray) -> tuple[float, float]:
    """Between which frequencies, in Hz, a spectrum has all but 2 % of its power."""
    share = np.cumsum(power) / (power.sum() + TINY)
    low, high = np.searchsorted(share, (0.01, 0.99))
    return float(HZ[min(low, len(HZ) - 1)]), float(HZ[min(high, len(HZ) - 1)])


def band_words(low: float, high: float) -> str:
    """A band of noise in words; its ends in Hz."""
    low, high = low / 1000, high / 1000
    if high - low < 0.3:
        return f"noise near {(low + high) / 2:.1f} kHz"
    return f"noise above {low:.1f} kHz" if high > 7.0 else f"noise at {low:.1f}-{high:.1f} kHz"


def low_noise(power: np.ndarray) -> str:
    """In words what a spectrum of noise below EDGE_HZ is."""
    total = power.sum()
    if power[HZ < OFFSET_HZ].sum() > total / 2:
        return "a constant offset"
    peak = int(np.argmax(power * (HZ < HUM_HZ)))
    if power[max(peak - 2, 0) : peak + 3].sum() > total / 4 and HZ[peak] > 45:
        return f"hum at {10 * round(HZ[peak] / 10)} Hz"
    if power[HZ < RUMBLE_HZ].sum() > 0.8 * total:
        return f"rumble below {RUMBLE_HZ:.0f} Hz"
    return f"noise below {EDGE_HZ / 1000:g} kHz"
