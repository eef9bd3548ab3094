"""The waveform method: a mask on a learned basis, with a recurrent separator and 10 ms latency.

Encoder and decoder follow Y. Luo and N. Mesgarani, "TaSNet: time-domain audio separation network
for real-time, single-channel speech separation" (ICASSP 2018), the complex mask Williamson et al.
(TASLP 24(3), 2016). The encoder's filters are longer than the decoder's: they look back, which
costs no latency and narrows their bands (D. Mauler and R. Martin, "A low delay, variable
resolution, perfect reconstruction spectral analysis-synthesis system for speech enhancement",
EUSIPCO 2007). The basis starts as a windowed Fourier basis and is then learned like everything
else. Taught in `03_waveform_autoencoder`.
"""

import numpy as np

from helpers import audio
from helpers.audio import COMPRESSION
from helpers.backend import keras, layers, ops
from helpers.models.blocks import (
    MEMORIES,
    RunningLevel,
    complex_product,
    gated_mask,
    register,
    residual_grus,
    running_means,
)

WIN_LENGTH, HOP_LENGTH = 160, 80  # samples: 10 ms, which is the latency, and 5 ms
CYCLES = (18, 4)  # epochs of a training from scratch, unless told otherwise
PAST = 2  # hops before the frame that the encoder sees too, 10 ms
UNITS = 128
CHANNELS = 4  # of the decision, at each pair of filters
FINE_FILTERS = 12
GAIN = 4.0  # of the coefficients, before their magnitudes are compressed


