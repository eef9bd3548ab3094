"""Layers that both shipped models share, and how a model of frames becomes one of waveforms.

A shipped model is causal and maps frames to frames: its inputs are `(batch, frames,
win_length)` float32 and its states, its outputs the denoised windowed frames and the new
states. Fed block after block with its own states it gives what it gives for the whole file.
Taught in `04_spectrogram_autoencoder`.
"""

import numpy as np

from helpers import audio
from helpers.backend import keras, layers, ops, tf

LEVEL_SECONDS = 2.0  # s, memory of the running level
SILENT_POWER = 1e-10  # mean square; frames below (-100 dBFS) leave the running level alone
register = keras.saving.register_keras_serializable("denoiser")


@register
class RunningLevel(layers.Layer):
    """Level of the signal so far: an exponential mean of frame power, corrected for its start.

    Inputs: frames `(batch, frames, win_length)` and the state `(batch, 2)` (weighted sum of
    powers, sum of weights; zeros at the start). Outputs: RMS level `(batch, frames, 1)` and the
    new state. Scaling the input scales the level, so a network fed with `frames / level` hears
    every talker equally loud; no later frame is needed (Kingma and Ba, 2015, section 3, for
    the correction).
    """

    def __init__(self, hop_length: int, **kwargs):
        super().__init__(**kwargs)
        self.hop_length = hop_length
        self.decay = float(np.exp(-hop_length / (LEVEL_SECONDS * audio.SAMPLE_RATE)))

    def call(self, frames, state):
        n_frames = ops.shape(frames)[1]
        power = ops.mean(ops.square(frames), axis=-1)
        heard = ops.cast(power > SILENT_POWER, power.dtype)
        new = ops.stack([power * heard, heard], axis=-1)
        steps = ops.cast(ops.arange(n_frames), power.dtype)
        distance = ops.expand_dims(steps, 1) - ops.expand_dims(steps, 0)
        weights = ops.where(distance >= 0, self.decay ** ops.maximum(distance, 0.0), 0.0)
        carried = ops.expand_dims(self.decay ** (steps + 1), -1) * ops.expand_dims(state, 1)
        sums = ops.matmul(weights, new) + carried
        level = ops.sqrt((sums[..., :1] + 1e-20) / (sums[..., 1:] + 1e-10))
        return level, sums[:, -1]

    def compute_output_shape(self, frames_shape, state_shape):
        return (*frames_shape[:2], 1), state_shape

    def get_config(self):
        return super().get_config() | {"hop_length": self.hop_length}


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


def residual_grus(x, states: list) -> tuple:
    """GRUs in a row, each added to its input `(batch, frames, units)`; gives the new states too."""
    new_states = []
    for i, state in enumerate(states, start=1):
        gru = layers.GRU(state.shape[-1], return_sequences=True, return_state=True, name=f"gru_{i}")
        y, new_state = gru(x, initial_state=state)
        x = layers.Add(name=f"residual_{i}")([x, y])
        new_states.append(new_state)
    return x, new_states


def zero_states(model: keras.Model, batch_size) -> list[tf.Tensor]:
    """The states at the start of a file: zeros of the shapes of the model's inputs 1, 2, ..."""
    return [tf.zeros([batch_size, *state.shape[1:]]) for state in model.inputs[1:]]


@register
class WaveformWrapper(keras.Model):
    """Train a model of frames on waveforms: frame, denoise, overlap-add.

    Maps float32 `(batch, samples)` to the same; `samples` must be known (it is in training).
    """

    def __init__(self, frame_model: keras.Model, hop_length: int, **kwargs):
        super().__init__(**kwargs)
        self.frame_model, self.hop_length = frame_model, hop_length
        self.win_length = frame_model.inputs[0].shape[-1]

    def call(self, noisy):
        overlap = self.win_length - self.hop_length
        n_samples = noisy.shape[1]
        padded = tf.pad(noisy, [[0, 0], [overlap, overlap + (-n_samples) % self.hop_length]])
        frames = tf.signal.frame(padded, self.win_length, self.hop_length)
        states = zero_states(self.frame_model, tf.shape(noisy)[0])
        denoised = self.frame_model([frames, *states])[0]
        total = tf.signal.overlap_and_add(denoised, self.hop_length)
        return total[:, overlap : overlap + n_samples]
