"""When to leave an input alone: its SNR, and where its noise lies, both by what is taken away.

Taught in `05_evaluation` (the SNR) and `06_recognition` (the band).
"""

import numpy as np
from scipy import signal

from helpers.audio import SAMPLE_RATE

GATE_DB = 25.0  # of the command line; chosen on validation speakers, chapter 05
LOW_SHARE = 0.01  # of the command line; chosen on validation speakers, chapter 06
LOW_HZ = 2_000.0  # training's high-frequency noise begins at 1.5 kHz, seldom below this
LOW_PASS = signal.butter(8, LOW_HZ, fs=SAMPLE_RATE, output="sos")
TINY = 1e-12


class Change:
    """What a denoiser did to a signal so far, by energies; takes it block by block, at 16 kHz."""

    def __init__(self, n_channels: int = 1):
        self.kept = self.removed = self.removed_low = 0.0
        self._filter = np.zeros((len(LOW_PASS), 2, n_channels))

    def add(self, noisy: np.ndarray, denoised: np.ndarray) -> None:
        """Go on with the next block, `(samples, channels)` before and after."""
        removed = np.float64(noisy) - denoised
        self.kept += float(np.sum(np.float64(denoised) ** 2))
        self.removed += float(np.sum(removed**2))
        if len(removed):
            low, self._filter = signal.sosfilt(LOW_PASS, removed, axis=0, zi=self._filter)
            self.removed_low += float(np.sum(low**2))

    @property
    def snr_db(self) -> float:
        """An estimate of the input's SNR in dB: energy that was kept over energy removed."""
        return 10 * np.log10((self.kept + TINY) / (self.removed + TINY))

    @property
    def low_share(self) -> float:
        """The share, 0 to 1, of the energy removed that lies below LOW_HZ."""
        return self.removed_low / (self.removed + TINY)

    def why_leave(self, gate_db: float, low_share: float) -> str:
        """Why the input should stay as it is, or "" if it should not.

        "clean": its SNR is above `gate_db`. "whole band": more than `low_share` of its noise lies
        below LOW_HZ, so it is not the high-frequency noise that the models are for.
        """
        if self.snr_db > gate_db:
            return "clean"
        return "whole band" if self.low_share > low_share else ""
