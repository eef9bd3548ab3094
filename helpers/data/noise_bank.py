"""The training noise: its distribution, written down here only, and a bank rendered once.

Making noise takes longer than all the rest of a training pair, so training draws random cuts of a
bank. Taught in `02_noise`.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers import audio, store
from helpers.data import noise

KIND_SHARES = {  # of the bank's clips; never a kind of noise.HELD_OUT_KINDS
    "coloured": 0.25,
    "whine": 0.06,
    "tones": 0.08,
    "buzz": 0.07,
    "sparks": 0.07,
    "electrical": 0.08,
    "chopper": 0.06,
    "recorded": 0.33,  # without recordings: coloured
}
WHOLE_SHARE = 0.5  # of the recordings; the others are high-passed
LOW_RANGE = (1_500.0, 6_000.0)  # Hz, of the band's lower edge
HIGH_RANGE = (5_000.0, 8_000.0)  # Hz, of the band's upper edge; half the clips reach 8 kHz
SLOPE_RANGE = (-9.0, 6.0)  # dB per octave, of coloured noise
SNR_RANGE = (-10.0, 25.0)  # dB, uniform
LEVEL_RANGE = (-55.0, -15.0)  # dBFS RMS of the speech, uniform
CLEAN_SHARE = 0.20  # examples without noise
NOISE_ONLY_SHARE = 0.05  # examples without speech
TWO_NOISES_SHARE = 0.25  # examples with two clips of the bank on top of each other
RECORDED_SPEED = (1.0, 1.6)  # of recordings; slower ones would leave the top of the band empty
RECORDED_SPEED_SHARE = 0.5  # of them; the others keep their speed and all of their band
SCENE_SHARE = 0.25  # of recordings; two of them on top of each other, each with its equaliser
BURST_SHARE = 0.05  # clips that come and go
BANK_CLIPS, BANK_SECONDS = 4800, 10.0
LARGEST_DB = 6.0  # gain of the equaliser, either way
TILT_RANGE = (-2.0, 5.0)  # dB per octave on top of it; bright talkers are rare in the corpus


def random_band(rng: np.random.Generator) -> tuple[float, float]:
    """A noise band in Hz, at least 500 Hz wide."""
    low = rng.uniform(*LOW_RANGE)
    high = audio.SAMPLE_RATE / 2
    if rng.random() < 0.5:
        high = rng.uniform(max(low + 500, HIGH_RANGE[0]), HIGH_RANGE[1])
    return low, high


def burst_envelope(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Gains in 0..1, `(n_samples,)`: on and off with fades of 5-500 ms."""
    n_events = 2 * rng.integers(1, 9)
    times = np.sort(rng.uniform(0, n_samples, n_events))
    fade = 10 ** rng.uniform(-2.3, -0.3) * audio.SAMPLE_RATE
    floor = rng.choice([0.0, 10 ** rng.uniform(-1.5, -0.3)])
    steps = np.concatenate([times, times + fade])
    levels = np.concatenate(
        [np.tile([floor, 1.0], n_events // 2), np.tile([1.0, floor], n_events // 2)]
    )
    order = np.argsort(steps, kind="stable")
    return np.interp(np.arange(n_samples), steps[order], levels[order])


def equalise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`(samples,)` through a random smooth frequency response, float32: another talker, another
    microphone, another room.

    Gains within +-LARGEST_DB an octave apart, and a tilt of TILT_RANGE about 1 kHz.
    """
    spectrum = np.fft.rfft(samples)
    octaves = np.log2(np.maximum(np.arange(len(spectrum)) / len(spectrum), 2**-6))
    knots = np.arange(-6, 1)  # octaves below half the sampling rate
    gains_db = rng.uniform(-LARGEST_DB, LARGEST_DB, 7) + rng.uniform(*TILT_RANGE) * (knots + 3)
    curve = np.interp(octaves, knots, gains_db)
    return np.fft.irfft(spectrum * 10 ** (curve / 20), len(samples)).astype(np.float32)


def check_kind(kind: str) -> None:
    """Raise ValueError for a name that is none of TRAINING_KINDS, "coloured" or "recorded"."""
    if kind not in (kinds := [*noise.TRAINING_KINDS, "coloured", "recorded"]):
        raise ValueError(f"unknown noise kind {kind!r}; choose {', '.join(kinds)}")


def recording(
    rng: np.random.Generator, n_samples: int, low: float, files: tuple[Path, ...]
) -> np.ndarray:
    """A cut of a recording above `low` Hz, at times played faster, through a random equaliser.

    Float32 `(n_samples,)`, unit RMS.
    """
    sr = audio.SAMPLE_RATE
    speed = rng.uniform(*RECORDED_SPEED) if rng.random() < RECORDED_SPEED_SHARE else 1.0
    n_played = int(np.ceil(n_samples * speed)) + 8
    clip = noise.recorded(n_played, sr, rng, low / speed, sr / 2, files)
    clip = audio.resample(clip, n_played, n_played / speed)[:n_samples]
    return noise.unit_rms(equalise(clip, rng))


def random_noise(
    rng: np.random.Generator, n_samples: int, files: tuple[Path, ...], only: str = ""
) -> np.ndarray:
    """One clip of the training distribution, float32 `(n_samples,)`, unit RMS.

    `only`: of this kind alone. Raises ValueError for "recorded" alone without `files`.
    """
    sr, (low, high) = audio.SAMPLE_RATE, random_band(rng)
    kind = only or str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
    if kind == "recorded" and (files or only):
        low = 0.0 if rng.random() < WHOLE_SHARE else low
        clip = recording(rng, n_samples, low, files)
        if rng.random() < SCENE_SHARE:
            clip += np.float32(10 ** rng.uniform(-0.5, 0)) * recording(rng, n_samples, low, files)
        clip = noise.unit_rms(clip)
    elif kind in ("recorded", "coloured"):
        clip = noise.coloured(n_samples, sr, rng, low, high, rng.uniform(*SLOPE_RANGE))
    else:
        clip = noise.TRAINING_KINDS[kind](n_samples, sr, rng, low, high)
    if rng.random() < BURST_SHARE:
        clip = noise.unit_rms(clip * burst_envelope(n_samples, rng))
    return clip


def code_of_noise(only: str = "") -> list[str]:
    """The kind and the code that decide what `random_noise` makes; kinds without a share do not."""
    makers = [noise.TRAINING_KINDS.get(kind) for kind in ([only] if only else KIND_SHARES)]
    return [only, store.code(random_noise, *filter(None, makers), told=(audio.read,))]


class NoiseBank:
    """Clips rendered once, served as random cuts.

    `clips`: float16 `(n_clips, n_samples)`, unit RMS, on disk (memory-mapped) or in memory.
    """

    def __init__(self, clips: np.ndarray):
        self.clips = clips

    @classmethod
    def render(
        cls,
        path: Path,
        files: tuple[Path, ...] = (),
        n_clips: int = BANK_CLIPS,
        seconds: float = BANK_SECONDS,
        seed: int = 0,
        verbose: bool = True,
        only: str = "",
    ) -> "NoiseBank":
        """Render to `<path>-<digest>.npy`, or open the file that an earlier call finished.

        `only`: one kind of noise instead of all (see `check_kind`).

        The digest is that of the arguments, the recordings' names and sizes, and the code that
        makes noise (`store.code`), so a bank of something else is never taken for this one.
        """
        digest = store.key([n_clips, seconds, seed, store.sizes(files), code_of_noise(only)])
        path = Path(path).with_name(f"{Path(path).name}-{digest}.npy")
        if not path.exists():
            n_samples = int(seconds * audio.SAMPLE_RATE)
            clips = np.empty((n_clips, n_samples), np.float16)
            for i in tqdm(
                range(n_clips), "noise bank", disable=None if verbose else True, leave=False
            ):
                rng = np.random.default_rng([seed, i])
                clips[i] = np.clip(random_noise(rng, n_samples, files, only), -6e4, 6e4)
            with store.atomic_path(path, overwrite=True) as whole, open(whole, "wb") as stream:
                np.save(stream, clips)
        return cls(np.load(path, mmap_mode="r"))

    def draw(self, rng: np.random.Generator, n_samples: int) -> np.ndarray:
        """A random cut of a random clip, float32 `(n_samples,)`; wraps around the clip's end."""
        clip = self.clips[rng.integers(len(self.clips))]
        start = rng.integers(len(clip))
        cut = clip[start : start + n_samples]
        while len(cut) < n_samples:
            cut = np.concatenate([cut, clip[: n_samples - len(cut)]])
        return cut.astype(np.float32)
