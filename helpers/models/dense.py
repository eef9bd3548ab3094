"""The first attempt on the waveform: a dense autoencoder of 1 s windows, and its weighted loss.

Chapter material: it cannot reproduce speech (see `03_waveform_autoencoder`), and is not shipped.
"""

from helpers.backend import keras, layers, ops
from helpers.models.blocks import register

WINDOW = 16_000  # samples, 1 s
LAYERS = (1024, 512, 256)


def build(window=WINDOW, units=LAYERS) -> keras.Model:
    """Encoder 1024-512-256, mirrored decoder: `(batch, 16000)` float32 to the same."""
    noisy = keras.Input((window,), name="noisy")
    x = noisy
    for n in units:
        x = layers.Dense(n, activation="relu", name=f"encode_{n}")(x)
    for n in units[-2::-1]:
        x = layers.Dense(n, activation="relu", name=f"decode_{n}")(x)
    return keras.Model(noisy, layers.Dense(window, name="denoised")(x), name="dense")


@register
class WeightedMSE(layers.Layer):
    """Squared error that counts more where the clean signal is quiet, added as the layer's loss.

    Called with `[clean, denoised]`, both `(batch, samples)`; passes `denoised` on. The weight is
    `1 + strength * exp(-|clean| / scale)`, amplitudes in full scale: about `1 + strength` in
    pauses, 1 on peaks.
    """

    def __init__(self, strength: float = 4.0, scale: float = 0.05, **kwargs):
        super().__init__(**kwargs)
        self.strength, self.scale = strength, scale

    def weight(self, clean):
        """Weight of each sample, between 1 and `1 + strength`."""
        return 1 + self.strength * ops.exp(-ops.abs(clean) / self.scale)

    def call(self, inputs):
        clean, denoised = inputs
        self.add_loss(ops.mean(self.weight(clean) * ops.square(clean - denoised)))
        return denoised

    def get_config(self):
        return super().get_config() | {"strength": self.strength, "scale": self.scale}
