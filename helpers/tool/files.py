"""Files in, files out: which output belongs to which input, a batch that survives bad ones.

The README shows the commands.
"""

import contextlib
import functools
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from helpers import audio, command, store, writing
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
    audio, or an output that is or holds the input.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        audio.open_audio(source).close()
        is_folder = target.is_dir() or target.suffix == ""
        output = target / f"{source.stem}.flac" if is_folder else target
        if output.resolve() == source.resolve():
            raise AudioError(f"{output}: is both input and output; choose another name for OUT")
        return [(source, output)]
    if target.is_file():
        raise AudioError(f"{target}: is a file, but {source} is a folder; name a folder")
    if target.resolve() == source.resolve():
        raise AudioError(f"{target}: is both input and output; choose another folder for OUT")
    if source.resolve().is_relative_to(target.resolve()):
        raise AudioError(f"{target}: holds the input {source}; choose another folder for OUT")
    return [
        (f, (target / f.relative_to(source)).with_suffix(".flac"))
        for f in sounds_below(source, target)
    ]


def sounds_below(folder: Path, out: Path) -> list[Path]:
    """All sounds below a folder that do not lie in `out`; a sub-folder that cannot be read is one.

    Raises AudioError where there is none.
    """
    unreadable, out = [], out.resolve()
    found = audio.audio_files(folder, unreadable) + unreadable
    found = [file for file in found if not file.parent.resolve().is_relative_to(out)]
    if not found:
        raise AudioError(f"{folder}: no audio files below this folder; check the path")
    return found


def for_each_file(
    pairs: list[tuple[Path, Path]],
    work: Callable[[Path, Path], object],
    is_there: Callable[[Path, Path], bool] | None = None,
    n_workers: int = 1,
    connect: Callable | None = None,
    keep: Callable[[object], None] = lambda result: None,
) -> dict:
    """Call `work(file, output)` for every pair of `plan_outputs`, going on after a bad one.

    Returns {"done": [(file, output, result)], "there": [(file, output)], "failed": [(file,
    message)], "stopped": None}, each in the order of the pairs. "there" are those for which
    `is_there(file, output)`. A second file that would get the output of an earlier one (`a.wav`,
    `a.mp3`) fails. A KeyboardInterrupt ends the work; it is then what "stopped" holds. With
    `n_workers` over 1 as many processes share the files (`command.Workers`), or those of
    `connect()`, a `helpers.tool.cluster.Cluster`. For each file that is done `keep(result)` is
    called, in this process. With DENOISER_DEBUG set the first error is raised, and without a
    cluster there is one process.
    """
    report, known = {"done": [], "there": [], "failed": []}, set()
    remove_leftovers(pairs)
    groups = list(by_output(pairs).values())
    n_workers = 1 if os.environ.get("DENOISER_DEBUG") else min(n_workers, len(groups))
    outcomes = functools.partial(outcomes_of, work=work, is_there=is_there)
    cluster = connect() if connect else None
    workers = cluster or command.Workers(outcomes, groups if n_workers > 1 else [], n_workers)
    if cluster:
        told_of = cluster.work_on(groups, work, is_there)
    elif n_workers > 1:
        told_of = workers
    else:
        told_of = ((group, outcome) for group in groups for outcome in outcomes(group))

    def take(group: list, outcome: tuple | command.Died) -> None:
        if isinstance(outcome, command.Died):
            lost = [(file, what_failed(file, outcome)) for file, _ in group if file not in known]
            told = [("failed", *one) for one in lost]
        else:
            told = [outcome]
        for kind, *facts in kept(told, keep):
            report[kind].append(tuple(facts))
            known.add(facts[0])
            bar.update()

    stopped = None
    bar = progress_bar(len(pairs), n_workers)
    try:
        for group, outcome in told_of:
            take(group, outcome)
    except KeyboardInterrupt as stop:
        stopped = stop
    finally:
        for group, outcome in workers.end():
            take(group, outcome)
        bar.close()
        if cluster:  # where others than this process may have been killed
            remove_leftovers(pairs)
    place = {file: i for i, (file, _) in enumerate(pairs)}
    for told in report.values():
        told.sort(key=lambda facts: place[facts[0]])
    return report | {"stopped": stopped}


def remove_leftovers(pairs: list[tuple[Path, Path]]) -> None:
    """Delete what killed processes left half-written beside outputs."""
    for folder in {output.parent for _, output in pairs}:
        store.remove_leftovers(folder)


def by_output(pairs: list[tuple[Path, Path]]) -> dict[Path, list[tuple[Path, Path]]]:
    """Pairs of one output together, as one process must have them."""
    groups = {}
    for file, output in pairs:
        groups.setdefault(output, []).append((file, output))
    return groups


def outcomes_of(group: list[tuple[Path, Path]], work: Callable, is_there: Callable | None):
    """Do the work for pairs of one output; what `for_each_file` reports of each, as it comes."""
    taken = {}
    for file, output in group:
        try:
            check_pair(file, output, taken)
            if is_there and is_there(file, output):
                outcome = ("there", file, output)
            else:
                outcome = ("done", file, output, work(file, output))
            taken[output] = file
        except Exception as error:  # of whatever kind: the others are still to be done
            if os.environ.get("DENOISER_DEBUG"):
                raise
            outcome = ("failed", file, what_failed(file, error))
        yield outcome


