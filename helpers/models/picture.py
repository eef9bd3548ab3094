"""From a spectrogram as a picture to a mask: small networks that differ in one remedy each.

All map windowed frames to frames, as the shipped models do, but look at a whole clip at once.
Taught in `04_spectrogram_autoencoder`; the steps between them stand in `helpers.models.ablation`.
"""

from helpers.audio import COMPRESSION
from helpers.backend import keras, layers, ops
from helpers.models.blocks import complex_product, gated_mask, register, residual_grus
from helpers.models.spectrogram import MaskedFrames, Spectrum

WIN_LENGTH, HOP_LENGTH = 512, 256  # samples: 32 ms and 16 ms
BINS = WIN_LENGTH // 2  # of the picture; the bin at 0 Hz follows its neighbour
RANGE_DB = (-60.0, 40.0)  # re the clip's RMS frame: black to white
FILTERS = (16, 24, 32, 32)
BLOCK = 16  # frames; a picture's length is filled up to a multiple


@register
class Picture(layers.Layer):
    """Spectrum `(batch, frames, 257, 2)` to a picture `(batch, frames, 256, 1)` and its level.

    "db": decibels of RANGE_DB as 0..1, what an image viewer would show; "compressed": magnitudes
    to the power of 0.3. The level `(batch, 1, 1, 1)` is the RMS magnitude of the clip.
    """

    def __init__(self, scale: str, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, S):
        power = ops.sum(ops.square(S[:, :, 1:]), axis=-1, keepdims=True)
        level = ops.sqrt(ops.mean(power, axis=(1, 2, 3), keepdims=True) + 1e-10)
        power = power / level**2 + 1e-6
        if self.scale == "compressed":
            return power ** (COMPRESSION / 2), level
        low, high = RANGE_DB
        return ops.clip((10 * ops.log10(power) - low) / (high - low), 0, 1), level

    def magnitude(self, picture, level):
        """The way back: magnitudes `(batch, frames, 256, 1)`."""
        if self.scale == "compressed":
            return level * ops.maximum(picture, 1e-6) ** (1 / COMPRESSION)
        low, high = RANGE_DB
        return level * 10 ** ((low + (high - low) * picture) / 20)

    def get_config(self):
        return super().get_config() | {"scale": self.scale}


def build(
    latent: int = 32,
    skips: bool = False,
    full_size: bool = False,
    scale: str = "db",
    output: str = "picture",
    memory: bool = False,
) -> keras.Model:
    """Frames `(batch, frames, 512)` to frames, phase of the input kept where `output` has none.

    `latent`: width of the bottleneck of each moment; `skips`: halve the frequency axis only, and
    carry detail around the bottleneck, instead of pooling time and frequency; `full_size`: every
    bin and frame, instead of a picture of half the height and length; `scale`: see Picture;
    `output`: "picture", "mask" (real, 0 to 1) or "complex"; `memory`: two GRUs at the bottleneck.
    """
    frames = keras.Input((None, WIN_LENGTH), name="frames")
    S = Spectrum(name="spectrum")(frames)
    to_picture = Picture(scale, name="picture")
    picture, level = to_picture(S)
    x = Fill(name="fill")(picture)
    if not full_size:
        x = layers.AveragePooling2D(2, name="half_size")(x)
    x = (with_skips if skips else pooled)(x, latent, memory)
    if not full_size:
        x = layers.UpSampling2D(2, interpolation="bilinear", name="full_size")(x)
    x = layers.Conv2D(3 if output == "complex" else 1, 1, name="output")(x)
    x = CutLike(name="cut")(x, picture)
    x = ops.concatenate([x[:, :, :1], x], axis=2)  # the bin at 0 Hz
    if output == "complex":
        estimate = complex_product(S, gated_mask(x))
    elif output == "mask":
        estimate = S * ops.sigmoid(x)
    else:
        magnitude = ops.sqrt(ops.sum(ops.square(S), axis=-1, keepdims=True) + 1e-12)
        estimate = S / magnitude * to_picture.magnitude(ops.relu(x), level)
    ones = ops.stack([ops.ones_like(estimate[..., 0]), ops.zeros_like(estimate[..., 0])], axis=-1)
    denoised = MaskedFrames(name="denoised")(estimate, ones)
    return keras.Model([frames], [denoised], name="picture")


@register
class Fill(layers.Layer):
    """Fill a picture `(batch, frames, bins, 1)` up to a multiple of BLOCK frames with zeros."""

    def call(self, x):
        return ops.pad(x, [[0, 0], [0, -ops.shape(x)[1] % BLOCK], [0, 0], [0, 0]])


@register
class CutLike(layers.Layer):
    """The first frames of a picture, as many as another one has."""

    def call(self, x, other):
        return x[:, : ops.shape(other)[1]]


def bottleneck(x, latent: int, memory: bool):
    """Flatten the frequency axis, squeeze to `latent` values a moment, and expand again."""
    height, channels = x.shape[2:]
    x = layers.Reshape((-1, height * channels))(x)
    x = layers.Dense(latent, activation="elu", name="latent")(x)
    if memory:
        x, _ = residual_grus(x, [ops.zeros_like(x[:, 0])] * 2)
    x = layers.Dense(height * channels, activation="elu", name="expand")(x)
    return layers.Reshape((-1, height, channels))(x)


def pooled(x, latent: int, memory: bool):
    """The image networks' way: three times convolve and pool, then up again."""
    settings = {"padding": "same", "activation": "elu"}
    for n in FILTERS[:3]:
        x = layers.MaxPooling2D(2)(layers.Conv2D(n, 3, **settings)(x))
    x = bottleneck(x, latent, memory)
    for n in FILTERS[2::-1]:
        x = layers.Conv2D(n, 3, **settings)(layers.UpSampling2D(2)(x))
    return x


def with_skips(x, latent: int, memory: bool):
    """Halve the frequency axis only; every scale is added again on the way up."""
    settings, carried = {"padding": "same", "activation": "elu"}, []
    for i, n in enumerate(FILTERS):
        x = layers.Conv2D(n, (3 if i < 2 else 1, 3), strides=(1, 2), **settings)(x)
        carried.append(x)
    x = bottleneck(x, latent, memory)
    for i in reversed(range(len(FILTERS))):
        x = layers.Add()([x, layers.Conv2D(FILTERS[i], 1)(carried[i])])
        n = FILTERS[max(i - 1, 0)]
        x = layers.Conv2DTranspose(n, (1, 3), strides=(1, 2), **settings)(x)
    return x
