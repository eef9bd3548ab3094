"""The low-pass filter as a denoiser that runs, for the command line.

It is for noise that is known to lie above a frequency, where speech is not missed. The filter is
that of `baselines.low_pass`, the rival in every table.
"""

import numpy as np

from helpers.audio import SAMPLE_RATE, as_columns
from helpers.denoise.account import Account

CUTOFF, TAPS = 3_900.0, 513  # Hz, and how many the rival has
LOWEST, HIGHEST = 100.0, 7_900.0  # Hz, of cutoffs


class LowPass:
    """A low-pass at `cutoff` Hz, with the interface of `helpers.denoise.stream.Denoiser`.

    Raises ValueError for a cutoff outside LOWEST to HIGHEST or a mix outside 0 to 1.
    """

    method = "low-pass"
    by_frequency = False
    is_light = True

    def __init__(self, cutoff: float = CUTOFF, mix: float = 1.0):
        if not LOWEST <= cutoff <= HIGHEST:
            raise ValueError(f"cutoff {cutoff:g} Hz: choose {LOWEST:g} to {HIGHEST:g}")
        if not 0 <= mix <= 1:
            raise ValueError(f"mix {mix:g}: choose a share from 0 (noisy) to 1 (filtered)")
        self.mix = mix
        n = np.arange(TAPS) - TAPS // 2
        taps = np.sinc(2 * cutoff / SAMPLE_RATE * n) * np.hamming(TAPS)
        self.taps = taps / taps.sum()

    def stream(self, n_channels: int) -> "LowPassStream":
        """A running signal of its own state."""
        return LowPassStream(self, n_channels)


class LowPassStream:
    """One running signal, block by block, float32 `(samples, channels)` at 16 kHz.

    All that comes out, joined, is as long as all that went in, and aligned with it.
    """

    def __init__(self, filtering: LowPass, n_channels: int):
        self.filtering, self.account = filtering, Account()
        self.waiting = np.zeros((TAPS // 2, n_channels), np.float32)

    def process(self, block: np.ndarray) -> np.ndarray:
        """Take `(n, channels)`, give what is complete. Raises ValueError as `audio.as_columns`."""
        block = as_columns(block, self.waiting.shape[1])
        self.waiting = np.concatenate([self.waiting, block])
        n_ready = len(self.waiting) - TAPS + 1
        if n_ready < 1:
            return block[:0]
        channels = [np.convolve(one, self.filtering.taps, "valid") for one in self.waiting.T]
        noisy = self.waiting[TAPS // 2 : TAPS // 2 + n_ready]
        self.waiting = self.waiting[n_ready:]
        removed = noisy - np.float32(np.stack(channels, axis=1))
        self.account.add(noisy, removed, removed)
        return noisy - np.float32(self.filtering.mix) * removed

    def finish(self) -> np.ndarray:
        """Give the rest, by letting zeros in behind the last sample."""
        return self.process(np.zeros((TAPS // 2, self.waiting.shape[1]), np.float32))
