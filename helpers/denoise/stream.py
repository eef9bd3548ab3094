"""Use a trained model: on an array, or on a stream of any length.

Everything goes through `Stream`, which gives back at once what is complete. So the delay is that of
the frames, memory does not grow with the file, and the result does not depend on where the blocks
are cut. Taught in `04_spectrogram_autoencoder`.
"""

import functools
import math
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from helpers import audio
from helpers.audio import SAMPLE_RATE, as_columns
from helpers.denoise import engine, gate
from helpers.denoise.account import Account

BLOCK_SECONDS = 4.0  # that go through the model at a time, at most: so much memory is enough
GLITCH_SECONDS = 1.0  # of the past that a sample is compared with: see `audio.without_glitches`


class Denoiser:
    """A trained model of frames, for signals of any length. Its file says how long a frame is and
    how far it is to the next.

    `method` is "waveform" or "spectrogram"; `folder` holds the weights (`data/models` by
    default). What comes out is `mix` x denoised + (1 - mix) x noisy (*observation adding*, K.
    Iwamoto et al., "How bad are artifacts?", Interspeech 2022). With `by_frequency` each frequency
    is let through where next to nothing is removed, and all below 1.5 kHz (`gate.FrequencyGate`):
    the default of the command line, while here the model is left to itself.

    It runs on LiteRT where there is an export beside the weights, else on Keras (`engine`); once
    `model` has been asked for, on Keras too, so that what is changed there is heard.
    Raises models.WeightsError where weights are missing or wrong, ValueError for a mix outside 0
    to 1, BackendError where Keras is needed and runs on something else than TensorFlow.
    """

    def __init__(
        self,
        method: str,
        folder: Path | None = None,
        mix: float = 1.0,
        by_frequency: bool = False,
    ):
        if not 0 <= mix <= 1:
            raise ValueError(f"mix {mix:g}: choose a share from 0 (noisy) to 1 (denoised)")
        self.method, self.mix, self.by_frequency = method, mix, by_frequency
        self.folder = folder
        self.engine = engine.engine(method, folder)
        self.win_length, self.hop_length = self.engine.win_length, self.engine.hop_length
        self.block_frames = int(BLOCK_SECONDS * SAMPLE_RATE) // self.hop_length

    @functools.cached_property
    def model(self):
        """The `keras.Model`. What starts after it was asked for goes through it."""
        if isinstance(self.engine, engine.LightEngine):
            self.engine = engine.KerasEngine(self.method, self.folder)
        return self.engine.model

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: how long a sample waits, at most, for the ends of its frames.

        That is the frame of the model, and with the gate one of its frames too, less what both
        frames always have in common.
        """
        samples = self.win_length
        if self.by_frequency:
            samples += gate.WIN_LENGTH - math.gcd(gate.HOP_LENGTH, self.hop_length)
        return 1000 * samples / SAMPLE_RATE

    def stream(self, n_channels: int) -> "Stream":
        """A running signal of its own state."""
        return Stream(self, n_channels)

    def __call__(self, noisy: np.ndarray) -> np.ndarray:
        """Denoise 16 kHz audio `(samples,)` or `(samples, channels)`; same shape, float32.

        Raises ValueError for what `audio.as_columns` does not take.
        """
        columns = as_columns(noisy)
        stream = self.stream(columns.shape[1])
        denoised = np.concatenate([stream.process(columns), stream.finish()])
        return np.float32(denoised).reshape(np.shape(noisy))


class Stream:
    """One running signal: takes blocks of any length and gives back what is ready.

    Blocks are float32 `(samples, channels)` at 16 kHz. All that comes out, joined, is as long as
    all that went in, and aligned with it; glitches are bounded before. It is gated and mixed as the
    denoiser says. `account` knows what was done so far.
    """

    def __init__(self, denoiser: Denoiser, n_channels: int):
        self.denoiser = denoiser
        overlap = denoiser.win_length - denoiser.hop_length
        self.waiting = np.zeros((n_channels, overlap), np.float32)
        self.tail = np.zeros((n_channels, overlap), np.float32)  # of the overlap-add
        self.engine = denoiser.engine
        self.states = self.engine.zero_states(n_channels)
        self.past = np.zeros((n_channels, 0), np.float32)  # GLITCH_SECONDS at most
        self.to_drop = overlap  # output that belongs before the first sample
        self.owed = 0  # samples taken in and not yet given back
        self.account = Account()
        self.gate = gate.FrequencyGate(n_channels) if denoiser.by_frequency else None
        # what the gate has yet to decide on: the input, and what the model would remove of it
        self.held = np.zeros((2, 0, n_channels), np.float32)

    def process(self, block: np.ndarray) -> np.ndarray:
        """Take `(n, channels)`, give what is complete, `(m, channels)`.

        Raises ValueError, and stays as it is, for what `audio.as_columns` does not take.
        """
        block = as_columns(block, self.waiting.shape[0])
        self.owed += len(block)
        self.waiting = np.concatenate([self.waiting, block.T], axis=1)
        ready = []
        while n_frames := min(self._n_waiting, self.denoiser.block_frames):
            ready.append(self._next(n_frames))
        return self._hand_out(ready)

    def finish(self) -> np.ndarray:
        """Give the rest, by letting zeros in behind the last sample, as many as it takes."""
        hop = self.denoiser.hop_length
        n_frames = -(-(self.owed + self.to_drop) // hop)
        missing = (n_frames - self._n_waiting) * hop
        self.waiting = np.pad(self.waiting, ((0, 0), (0, max(missing, 0))))
        last = self._hand_out([self._next(n_frames)] if n_frames else [])
        if not self.gate:
            return last
        silence = np.zeros((gate.WIN_LENGTH, self.held.shape[2]), np.float32)
        return np.concatenate([last, self._remove(self.gate.process(silence, silence))])

    @property
    def _n_waiting(self) -> int:
        """Whole hops that wait, each with the overlap behind it: as many frames."""
        overlap = self.denoiser.win_length - self.denoiser.hop_length
        return (self.waiting.shape[1] - overlap) // self.denoiser.hop_length

    def _next(self, n_frames: int) -> np.ndarray:
        """Put the next frames through the model.

        Gives a hop for each, before and after: `(2, channels, samples)`.
        """
        win, hop = self.denoiser.win_length, self.denoiser.hop_length
        length, overlap = n_frames * hop, win - hop
        self._bound(self.waiting[:, overlap : overlap + length])
        windows = sliding_window_view(self.waiting[:, : length + overlap], win, axis=1)[:, ::hop]
        frames, self.states = self.engine.step(windows, self.states)
        total = np.pad(self.tail, ((0, 0), (0, length)))
        for start in range(0, win, hop):
            total[:, start : start + length] += frames[..., start : start + hop].reshape(-1, length)
        heard, self.waiting = self.waiting[:, :length], self.waiting[:, length:]
        self.tail = total[:, length:]
        return np.stack([heard, total[:, :length]])

    def _bound(self, new: np.ndarray) -> None:
        """Bound the glitches in `new`, whole hops, each compared with the second that it ends."""
        hop, n_past = self.denoiser.hop_length, self.past.shape[1]
        joined, most = np.concatenate([self.past, new], axis=1), int(GLITCH_SECONDS * SAMPLE_RATE)
        if np.abs(new).max(initial=0) > 1:
            for end in range(n_past + hop, joined.shape[1] + 1, hop):
                second = joined[:, max(end - most, 0) : end]
                second[:, -hop:] = audio.without_glitches(second)[:, -hop:]
            new[:] = joined[:, n_past:]
        self.past = joined[:, -most:]

    def _hand_out(self, ready: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([np.zeros((2, len(self.tail), 0), np.float32), *ready], axis=2)
        dropped = min(self.to_drop, joined.shape[2])
        self.to_drop -= dropped
        noisy, denoised = joined[:, :, dropped : dropped + self.owed].swapaxes(1, 2)
        self.owed -= len(denoised)
        by_model = noisy - denoised
        if self.gate:
            self.held = np.concatenate([self.held, np.stack([noisy, by_model])], axis=1)
            return self._remove(self.gate.process(denoised, by_model))
        self.account.add(noisy, by_model, by_model)
        mix = self.denoiser.mix
        return denoised if mix == 1 else mix * denoised + (1 - mix) * noisy

    def _remove(self, removed: np.ndarray) -> np.ndarray:
        """The next samples that are held, without what the gate lets be removed of them."""
        noisy, by_model = self.held[:, : len(removed)]
        self.held = self.held[:, len(removed) :]
        removed = removed[: len(noisy)]
        self.account.add(noisy, by_model, removed)
        return noisy - np.float32(self.denoiser.mix) * removed
