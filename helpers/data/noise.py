"""Kinds of noise, mixing at an SNR, and the noise bank for training.

Every kind is a function `(n_samples, sr, rng, low, high) -> float32 (n_samples,)` with unit
RMS, energy between `low` and `high` Hz only, and all its randomness from `rng`
(`numpy.random.Generator`). Where no source is named, the construction is the course's own.
Taught in `02_noise`.
"""

import functools
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.signal

from helpers import audio
from helpers.data import recordings

LOW, HIGH = 4_000.0, 8_000.0  # Hz, the course's noise band


# --- shaping ----------------------------------------------------------------------------------


def unit_rms(samples: np.ndarray) -> np.ndarray:
    """Scale to an RMS of one, float32; silence stays silence."""
    samples = samples - samples.mean()
    rms = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return (samples / rms if rms > 0 else samples).astype(np.float32)


def slow_walk(n_samples: int, rng: np.random.Generator, knots: int) -> np.ndarray:
    """A smooth random curve in about -1..1, `(n_samples,)`, through `knots` random points."""
    points = rng.uniform(-1, 1, max(knots, 2))
    return np.interp(np.linspace(0, len(points) - 1, n_samples), np.arange(len(points)), points)


# --- broadband noise --------------------------------------------------------------------------


def coloured(n_samples, sr, rng, low=LOW, high=HIGH, slope_db=0.0):
    """Gaussian noise whose power density changes by `slope_db` dB an octave inside the band.

    0 is white, -3.01 pink (1/f), +3.01 blue. Shaped in the frequency domain (J. Timmer and
    M. Koenig, Astronomy and Astrophysics 300, 1995).
    """
    f = np.fft.rfftfreq(n_samples, 1 / sr)
    inside = (f >= max(low, sr / n_samples)) & (f <= high)
    spectrum = np.zeros(len(f), complex)
    phases = rng.standard_normal((2, inside.sum()))
    spectrum[inside] = (phases[0] + 1j * phases[1]) * f[inside] ** (slope_db / (20 * np.log10(2)))
    return unit_rms(np.fft.irfft(spectrum, n_samples))


def white(n_samples, sr, rng, low=LOW, high=HIGH):
    """Gaussian noise of flat power density in the band."""
    return coloured(n_samples, sr, rng, low, high)


def pink(n_samples, sr, rng, low=LOW, high=HIGH):
    """Gaussian noise that falls by 3 dB an octave (power density 1/f)."""
    return coloured(n_samples, sr, rng, low, high, slope_db=-10 * np.log10(2))


def blue(n_samples, sr, rng, low=LOW, high=HIGH):
    """Gaussian noise that rises by 3 dB an octave (power density f)."""
    return coloured(n_samples, sr, rng, low, high, slope_db=10 * np.log10(2))


# --- electrical interference ------------------------------------------------------------------


