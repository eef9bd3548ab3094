"""Training without clean targets: what a network hears and what it is asked for, rung by rung.

One small network and one budget for all. Taught in `07_without_clean_speech`;
`python -m experiments ladder` trains every rung with several seeds.
"""

from collections.abc import Iterator

import numpy as np

from helpers.audio import SAMPLE_RATE
from helpers.backend import keras, tf
from helpers.data import noise
from helpers.models import spectrogram
from helpers.models.blocks import WaveformWrapper
from helpers.quick import size

RUNGS = ("supervised", "two takes", "noisier", "wrong noise")  # what is trained; see `pairs`
SNR_RANGE = (-5.0, 15.0)  # dB, uniform, of one noise on the speech
WRONG = (2_500.0, 7_000.0)  # Hz, of the pink noise that is not the one on the clips
SECONDS, BATCH_SIZE = 2.0, 8
STEPS = size(250, 12)  # the budget: 1.1 hours of audio
LEARNING_RATE = 3e-3
SMALL = {"filters": (8, 12, 16, 16), "units": 64}  # chapter 04's network


def draw(pool: np.ndarray, rng: np.random.Generator, n_samples: int) -> tuple[np.ndarray, ...]:
    """Speech and three noises of one level, float32 `(n_samples,)` each.

    `pool`: float32 `(samples,)`, utterances of unit RMS end to end. The noises: two takes of white
    noise at 4-8 kHz, and one of pink noise in WRONG, all at one SNR of SNR_RANGE.
    """
    start = rng.integers(len(pool) - n_samples + 1)
    gain = np.float32(10 ** (-rng.uniform(*SNR_RANGE) / 20))
    takes = [gain * noise.white(n_samples, SAMPLE_RATE, rng) for _ in range(2)]
    wrong = gain * noise.pink(n_samples, SAMPLE_RATE, rng, *WRONG)
    return pool[start : start + n_samples], *takes, wrong


def pairs(speech, first, second, wrong) -> dict[str, tuple]:
    """Rung -> (input, target), arrays of one shape, from speech and three noises of that shape.

    Two takes: J. Lehtinen et al., "Noise2Noise", ICML 2018. Noisier: T. Fujimura et al.,
    "Noisy-target training", EUSIPCO 2021.
    """
    noisy = speech + first
    return {
        "supervised": (noisy, speech),
        "two takes": (noisy, speech + second),
        "noisier": (noisy + second, noisy),
        "wrong noise": (noisy + wrong, noisy),
    }


def corrected(estimate, heard, a: float = 1.0):
    """Estimate of the speech from one of the noisy target: ((1 + a^2) f(z) - z) / a^2.

    `estimate` f(z) and `heard` z of one shape; `a`: how much louder the added noise was than the
    one that was there. N. Moran et al., "Noisier2Noise", CVPR 2020, section 3.
    """
    return ((1 + a**2) * estimate - heard) / a**2


def examples(rung: str, pool: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (input, target) of a rung, float32 `(SECONDS * SAMPLE_RATE,)`, input of unit level.

    Every rung draws the same speech and noises.
    """
    rng = np.random.default_rng([seed, 7])
    while True:
        heard, target = pairs(*draw(pool, rng, int(SECONDS * SAMPLE_RATE)))[rung]
        yield heard / np.std(heard), target / np.std(heard)


def batches(rung: str, pool: np.ndarray, seed: int):
    """The same as an endless `tf.data.Dataset` of float32 `(BATCH_SIZE, samples)` each."""
    one = tf.TensorSpec((int(SECONDS * SAMPLE_RATE),))
    data = tf.data.Dataset.from_generator(
        lambda: examples(rung, pool, seed), output_signature=(one, one)
    )
    return data.batch(BATCH_SIZE).prefetch(4)


def build(seed: int, steps: int = STEPS) -> WaveformWrapper:
    """Chapter 04's small network, untrained, compiled with the squared error of the waveform."""
    keras.utils.set_random_seed(seed)
    trainer = WaveformWrapper(spectrogram.build(**SMALL), spectrogram.HOP_LENGTH)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    trainer.compile(keras.optimizers.Adam(rate, clipnorm=3.0), "mse")
    return trainer
