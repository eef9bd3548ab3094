"""The spectrogram method: a convolutional-recurrent network that predicts a complex mask.

The architecture follows K. Tan and D. Wang, "A convolutional recurrent neural network for
real-time speech enhancement" (Interspeech 2018), with a bounded complex mask (Williamson et
al., TASLP 24(3), 2016) on a power-compressed STFT. Taught in `04_spectrogram_autoencoder`.
"""

from helpers import audio
from helpers.audio import COMPRESSION
from helpers.backend import keras, layers, ops
from helpers.models.blocks import (
    MEMORIES,
    RunningLevel,
    TimeContext,
    complex_product,
    gated_mask,
    register,
    residual_grus,
    running_means,
)

WIN_LENGTH, HOP_LENGTH = 320, 160  # samples: 20 ms and 10 ms
CYCLES = (24, 6)  # epochs of a training from scratch, unless told otherwise
AHEAD = 1  # frames that are waited for; the latency is WIN_LENGTH + AHEAD * HOP_LENGTH, 30 ms
FILTERS = (16, 24, 32, 32)
FINE_FILTERS = 12  # channels at full frequency resolution
UNITS = 168
SPANS = (3, 3, 1, 1)  # frames that each convolution sees, the first also those waited for
PAST = sum(SPANS) - len(SPANS)  # frames before the one to denoise that they see in all


@register
class Spectrum(layers.Layer):
    """Root-Hann windowed spectra of frames of N samples, `(batch, frames, N / 2 + 1, 2)`.

    The last axis holds the real and the imaginary part.
    """

    def call(self, frames):
        window = ops.convert_to_tensor(audio.root_hann(frames.shape[-1]), frames.dtype)
        return ops.stack(ops.rfft(frames * window), axis=-1)


@register
class MaskedFrames(layers.Layer):
    """Complex product of mask and spectrum, back to root-Hann frames of N samples."""

    def call(self, S, mask):
        masked = complex_product(S, mask)
        win_length = 2 * (S.shape[2] - 1)
        window = ops.convert_to_tensor(audio.root_hann(win_length), S.dtype)
        return ops.irfft((masked[..., 0], masked[..., 1]), win_length) * window


@register
class Compress(layers.Layer):
    """Level-free features `(batch, frames, 160, 3)`: compressed magnitude, real, imaginary.

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
    """Three channels to a complex mask, `(batch, frames, 161, 2)`, as `blocks.gated_mask`.

    The bin at 0 Hz takes its neighbour's mask.
    """

    def call(self, x):
        return gated_mask(ops.concatenate([x[:, :, :1], x], axis=2))


def build(filters=FILTERS, fine_filters=FINE_FILTERS, units=UNITS, ahead=AHEAD) -> keras.Model:
    """The model of frames: inputs frames `(batch, frames, 480)` and six states, outputs alike.

    Features: the compressed spectrum and, per bin, its running means, a picture of steady noise.
    Encoder: convolutions that halve the frequency axis, the first two over three frames of time
    (the first also over the `ahead` next ones).
    Core: dense, then two GRUs over the flattened frequency axis. Decoder: transposed
    convolutions with additive skips, the last layers at full resolution, beside the features.
    To denoise a frame of 320 samples it hears past frames and the `ahead` next ones, each 160
    samples further on. So a frame of the input has 320 + 160 ahead samples: its features are those
    of the last 320, the mask is for the first 320, and behind these the frame that comes out is 0.
    """
    bins, height = WIN_LENGTH // 2, WIN_LENGTH // 2 // 2 ** len(filters)
    n_features, later = 3 + len(MEMORIES), ahead * HOP_LENGTH
    frames = keras.Input((None, WIN_LENGTH + later), name="frames")
    past = keras.Input((PAST + ahead, bins, n_features), name="past_features")
    level_state = keras.Input((2,), name="level_state")
    mean_states = [
        keras.Input((bins + 1,), name=f"mean_{i}_state") for i in range(1, len(MEMORIES) + 1)
    ]
    hidden = [keras.Input((units,), name=f"gru_{i}_state") for i in (1, 2)]

    newest = Spectrum(name="spectrum")(frames[..., later:])
    S = Spectrum(name="spectrum_to_mask")(frames[..., :WIN_LENGTH])
    level, new_level = RunningLevel(HOP_LENGTH, name="level")(frames[..., later:], level_state)
    compressed = Compress(name="compress")(newest, level)
    means, new_means = running_means(compressed[..., 0], HOP_LENGTH, mean_states)
    features = layers.Concatenate(name="features")([compressed, *(m[..., None] for m in means)])

    context, new_past = TimeContext(PAST + ahead, name="context")(features, past)
    x, skips = context, []
    for i, n in enumerate(filters):
        shape = (SPANS[i] + (0 if i else ahead), 3 if i else 5)
        x = layers.ZeroPadding2D(((0, 0), (shape[1] // 2, shape[1] // 2)), name=f"widen_{i + 1}")(x)
        x = layers.Conv2D(n, shape, strides=(1, 2), activation="elu", name=f"encode_{i + 1}")(x)
        skips.append(x)

    x = layers.Reshape((-1, height * filters[-1]), name="flatten")(x)
    x = layers.Dense(units, activation="elu", name="squeeze")(x)
    x, new_hidden = residual_grus(x, hidden)
    x = layers.Dense(height * filters[-1], activation="elu", name="expand")(x)
    x = layers.Reshape((-1, height, filters[-1]), name="unflatten")(x)

    for i in reversed(range(len(filters))):
        skip = skips[i]
        missing = sum(SPANS[i + 1 :]) - len(SPANS[i + 1 :])  # frames that later ones took
        if missing:
            skip = layers.Cropping2D(((missing, 0), (0, 0)), name=f"crop_{i + 1}")(skip)
        skip = layers.Conv2D(filters[i], 1, name=f"adapt_{i + 1}")(skip)
        x = layers.Add(name=f"skip_{i + 1}")([x, skip])
        x = layers.Conv2DTranspose(
            filters[i - 1] if i else fine_filters,
            (1, 3 if i else 5),
            strides=(1, 2),
            padding="same",
            activation="elu",
            name=f"decode_{i + 1}",
        )(x)
    near = [context[:, PAST + k : k - ahead or None] for k in range(ahead + 1)]
    x = layers.Concatenate(name="skip_0")([x, *near])
    x = layers.Conv2D(fine_filters, (1, 3), padding="same", activation="elu", name="fine")(x)
    x = layers.Conv2D(3, 1, kernel_initializer="zeros", name="mask_logits")(x)
    mask = GatedMask(name="mask")(x)
    denoised = MaskedFrames(name="denoised")(S, mask)
    denoised = ops.pad(denoised, [[0, 0], [0, 0], [0, later]])
    outputs = [denoised, new_past, new_level, *new_means, *new_hidden]
    inputs = [frames, past, level_state, *mean_states, *hidden]
    return keras.Model(inputs, outputs, name="spectrogram")