def whine(n_samples, sr, rng, low=LOW, high=HIGH):
    """A switching supply: drifting tones with sidebands at multiples of the mains frequency.

    Tones stand at harmonics of a switching frequency that fall into the band; amplitude
    modulation at 50 or 60 Hz and twice that makes sidebands (double-sideband AM).
    """
    t = np.arange(n_samples) / sr
    mains = rng.choice([50.0, 60.0])
    base = rng.uniform(max(low, 500), high) / rng.integers(
        1, 5
    )  # one harmonic at least is in the band
    drift = np.cumsum(slow_walk(n_samples, rng, 1 + n_samples // sr)) / sr
    total = np.zeros(n_samples)
    for harmonic in range(1, int(high // base) + 1):
        if harmonic * base < low:
            continue
        phase = 2 * np.pi * harmonic * (base * t + rng.uniform(0, 0.01) * base * drift)
        depth = rng.uniform(0, 0.9, 2)
        hum = depth[0] * np.sin(2 * np.pi * mains * t) + depth[1] * np.sin(4 * np.pi * mains * t)
        total += rng.uniform(0.2, 1) * (1 + hum) * np.sin(phase + rng.uniform(0, 2 * np.pi))
    return unit_rms(audio.band_limit(total, sr, low, high))


def tones(n_samples, sr, rng, low=LOW, high=HIGH):
    """A few whistles: steady, vibrating (FM), beating (AM) or sweeping (chirp) sinusoids."""
    t = np.arange(n_samples) / sr
    total = np.zeros(n_samples)
    for _ in range(rng.integers(1, 7)):
        centre, rate = rng.uniform(low, high), 10 ** rng.uniform(-0.5, 2.3)
        width = rng.choice([0, 1]) * 10 ** rng.uniform(0, 2.5)
        sweep = rng.choice([0, 0, 1]) * rng.uniform(low, high)
        f = centre + width * np.sin(2 * np.pi * rate * t)
        f = (
            f
            if not sweep
            else low + np.abs((f - low + sweep * t) % (2 * (high - low)) - high + low)
        )
        depth = rng.choice([0, 1]) * rng.uniform(0, 1)
        envelope = 1 + depth * np.sin(2 * np.pi * 10 ** rng.uniform(-0.5, 2) * t)
        total += rng.uniform(0.1, 1) * envelope * np.sin(2 * np.pi * np.cumsum(f) / sr)
    return unit_rms(audio.band_limit(total, sr, low, high))


def ringing(n_samples, sr, rng, pulses, low, high):
    """Excite a few damped resonances inside the band by a train of pulses."""
    t = np.arange(int(0.05 * sr)) / sr
    response = np.zeros(len(t))
    for _ in range(rng.integers(1, 5)):
        decay = 10 ** rng.uniform(-4, -2.3)  # s
        wave = np.sin(2 * np.pi * rng.uniform(low, high) * t + rng.uniform(0, 2 * np.pi))
        response += rng.uniform(0.2, 1) * wave * np.exp(-t / decay)
    response[0] += rng.choice([0, 1]) * rng.uniform(0, 2)  # a click: energy all over the band
    rung = scipy.signal.fftconvolve(pulses, response)[:n_samples]
    return unit_rms(audio.band_limit(rung, sr, low, high))


def buzz(n_samples, sr, rng, low=LOW, high=HIGH):
    """A rectifier or dimmer: a pulse at each half-wave of the mains (100 or 120 Hz), ringing."""
    period = sr / (rng.choice([50, 60]) * rng.choice([1, 2, 2, 2, 3, 4, 6]))
    jitter = rng.uniform(0, 0.03) * period
    times = np.arange(rng.uniform(0, period), n_samples, period)
    times = times + jitter * rng.standard_normal(len(times))
    pulses = np.zeros(n_samples)
    height = rng.choice([-1, 1], len(times)) if rng.random() < 0.5 else np.ones(len(times))
    pulses[np.clip(times.astype(int), 0, n_samples - 1)] = height * rng.uniform(0.7, 1, len(times))
    return ringing(n_samples, sr, rng, pulses, low, high)


def sparks(n_samples, sr, rng, low=LOW, high=HIGH):
    """Contacts and motors: impulses at random instants (Poisson) in bursts, ringing."""
    per_second = 10 ** rng.uniform(1.0, 3.0)
    bursts = np.clip(slow_walk(n_samples, rng, 1 + n_samples // (sr // 8)) + 0.7, 0.02, None)
    pulses = (rng.random(n_samples) < per_second / sr * bursts).astype(float)
    pulses[rng.integers(n_samples)] = 1  # never silent
    pulses *= rng.lognormal(0, 1, n_samples) * rng.choice([-1, 1], n_samples)
    return ringing(n_samples, sr, rng, pulses, low, high)


def electrical(n_samples, sr, rng, low=LOW, high=HIGH):
    """One to three of whine, tones, buzz, sparks and hiss, at random levels."""
    parts = rng.choice([whine, tones, buzz, sparks, white], rng.integers(1, 4), replace=False)
    total = sum(10 ** rng.uniform(-0.75, 0) * part(n_samples, sr, rng, low, high) for part in parts)
    return unit_rms(total)


def inverter(n_samples, sr, rng, low=LOW, high=HIGH):
    """A motor drive: pulse-width modulation of a sine by a triangle, simulated in time.

    Held out: training never hears this construction. The switched voltage is made at 16 times
    the rate, low-pass filtered and decimated (D. Holmes and T. Lipo, Pulse Width Modulation
    for Power Converters, 2003, ch. 3), with the carrier's frequency wandering by 1 %.
    """
    over = 16
    t = np.arange(n_samples * over) / (sr * over)
    carrier_hz = rng.uniform(1_500, 6_000) * (1 + 0.01 * slow_walk(len(t), rng, 20))
    triangle = 2 * np.abs(2 * (np.cumsum(carrier_hz) / (sr * over) % 1) - 1) - 1
    speed = 2 * np.pi * np.cumsum(rng.uniform(15, 60) * (1 + 0.3 * slow_walk(len(t), rng, 6)))
    switched = np.sign(rng.uniform(0.3, 0.95) * np.sin(speed / (sr * over)) - triangle)
    return unit_rms(audio.band_limit(scipy.signal.resample_poly(switched, 1, over), sr, low, high))


def chopper(n_samples, sr, rng, low=LOW, high=HIGH):
    """A DC chopper: a rectangular wave whose duty cycle steps with the load.

    Float32 `(n_samples,)`, unit RMS, between `low` and `high` Hz, as of the kinds of `noise`. A
    sum of harmonics, number k of amplitude sin(pi k duty) / k: the Fourier series of a pulse
    train. The frequency wanders by 1 %.
    """
    base = rng.uniform(low, high) / rng.integers(1, 41)  # one harmonic at least is in the band
    walk = slow_walk(n_samples, rng, 1 + n_samples // sr)
    phase = 2 * np.pi * np.cumsum(base * (1 + 0.01 * walk)) / sr
    loads = rng.integers(1, 9)
    duty = np.repeat(rng.uniform(0.02, 0.5, loads), n_samples // loads + 1)[:n_samples]
    total = sum(
        np.sin(np.pi * k * duty) / k * np.cos(k * phase)
        for k in range(max(int(np.ceil(low / base)), 1), int(high / base) + 1)
    )
    return unit_rms(audio.band_limit(total, sr, low, high))


def beeps(n_samples, sr, rng, low=LOW, high=HIGH):
    """An appliance: a steady tone that goes on and off one to three times a second. Held out."""
    t = np.arange(n_samples) / sr
    switch = np.sin(2 * np.pi * (rng.uniform(1, 3) * t + rng.uniform(0, 0.4))) >= 0  # on at first
    fade = np.hanning(sr // 100)
    envelope = np.convolve(switch, fade / fade.sum(), "same")
    beep = envelope * np.sin(2 * np.pi * rng.uniform(max(low, 100), high) * t)
    return unit_rms(audio.band_limit(beep, sr, low, high))


KINDS: dict[str, Callable] = {
    kind.__name__: kind
    for kind in (white, pink, blue, whine, tones, buzz, sparks, electrical, inverter, beeps)
}
HELD_OUT_KINDS = ("inverter", "beeps")  # for testing only, asserted by a test
TRAINING_KINDS = KINDS | {"chopper": chopper}  # of the bank: those above, and one for training only


# --- recorded noise ---------------------------------------------------------------------------


def recorded_files(folder: Path | None, split: str | None = None) -> list[Path]:
    """Sorted audio files below `folder`, of one split or of all.

    They are split by source (see `recordings.read_recordings`): several files may be cuts of one
    recording, and a split by file would let training hear the test's sources. Raises ValueError
    for a folder of which training would use nothing.
    """
    if folder is None:
        return []
    table = recordings.read_recordings(folder)
    found = list(table.path if split is None else table.path[table.split == split])
    if split == "train" and table.empty:
        raise ValueError(f"{folder}: no sounds below this folder; fill it or unset DENOISER_NOISE")
    if split == "train" and not found:
        raise ValueError(
            f"{folder}: no recordings for train among its {len(table)}; a sub-folder goes whole to "
            "one split, so spread them over ten or more"
        )
    return found


@functools.lru_cache(maxsize=128)
def _read_recording(path: Path) -> np.ndarray:
    return audio.read(path)


@functools.lru_cache(maxsize=1024)
def share_above(path: Path, hz: float = LOW) -> float:
    """The share of a recording's energy above `hz`, 0 to 1, its constant part left out."""
    power = np.abs(np.fft.rfft(samples := audio.read(path).astype(np.float64))) ** 2
    f = np.fft.rfftfreq(len(samples), 1 / audio.SAMPLE_RATE)
    return float(power[f >= hz].sum() / max(power[f > 0].sum(), np.finfo(float).tiny))


def recorded(n_samples, sr, rng, low=0.0, high=HIGH, files=()):
    """A random cut of a random recording, band-limited; a short one is repeated, faded over.

    `files`: paths to choose from. Raises ValueError when there are none. A cut without energy
    in the band is drawn again, five times at most.
    """
    if not files:
        raise ValueError("no recorded noise here; set DENOISER_NOISE to a folder of audio files")
    for _ in range(5):
        samples = audio.resample(
            _read_recording(files[rng.integers(len(files))]), audio.SAMPLE_RATE, sr
        )
        while len(samples) < n_samples:
            samples = crossfade(samples, samples, min(len(samples) // 4, sr // 10))
        start = rng.integers(len(samples) - n_samples + 1)
        cut = audio.band_limit(samples[start : start + n_samples], sr, low, high)
        if audio.level_db(cut) > -85:
            break
    return unit_rms(cut)


def crossfade(first: np.ndarray, second: np.ndarray, overlap: int) -> np.ndarray:
    """Join two recordings with a fade of `overlap` samples of constant power."""
    if overlap < 1:
        return np.concatenate([first, second])
    rise = np.sin(np.linspace(0, np.pi / 2, overlap)).astype(np.float32)
    middle = first[-overlap:] * rise[::-1] + second[:overlap] * rise
    return np.concatenate([first[:-overlap], middle, second[overlap:]])


def check_kind(kind: str) -> None:
    """Raise ValueError for a name that is neither in KINDS nor "recorded"."""
    if kind != "recorded" and kind not in KINDS:
        raise ValueError(f"unknown noise kind {kind!r}; choose {', '.join([*KINDS, 'recorded'])}")


def make(kind, n_samples, sr, rng, low=LOW, high=HIGH, files=()):
    """Noise of a kind by its name (one of KINDS, or "recorded"), float32, unit RMS.

    Raises ValueError for an unknown kind or a band that does not fit 0..sr / 2.
    """
    if not 0 <= low < high <= sr / 2:
        raise ValueError(f"band {low:g}-{high:g} Hz does not fit 0-{sr / 2:g} Hz at {sr} Hz")
    check_kind(kind)
    if kind == "recorded":
        return recorded(n_samples, sr, rng, low, high, files)
    return KINDS[kind](n_samples, sr, rng, low, high)


# --- mixing -----------------------------------------------------------------------------------


def rng_for(name: str, seed: int) -> np.random.Generator:
    """The generator of one item: the same for the same name and seed, on any machine."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def active(clean: np.ndarray, sr: int, range_db: float = 40.0) -> np.ndarray:
    """Which samples lie in speech: 20 ms frames within `range_db` of the loudest, bool."""
    length = sr // 50
    squares = np.square(clean, dtype=np.float64).reshape(len(clean), -1).mean(axis=1)
    power = np.pad(squares, (0, -len(squares) % length)).reshape(-1, length).mean(axis=1)
    return np.repeat(power > power.max() * 10 ** (-range_db / 10), length)[: len(clean)]


def mix(clean, noise, snr_db, sr=audio.SAMPLE_RATE, over_active=False):
    """Add noise `(samples,)` at an exact SNR, on copies: `(clean, noise, noisy)`, float32 each.

    `clean` is `(samples,)`, or `(samples, channels)`, which all get the same noise.
    The SNR is the ratio of mean powers over the whole clip, or over active speech only
    (`over_active`). Where one of the three would clip, all are scaled down together, so
    `noisy == clean + noise` and the SNR hold still. Raises ValueError where speech or noise is
    silent, since no gain makes an SNR then.
    """
    noise = noise[:, None] if clean.ndim > noise.ndim else noise
    if not np.any(clean) or not np.any(noise):
        raise ValueError("no SNR can be set: the clean speech or the noise is silent")
    speech = clean[active(clean, sr)] if over_active else clean
    powers = [np.mean(np.square(x, dtype=np.float64)) for x in (speech, noise)]
    gain = np.sqrt(powers[0] / powers[1] * 10 ** (-snr_db / 10))
    return add(np.float64(clean), np.float64(noise) * gain)


def add(clean, noise):
    """`(clean, noise, clean + noise)`, float32, scaled down together where one would clip."""
    peak = max(np.abs(x).max() for x in (clean, noise, clean + noise))
    scale = min(1.0, 0.99 / peak)
    clean, noise = np.float32(clean * scale), np.float32(noise * scale)
    return clean, noise, clean + noise
