"""The speech that training cuts from, read from the corpus as it is asked for.

A `Pool` stands for the array of `dataset.load_speech`, which ends where memory does (115 MB an
hour), and gives the same samples bit for bit. It keeps lengths and paths only, 100 bytes an
utterance, and cuts each slice out of FLAC by its number of samples. A memory-mapped array of all
samples was measured beside it: a training pair takes 1.4 ms of a core with that and 2.1 ms from
FLAC, while the network takes 30 ms on two, but it costs 115 MB of disk an hour and the decoding of
everything before the first step (`experiments/LABBOOK.md`). So FLAC at 16 kHz is read where it
lies, and what is anything else is made FLAC once, in `data/cache`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
from tqdm import tqdm

from helpers import audio, store
from helpers.audio import SAMPLE_RATE, AudioError
from helpers.data import lengths
from helpers.reading import spelled


class Pool:
    """Utterances end to end, int16 at 16 kHz: `len(pool)` samples, `pool[start:stop]` an array.

    `paths`: sounds below `folder`. Raises AudioError for a file that cannot be read, here or, where
    only its end is damaged, when that is asked for.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], verbose: bool = False):
        paths = list(paths)
        headers = lengths.headers(folder, paths)
        self.as_it_is = headers["flac"] & (headers["sr"] == SAMPLE_RATE)
        n_samples = headers["frames"].copy()
        for i in tqdm(
            np.flatnonzero(~self.as_it_is), "speech", disable=not verbose or None, leave=False
        ):
            paths[i], n_samples[i] = made_flac(paths[i])
        self.files = [str(path) for path in paths]
        self.ends = np.cumsum(n_samples)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, cut: slice) -> np.ndarray:
        start, stop, step = cut.indices(len(self))
        if step != 1:
            raise ValueError(f"a step of {step}; slices are of neighbours")
        parts = [np.zeros(0, np.int16)]
        i = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            end = min(stop, int(self.ends[i]))
            before = int(self.ends[i - 1]) if i else 0
            parts.append(self._read(i, start - before, end - start))
            start, i = end, i + 1
        return np.concatenate(parts)

    def _read(self, i: int, start: int, n_samples: int) -> np.ndarray:
        """Samples of file number `i`, int16 `(n_samples,)`."""
        read = read_speech if self.as_it_is[i] else read_int16
        try:
            with sf.SoundFile(spelled(Path(self.files[i]))) as source:
                source.seek(start)
                samples = read(source, n_samples)
        except (sf.LibsndfileError, RuntimeError) as error:
            raise AudioError(
                f"{self.files[i]}: damaged, or gone ({error}); copy it again from its source"
            ) from error
        if len(samples) != n_samples:
            raise AudioError(f"{self.files[i]}: ends too early; copy it again from its source")
        return samples


def read_speech(source: sf.SoundFile, n_samples: int) -> np.ndarray:
    """The next samples of a sound at 16 kHz, int16 `(n_samples,)`, as `dataset.load_speech` has
    them."""
    samples = source.read(n_samples, dtype="float32", always_2d=True).mean(axis=1)
    return np.int16(np.clip(samples, -1, 1) * 32767)


def read_int16(source: sf.SoundFile, n_samples: int) -> np.ndarray:
    """The next samples of what `made_flac` made."""
    return source.read(n_samples, dtype="int16")


def made_flac(path: Path) -> tuple[Path, int]:
    """A sound of any kind as int16 FLAC at 16 kHz, made if it is not there yet, and its samples."""
    here = path.stat()
    facts = [str(path.resolve()), here.st_size, here.st_mtime_ns]
    made = store.CACHE / "speech" / f"{store.key(facts)}.flac"
    if not made.exists():
        samples = np.int16(np.clip(audio.read(path), -1, 1) * 32767)
        with store.atomic_path(made, overwrite=True) as temporary:
            sf.write(temporary, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return made, sf.info(made).frames
