"""The shipped models without what converters to small devices cannot take: the same numbers.

A converter knows matrix products and convolutions of fixed size, no FFT of any length and no loop.
So the transform is a product with a matrix of cosines and sines, the running means are one with a
matrix of powers, and the GRU is written out, frame after frame. Taught in
`04_spectrogram_autoencoder`.
"""

import numpy as np

from helpers import audio
from helpers.backend import keras, layers, ops
from helpers.models import blocks, spectrogram


def fixed_length(model: keras.Model, n_frames: int) -> keras.Model:
    """A trained model of frames for one channel and `n_frames` frames at a time, no other number.

    Inputs and outputs have the shapes and names of the model's, with batch 1. Weights are shared,
    those of the GRUs copied.
    """
    inputs = [
        keras.Input(
            batch_shape=(1, *([n_frames] if x.name == "frames" else []), *shape), name=x.name
        )
        for x, shape in zip(model.inputs, shapes(model), strict=True)
    ]
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=fixed)


def shapes(model: keras.Model) -> list[tuple]:
    """Of a frame, and of each state: the inputs without batch and time."""
    frames, *states = model.inputs
    return [tuple(frames.shape[2:]), *(tuple(state.shape[1:]) for state in states)]


def fixed(layer: layers.Layer) -> layers.Layer:
    """What stands for a layer in a model of fixed length."""
    if isinstance(layer, layers.GRU):
        return UnrolledGRU(layer.get_weights(), name=layer.name)
    for kind, replacement in REPLACED.items():
        if type(layer) is kind:
            return replacement(**layer.get_config())
    return layer


class MatrixSpectrum(spectrogram.Spectrum):
    """As its parent; the discrete Fourier transform of windowed frames is a matrix product."""

    def call(self, frames):
        n = frames.shape[-1]
        waves = np.fft.rfft(np.eye(n) * audio.root_hann(n))  # its rows: of one sample each
        S = ops.matmul(frames, np.concatenate([waves.real, waves.imag], axis=1).astype("float32"))
        S = ops.reshape(S, (*frames.shape[:-1], 2, n // 2 + 1))
        return ops.transpose(S, (0, 1, 3, 2))


class MatrixFrames(spectrogram.MaskedFrames):
    """As its parent, the way back by a matrix product too."""

    def call(self, S, mask):
        n_bins = S.shape[2]
        n, parts = 2 * (n_bins - 1), np.eye(n_bins)
        waves = np.stack([np.fft.irfft(parts, n), np.fft.irfft(1j * parts, n)], axis=1)
        waves = waves.reshape(2 * n_bins, n) * audio.root_hann(n)
        masked = blocks.complex_product(S, mask)
        flat = ops.reshape(masked, (*S.shape[:2], 2 * n_bins))
        return ops.matmul(flat, waves.astype("float32"))


class FixedMean:
    """The mean of `blocks.RunningMean`, whose powers of the decay are constants here."""

    def mean(self, features, weights, state):
        steps = np.arange(features.shape[1])
        distance = steps[:, None] - steps
        decays = np.where(distance >= 0, self.decay ** np.maximum(distance, 0.0), 0.0)
        decays = np.concatenate([self.decay ** (steps[:, None] + 1.0), decays], axis=1)
        new = ops.concatenate([features * weights, weights], axis=-1)
        new = ops.concatenate([ops.expand_dims(state, 1), new], axis=1)
        sums = ops.matmul(decays.astype("float32"), new)
        return sums[..., :-1] / (sums[..., -1:] + 1e-10), sums[:, -1]


class FixedRunningMean(FixedMean, blocks.RunningMean):
    """As `blocks.RunningMean`."""


class FixedRunningLevel(FixedMean, blocks.RunningLevel):
    """As `blocks.RunningLevel`."""


class UnrolledGRU(layers.Layer):
    """A GRU of Keras (`reset_after`, the default) with its steps written out.

    The product with the input is taken for all frames at once. Its weights are constants: kernel
    `(n, 3 units)`, recurrent kernel `(units, 3 units)`, biases `(2, 3 units)`.
    """

    def __init__(self, weights: list[np.ndarray], **kwargs):
        super().__init__(**kwargs)
        self.constants = [np.array(one) for one in weights]

    def call(self, x, initial_state):
        kernel, recurrent, (input_bias, recurrent_bias) = self.constants
        n, h, outputs = len(recurrent), initial_state, []
        heard = ops.matmul(x, kernel) + input_bias
        for i in range(x.shape[1]):
            new, old = heard[:, i], ops.matmul(h, recurrent) + recurrent_bias
            gates = ops.sigmoid(new[:, : 2 * n] + old[:, : 2 * n])
            update, reset = gates[:, :n], gates[:, n:]
            candidate = ops.tanh(new[:, 2 * n :] + reset * old[:, 2 * n :])
            h = candidate + update * (h - candidate)
            outputs.append(h)
        return ops.stack(outputs, axis=1), h


REPLACED = {
    spectrogram.Spectrum: MatrixSpectrum,
    spectrogram.MaskedFrames: MatrixFrames,
    blocks.RunningMean: FixedRunningMean,
    blocks.RunningLevel: FixedRunningLevel,
}
