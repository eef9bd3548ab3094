"""What a recording holds beside speech and high-frequency noise: hum, rumble, a room, a telephone.

A scene is a function `(clean, sr, rng) -> (clean, background)`, float64 `(samples,)` each. It may
change the speech itself (a room, a telephone); the background, which no denoiser is asked to
remove, is already at its level. Taught in `05_evaluation`.
"""

from collections.abc import Callable

import numpy as np
import scipy.signal

from helpers import audio
from helpers.data import noise

ROOM_TONE_DB, HUM_DB, RUMBLE_DB, MUSIC_DB = 15.0, 0.0, 0.0, 5.0  # speech over background
OFFSET = 0.05  # of full scale
TELEPHONE = (300.0, 3_400.0)  # Hz, ITU-T G.712
REVERBERATION_SECONDS = 0.5  # until the tail is 60 dB down
DIRECT_DB = 6.0  # energy of the direct sound over that of the tail


def at_snr(clean: np.ndarray, background: np.ndarray, snr_db: float) -> np.ndarray:
    """The background `(samples,)`, scaled to an SNR in dB."""
    power = np.mean(clean**2) / np.mean(background**2) * 10 ** (-snr_db / 10)
    return background * np.sqrt(power)


def room_tone(clean, sr, rng):
    """The breath of a room: noise that falls by 6 dB an octave over the whole band."""
    tone = noise.coloured(len(clean), sr, rng, 20, sr / 2, slope_db=-6.0)
    return clean, at_snr(clean, np.float64(tone), ROOM_TONE_DB)


def hum(clean, sr, rng):
    """Mains: 50 or 60 Hz and harmonics of it, as loud as the speech."""
    t, mains = np.arange(len(clean)) / sr, rng.choice([50.0, 60.0])
    total = np.zeros(len(clean))
    for harmonic in (1, 2, 3, 4, 6, 8, 12):
        phase = 2 * np.pi * (harmonic * mains * t + rng.uniform())
        total += rng.uniform(0.3, 1) / harmonic * np.sin(phase)
    return clean, at_snr(clean, total, HUM_DB)


def rumble(clean, sr, rng):
    """Wind or a lorry: noise below 120 Hz, as loud as the speech."""
    low = noise.coloured(len(clean), sr, rng, 20, 120, slope_db=-6.0)
    return clean, at_snr(clean, np.float64(low), RUMBLE_DB)


def offset(clean, sr, rng):
    """A constant added by a bad converter (DC)."""
    return clean, np.full(len(clean), OFFSET)


def music(clean, sr, rng):
    """Plucked triads, a new one every half second, each of harmonics that die away."""
    total, step = np.zeros(len(clean)), sr // 2
    for start in range(0, len(clean), step):
        t = np.arange(min(2 * step, len(clean) - start)) / sr
        root = 220 * 2 ** (rng.integers(12) / 12)
        for third in (1, 2 ** (4 / 12), 2 ** (7 / 12)):
            for harmonic in range(1, 8):
                tone = np.sin(2 * np.pi * root * third * harmonic * t) / harmonic
                total[start : start + len(t)] += np.exp(-3 * t) * tone
    return clean, at_snr(clean, total, MUSIC_DB)


def telephone(clean, sr, rng):
    """Speech in the band of a telephone, without a background."""
    return np.float64(audio.band_limit(clean, sr, *TELEPHONE)), np.zeros(len(clean))


def reverberation(clean, sr, rng):
    """Speech in a room: the direct sound, and a tail of noise that decays exponentially.

    What is to be kept is the speech with its room (J. Polack's model of late reverberation, 1988).
    """
    t = np.arange(int(REVERBERATION_SECONDS * sr)) / sr
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / REVERBERATION_SECONDS)
    tail[0] = 0
    tail *= 10 ** (-DIRECT_DB / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return scipy.signal.fftconvolve(clean, tail)[: len(clean)], np.zeros(len(clean))


SCENES: dict[str, Callable] = {
    "room tone": room_tone,
    "hum": hum,
    "rumble": rumble,
    "offset": offset,
    "music": music,
    "telephone": telephone,
    "reverberation": reverberation,
}


def split_kind(kind: str) -> tuple[str, str]:
    """The noise and the scene of a kind: "white + hum" is ("white", "hum"), "white" has none."""
    noise_kind, _, scene = kind.partition(" + ")
    return noise_kind, scene


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind whose noise or scene there is not."""
    noise_kind, scene = split_kind(kind)
    noise.check_kind(noise_kind)
    if scene and scene not in SCENES:
        raise ValueError(f"unknown scene {scene!r}; choose {', '.join(SCENES)}")
