"""Sound in and out: files, rates, levels, frames with overlap-add, and the STFT.

Arrays are float32 in [-1, 1] full scale, shape `(samples,)` for one channel.
Taught in `01_dataset` (files, STFT) and `03_waveform_autoencoder` (frames, overlap-add).
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile as sf
import soxr

from helpers.store import FileError, atomic_path, no_room

SAMPLE_RATE = 16_000  # Hz, of LibriSpeech and of every model here
# Frames of the pictures that the chapters draw. Models, metrics and filters name their own.
WIN_LENGTH = 512  # samples, 32 ms
HOP_LENGTH = 256  # samples, 16 ms
COMPRESSION = 0.3  # exponent on magnitudes, in what the models hear and in their loss
ENDINGS = {f".{name.lower()}" for name in sf.available_formats()} | {".aif", ".opus", ".oga"}
ENDINGS -= {".raw", ".mat4", ".mat5"}  # not what a reader means by the sounds in a folder
LOUDER = 4.0  # than the rest: what is beyond that, and full scale, is a glitch
SILENCE_DB = -120.0  # dBFS, what the level of digital silence is called
CUT_SHORT = re.compile(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)")  # WAV, AIFF, AU
UNKNOWN_FRAMES = 2**63 - 1  # a FLAC that was written to a pipe; libsndfile cannot read it
FULL = 65_536  # bytes; a disk with less is called full when something did not fit
STREAMED = 0x7FFFF000  # bytes; a header of this length or more was written before its data


class AudioError(FileError):
    """A sound that cannot be read or written; the message names its file and the remedy."""


# --- files ------------------------------------------------------------------------------------


def open_audio(path: Path) -> sf.SoundFile:
    """Open an audio file for reading, or say in one line why not.

    Raises AudioError for a missing path, a folder, an empty file, one that libsndfile does not
    know, or one that is shorter than its header says.
    """
    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, not an audio file; name a file in it")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty; copy or record it again")
    try:
        source = sf.SoundFile(_spelled(path))
    except (sf.LibsndfileError, OSError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(
            f"{path}: not readable as audio ({reason}); convert it to WAV or FLAC first"
        ) from error
    if source.frames == UNKNOWN_FRAMES:
        source.close()
        raise AudioError(f"{path}: its header gives no length; write it again with `flac` or sox")
    if short := CUT_SHORT.search(source.extra_info):
        said, found = map(int, short.groups())
        if found < said < STREAMED:
            source.close()
            raise AudioError(
                f"{path}: truncated, {found} of {said} bytes are there; "
                "copy it again from its source"
            )
    return source


def _spelled(path: Path) -> Path | bytes:
    """A path as soundfile takes it: in bytes, where its name is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def audio_files(folder: Path, unreadable: list[Path] | None = None) -> list[Path]:
    """Sorted files below a folder whose endings libsndfile knows.

    Names that begin with a dot are left out, of files and of folders. Links to folders are
    followed, but not to one that holds them. Folders that cannot be read are put into
    `unreadable`; without such a list AudioError is raised.
    """
    found, waiting = [], [(Path(folder), ())]
    while waiting:
        place, above = waiting.pop()
        try:
            here = place.stat()
            entries = list(os.scandir(place))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if unreadable is None:
                reason = f"cannot be read ({error.strerror})"
                raise AudioError(f"{place}: {reason}; make it readable or move it away") from error
            unreadable.append(place)
            continue
        known = (here.st_dev, here.st_ino)
        if known in above:
            continue
        for entry in entries:
            path = place / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(path):
                waiting.append((path, (*above, known)))
            elif path.suffix.lower() in ENDINGS and os.path.isfile(path):
                found.append(path)
    return sorted(found)


