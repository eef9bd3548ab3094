"""When to leave an input alone, as a whole or by frequency; told from what a model takes away.

As a whole: its noise above 2 kHz is faint, or it reaches further down. By frequency: each bin where
next to nothing is removed, and what lies low. Taught in `05_evaluation` (the SNR) and
`06_recognition` (the band).
"""

import numpy as np
from scipy import signal

from helpers import audio
from helpers.audio import SAMPLE_RATE

GATE_DB = 15.0  # in band, of the command line; how it was chosen: lab book
LOW_SHARE = 0.01  # of the command line; chosen on validation speakers, chapter 06
LOW_HZ = 2_000.0  # here the band begins; training's high-frequency noise is seldom below it
LOW_PASS = signal.butter(8, LOW_HZ, fs=SAMPLE_RATE, output="sos")
TINY = 1e-12
ACT_DB, PASS_DB = 20.0, 30.0  # ratio of kept to removed below which a bin is denoised, above not
EDGE_HZ = 1_500.0  # below it nothing is removed; the fade reaches EDGE_FADE of it to both sides
EDGE_FADE = 0.15
MEMORY_SECONDS = 10.0  # of the running energies
WIN_LENGTH, HOP_LENGTH = 512, 256  # samples, the frames in which it looks


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


class FrequencyGate:
    """Lets through, by frequency, what a model would remove for nothing.

    In each bin of an STFT the energies of what the model keeps and of what it removes run along.
    Where their ratio is over PASS_DB nothing is removed, below ACT_DB all of it, a fade between;
    below EDGE_HZ nothing. It runs as a stream, since noise may come and go in a long recording, and
    waits for one window more than the model. How the limits were chosen: lab book.
    """

    def __init__(self, n_channels: int):
        overlap = WIN_LENGTH - HOP_LENGTH
        self.window = audio.root_hann(WIN_LENGTH)
        self.decay = np.exp(-HOP_LENGTH / (MEMORY_SECONDS * SAMPLE_RATE))
        hz = np.arange(WIN_LENGTH // 2 + 1) * SAMPLE_RATE / WIN_LENGTH
        self.above_edge = np.clip((hz / EDGE_HZ - 1 + EDGE_FADE) / (2 * EDGE_FADE), 0, 1)
        self.waiting = np.zeros((2, n_channels, overlap))  # kept and removed, not yet in a frame
        self.energies = np.zeros((2, n_channels, 1, len(hz)))
        self.tail = np.zeros((n_channels, overlap))  # of the overlap-add
        self.to_drop = overlap  # output that belongs before the first sample

    def process(self, kept: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """Take `(n, channels)` of what a model keeps and removes; give what is removed now.

        What comes out, `(m, channels)`, is joined over all calls as long as what went in, when
        WIN_LENGTH zeros follow the last sample.
        """
        block = np.stack([kept.T, removed.T])
        self.waiting = np.concatenate([self.waiting, block], axis=2)
        n_frames = (self.waiting.shape[2] - WIN_LENGTH) // HOP_LENGTH + 1
        if n_frames < 1:
            return removed[:0]
        windows = np.lib.stride_tricks.sliding_window_view(self.waiting, WIN_LENGTH, axis=2)
        S = np.fft.rfft(windows[:, :, : n_frames * HOP_LENGTH : HOP_LENGTH] * self.window)
        self.waiting = self.waiting[:, :, n_frames * HOP_LENGTH :]
        return self._overlap_add(self.gains(np.abs(S) ** 2) * S[1]).astype(np.float32)

    def gains(self, power: np.ndarray) -> np.ndarray:
        """How much of what is removed is removed indeed, 0..1 `(channels, frames, bins)`.

        `power`: of kept and removed, `(2, channels, frames, bins)`, frames that follow each other.
        """
        energy, self.energies = signal.lfilter(
            [1], [1, -self.decay], power, axis=2, zi=self.energies
        )
        ratio_db = 10 * np.log10((energy[0] + TINY) / (energy[1] + TINY))
        acting = np.clip((PASS_DB - ratio_db) / (PASS_DB - ACT_DB), 0, 1)
        return acting * self.above_edge

    def _overlap_add(self, S: np.ndarray) -> np.ndarray:
        """Frames `(channels, n, bins)` laid behind those before, `(samples, channels)`."""
        frames = np.fft.irfft(S) * self.window
        length = frames.shape[1] * HOP_LENGTH
        total = np.zeros((len(frames), length + WIN_LENGTH - HOP_LENGTH))
        total[:, : self.tail.shape[1]] = self.tail
        for i in range(frames.shape[1]):
            total[:, i * HOP_LENGTH : i * HOP_LENGTH + WIN_LENGTH] += frames[:, i]
        self.tail = total[:, length:]
        dropped = min(self.to_drop, length)
        self.to_drop -= dropped
        return total[:, dropped:length].T
