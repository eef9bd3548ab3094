"""Layers that both shipped models share, and how a model of frames becomes one of waveforms.

A shipped model is causal (a frame holds what is waited for, too) and maps frames to frames: its
inputs are `(batch, frames, win_length)` float32 and its states, its outputs the denoised windowed
frames and the new states. Fed block after block with its own states it gives what it gives for the
whole file. Taught in `04_spectrogram_autoencoder`.
"""

import numpy as np

from helpers import audio
from helpers.backend import keras, layers, ops

LEVEL_SECONDS = 2.0  # s, memory of the running level
MEMORIES = (0.2, 2.0)  # s, of running means
MASK_BOUND = 2.0
SILENT_POWER = 1e-10  # mean square; frames below (-100 dBFS) leave the running level alone
register = keras.saving.register_keras_serializable("denoiser")


@register
class RunningMean(layers.Layer):
    """Exponential mean over time of every feature so far, corrected for its start.

    Inputs: features `(batch, frames, n)` and the state `(batch, n + 1)` (weighted sums, and the
    sum of weights; zeros at the start). Outputs: means `(batch, frames, n)` and the new state.
    `seconds` is the memory. No later frame is needed (Kingma and Ba, 2015, section 3, for the
    correction). All frames at once: a product with the lower triangle of decay ** distance.
    """

    def __init__(self, hop_length: int, seconds: float, **kwargs):
        super().__init__(**kwargs)
        self.hop_length, self.seconds = hop_length, seconds
        self.decay = float(np.exp(-hop_length / (seconds * audio.SAMPLE_RATE)))

    def call(self, features, state):
        return self.mean(features, ops.ones_like(features[..., :1]), state)

    def mean(self, features, weights, state):
        """As `call`, every frame with its own weight `(batch, frames, 1)`."""
        new = ops.concatenate([features * weights, weights], axis=-1)
        steps = ops.cast(ops.arange(ops.shape(new)[1]), new.dtype)
        distance = ops.expand_dims(steps, 1) - ops.expand_dims(steps, 0)
        decays = ops.where(distance >= 0, self.decay ** ops.maximum(distance, 0.0), 0.0)
        carried = ops.expand_dims(self.decay ** (steps + 1), -1) * ops.expand_dims(state, 1)
        sums = ops.matmul(decays, new) + carried
        return sums[..., :-1] / (sums[..., -1:] + 1e-10), sums[:, -1]

    def compute_output_shape(self, features_shape, state_shape):
        return features_shape, state_shape

    def get_config(self):
        return super().get_config() | {"hop_length": self.hop_length, "seconds": self.seconds}


@register
class RunningLevel(RunningMean):
    """Level of the signal so far, the root of a running mean of frame power.

    Inputs: frames `(batch, frames, win_length)` and the state `(batch, 2)`. Outputs: RMS level
    `(batch, frames, 1)` and the new state. Scaling the input scales the level, so a network fed
    with `frames / level` hears every talker equally loud.
    """

    def __init__(self, hop_length: int, seconds: float = LEVEL_SECONDS, **kwargs):
        super().__init__(hop_length, seconds, **kwargs)

    def call(self, frames, state):
        power = ops.mean(ops.square(frames), axis=-1, keepdims=True)
        heard = ops.cast(power > SILENT_POWER, power.dtype)
        mean_power, state = self.mean(power, heard, state)
        return ops.sqrt(ops.maximum(mean_power, SILENT_POWER)), state

    def compute_output_shape(self, frames_shape, state_shape):
        return (*frames_shape[:2], 1), state_shape


@register
class TimeContext(layers.Layer):
    """Put the last `n_past` feature frames of the block before in front of this block.

    A convolution over time that follows, without padding, then sees what it would see in the
    whole file. Inputs: features `(batch, frames, ...)` and the past ones `(batch, n_past, ...)`;
    outputs: both joined, and the last `n_past` frames for the next block.
    """

    def __init__(self, n_past: int, **kwargs):
        super().__init__(**kwargs)
        self.n_past = n_past

    def call(self, features, past):
        joined = ops.concatenate([past, features], axis=1)
        return joined, joined[:, -self.n_past :]

    def get_config(self):
        return super().get_config() | {"n_past": self.n_past}


