"""The first attempt on the waveform: a dense autoencoder of 1 s windows.

Chapter material: it cannot reproduce speech (see `03_waveform_autoencoder`), and is not shipped.
"""

from helpers.backend import keras, layers

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