def read_blocks(source: sf.SoundFile, block_length: int) -> Iterator[np.ndarray]:
    """Blocks of an open file, float32 `(n, channels)`, n <= `block_length`, none empty.

    Raises AudioError when the data ends before the header says, or holds NaN or infinity.
    """
    while True:
        try:
            block = source.read(block_length, dtype="float32", always_2d=True)
        except (sf.LibsndfileError, RuntimeError) as error:
            raise AudioError(
                f"{source.name}: damaged after {source.tell() / source.samplerate:.1f} s; "
                "copy it again from its source"
            ) from error
        if len(block) == 0:
            break
        if not np.isfinite(block).all():
            raise AudioError(
                f"{source.name}: holds NaN or infinite samples; export it again as PCM"
            )
        yield block
    if source.tell() < source.frames:
        raise AudioError(
            f"{source.name}: truncated, {source.tell()} of {source.frames} samples are there; "
            "copy it again from its source"
        )


def read(path: Path, sr: int = SAMPLE_RATE) -> np.ndarray:
    """The one loader: a whole file as mono at `sr` Hz, float32 `(samples,)`.

    Channels are averaged; another rate is converted with soxr. For files of any length use
    `helpers.tool.files`, which streams. Raises AudioError as `open_audio` and `read_blocks` do,
    and for a file without samples.
    """
    with open_audio(path) as source:
        blocks = list(read_blocks(source, 1 << 20))
        if not blocks:
            raise AudioError(f"{path}: holds no samples; record it again")
        mono = np.concatenate(blocks).mean(axis=1)
        return resample(mono, source.samplerate, sr)


def write(path: Path, samples: np.ndarray, sr: int = SAMPLE_RATE, overwrite: bool = False) -> None:
    """Write float samples `(samples,)` or `(samples, channels)` as 16-bit FLAC (RFC 9639).

    Values beyond full scale are clipped. Raises FileError as `store.atomic_path` and
    `write_blocks` do.
    """
    n_channels = 1 if np.ndim(samples) == 1 else np.shape(samples)[1]
    with atomic_path(path, overwrite) as temporary:
        kind = {"format": "FLAC", "subtype": "PCM_16", "target": path}
        write_blocks(temporary, [samples], sr, n_channels, **kind)


def write_blocks(
    path: Path, blocks: Iterable[np.ndarray], sr: int, n_channels: int, *, target: Path, **kind
) -> int:
    """Write float blocks `(n, channels)`, and make sure that all of them are in the file.

    Values beyond full scale are clipped; returns how many. `target`: what the file is called in
    errors, `kind`: format and subtype. Raises FileError for a full disk, NaN, or a kind that
    cannot hold this. libsndfile does not tell when the last of a file is lost, hence the check.
    """
    written = clipped = 0
    try:
        with sf.SoundFile(_spelled(path), "w", sr, n_channels, **kind) as sound:
            for block in blocks:
                if np.isnan(block).any():
                    raise AudioError(f"{target}: would hold NaN; is the input far too loud?")
                clipped += int(np.sum(np.abs(block) > 1))
                if not _takes(sound, np.clip(block, -1, 1)):
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
        with sf.SoundFile(_spelled(path)) as again:
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


def resample(samples: np.ndarray, sr_in: float, sr_out: float) -> np.ndarray:
    """Convert the rate with soxr (https://sourceforge.net/p/soxr), along the first axis."""
    samples = np.asarray(samples, np.float32)
    return samples if sr_in == sr_out else soxr.resample(samples, sr_in, sr_out)


# --- levels -----------------------------------------------------------------------------------


def level_db(samples: np.ndarray) -> float:
    """Root-mean-square level in dB re full scale, never below SILENCE_DB."""
    power = np.mean(np.square(samples, dtype=np.float64)) if np.size(samples) else 0.0
    return float(10 * np.log10(max(power, 10 ** (SILENCE_DB / 10))))


