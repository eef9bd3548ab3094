"""The ear of PEAQ's basic version: from samples to patterns of excitation, modulation, loudness.

ITU-R BS.1387-1 (2001), section numbers below are those of its annex 2; P. Kabal, "An examination
and interpretation of ITU-R BS.1387", McGill University, 2003, where it leaves something open. All
arrays are float64: spectra `(frames, bins)`, patterns `(frames, bands)`. Taught in
`05_evaluation`.
"""

import functools

import numpy as np
import scipy.signal

SR = 48_000  # Hz
N_FFT, HOP = 2_048, 1_024
FRAME_RATE = SR / HOP
LEVEL = 92.0  # dB SPL of a full-scale sine
BARK = 0.25  # width of a band
N_BANDS = 109


@functools.cache
def bands() -> tuple[np.ndarray, np.ndarray]:
    """Centres in Hz `(bands,)`, and how much of each bin lies in each band `(bins, bands)`."""
    start = 7 * np.arcsinh(80 / 650)
    end = 7 * np.arcsinh(18_000 / 650)
    low = start + BARK * np.arange(N_BANDS)
    high = np.minimum(low + BARK, end)
    low_hz, centre, high_hz = (650 * np.sinh(z / 7) for z in (low, (low + high) / 2, high))
    bins = np.arange(N_FFT // 2 + 1)[:, None] * SR / N_FFT
    half = SR / N_FFT / 2
    inside = np.minimum(high_hz, bins + half) - np.maximum(low_hz, bins - half)
    return centre, np.maximum(inside, 0) / (2 * half)


def decay(tau_min: float, tau_100: float) -> np.ndarray:
    """Factor of a first-order low-pass per frame, `(bands,)`; s at high frequencies and 100 Hz."""
    tau = tau_min + 100 / bands()[0] * (tau_100 - tau_min)
    return np.exp(-1 / (FRAME_RATE * tau))


def smooth(patterns: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """First-order low-pass over frames from silence, each band with its own factor."""
    out, state = np.empty_like(patterns), 0.0
    for i, frame in enumerate(patterns):
        out[i] = state = factor * state + (1 - factor) * frame
    return out


def spectra(samples: np.ndarray) -> np.ndarray:
    """Magnitudes, scaled to the playback level; samples in -1..1, the last frame filled up."""
    n_frames = max(int(np.ceil((len(samples) - N_FFT) / HOP)) + 1, 1)
    samples = np.pad(samples, (0, max(0, N_FFT + (n_frames - 1) * HOP - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    window = scipy.signal.windows.hann(N_FFT)
    gain = 10 ** (LEVEL / 20) / (0.8497 / 4 * (N_FFT - 1))
    return gain * np.abs(np.fft.rfft(frames * window))


def ear_weight() -> np.ndarray:
    """Outer and middle ear, a factor on magnitudes `(bins,)`."""
    f = np.maximum(np.arange(N_FFT // 2 + 1) * SR / N_FFT, 1e-3) / 1000
    weight_db = -0.6 * 3.64 * f**-0.8 + 6.5 * np.exp(-0.6 * (f - 3.3) ** 2) - 1e-3 * f**3.6
    return 10 ** (weight_db / 20)


def internal_noise() -> np.ndarray:
    """Power of the ear's own noise `(bands,)`."""
    return 10 ** (0.1456 * (bands()[0] / 1000) ** -0.8)


def spread(patterns: np.ndarray) -> np.ndarray:
    """Spread each band's energy to its neighbours, upwards the less steep the louder (2.1.7)."""

    def unscaled(energy):
        centre, total = bands()[0], np.zeros_like(energy)
        below = 10 ** (-2.7 * BARK)
        above = 10 ** ((-2.4 - 23 / centre) * BARK) * energy ** (0.2 * BARK)
        n_above = N_BANDS - np.arange(N_BANDS)
        sums = (1 - below ** (1 + np.arange(N_BANDS))) / (1 - below)
        sums = sums + (1 - above**n_above) / (1 - above) - 1
        part = (energy / sums) ** 0.4
        up, down = above**0.4, below**0.4
        for band in range(N_BANDS):  # upwards: geometric, band for band
            steps = np.arange(N_BANDS - band)
            total[:, band:] += part[:, band, None] * up[:, band, None] ** steps
            total[:, :band] += part[:, band, None] * down ** np.arange(band, 0, -1)
        return total**2.5

    return unscaled(patterns) / unscaled(np.ones((1, N_BANDS)))


def excitation(weighted_power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of a weighted power spectrum, before and after smearing in time (2.1.8)."""
    unsmeared = spread(np.maximum(weighted_power @ bands()[1], 1e-12) + internal_noise())
    smeared = smooth(unsmeared, decay(0.008, 0.030))
    return unsmeared, np.maximum(smeared, unsmeared)


def modulation(unsmeared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Modulation of the envelopes, and their mean loudness (3.2)."""
    loudness = unsmeared**0.3
    change = FRAME_RATE * np.abs(np.diff(loudness, axis=0, prepend=0 * loudness[:1]))
    factor = decay(0.008, 0.050)
    mean = smooth(loudness, factor)
    return smooth(change, factor) / (1 + mean / 0.3), mean


def loudness(excitation: np.ndarray) -> np.ndarray:
    """Total loudness in sone, `(frames,)` (3.3)."""
    f = bands()[0]
    threshold = 10 ** (0.364 * (f / 1000) ** -0.8)
    index_db = -2 - 2.05 * np.arctan(f / 4000) - 0.75 * np.arctan((f / 1600) ** 2)
    index = 10 ** (index_db / 10)
    inside = (1 - index + index * excitation / threshold) ** 0.23 - 1
    specific = 1.07664 * (threshold / (index * 1e4)) ** 0.23 * inside
    return 24 / N_BANDS * np.maximum(specific, 0).sum(axis=1)


def adapt(reference: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take slow differences of level and spectrum out of both smeared patterns (3.1)."""
    factor = decay(0.008, 0.050)
    slow = [smooth(pattern, factor) for pattern in (reference, test)]
    level = (np.sqrt(slow[0] * slow[1]).sum(axis=1) / slow[1].sum(axis=1)) ** 2
    reference = reference / np.maximum(level, 1)[:, None]
    test = test * np.minimum(level, 1)[:, None]
    cross, power = (smooth(x * reference, factor) for x in (test, reference))
    ratio = cross / power  # the filter's own 1 - factor cancels
    gains = [np.minimum(ratio, 1), np.minimum(1 / ratio, 1)]
    averaged = []
    for gain in gains:
        sums = np.cumsum(np.pad(gain, ((0, 0), (1, 0))), axis=1)
        first = np.maximum(np.arange(N_BANDS) - 3, 0)
        last = np.minimum(np.arange(N_BANDS) + 4, N_BANDS - 1) + 1
        averaged.append((sums[:, last] - sums[:, first]) / (last - first))
    correction = [smooth(gain, factor) for gain in averaged]
    return reference * correction[0], test * correction[1]
