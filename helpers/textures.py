"""Imitations of the noises of everyday life, over the whole band, for training.

Rain, crowds of leaves, engines, knocks: recordings of them are few, so training also hears random
sounds of the same make. Every kind is a function as in `noise`, `(n_samples, sr, rng, low, high)
-> float32 (n_samples,)`, unit RMS. Taught in `02_noise`.
"""

from collections.abc import Callable

import numpy as np
import scipy.signal

from helpers import audio, noise

COLOUR_DB = 8.0  # standard deviation of a random colour, an octave apart
TILT_RANGE = (-8.0, 2.0)  # dB per octave; most things around us are dark
BANDS = 12  # of a texture, each with a loudness of its own
DEPTH_RANGE = (0.0, 12.0)  # dB, standard deviation of a band's loudness over time
RATE_RANGE = (0.5, 20.0)  # Hz, how fast it changes
MOTOR_RANGE = (30.0, 500.0)  # Hz, of the pulses of an engine


def colour(samples: np.ndarray, sr: float, rng: np.random.Generator, tilt=(0.0, 0.0)) -> np.ndarray:
    """A random smooth frequency response: another source, another room; `tilt` in dB an octave."""
    spectrum = np.fft.rfft(samples)
    f = np.fft.rfftfreq(len(samples), 1 / sr)
    octaves = np.log2(np.maximum(f, 60.0) / 1_000)
    knots = np.arange(-5, 5)
    gains_db = COLOUR_DB * rng.standard_normal(len(knots)) + rng.uniform(*tilt) * knots
    return np.fft.irfft(spectrum * 10 ** (np.interp(octaves, knots, gains_db) / 20), len(samples))


def texture(n_samples, sr, rng, low=0.0, high=noise.HIGH):
    """Noise whose loudness wanders, in each of BANDS bands partly for itself.

    Such statistics are what makes rain, wind or a crowd sound alike: J. McDermott and E. Simoncelli,
    "Sound texture perception via statistics of the auditory periphery", Neuron 71, 2011.
    """
    samples = colour(rng.standard_normal(n_samples), sr, rng, TILT_RANGE)
    S = audio.stft(samples)
    knots = 2 + int(10 ** rng.uniform(*np.log10(RATE_RANGE)) * n_samples / sr)
    shared = rng.uniform()  # of the changes, by all bands
    walks = rng.standard_normal((knots, BANDS)) * (1 - shared)
    walks += shared * rng.standard_normal((knots, 1))
    in_time = np.linspace(0, knots - 1, len(S))
    in_bands = np.linspace(0, BANDS - 1, S.shape[1])
    rows = np.stack([np.interp(in_time, np.arange(knots), walk) for walk in walks.T], axis=1)
    gains_db = np.stack([np.interp(in_bands, np.arange(BANDS), row) for row in rows])
    S *= 10 ** (rng.uniform(*DEPTH_RANGE) * gains_db / 20)
    return noise.unit_rms(noise.band_limit(audio.istft(S, n_samples), sr, low, high))


def impacts(n_samples, sr, rng, low=0.0, high=noise.HIGH):
    """Knocks, steps, drops: bursts of one colour at random instants, each dying away."""
    pulses = np.zeros(n_samples)
    n_events = 1 + rng.poisson(10 ** rng.uniform(-0.3, 1.3) * n_samples / sr)
    places = rng.integers(n_samples, size=n_events)
    pulses[places] = rng.lognormal(0, 0.8, n_events) * rng.choice([-1, 1], n_events)
    t = np.arange(int(0.6 * sr)) / sr
    response = rng.standard_normal(len(t)) * np.exp(-t / 10 ** rng.uniform(-2.5, -0.9))
    for _ in range(rng.integers(0, 5)):  # a body that rings
        wave = np.sin(2 * np.pi * 10 ** rng.uniform(2, 3.9) * t)
        response += rng.uniform(0, 2) * wave * np.exp(-t / 10 ** rng.uniform(-2.3, -0.7))
    struck = scipy.signal.fftconvolve(pulses, response)[:n_samples]
    return noise.unit_rms(noise.band_limit(colour(struck, sr, rng, TILT_RANGE), sr, low, high))


def motor(n_samples, sr, rng, low=0.0, high=noise.HIGH):
    """Engines, fans, drills: pulses whose rate wanders, coloured, in a rush of noise."""
    wander = 1 + rng.uniform(0, 0.3) * noise.slow_walk(n_samples, rng, 2 + n_samples // sr)
    turns = np.cumsum(10 ** rng.uniform(*np.log10(MOTOR_RANGE)) * wander) / sr
    pulses = np.diff(np.floor(turns), prepend=-1.0) * rng.uniform(0.5, 1, n_samples)
    cycle = 1 + rng.uniform(0, 0.9) * np.sin(2 * np.pi * turns / rng.integers(1, 9))
    driven = noise.unit_rms(colour(pulses * cycle, sr, rng, TILT_RANGE))
    rush = 10 ** rng.uniform(-1.5, 0.3) * texture(n_samples, sr, rng, 0.0, sr / 2)
    return noise.unit_rms(noise.band_limit(driven + rush, sr, low, high))


KINDS: dict[str, Callable] = {kind.__name__: kind for kind in (texture, impacts, motor)}
