"""A random equaliser: other talkers, other recordings, other microphones and rooms.

Taught in `02_noise`.
"""

import numpy as np

LARGEST_DB = 6.0  # gain, either way
TILT_RANGE = (-2.0, 5.0)  # dB per octave on top of it; bright talkers are rare in the corpus


def equalise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`(samples,)` through a random smooth frequency response, float32.

    Gains within +-LARGEST_DB an octave apart, and a tilt of TILT_RANGE about 1 kHz.
    """
    spectrum = np.fft.rfft(samples)
    octaves = np.log2(np.maximum(np.arange(len(spectrum)) / len(spectrum), 2**-6))
    knots = np.arange(-6, 1)  # octaves below half the sampling rate
    gains_db = rng.uniform(-LARGEST_DB, LARGEST_DB, 7) + rng.uniform(*TILT_RANGE) * (knots + 3)
    curve = np.interp(octaves, knots, gains_db)
    return np.fft.irfft(spectrum * 10 ** (curve / 20), len(samples)).astype(np.float32)
