"""The spectrogram method: a convolutional-recurrent network that predicts a complex mask.

The architecture follows K. Tan and D. Wang, "A convolutional recurrent neural network for
real-time speech enhancement" (Interspeech 2018), with a bounded complex mask (Williamson et
al., TASLP 24(3), 2016) on a power-compressed STFT. Taught in `04_spectrogram_autoencoder`.
"""

from helpers import audio
from helpers.backend import keras, layers, ops
from helpers.losses import COMPRESSION
from helpers.models.blocks import (
    MEMORIES,
    RunningLevel,
    RunningMean,
    TimeContext,
    complex_product,
    gated_mask,
    register,
    residual_grus,
    running_means,
)

WIN_LENGTH, HOP_LENGTH = audio.WIN_LENGTH, audio.HOP_LENGTH  # 32 ms, which is the latency
GROUP = 4  # neighbouring bins that the encoder sees as one place
FILTERS = (32, 32, 32)
CHANNELS = 8  # of the decision, at each bin
FINE_FILTERS = 12  # channels at full frequency resolution
UNITS = 152
PAST = 4  # frames: two convolutions over time, three frames each
FLOOR_SECONDS = 1.0  # s, memory of the noise floor


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
        masked = complex_product(S, mask)
        window = ops.convert_to_tensor(audio.root_hann(WIN_LENGTH), S.dtype)
        return ops.irfft((masked[..., 0], masked[..., 1]), WIN_LENGTH) * window


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
class GatedMask(layers.Layer):
    """Three channels to a complex mask, `(batch, frames, 257, 2)`, as `blocks.gated_mask`.

    The bin at 0 Hz takes its neighbour's mask.
    """

    def call(self, x):
        return gated_mask(ops.concatenate([x[:, :, :1], x], axis=2))


@register
class NoiseFloor(RunningMean):
    """What each bin seldom falls below: a running mean of power -2, `(batch, frames, bins)`.

    Of compressed magnitudes `(batch, frames, bins)`, with a state `(batch, bins + 1)`. Small values
    rule such a mean, so speech, which comes and goes, counts little, and steady noise in full: a
    smooth relative of minimum statistics (R. Martin, TSAP 9(5), 2001).
    """

    def __init__(self, hop_length: int, seconds: float = FLOOR_SECONDS, **kwargs):
        super().__init__(hop_length, seconds, **kwargs)

    def call(self, features, state):
        inverse, state = super().call(ops.maximum(features, 0.1) ** -2, state)
        return ops.rsqrt(ops.maximum(inverse, 1e-4)), state


def build(
    filters=FILTERS, fine_filters=FINE_FILTERS, units=UNITS, group=GROUP, with_floor=True
) -> keras.Model:
    """The model of frames: inputs frames `(batch, frames, 512)` and its states, outputs alike.

    Features: the compressed spectrum and, per bin, pictures of steady noise: its running means and
    its floor. Encoder: convolutions over groups of bins, the first two over three frames of time,
    all but the first halving the frequency axis. Core: dense, then two GRUs over the flattened
    frequency axis. Decoder: transposed convolutions with additive skips, the last layers at full
    resolution, beside the features. Only past frames are used.
    """
    bins = WIN_LENGTH // 2
    places = bins // group
    height = places // 2 ** (len(filters) - 1)
    frames = keras.Input((None, WIN_LENGTH), name="frames")
    level_state = keras.Input((2,), name="level_state")
    mean_states = [
        keras.Input((bins + 1,), name=f"mean_{i}_state") for i in range(1, len(MEMORIES) + 1)
    ]
    floor_states = [keras.Input((bins + 1,), name="floor_state")] * with_floor
    hidden = [keras.Input((units,), name=f"gru_{i}_state") for i in (1, 2)]

    S = Spectrum(name="spectrum")(frames)
    level, new_level = RunningLevel(HOP_LENGTH, name="level")(frames, level_state)
    compressed = Compress(name="compress")(S, level)
    means, new_means = running_means(compressed[..., 0], HOP_LENGTH, mean_states)
    for state in floor_states:
        floor, new_floor = NoiseFloor(HOP_LENGTH, name="floor")(compressed[..., 0], state)
        means, new_means = [*means, floor], [*new_means, new_floor]
    features = layers.Concatenate(name="features")([compressed, *(m[..., None] for m in means)])

    x = layers.Reshape((-1, places, group * features.shape[-1]), name="groups")(features)
    past = keras.Input((PAST, *x.shape[2:]), name="past_features")
    x, new_past = TimeContext(PAST, name="context")(x, past)
    skips = []
    for i, n in enumerate(filters):
        size, stride = (3 if i < PAST // 2 else 1, 3), (1, 2 if i else 1)
        x = layers.ZeroPadding2D(((0, 0), (1, 1)), name=f"pad_{i + 1}")(x)
        x = layers.Conv2D(n, size, strides=stride, activation="elu", name=f"encode_{i + 1}")(x)
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
        skip = layers.Conv2D(filters[i], 1, name=f"adapt_{i + 1}")(skip)
        x = layers.Add(name=f"skip_{i + 1}")([x, skip])
        x = layers.Conv2DTranspose(
            filters[i - 1] if i else group * CHANNELS,
            (1, 3),
            strides=(1, 2 if i else 1),
            padding="same",
            activation="elu",
            name=f"decode_{i + 1}",
        )(x)
    x = layers.Reshape((-1, bins, CHANNELS), name="ungroup")(x)
    x = layers.Concatenate(name="skip_0")([x, features])
    x = layers.Conv2D(fine_filters, (1, 3), padding="same", activation="elu", name="fine")(x)
    x = layers.Conv2D(3, 1, kernel_initializer="zeros", name="mask_logits")(x)
    mask = GatedMask(name="mask")(x)
    denoised = MaskedFrames(name="denoised")(S, mask)
    outputs = [denoised, new_past, new_level, *new_means, *new_hidden]
    inputs = [frames, past, level_state, *mean_states, *floor_states, *hidden]
    return keras.Model(inputs, outputs, name="spectrogram")
