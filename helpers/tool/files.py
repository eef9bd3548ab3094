"""Files in, files out: which output belongs to which input, a batch that survives bad ones.

The README shows the commands.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from helpers import audio, store, writing
from helpers.audio import SAMPLE_RATE, AudioError
from helpers.store import FileError

FLAC_CHANNELS = 8
LOWEST_RATE, HIGHEST_RATE = 50, 655_350  # Hz: a sample in 20 ms, and what FLAC can hold
PIPE = Path("-")  # standard input or output
BLOCK_SECONDS = 4.0  # that are held in memory
FINE = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_24", "ALAC_32"}  # written with 24 bits


def plan_outputs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs (file, its output): one for a file, the mirrored tree in FLAC for a folder.

    What lies in `target` is no input. A sub-folder that cannot be read stands there as a file
    would, and fails. Raises AudioError for a missing path, an unreadable file, a folder without
    audio, or one that is to be written into itself.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        audio.open_audio(source).close()
        is_folder = target.is_dir() or target.suffix == ""
        return [(source, target / f"{source.stem}.flac" if is_folder else target)]
    if target.is_file():
        raise AudioError(f"{target}: is a file, but {source} is a folder; name a folder")
    if target.resolve() == source.resolve():
        raise AudioError(f"{target}: is both input and output; choose another folder for OUT")
    unreadable = []
    files = audio.audio_files(source, unreadable) + unreadable
    out = target.resolve()
    files = [file for file in files if not file.parent.resolve().is_relative_to(out)]
    if not files:
        raise AudioError(f"{source}: no audio files below this folder; check the path")
    return [(f, (target / f.relative_to(source)).with_suffix(".flac")) for f in files]


def for_each_file(
    pairs: list[tuple[Path, Path]],
    work: Callable[[Path, Path], object],
    is_there: Callable[[Path, Path], bool] | None = None,
) -> dict:
    """Call `work(file, output)` for every pair of `plan_outputs`, going on after a bad one.

    Returns {"done": [(file, output, result)], "there": [(file, output)], "failed": [(file,
    message)], "stopped": None}. "there" are those for which `is_there(file, output)`. A second
    file that would get the output of an earlier one (`a.wav`, `a.mp3`) fails. A KeyboardInterrupt
    ends the work; it is then what "stopped" holds. With DENOISER_DEBUG set the first error is
    raised.
    """
    report, taken = {"done": [], "there": [], "failed": [], "stopped": None}, {}
    for folder in {output.parent for _, output in pairs}:
        store.remove_leftovers(folder)
    bar = tqdm(pairs, unit="file", delay=2, disable=None if len(pairs) > 1 else True)
    try:
        for file, output in bar:
            try:
                check_pair(file, output, taken)
                if is_there and is_there(file, output):
                    report["there"].append((file, output))
                else:
                    report["done"].append((file, output, work(file, output)))
                taken[output] = file
            except Exception as error:  # of whatever kind: the others are still to be done
                if os.environ.get("DENOISER_DEBUG"):
                    raise
                report["failed"].append((file, what_failed(file, error)))
    except KeyboardInterrupt as stop:
        report["stopped"] = stop
    finally:
        bar.close()
    return report


def check_pair(file: Path, output: Path, taken: dict[Path, Path]) -> None:
    """Raise AudioError for an output that an earlier file has, or an unreadable folder."""
    if output in taken:
        raise AudioError(f"{file}: {taken[output].name} has the same output; rename one")
    if file.is_dir():
        raise AudioError(f"{file}: this folder cannot be read; make it readable or move it away")


def is_there(file: Path, output: Path) -> bool:
    """Whether the output of a file is there from an earlier call.

    Raises FileError for something else of its name.
    """
    if not os.path.exists(output):  # nor if its name is too long, which is told when it is made
        return False
    try:
        audio.open_audio(output).close()
    except AudioError as error:
        raise FileError(
            f"{output}: exists already and is no whole sound; move it away or pass --overwrite"
        ) from error
    return True


def what_failed(file: Path, error: Exception) -> str:
    """One line that names a file, what went wrong and, where it is known, what to do about it."""
    text = " ".join(str(error).split())
    if isinstance(error, FileError) or str(file) in text:
        return text
    if isinstance(error, MemoryError):
        return f"{file}: needs more memory than there is; cut it into parts"
    if isinstance(error, ValueError | OSError | sf.LibsndfileError):
        return f"{file}: {text}"
    kind = type(error).__name__
    return f"{file}: {kind}: {text[:200]}; DENOISER_DEBUG=1 in front of the call shows where"


@contextlib.contextmanager
def pipes_as_files(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """`source` and `target`, with files in place of pipes as long as the block lasts.

    What can be read only once (`-` for standard input, /dev/stdin, a named pipe) is copied before,
    because the gate may want it twice. For the target `-` what was written, a WAV, is copied to
    standard output when the block ends well.
    """
    with tempfile.TemporaryDirectory(prefix="denoiser-") as folder:
        read, written = Path(folder, "stdin"), Path(folder, "stdout.wav")
        if source == PIPE or source.is_fifo() or source.is_char_device():
            name = 0 if source == PIPE else source
            with open(name, "rb", closefd=name != 0) as stream, open(read, "wb") as copy:
                shutil.copyfileobj(stream, copy)
            source = read
        yield source, written if target == PIPE else target
        if written.exists():
            with open(written, "rb") as copy, open(1, "wb", closefd=False) as stream:
                shutil.copyfileobj(copy, stream)


def check_format(reader: audio.Reader, source: Path, target: Path) -> None:
    """Raise AudioError for an input that `target` cannot hold."""
    if target.suffix.lower() not in (".flac", ".wav"):
        raise AudioError(f"{target}: the output is FLAC or WAV; end its name in .flac or .wav")
    if target.suffix.lower() == ".flac" and reader.channels > FLAC_CHANNELS:
        raise AudioError(
            f"{source}: {reader.channels} channels, FLAC holds {FLAC_CHANNELS}; write to a .wav"
        )
    if not LOWEST_RATE <= reader.samplerate <= HIGHEST_RATE:
        raise AudioError(
            f"{source}: a rate of {reader.samplerate} Hz; "
            f"resample it to one of {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )


def storage(reader: audio.Reader, target: Path) -> dict[str, str]:
    """How `target` holds what is read: its `format`, and as its `subtype` float in a WAV for
    float, else 24 bits where the input has more than 16."""
    kind = target.suffix[1:].upper()
    if kind == "WAV" and reader.subtype in writing.FLOATS:
        return {"subtype": "FLOAT", "format": kind}
    return {"subtype": "PCM_24" if reader.subtype in FINE else "PCM_16", "format": kind}


# --- denoising one file -----------------------------------------------------------------------


def resampler(sr_in: float, sr_out: float, n_channels: int) -> Callable:
    """A function (block, last) -> block that converts the rate of a stream with soxr."""
    if sr_in == sr_out:
        return lambda block, last=False: block
    return soxr.ResampleStream(sr_in, sr_out, n_channels, dtype="float32").resample_chunk


def denoise_file(denoiser, source: Path, target: Path, overwrite: bool = False) -> dict:
    """Denoise one file: same length, rate and channels, every channel for itself, streamed.

    `denoiser`: a `helpers.denoise.stream.Denoiser`.
    Written as FLAC (or WAV, if `target` ends so), see `storage`.
    Returns {"seconds", "sr", "clipped", "words"} (seconds of audio, samples clipped to full scale,
    what was done, in words). Raises FileError, and then leaves nothing behind.
    """
    with audio.open_audio(source) as reader, store.atomic_path(target, overwrite) as temporary:
        check_format(reader, source, target)
        sr, channels = reader.samplerate, reader.channels
        kind = storage(reader, target) | {"target": target}
        stream = denoiser.stream(channels)
        blocks = denoised_blocks(stream, reader)
        clipped = audio.write_blocks(temporary, blocks, sr, channels, **kind)
        if denoiser.by_frequency and stream.account.is_faint:  # then not even the rate is touched
            blocks = reader.blocks(int(BLOCK_SECONDS * sr))
            clipped = audio.write_blocks(temporary, blocks, sr, channels, **kind)
        words = stream.account.words()
        return {"seconds": reader.frames / sr, "sr": sr, "clipped": clipped, "words": words}


def denoised_blocks(stream, reader: audio.Reader) -> Iterator[np.ndarray]:
    """Blocks `(n, channels)` at the file's own rate, as many samples in all as the file has."""
    sr, channels = reader.samplerate, reader.channels
    inward, outward = resampler(sr, SAMPLE_RATE, channels), resampler(SAMPLE_RATE, sr, channels)
    empty = np.zeros((0, channels), np.float32)
    owed = 0  # samples taken in and not yet given back; what comes out is late, never early
    seconds = reader.frames and reader.frames / sr
    bar = tqdm(total=seconds, unit="s", delay=2, leave=False, disable=None)
    for block in reader.blocks(int(BLOCK_SECONDS * sr)):
        heard = audio.without_glitches(block, axis=0)  # or the resampler spreads them
        out = outward(stream.process(inward(heard)))
        owed += len(block) - len(out)
        bar.update(len(block) / sr)
        yield out
    rest = np.concatenate([stream.process(inward(empty, last=True)), stream.finish()])
    rest = outward(rest, last=True)[:owed]
    yield np.pad(rest, ((0, owed - len(rest)), (0, 0)))  # rates round to a sample less
    bar.close()
