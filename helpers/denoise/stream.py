"""Use a trained model: on an array, or on a stream of any length.

Everything goes block by block through `Stream`, so memory does not grow with the file and the
result does not depend on where the blocks are cut. Taught in `04_spectrogram_autoencoder`.
"""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from helpers import audio, models
from helpers.audio import SAMPLE_RATE, as_columns
from helpers.backend import BackendError, tf
from helpers.denoise.account import Account
from helpers.denoise.gate import WIN_LENGTH as GATE_LENGTH
from helpers.denoise.gate import FrequencyGate
from helpers.models.blocks import hop_length, zero_states

BLOCK_SECONDS = 4.0


class Denoiser:
    """A trained model of frames, compiled for blocks of any length. Its file says how long a
    frame is and how far it is to the next.

    `method` is "waveform" or "spectrogram"; `folder` holds the weights (`data/models` by
    default). What comes out is `mix` x denoised + (1 - mix) x noisy (*observation adding*, K.
    Iwamoto et al., "How bad are artifacts?", Interspeech 2022). With `by_frequency` each frequency
    is let through where next to nothing is removed, and all below 1.5 kHz (`gate.FrequencyGate`):
    the default of the command line, while here the model is left to itself.
    Raises models.WeightsError where weights are missing or wrong, ValueError for a mix outside 0
    to 1, BackendError where Keras runs on something else than TensorFlow.
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
        if tf is None:
            raise BackendError("denoising needs TensorFlow; unset KERAS_BACKEND")
        self.method, self.mix, self.by_frequency = method, mix, by_frequency
        self.model = models.load(method, folder)
        self.win_length = self.model.inputs[0].shape[-1]
        self.hop_length = hop_length(self.model)
        self.block_frames = int(BLOCK_SECONDS * SAMPLE_RATE) // self.hop_length
        states = [(None, *state.shape[1:]) for state in self.model.inputs[1:]]
        self.step = tf.function(  # of any number of channels and frames, so that it is built once
            lambda frames, states: self.model([frames, *states]),
            input_signature=[
                tf.TensorSpec((None, None, self.win_length)),
                [tf.TensorSpec(shape) for shape in states],
            ],
        )

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: a sample waits for the end of the last frame that holds it."""
        return 1000 * (self.win_length + self.by_frequency * GATE_LENGTH) / SAMPLE_RATE

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
        self.states = zero_states(denoiser.model, n_channels)
        self.to_drop = overlap  # output that belongs before the first sample
        self.owed = 0  # samples taken in and not yet given back
        self.account = Account()
        self.gate = FrequencyGate(n_channels) if denoiser.by_frequency else None
        # what the gate has yet to decide on: the input, and what the model would remove of it
        self.held = np.zeros((2, 0, n_channels), np.float32)

    def process(self, block: np.ndarray) -> np.ndarray:
        """Take `(n, channels)`, give what is complete, `(m, channels)`.

        Raises ValueError, and stays as it is, for what `audio.as_columns` does not take.
        """
        block = as_columns(block, self.waiting.shape[0])
        self.owed += len(block)
        self.waiting = np.concatenate([self.waiting, block.T], axis=1)
        n_frames, ready = self.denoiser.block_frames, []
        while self._n_waiting >= n_frames:
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
        silence = np.zeros((GATE_LENGTH, self.held.shape[2]), np.float32)
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
        heard = audio.without_glitches(self.waiting[:, : length + overlap])
        self.waiting[:, : length + overlap] = heard
        windows = sliding_window_view(heard, win, axis=1)
        frames, *self.states = self.denoiser.step(tf.constant(windows[:, ::hop]), self.states)
        total = tf.signal.overlap_and_add(frames, hop).numpy()
        total[:, :overlap] += self.tail
        self.tail = total[:, length:]
        self.waiting = self.waiting[:, length:]
        return np.stack([heard[:, :length], total[:, :length]])

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
