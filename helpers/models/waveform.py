"""The waveform method: a mask on a learned basis of 10 ms frames, with a recurrent separator.

Encoder, mask and decoder follow Y. Luo and N. Mesgarani, "TaSNet: time-domain audio separation
network" (ICASSP 2018); the basis starts as a windowed Fourier basis and is then learned like
everything else. Taught in `03_waveform_autoencoder`.
"""

import numpy as np

from helpers import audio
from helpers.backend import keras, layers, ops
from helpers.losses import COMPRESSION
from helpers.models.blocks import RunningLevel, register, residual_grus

WIN_LENGTH, HOP_LENGTH = 160, 80  # samples: 10 ms, which is the latency, and 5 ms
BASIS = 256  # filters of the encoder
UNITS = 160
MASK_BOUND = 2.0


def fourier_basis() -> np.ndarray:
    """Root-Hann cosines and sines, float32 `(WIN_LENGTH, BASIS)`: a tight frame.

    Its product with its own transpose is the squared window on the diagonal, so analysis,
    synthesis with the transpose and overlap-add give the input back.
    """
    angle = 2 * np.pi * np.outer(np.arange(WIN_LENGTH), np.arange(BASIS // 2 + 1)) / BASIS
    scale = np.full(BASIS // 2 + 1, np.sqrt(2 / BASIS))
    scale[[0, -1]] = np.sqrt(1 / BASIS)
    waves = np.concatenate([np.cos(angle) * scale, (np.sin(angle) * scale)[:, 1:-1]], axis=1)
    return (audio.root_hann(WIN_LENGTH)[:, None] * waves).astype("float32")


@register
class SignedPower(layers.Layer):
    """Level-free features: the coefficients over the level, each raised to 0.3, sign kept.

    Coefficients and their magnitudes, `(batch, frames, 2 * BASIS)`.
    """

    def call(self, coefficients, level):
        x = 4 * coefficients / level
        magnitude = (ops.square(x) + 1e-6) ** (COMPRESSION / 2)
        return ops.concatenate(
            [magnitude, x * (ops.square(x) + 1e-6) ** ((COMPRESSION - 1) / 2)], -1
        )


@register
class BoundedRealMask(layers.Layer):
    """Channels to masks within +-MASK_BOUND; zero input gives the mask 1 (pass everything)."""

    def call(self, x):
        return MASK_BOUND * ops.tanh(x + ops.arctanh(1 / MASK_BOUND))


def build(units=UNITS) -> keras.Model:
    """The model of frames: inputs frames `(batch, frames, 160)` and three states, outputs alike."""
    frames = keras.Input((None, WIN_LENGTH), name="frames")
    level_state = keras.Input((2,), name="level_state")
    hidden = [keras.Input((units,), name=f"gru_{i}_state") for i in (1, 2)]

    level, new_level = RunningLevel(HOP_LENGTH, name="level")(frames, level_state)
    coefficients = layers.Dense(BASIS, use_bias=False, name="encoder")(frames)
    x = SignedPower(name="compress")(coefficients, level)
    x = layers.Dense(units, activation="elu", name="squeeze")(x)
    x, new_hidden = residual_grus(x, hidden)
    x = layers.Dense(BASIS, kernel_initializer="zeros", name="mask_logits")(x)
    masked = layers.Multiply(name="masked")([coefficients, BoundedRealMask(name="mask")(x)])
    denoised = layers.Dense(WIN_LENGTH, use_bias=False, name="decoder")(masked)
    outputs = [denoised, new_level, *new_hidden]
    model = keras.Model([frames, level_state, *hidden], outputs, name="waveform")
    basis = fourier_basis()
    model.get_layer("encoder").set_weights([basis])
    model.get_layer("decoder").set_weights([basis.T])
    return model