def fourier_basis(past: int = PAST) -> tuple[np.ndarray, np.ndarray]:
    """Encoder `(n, filters)` and decoder `(filters, 160)`, float32: cosine and sine by turns.

    n = 160 + 80 past samples, n + 2 filters (two of the sines are zero). Without windows the waves
    are a tight frame, waves @ waves.T = 1. The encoder's window rises until 5 ms before the end,
    then falls; times the decoder's it is a Hann window over the last 10 ms, whose copies 5 ms apart
    add to one. So analysis, synthesis and overlap-add give the input back.
    """
    n = WIN_LENGTH + past * HOP_LENGTH
    rise = np.sin(np.pi / 2 * (np.arange(n - HOP_LENGTH) + 0.5) / (n - HOP_LENGTH))
    analysis = np.concatenate([rise, audio.root_hann(WIN_LENGTH)[HOP_LENGTH:]])
    synthesis = audio.root_hann(WIN_LENGTH) ** 2 / analysis[-WIN_LENGTH:]
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n // 2 + 1)) / n
    scale = np.full(n // 2 + 1, np.sqrt(2 / n))
    scale[[0, -1]] = np.sqrt(1 / n)
    waves = np.stack([np.cos(angle) * scale, np.sin(angle) * scale], -1).reshape(n, -1)
    encoder, decoder = analysis[:, None] * waves, (synthesis[:, None] * waves[-WIN_LENGTH:]).T
    return encoder.astype("float32"), decoder.astype("float32")


@register
class LookBack(layers.Layer):
    """Put the last `past` hops before each frame in front of it.

    Inputs: frames `(batch, frames, 160)` and the hops before the first, `(batch, past, 80)`;
    outputs: long frames `(batch, frames, 160 + 80 past)` and the last hops, for the next block.
    """

    def call(self, frames, past):
        n_past, n_frames = past.shape[1], ops.shape(frames)[1]
        hops = ops.concatenate([past, frames[..., :HOP_LENGTH]], axis=1)
        before = [hops[:, i : i + n_frames] for i in range(n_past)]
        return ops.concatenate([*before, frames], axis=-1), hops[:, n_frames:]

    def compute_output_shape(self, frames_shape, past_shape):
        n = frames_shape[2] + past_shape[1] * past_shape[2]
        return (*frames_shape[:2], n), past_shape


@register
class PairMagnitude(layers.Layer):
    """Level-free features `(batch, frames, pairs)`: the magnitude of each pair, raised to 0.3.

    Inputs: pairs `(batch, frames, pairs, 2)` and the level `(batch, frames, 1)`; GAIN lifts soft
    speech above the small constant that keeps the gradient finite.
    """

    def call(self, pairs, level):
        pairs = GAIN * pairs / ops.expand_dims(level, -1)
        return (ops.sum(ops.square(pairs), axis=-1) + 1e-6) ** (COMPRESSION / 2)


@register
class PairMask(layers.Layer):
    """Pairs `(batch, frames, pairs, 2)` times their complex masks.

    The masks come from three channels `(batch, frames, pairs, 3)`, as `blocks.gated_mask` says.
    """

    def call(self, pairs, x):
        return complex_product(pairs, gated_mask(x))


def build(past=PAST, units=UNITS, channels=CHANNELS, fine_filters=FINE_FILTERS) -> keras.Model:
    """The model of frames: inputs frames `(batch, frames, 160)` and six states, outputs alike.

    Filters come in pairs, at the start cosine and sine. Features: the magnitude of each pair and
    its running means, a picture of steady noise. Core: dense, then two GRUs. A convolution over
    neighbouring pairs joins the decision with the features; then the mask.
    """
    basis = fourier_basis(past)
    n_pairs = basis[0].shape[1] // 2
    frames = keras.Input((None, WIN_LENGTH), name="frames")
    hops = keras.Input((past, HOP_LENGTH), name="past_hops")
    level_state = keras.Input((2,), name="level_state")
    mean_states = [
        keras.Input((n_pairs + 1,), name=f"mean_{i}_state") for i in range(1, len(MEMORIES) + 1)
    ]
    hidden = [keras.Input((units,), name=f"gru_{i}_state") for i in (1, 2)]

    level, new_level = RunningLevel(HOP_LENGTH, name="level")(frames, level_state)
    long_frames, new_hops = LookBack(name="look_back")(frames, hops)
    coefficients = layers.Dense(2 * n_pairs, use_bias=False, name="encoder")(long_frames)
    pairs = layers.Reshape((-1, n_pairs, 2), name="pairs")(coefficients)
    magnitude = PairMagnitude(name="compress")(pairs, level)
    means, new_means = running_means(magnitude, HOP_LENGTH, mean_states)
    features = [magnitude, *means]

    x = layers.Concatenate(name="features")(features)
    x = layers.Dense(units, activation="elu", name="squeeze")(x)
    x, new_hidden = residual_grus(x, hidden)
    x = layers.Dense(channels * n_pairs, activation="elu", name="expand")(x)
    x = layers.Reshape((-1, n_pairs, channels), name="unflatten")(x)
    x = layers.Concatenate(name="skip")([x, *(f[..., None] for f in features)])
    x = layers.Conv2D(fine_filters, (1, 3), padding="same", activation="elu", name="fine")(x)
    x = layers.Conv2D(3, 1, kernel_initializer="zeros", name="mask_logits")(x)
    masked = PairMask(name="masked")(pairs, x)
    masked = layers.Reshape((-1, 2 * n_pairs), name="coefficients")(masked)
    denoised = layers.Dense(WIN_LENGTH, use_bias=False, name="decoder")(masked)
    outputs = [denoised, new_hops, new_level, *new_means, *new_hidden]
    inputs = [frames, hops, level_state, *mean_states, *hidden]
    model = keras.Model(inputs, outputs, name="waveform")
    for name, weights in zip(("encoder", "decoder"), basis, strict=True):
        model.get_layer(name).set_weights([weights])
    return model


def scale_output(model: keras.Model, gain: float) -> None:
    """Multiply what a model gives by a gain: its decoder is linear."""
    decoder = model.get_layer("decoder")
    decoder.set_weights([gain * weights for weights in decoder.get_weights()])
