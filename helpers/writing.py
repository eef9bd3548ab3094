"""Sound out: blocks to a file, and the proof that all of them are in it.

The ground of `helpers.audio.write` and of the command line.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile as sf

from helpers.reading import AudioError, spelled
from helpers.store import no_room

FLOATS = {"FLOAT", "DOUBLE"}  # subtypes that hold what is beyond full scale
FULL = 65_536  # bytes; a disk with less is called full when something did not fit


def write_blocks(
    path: Path, blocks: Iterable[np.ndarray], sr: int, n_channels: int, *, target: Path, **kind
) -> int:
    """Write float blocks `(n, channels)`, and make sure that all of them are in the file.

    Values beyond full scale are clipped, but in a kind that holds float; returns how many.
    `target`: what the file is called in errors, `kind`: format and subtype. Raises FileError for a
    full disk, NaN, or a kind that cannot hold this. libsndfile does not tell when the last of a
    file is lost, hence the check.
    """
    written = clipped = 0
    try:
        with sf.SoundFile(spelled(path), "w", sr, n_channels, **kind) as sound:
            for block in blocks:
                if np.isnan(block).any():
                    raise AudioError(f"{target}: would hold NaN; is the input far too loud?")
                if kind["subtype"] not in FLOATS:
                    clipped += int(np.sum(np.abs(block) > 1))
                    block = np.clip(block, -1, 1)
                if not _takes(sound, block):
                    raise AudioError(_unwritten(path, target, "written in part"))
                written += len(block)
    except sf.SoundFileError as error:
        reason = str(getattr(error, "error_string", "") or error).rstrip(".")
        raise AudioError(_unwritten(path, target, reason)) from error
    if not _is_whole(path, written):
        raise AudioError(_unwritten(path, target, "written in part"))
    return clipped


def _takes(sound: sf.SoundFile, block: np.ndarray) -> bool:
    """Write a block; False where libsndfile took less, for which soundfile has an assertion."""
    try:
        sound.write(block)
    except AssertionError:
        return False
    return True


def _is_whole(path: Path, n_frames: int) -> bool:
    """Whether a sound file has this many frames, and its last one can be read."""
    try:
        with sf.SoundFile(spelled(path)) as again:
            if again.frames != n_frames:
                return False
            again.seek(max(n_frames - 1, 0))
            return len(again.read(1)) == min(n_frames, 1)
    except sf.SoundFileError:
        return False


def _unwritten(path: Path, target: Path, reason: str) -> str:
    """What to say about a file that could not be written whole, and is still on the disk."""
    free = shutil.disk_usage(Path(path).parent).free
    if free < FULL:
        return no_room(target, "the disk is full")
    return f"{target}: cannot be written ({reason}); choose another disk or kind of file"