def set_level(samples: np.ndarray, target_db: float) -> np.ndarray:
    """Scale to an RMS level in dBFS; digital silence stays silence."""
    level = level_db(samples)
    gain = 0.0 if level <= SILENCE_DB else 10 ** ((target_db - level) / 20)
    return np.asarray(samples, np.float32) * np.float32(gain)


def without_glitches(samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Samples with single ones far beyond full scale and beyond the others bounded.

    One sample of 10,000, as a damaged float file has it, would make all else look faint to the
    running level for many seconds. The bound along `axis`, the time, is full scale or, in louder
    inputs, LOUDER times what all but a thousandth stay below. Within full scale nothing changes.
    """
    size = np.abs(samples)
    if size.max(initial=0) <= 1:
        return samples
    usual = np.quantile(size, 0.999, axis=axis, keepdims=True, method="lower")
    bound = np.maximum(1, LOUDER * usual)
    return np.clip(samples, -bound, bound)


def band_limit(samples: np.ndarray, sr: float, low: float, high: float) -> np.ndarray:
    """Keep `low`..`high` Hz only, with edges one FFT bin wide (zero outside)."""
    spectrum = np.fft.rfft(samples)
    f = np.fft.rfftfreq(len(samples), 1 / sr)
    spectrum[(f < low) | (f > high)] = 0
    return np.fft.irfft(spectrum, len(samples))


# --- frames and the STFT ----------------------------------------------------------------------


def hann(length: int) -> np.ndarray:
    """Periodic Hann window, float64 `(length,)`: its copies half a length apart sum to one."""
    return scipy.signal.get_window("hann", length, fftbins=True)


def root_hann(length: int) -> np.ndarray:
    """Square root of the periodic Hann window, for use before and after a transform."""
    return np.sqrt(hann(length))


def frame(samples: np.ndarray, win_length: int, hop_length: int) -> np.ndarray:
    """Overlapping frames `(frames, win_length)` that cover every sample.

    `win_length - hop_length` zeros stand before the first sample and enough behind the last,
    so that each sample lies in `win_length / hop_length` frames and `overlap_add` gives it back.
    """
    overlap = win_length - hop_length
    n_frames = -(-(len(samples) + overlap) // hop_length)
    padded = np.zeros(overlap + n_frames * hop_length, samples.dtype)
    padded[overlap : overlap + len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, win_length)[::hop_length]


def overlap_add(frames: np.ndarray, hop_length: int, n_samples: int) -> np.ndarray:
    """Sum frames `(frames, win_length)` at their places: the inverse of `frame`, `(n_samples,)`.

    Exact when the products of analysis and synthesis windows sum to one over the overlaps
    (constant overlap-add; Allen and Rabiner, Proc. IEEE 65(11), 1977).
    """
    n_frames, win_length = frames.shape
    total = np.zeros((n_frames - 1) * hop_length + win_length, frames.dtype)
    for i, one in enumerate(frames):
        total[i * hop_length : i * hop_length + win_length] += one
    overlap = win_length - hop_length
    return total[overlap : overlap + n_samples]


def stft(
    samples: np.ndarray, win_length: int = WIN_LENGTH, hop_length: int = HOP_LENGTH
) -> np.ndarray:
    """Root-Hann STFT, complex `(frames, win_length // 2 + 1)`, rows in time."""
    return np.fft.rfft(frame(samples, win_length, hop_length) * root_hann(win_length))


def istft(S: np.ndarray, n_samples: int, hop_length: int = HOP_LENGTH) -> np.ndarray:
    """Inverse of `stft`, float64 `(n_samples,)`, exact where the hop is half a window."""
    win_length = 2 * (S.shape[1] - 1)
    return overlap_add(np.fft.irfft(S) * root_hann(win_length), hop_length, n_samples)


def power_db(power: np.ndarray, reference: float = 1.0) -> np.ndarray:
    """Power to dB re `reference`, floored at SILENCE_DB."""
    return 10 * np.log10(np.maximum(np.abs(power) / reference, 10 ** (SILENCE_DB / 10)))
