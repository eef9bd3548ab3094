"""Files in, files out: which output belongs to which input, a batch that survives bad ones.

The README shows the commands.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from helpers import audio, store
from helpers.audio import SAMPLE_RATE, AudioError
from helpers.store import FileError

FLAC_CHANNELS = 8
BLOCK_SECONDS = 4.0  # that are held in memory
FLOATS = {"FLOAT", "DOUBLE"}  # written to a WAV as float, which holds what is beyond full scale
FINE = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_24", "ALAC_32"}  # written with 24 bits


def plan_outputs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs (file, its output): one for a file, the mirrored tree in FLAC for a folder.

    Raises AudioError for a missing path, an unreadable file or a folder without audio.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        audio.open_audio(source).close()
        is_folder = target.is_dir() or target.suffix == ""
        return [(source, target / f"{source.stem}.flac" if is_folder else target)]
    if target.is_file():
        raise AudioError(f"{target}: is a file, but {source} is a folder; name a folder")
    files = audio.audio_files(source)
    if not files:
        raise AudioError(f"{source}: no audio files below this folder; check the path")
    return [(f, (target / f.relative_to(source)).with_suffix(".flac")) for f in files]


def for_each_file(
    pairs: list[tuple[Path, Path]], work: Callable[[Path, Path], object]
) -> dict[str, list]:
    """Call `work(file, output)` for every pair of `plan_outputs`, going on after a bad one.

    Returns {"done": [(file, output, result)], "failed": [(file, message)]}. A second file that
    would get the output of an earlier one (`a.wav`, `a.mp3`) fails.
    """
    report, taken = {"done": [], "failed": []}, {}
    for file, output in tqdm(pairs, unit="file", delay=2, disable=None if len(pairs) > 1 else True):
        try:
            if output in taken:
                raise AudioError(f"{file}: {taken[output].name} has the same output; rename one")
            report["done"].append((file, output, work(file, output)))
            taken[output] = file
        except (ValueError, OSError, sf.LibsndfileError) as error:
            named = isinstance(error, FileError) or str(file) in str(error)
            message = str(error) if named else f"{file}: {error}"
            report["failed"].append((file, message))
    return report


def check_format(reader: audio.Reader, source: Path, target: Path) -> None:
    """Raise AudioError for an input that `target` cannot hold."""
    if target.suffix.lower() not in (".flac", ".wav"):
        raise AudioError(f"{target}: the output is FLAC or WAV; end its name in .flac or .wav")
    if target.suffix.lower() == ".flac" and reader.channels > FLAC_CHANNELS:
        raise AudioError(
            f"{source}: {reader.channels} channels, FLAC holds {FLAC_CHANNELS}; write to a .wav"
        )


def storage(reader: audio.Reader, target: Path) -> dict[str, str]:
    """How `target` holds what is read: its `format`, and as its `subtype` float in a WAV for
    float, else 24 bits where the input has more than 16."""
    kind = target.suffix[1:].upper()
    if kind == "WAV" and reader.subtype in FLOATS:
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
    Returns {"seconds", "sr", "clipped", "left"} (seconds of audio, samples clipped to full scale,
    why the gate left the input as it is: "clean", "whole band" or "" for neither). Raises
    FileError, and then leaves nothing behind.
    """
    with audio.open_audio(source) as reader, store.atomic_path(target, overwrite) as temporary:
        check_format(reader, source, target)
        sr, channels = reader.samplerate, reader.channels
        kind = storage(reader, target)

        def write(blocks: Iterator[np.ndarray]) -> int:
            clipped = 0
            with sf.SoundFile(temporary, "w", sr, channels, **kind) as writer:
                for block in blocks:
                    if kind["subtype"] != "FLOAT":
                        clipped += int(np.sum(np.abs(block) > 1))
                        block = np.clip(block, -1, 1)
                    writer.write(block)
            return clipped

        stream = denoiser.stream(channels)
        clipped = write(denoised_blocks(stream, reader))
        if left := stream.why_leave:
            clipped = write(reader.blocks(int(BLOCK_SECONDS * sr)))
        return {"seconds": reader.frames / sr, "sr": sr, "clipped": clipped, "left": left}


def denoised_blocks(stream, reader: audio.Reader) -> Iterator[np.ndarray]:
    """Blocks `(n, channels)` at the file's own rate, as many samples in all as the file has."""
    sr, channels = reader.samplerate, reader.channels
    inward, outward = resampler(sr, SAMPLE_RATE, channels), resampler(SAMPLE_RATE, sr, channels)
    empty = np.zeros((0, channels), np.float32)
    owed = 0  # samples taken in and not yet given back; what comes out is late, never early
    seconds = reader.frames and reader.frames / sr
    bar = tqdm(total=seconds, unit="s", delay=2, leave=False, disable=None)
    for block in reader.blocks(int(BLOCK_SECONDS * sr)):
        out = outward(stream.process(inward(block)))
        owed += len(block) - len(out)
        bar.update(len(block) / sr)
        yield out
    rest = np.concatenate([stream.process(inward(empty, last=True)), stream.finish()])
    rest = outward(rest, last=True)[:owed]
    yield np.pad(rest, ((0, owed - len(rest)), (0, 0)))  # rates round to a sample less
    bar.close()
