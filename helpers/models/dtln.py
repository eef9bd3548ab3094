"""A peer's network, to train on this course's noise: DTLN. It does not ship.

N. Westhausen and B. Meyer, "Dual-signal transformation LSTM network for real-time noise
suppression" (Interspeech 2020): a mask on the magnitudes of a spectrum, then one on a learned
basis, each from two LSTMs. As published, and as the package that people install has it, frames have
no window and the first LSTM gets the magnitudes as they are, so it hears how loud the talker is.
The dropout of the published training is left out, for here no example is heard twice.
"""

from helpers.backend import keras, layers, ops
from helpers.models.blocks import register

WIN_LENGTH, HOP_LENGTH = 512, 128  # samples: 32 ms, which is the latency, and 8 ms
CYCLES = (10,)  # epochs of a training from scratch, unless told otherwise
UNITS = 128
FILTERS = 256  # of the learned basis


@register
class PlainSpectrum(layers.Layer):
    """Spectra of frames of N samples without a window: magnitude, real and imaginary part.

    Each is `(batch, frames, N / 2 + 1)`; frames are `hop_length` samples apart.
    """

    def __init__(self, hop_length: int, **kwargs):
        super().__init__(**kwargs)
        self.hop_length = hop_length

    def call(self, frames):
        real, imag = ops.rfft(frames)
        return ops.sqrt(ops.square(real) + ops.square(imag)), real, imag

    def get_config(self):
        return super().get_config() | {"hop_length": self.hop_length}


@register
class MaskedFrames(layers.Layer):
    """Frames of N samples `(batch, frames, N)` from the parts of their spectra and a real mask."""

    def call(self, real, imag, mask):
        return ops.irfft((mask * real, mask * imag), 2 * (real.shape[-1] - 1))


def build(units=UNITS, filters=FILTERS) -> keras.Model:
    """The model of frames: inputs frames `(batch, frames, 512)` and eight states, outputs alike.

    The states are those of four LSTMs, hidden and cell. The frames are not named as those of the
    shipped models are, for a converter to LiteRT knows no LSTM (`static`).
    """
    frames = keras.Input((None, WIN_LENGTH), name="noisy_frames")
    states = [
        [keras.Input((units,), name=f"lstm_{i}_{part}") for part in ("hidden", "cell")]
        for i in range(1, 5)
    ]
    magnitude, real, imag = PlainSpectrum(HOP_LENGTH, name="spectrum")(frames)
    mask, first = recurrent_mask(magnitude, states[:2], 1)
    masked = MaskedFrames(name="masked_frames")(real, imag, mask)

    coefficients = layers.Dense(filters, use_bias=False, name="encoder")(masked)
    normalised = layers.LayerNormalization(epsilon=1e-7, name="normalise")(coefficients)
    mask, second = recurrent_mask(normalised, states[2:], 3)
    coefficients = layers.Multiply(name="masked_coefficients")([coefficients, mask])
    denoised = layers.Dense(WIN_LENGTH, use_bias=False, name="decoder")(coefficients)
    inputs = [frames, *(part for pair in states for part in pair)]
    return keras.Model(inputs, [denoised, *first, *second], name="dtln")


def recurrent_mask(x, states: list, number: int) -> tuple:
    """A mask in 0..1 of the shape of `x`, `(batch, frames, n)`, and the new states of its LSTMs.

    `states`: of each LSTM the hidden one and the cell, `(batch, units)`; `number`: of the first.
    """
    n, new_states = x.shape[-1], []
    for i, (hidden, cell) in enumerate(states, start=number):
        lstm = layers.LSTM(
            hidden.shape[-1], return_sequences=True, return_state=True, name=f"lstm_{i}"
        )
        x, *new = lstm(x, initial_state=[hidden, cell])
        new_states += new
    return layers.Dense(n, activation="sigmoid", name=f"mask_{number}")(x), new_states