def kept(outcomes: list[tuple], keep: Callable[[object], None]) -> Iterator[tuple]:
    """Outcomes, after `keep(result)` of those that are done; one that cannot be kept has failed."""
    for outcome in outcomes:
        kind, file, *rest = outcome
        try:
            if kind == "done":
                keep(rest[-1])
        except Exception as error:
            if os.environ.get("DENOISER_DEBUG"):
                raise
            outcome = ("failed", file, what_failed(file, error))
        yield outcome


def progress_bar(n_files: int, n_workers: int) -> tqdm:
    """A bar of files, where there are several and somebody looks."""
    if n_workers > 1:
        tqdm.monitor_interval = 0  # or a thread begins, and processes are to be forked
    return tqdm(total=n_files, unit="file", delay=2, disable=None if n_files > 1 else True)


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


def is_in_the_way(file: Path, output: Path) -> bool:
    """False, for the one output that a single file has. Raises FileError where it exists."""
    if os.path.exists(output):
        raise FileError(f"{output}: exists already; choose another name or pass --overwrite")
    return False


def what_failed(file: Path, error: Exception) -> str:
    """One line that names a file, what went wrong and, where it is known, what to do about it."""
    text = " ".join(str(error).split())
    if isinstance(error, FileError) or str(file) in text:
        return text
    if isinstance(error, MemoryError):
        return f"{file}: needs more memory than there is; cut it into parts"
    if isinstance(error, ValueError | OSError | sf.LibsndfileError):
        return f"{file}: {text}"
    if isinstance(error, command.Died):
        return f"{file}: {text}; is there enough memory for several files at a time? (--jobs 1)"
    kind = type(error).__name__
    return f"{file}: {kind}: {text[:200]}; DENOISER_DEBUG=1 in front of the call shows where"


@contextlib.contextmanager
def pipes_as_files(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """`source` and `target`, with files in place of pipes as long as the block lasts.

    What can be read only once (`-` for standard input, /dev/stdin, a named pipe) is copied before,
    because the gate may want it twice. For the target `-` what was written, a WAV, is copied to
    standard output when the block ends well. Raises AudioError for a folder into a pipe.
    """
    if target == PIPE and source.is_dir():
        raise AudioError(f"{source}: is a folder, which no pipe can hold; name a folder for OUT")
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
    Returns {"seconds", "sr", "clipped", "left", "words"} (seconds of audio, samples clipped to full
    scale, whether it was left as it is, for lack of noise, and what was done, in words). Raises
    FileError, and then leaves nothing behind.
    """
    with audio.open_audio(source) as reader, store.atomic_path(target, overwrite) as temporary:
        check_format(reader, source, target)
        sr, channels = reader.samplerate, reader.channels
        kind = storage(reader, target) | {"target": target}
        stream = denoiser.stream(channels)
        blocks = denoised_blocks(stream, reader)
        clipped = audio.write_blocks(temporary, blocks, sr, channels, **kind)
        left, words = denoiser.by_frequency and stream.account.is_faint, stream.account.words()
        if left:  # then not even the rate is touched
            blocks = reader.blocks(int(BLOCK_SECONDS * sr))
            clipped = audio.write_blocks(temporary, blocks, sr, channels, **kind)
        told = {"left": left, "words": words + ", left as it is" * left}
        return {"seconds": reader.frames / sr, "sr": sr, "clipped": clipped} | told


class FileDenoiser:
    """`denoise_file`, called with a file and its output, for several processes.

    Each makes its own denoiser: `make()`, a `helpers.denoise.stream.Denoiser` or what is like one.
    """

    def __init__(self, make: Callable[[], object], overwrite: bool = False):
        self.make, self.overwrite = make, overwrite
        self.made = {}  # process -> its denoiser

    def __call__(self, source: Path, target: Path) -> dict:
        return denoise_file(self.denoiser, source, target, self.overwrite)

    @property
    def denoiser(self):
        """The denoiser of this process."""
        if os.getpid() not in self.made:
            self.made = {os.getpid(): self.make()}
        return self.made[os.getpid()]

    def __getstate__(self) -> dict:
        return vars(self) | {"made": {}}  # for a process that is not forked


def denoised_blocks(stream, reader: audio.Reader) -> Iterator[np.ndarray]:
    """Blocks `(n, channels)` at the file's own rate, as many samples in all as the file has."""
    sr, channels = reader.samplerate, reader.channels
    inward, outward = resampler(sr, SAMPLE_RATE, channels), resampler(SAMPLE_RATE, sr, channels)
    empty = np.zeros((0, channels), np.float32)
    owed = 0  # samples taken in and not yet given back; what comes out is late, never early
    seconds = reader.frames and reader.frames / sr
    in_worker = multiprocessing.parent_process() is not None
    bar = tqdm(total=seconds, unit="s", delay=2, leave=False, disable=in_worker or None)
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
