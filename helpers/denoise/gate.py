"""Remove noise where it is, by frequency, and pass the rest on as it came.

A model takes away more than the noise that it is for: the quiet background below it, a hum, faint
sounds of a clean recording. The gate decides, for each frequency, whether that is let through.
Taught in `05_evaluation`.
"""

import numpy as np

from helpers import audio
from helpers.audio import SAMPLE_RATE

ACT_DB, PASS_DB = 20.0, 30.0  # ratio of kept to removed below which a bin is denoised, above not
EDGE_HZ = 1_500.0  # below it nothing is removed; the fade reaches EDGE_FADE of it to both sides
EDGE_FADE = 0.15
MEMORY_SECONDS = 10.0  # of the running energies
WIN_LENGTH, HOP_LENGTH = 512, 256  # samples, the frames in which it looks
WINDOW = audio.root_hann(WIN_LENGTH)
TINY = 1e-12


class FrequencyGate:
    """Lets through, by frequency, what a model would remove for nothing.

    In each bin of an STFT the energies of what the model keeps and of what it removes run along.
    Where their ratio is over PASS_DB nothing is removed, below ACT_DB all of it, a fade between;
    below EDGE_HZ nothing. It runs as a stream, since noise may come and go in a long recording, and
    waits for one window more than the model. How the limits were chosen: lab book.
    """

    def __init__(self, n_channels: int):
        overlap = WIN_LENGTH - HOP_LENGTH
        self.decay = np.exp(-HOP_LENGTH / (MEMORY_SECONDS * SAMPLE_RATE))
        hz = np.arange(WIN_LENGTH // 2 + 1) * SAMPLE_RATE / WIN_LENGTH
        self.above_edge = np.clip((hz / EDGE_HZ - 1 + EDGE_FADE) / (2 * EDGE_FADE), 0, 1)
        self.waiting = np.zeros((2, n_channels, overlap))  # kept and removed, not yet in a frame
        self.energies = np.zeros((2, n_channels, len(hz)))
        self.tail = np.zeros((n_channels, overlap))  # of the overlap-add
        self.to_drop = overlap  # output that belongs before the first sample

    def process(self, kept: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """Take `(n, channels)` of what a model keeps and removes; give what is removed now.

        What comes out, `(m, channels)` float32, is joined over all calls as long as what went in,
        when WIN_LENGTH zeros follow the last sample.
        """
        block = np.stack([kept.T, removed.T])
        self.waiting = np.concatenate([self.waiting, block], axis=2)
        n_frames = (self.waiting.shape[2] - WIN_LENGTH) // HOP_LENGTH + 1
        if n_frames < 1:
            return removed[:0]
        windows = np.lib.stride_tricks.sliding_window_view(self.waiting, WIN_LENGTH, axis=2)
        S = np.fft.rfft(windows[:, :, : n_frames * HOP_LENGTH : HOP_LENGTH] * WINDOW)
        self.waiting = self.waiting[:, :, n_frames * HOP_LENGTH :]
        return self._overlap_add(self.gains(np.abs(S) ** 2) * S[1]).astype(np.float32)

    def gains(self, power: np.ndarray) -> np.ndarray:
        """How much of what is removed is removed indeed, 0..1 `(channels, frames, bins)`.

        `power`: of kept and removed, `(2, channels, frames, bins)`, frames that follow each other.
        """
        energies = np.empty_like(power)
        for i in range(power.shape[2]):
            self.energies = energies[:, :, i] = self.decay * self.energies + power[:, :, i]
        ratio_db = 10 * np.log10((energies[0] + TINY) / (energies[1] + TINY))
        acting = np.clip((PASS_DB - ratio_db) / (PASS_DB - ACT_DB), 0, 1)
        return acting * self.above_edge

    def _overlap_add(self, S: np.ndarray) -> np.ndarray:
        """Frames `(channels, n, bins)` laid behind those before, `(samples, channels)`."""
        frames = np.fft.irfft(S) * WINDOW
        length = frames.shape[1] * HOP_LENGTH
        total = np.zeros((len(frames), length + WIN_LENGTH - HOP_LENGTH))
        total[:, : self.tail.shape[1]] = self.tail
        for i in range(frames.shape[1]):
            total[:, i * HOP_LENGTH : i * HOP_LENGTH + WIN_LENGTH] += frames[:, i]
        self.tail = total[:, length:]
        dropped = min(self.to_drop, length)
        self.to_drop -= dropped
        return total[:, dropped:length].T
