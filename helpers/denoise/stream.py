"""Use a trained model: on an array, or on a stream of any length.

Everything goes block by block through `Stream`, so memory does not grow with the file and the
result does not depend on where the blocks are cut. Taught in `04_spectrogram_autoencoder`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from helpers import models
from helpers.audio import SAMPLE_RATE, as_columns
from helpers.backend import tf
from helpers.denoise.gate import Change
from helpers.models.blocks import hop_length, zero_states

BLOCK_SECONDS = 4.0


class Denoiser:
    """A trained model of frames, compiled for blocks of one length. Its file says how long a
    frame is and how far it is to the next.

    `method` is "waveform" or "spectrogram"; `folder` holds the weights (`data/models` by
    default). What comes out is `mix` x denoised + (1 - mix) x noisy (*observation adding*, K.
    Iwamoto et al., "How bad are artifacts?", Interspeech 2022). An input whose SNR above 2 kHz, as
    estimated, is over `gate_db` dB, or of whose noise more than `low_share` lies below 2 kHz, is
    left as it is (`gate`). By default none of this is done.
    Raises models.WeightsError where weights are missing or wrong, ValueError for a mix outside 0
    to 1.
    """

    def __init__(
        self,
        method: str,
        folder: Path | None = None,
        mix: float = 1.0,
        gate_db: float = np.inf,
        low_share: float = 1.0,
    ):
        if not 0 <= mix <= 1:
            raise ValueError(f"mix {mix:g}: choose a share from 0 (noisy) to 1 (denoised)")
        self.method, self.mix = method, mix
        self.gate_db, self.low_share = gate_db, low_share
        self.model = models.load(method, folder)
        self.win_length = self.model.inputs[0].shape[-1]
        self.hop_length = hop_length(self.model)
        self.block_frames = int(BLOCK_SECONDS * SAMPLE_RATE) // self.hop_length
        self.step = tf.function(lambda frames, states: self.model([frames, *states]))

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: a sample waits for the end of the last frame that holds it."""
        return 1000 * self.win_length / SAMPLE_RATE

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
        chosen = columns if stream.why_leave else denoised
        return np.float32(chosen).reshape(np.shape(noisy))


class Stream:
    """One running signal: takes blocks of any length and gives back what is ready.

    Blocks are float32 `(samples, channels)` at 16 kHz. All that comes out, joined, is as long as
    all that went in, and aligned with it. It is mixed as the denoiser says; the gate, which looks
    at a whole input, is not for streams.
    """

    def __init__(self, denoiser: Denoiser, n_channels: int):
        self.denoiser = denoiser
        overlap = denoiser.win_length - denoiser.hop_length
        self.waiting = np.zeros((n_channels, overlap), np.float32)
        self.tail = np.zeros((n_channels, overlap), np.float32)  # of the overlap-add
        self.states = zero_states(denoiser.model, n_channels)
        self.to_drop = overlap  # output that belongs before the first sample
        self.noisy = np.zeros((0, n_channels), np.float32)  # taken in and not yet given back
        self.change = Change(n_channels)

    @property
    def owed(self) -> int:
        """Samples taken in and not yet given back."""
        return len(self.noisy)

    @property
    def why_leave(self) -> str:
        """Why the gate would leave what came in so far as it is, "" if it would not."""
        return self.change.why_leave(self.denoiser.gate_db, self.denoiser.low_share)

    def process(self, block: np.ndarray) -> np.ndarray:
        """Take `(n, channels)`, give what is complete, `(m, channels)`.

        Raises ValueError, and stays as it is, for what `audio.as_columns` does not take.
        """
        block = as_columns(block, self.waiting.shape[0])
        self.noisy = np.concatenate([self.noisy, block])
        self.waiting = np.concatenate([self.waiting, block.T], axis=1)
        ready = list(self._full_blocks())
        return self._hand_out(ready)

    def finish(self) -> np.ndarray:
        """Give the rest, by letting zeros in behind the last sample."""
        ready = []
        length = self.denoiser.block_frames * self.denoiser.hop_length
        while self.owed + self.to_drop > sum(part.shape[1] for part in ready):
            self.waiting = np.pad(self.waiting, ((0, 0), (0, length)))
            ready += self._full_blocks()
        return self._hand_out(ready)

    def _full_blocks(self) -> Iterator[np.ndarray]:
        win, hop = self.denoiser.win_length, self.denoiser.hop_length
        n_frames = self.denoiser.block_frames
        length, overlap = n_frames * hop, win - hop
        while self.waiting.shape[1] >= length + overlap:
            windows = np.lib.stride_tricks.sliding_window_view(self.waiting, win, axis=1)
            frames, *self.states = self.denoiser.step(
                tf.constant(windows[:, :length:hop]), self.states
            )
            total = tf.signal.overlap_and_add(frames, hop).numpy()
            total[:, :overlap] += self.tail
            self.tail = total[:, length:]
            self.waiting = self.waiting[:, length:]
            yield total[:, :length]

    def _hand_out(self, ready: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([self.tail[:, :0], *ready], axis=1)
        dropped = min(self.to_drop, joined.shape[1])
        self.to_drop -= dropped
        denoised = joined[:, dropped : dropped + self.owed].T
        noisy, self.noisy = self.noisy[: len(denoised)], self.noisy[len(denoised) :]
        self.change.add(noisy, denoised)
        mix = self.denoiser.mix
        return denoised if mix == 1 else mix * denoised + (1 - mix) * noisy
