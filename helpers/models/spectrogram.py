"""The spectrogram method: a convolutional-recurrent network that predicts a complex mask.

The architecture follows K. Tan and D. Wang, "A convolutional recurrent neural network for
real-time speech enhancement" (Interspeech 2018), with a bounded complex mask (Williamson et
al., TASLP 24(3), 2016) on a power-compressed STFT. Taught in `04_spectrogram_autoencoder`.
"""

from helpers import audio
from helpers.backend import keras, layers, ops
from helpers.losses import COMPRESSION
from helpers.models.blocks import RunningLevel, TimeContext, register, residual_grus

WIN_LENGTH, HOP_LENGTH = audio.WIN_LENGTH, audio.HOP_LENGTH  # 32 ms, which is the latency
FILTERS = (16, 24, 32, 32)
UNITS = 128
MASK_BOUND = 2.0
PAST = 4  # frames: two convolutions over time, three frames each


@register
class Spectrum(layers.Layer):
    """Root-Hann frames to their spectrum, `(batch, frames, 257, 2)`: real and imaginary part."""

    def call(self, frames):
        window = ops.convert_to_tensor(audio.root_hann(WIN_LENGTH), frames.dtype)
        return ops.stack(ops.rfft(frames * window), axis=-1)


@register
class MaskedFrames(layers.Layer):
    """Complex product of mask and spectrum, back to root-Hann frames `(batch, frames, 512)`."""

    def call(self, S, mask):
        real = S[..., 0] * mask[..., 0] - S[..., 1] * mask[..., 1]
        imag = S[..., 0] * mask[..., 1] + S[..., 1] * mask[..., 0]
        window = ops.convert_to_tensor(audio.root_hann(WIN_LENGTH), S.dtype)
        return ops.irfft((real, imag), WIN_LENGTH) * window


@register
class Compress(layers.Layer):
    """Level-free features `(batch, frames, 256, 3)`: compressed magnitude, real, imaginary.

    The magnitude is raised to 0.3, the phase kept; the bin at 0 Hz is left out, so that the
    number of bins can be halved four times.
    """

    def call(self, S, level):
        S = S[:, :, 1:] / ops.expand_dims(level, -1)
        power = ops.sum(ops.square(S), axis=-1, keepdims=True) + 1e-6
        compressed = S * power ** ((COMPRESSION - 1) / 2)
        return ops.concatenate([power ** (COMPRESSION / 2), compressed], axis=-1)


@register
class BoundedMask(layers.Layer):
    """Two channels to a complex mask within +-MASK_BOUND a part, `(batch, frames, 257, 2)`.

    Zero input gives the mask 1 + 0j (pass everything); the bin at 0 Hz takes its neighbour's.
    """

    def call(self, x):
        x = x + ops.convert_to_tensor([ops.arctanh(1 / MASK_BOUND), 0.0], x.dtype)
        x = ops.concatenate([x[:, :, :1], x], axis=2)
        return MASK_BOUND * ops.tanh(x)


def build(filters=FILTERS, units=UNITS) -> keras.Model:
    """The model of frames: inputs frames `(batch, frames, 512)` and four states, outputs alike.

    Encoder: convolutions that halve the frequency axis, the first two over three frames of time.
    Core: dense, then two GRUs over the flattened frequency axis. Decoder: transposed
    convolutions with additive skips. Only past frames are used.
    """
    bins, height = WIN_LENGTH // 2, WIN_LENGTH // 2 // 2 ** len(filters)
    frames = keras.Input((None, WIN_LENGTH), name="frames")
    past = keras.Input((PAST, bins, 3), name="past_features")
    level_state = keras.Input((2,), name="level_state")
    hidden = [keras.Input((units,), name=f"gru_{i}_state") for i in (1, 2)]

    S = Spectrum(name="spectrum")(frames)
    level, new_level = RunningLevel(HOP_LENGTH, name="level")(frames, level_state)
    x, new_past = TimeContext(PAST, name="context")(Compress(name="compress")(S, level), past)
    skips = []
    for i, n in enumerate(filters):
        shape = (3 if i < PAST // 2 else 1, 5 if i == 0 else 3)
        x = layers.ZeroPadding2D(((0, 0), (shape[1] // 2, shape[1] // 2)), name=f"pad_{i + 1}")(x)
        x = layers.Conv2D(n, shape, strides=(1, 2), activation="elu", name=f"encode_{i + 1}")(x)
        skips.append(x)

    x = layers.Reshape((-1, height * filters[-1]), name="flatten")(x)
    x = layers.Dense(units, activation="elu", name="squeeze")(x)
    x, new_hidden = residual_grus(x, hidden)
    x = layers.Dense(height * filters[-1], activation="elu", name="expand")(x)
    x = layers.Reshape((-1, height, filters[-1]), name="unflatten")(x)

    for i in reversed(range(len(filters))):
        skip = skips[i]
        missing = PAST - 2 * min(i + 1, PAST // 2)  # frames that later convolutions took
        if missing:
            skip = layers.Cropping2D(((missing, 0), (0, 0)), name=f"crop_{i + 1}")(skip)
        x = layers.Add(name=f"skip_{i + 1}")(
            [x, layers.Conv2D(filters[i], 1, name=f"adapt_{i + 1}")(skip)]
        )
        last = i == 0
        x = layers.Conv2DTranspose(
            2 if last else filters[i - 1],
            (1, 5 if last else 3),
            strides=(1, 2),
            padding="same",
            activation=None if last else "elu",
            kernel_initializer="zeros" if last else "glorot_uniform",
            name="mask_logits" if last else f"decode_{i + 1}",
        )(x)
    mask = BoundedMask(name="mask")(x)
    denoised = MaskedFrames(name="denoised")(S, mask)
    outputs = [denoised, new_past, new_level, *new_hidden]
    return keras.Model([frames, past, level_state, *hidden], outputs, name="spectrogram")
