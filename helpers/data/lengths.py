"""How long sounds are, by their headers: looked up once for a corpus of many files, and kept.

The index lies in `data/cache` and not in the corpus, which may be read-only or others' too. What is
taken from it is what belongs to files of the same name, size and time of change. Opening the
headers of all of LibriSpeech takes a minute, looking at its files a few seconds.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers import audio, store

HEADER = np.dtype(
    [("size", "i8"), ("changed", "i8"), ("frames", "i8"), ("sr", "i4"), ("flac", "?")]
)  # bytes, ns, samples of a channel, Hz, whether it is FLAC through and through
WORTH_KEEPING = 1000  # files; the headers of fewer are read in less than a second
STREAMINFO = 42  # bytes in which FLAC says how many samples it has (RFC 9639, 8.2)


def headers(folder: Path, paths: Sequence[Path]) -> np.ndarray:
    """What the headers of sounds below `folder` say, HEADER `(paths,)`.

    Raises audio.AudioError, naming it, for a file that cannot be read.
    """
    names = [str(path) for path in paths]
    known = _read(index_path(folder)) if len(names) >= WORTH_KEEPING else {}
    rows, n_new = np.zeros(len(names), HEADER), 0
    for i, (name, path) in enumerate(zip(names, paths, strict=True)):
        here = os.stat(name)
        row = known.get(name)
        if row is None or row[:2] != (here.st_size, here.st_mtime_ns):
            row = (here.st_size, here.st_mtime_ns, *read_header(path))
            n_new += 1
        rows[i] = row
    if n_new and len(names) >= WORTH_KEEPING:
        with store.spared("the lengths of the corpus are not kept"):
            _write(index_path(folder), names, rows)
    return rows


def read_header(path: Path) -> tuple[int, int, bool]:
    """Samples of each channel, Hz, and whether they can be cut out of FLAC, of one file."""
    with audio.open_audio(path) as reader:
        frames = reader.frames
        if frames is None:
            frames = sum(map(len, reader.blocks(1 << 20)))
        return frames, reader.samplerate, _flac_frames(path) == frames


def _flac_frames(path: Path) -> int:
    """Samples that a FLAC file says it has; 0 for what is no FLAC from its first byte on."""
    with open(path, "rb") as file:
        head = file.read(STREAMINFO)
    is_flac = head[:4] == b"fLaC" and len(head) == STREAMINFO
    return int.from_bytes(head[21:26], "big") % 2**36 if is_flac else 0


def index_path(folder: Path) -> Path:
    """Where the index of a corpus lies."""
    return store.CACHE / f"lengths-{store.key(str(Path(folder).resolve()))}.npz"


def _write(path: Path, names: list[str], rows: np.ndarray) -> None:
    text = np.frombuffer(os.fsencode("\0".join(names)), np.uint8)
    with store.atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, names=text, rows=rows)


def _read(path: Path) -> dict[str, tuple]:
    """Name -> row of an index; nothing where there is none, or one of another make."""
    try:
        with np.load(path) as index:
            names, rows = os.fsdecode(index["names"].tobytes()).split("\0"), index["rows"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return dict(zip(names, rows.tolist(), strict=True)) if rows.dtype == HEADER else {}
