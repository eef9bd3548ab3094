"""Files in, files out: which output belongs to which input, and a batch that survives bad ones.

Taught in `05_evaluation`.
"""

from collections.abc import Callable
from pathlib import Path

import soundfile as sf
from tqdm import tqdm

from helpers import audio
from helpers.audio import AudioError

ENDINGS = {f".{name.lower()}" for name in sf.available_formats()} | {".aif", ".opus", ".oga"}
ENDINGS -= {".raw", ".mat4", ".mat5"}  # not what a reader means by the sounds in a folder
FLAC_CHANNELS = 8


def audio_files(folder: Path) -> list[Path]:
    """Sorted files below a folder whose endings libsndfile knows."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())


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
    files = audio_files(source)
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
        except (AudioError, ValueError, OSError, sf.LibsndfileError) as error:
            named = isinstance(error, AudioError) or str(file) in str(error)
            message = str(error) if named else f"{file}: {error}"
            report["failed"].append((file, message))
    return report


def check_format(reader: sf.SoundFile, source: Path, target: Path) -> None:
    """Raise AudioError for an input without samples, or one that `target` cannot hold."""
    if target.suffix.lower() not in (".flac", ".wav"):
        raise AudioError(f"{target}: the output is FLAC or WAV; end its name in .flac or .wav")
    if target.suffix.lower() == ".flac" and reader.channels > FLAC_CHANNELS:
        raise AudioError(
            f"{source}: {reader.channels} channels, FLAC holds {FLAC_CHANNELS}; write to a .wav"
        )
    if reader.frames == 0:
        raise AudioError(f"{source}: holds no samples; record it again")