def running_means(x, hop_length: int, states: list) -> tuple[list, list]:
    """Means of features `(batch, frames, n)` over MEMORIES, each of that shape; the new states."""
    means, new_states = [], []
    for i, (seconds, state) in enumerate(zip(MEMORIES, states, strict=True), start=1):
        mean, new_state = RunningMean(hop_length, seconds, name=f"mean_{i}")(x, state)
        means.append(mean)
        new_states.append(new_state)
    return means, new_states


def gated_mask(x):
    """Three channels `(..., 3)` to a complex mask `(..., 2)`: what to take away, and how sure.

    mask = 1 - gate (1 + B tanh a + 1j B tanh b), so each part stays within +-B, B = MASK_BOUND.
    A closed gate passes a coefficient untouched without any weight having to be exact; an open one
    with a = b = 0 removes it.
    """
    gate = ops.sigmoid(x[..., :1] - 2)
    whole = ops.convert_to_tensor([1.0, 0.0], x.dtype)
    return whole - gate * (whole + MASK_BOUND * ops.tanh(x[..., 1:]))


def complex_product(x, y):
    """Product of complex numbers whose last axis is (real, imaginary)."""
    real = x[..., 0] * y[..., 0] - x[..., 1] * y[..., 1]
    imag = x[..., 0] * y[..., 1] + x[..., 1] * y[..., 0]
    return ops.stack([real, imag], axis=-1)


def residual_grus(x, states: list) -> tuple:
    """GRUs in a row, each added to its input `(batch, frames, units)`; gives the new states too."""
    new_states = []
    for i, state in enumerate(states, start=1):
        gru = layers.GRU(state.shape[-1], return_sequences=True, return_state=True, name=f"gru_{i}")
        y, new_state = gru(x, initial_state=state)
        x = layers.Add(name=f"residual_{i}")([x, y])
        new_states.append(new_state)
    return x, new_states


def hop_length(model: keras.Model) -> int:
    """Samples from frame to frame, as the layers of a model of frames hold it."""
    return next(layer.hop_length for layer in model.layers if hasattr(layer, "hop_length"))


def zero_states(model: keras.Model, batch_size) -> list:
    """The states at the start of a file: zeros of the shapes of the model's inputs 1, 2, ..."""
    return [ops.zeros([batch_size, *state.shape[1:]]) for state in model.inputs[1:]]


def overlap_add(frames, hop_length: int):
    """Sum of frames `(batch, n, win_length)` laid `hop_length` apart, `(batch, samples)`.

    The window is a multiple of the hop; samples = (n - 1) hop_length + win_length.
    """
    parts = ops.split(frames, frames.shape[-1] // hop_length, axis=-1)
    last = len(parts) - 1
    rows = sum(ops.pad(p, [[0, 0], [i, last - i], [0, 0]]) for i, p in enumerate(parts))
    return ops.reshape(rows, (ops.shape(rows)[0], -1))


@register
class WaveformWrapper(keras.Model):
    """Train a model of frames on waveforms: frame, denoise, overlap-add.

    Maps float32 `(batch, samples)` to the same. The model of frames may be one without states.
    """

    def __init__(self, frame_model: keras.Model, hop_length: int, **kwargs):
        super().__init__(**kwargs)
        self.frame_model, self.hop_length = frame_model, hop_length
        self.win_length = frame_model.inputs[0].shape[-1]

    def call(self, noisy):
        overlap = self.win_length - self.hop_length
        n_samples = ops.shape(noisy)[1]
        padded = ops.pad(noisy, [[0, 0], [overlap, overlap + (-n_samples) % self.hop_length]])
        frames = ops.extract_sequences(padded, self.win_length, self.hop_length)
        states = zero_states(self.frame_model, ops.shape(noisy)[0])
        denoised = keras.tree.flatten(self.frame_model([frames, *states]))[0]
        total = overlap_add(denoised, self.hop_length)
        return total[:, overlap : overlap + n_samples]
