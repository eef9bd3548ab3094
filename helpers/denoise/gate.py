"""When to leave an input alone: its noise above 2 kHz is faint, or it reaches further down.

Both are told from what a model takes away. Taught in `05_evaluation` (the SNR) and
`06_recognition` (the band).
"""

import numpy as np
from scipy import signal

from helpers.audio import SAMPLE_RATE

GATE_DB = 15.0  # in band, of the command line; how it was chosen: lab book
LOW_SHARE = 0.01  # of the command line; chosen on validation speakers, chapter 06
LOW_HZ = 2_000.0  # here the band begins; training's high-frequency noise is seldom below it
LOW_PASS = signal.butter(8, LOW_HZ, fs=SAMPLE_RATE, output="sos")
TINY = 1e-12


class Energy:
    """The energy of a signal so far, in all, below and above LOW_HZ.

    A Butterworth low-pass and the high-pass at its edge share all energy out between them.
    """

    def __init__(self, n_channels: int):
        self.total = self.low = 0.0
        self._state = np.zeros((len(LOW_PASS), 2, n_channels))

    @property
    def high(self) -> float:
        return max(self.total - self.low, 0.0)

    def add(self, block: np.ndarray) -> None:
        """Go on with the next block, float64 `(samples, channels)` at 16 kHz."""
        self.total += float(np.sum(block**2))
        if len(block):
            low, self._state = signal.sosfilt(LOW_PASS, block, axis=0, zi=self._state)
            self.low += float(np.sum(low**2))


class Change:
    """What a denoiser did to a signal so far, by energies; takes it block by block, at 16 kHz."""

    def __init__(self, n_channels: int = 1):
        self.kept, self.removed = Energy(n_channels), Energy(n_channels)

    def add(self, noisy: np.ndarray, denoised: np.ndarray) -> None:
        """Go on with the next block, `(samples, channels)` before and after."""
        self.kept.add(np.float64(denoised))
        self.removed.add(np.float64(noisy) - denoised)

    @property
    def snr_db(self) -> float:
        """An estimate of the input's SNR above LOW_HZ, in dB: energy kept over energy removed."""
        return 10 * np.log10((self.kept.high + TINY) / (self.removed.high + TINY))

    @property
    def low_share(self) -> float:
        """The share, 0 to 1, of the energy removed that lies below LOW_HZ."""
        return self.removed.low / (self.removed.total + TINY)

    def why_leave(self, gate_db: float, low_share: float) -> str:
        """Why the input should stay as it is, or "" if it should not.

        "clean": its SNR in the band is above `gate_db`. "whole band": more than `low_share` of its
        noise lies below LOW_HZ, so it is not the high-frequency noise that the models are for.
        """
        if self.snr_db > gate_db:
            return "clean"
        return "whole band" if self.low_share > low_share else ""
