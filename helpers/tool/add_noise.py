"""Noisy copies of clean files on disk, and the manifest that makes them again.

Taught in `02_noise`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from helpers import audio, store
from helpers.audio import AudioError
from helpers.data import corpus, noise
from helpers.store import FileError
from helpers.tool import files
from helpers.tool.manifest import Manifest, file_hash, printable

PIECE = 1 << 20  # samples, which are held in memory; noise repeats after as many
FRAMES = 50  # per second, of which `noise.active` tells speech from pauses
FAINTEST = 2.0**-16  # a magnitude; what is fainter is nothing in 16 bits

Blocks = Callable[[], Iterable[np.ndarray]]  # gives the blocks of a file, each time from the first


@dataclasses.dataclass(frozen=True)
class Setting:
    """What noise is added and how loud: the same for all files of a manifest."""

    kind: str = "white"
    low: float = noise.LOW  # Hz
    high: float = noise.HIGH  # Hz
    snr_db: float = 0.0
    over_active: bool = False
    seed: int = 0
    recordings: tuple[Path, ...] = ()

    def __post_init__(self):
        if not np.isfinite(self.snr_db):
            raise ValueError(f"an SNR of {self.snr_db} dB; choose a number")
        noise.check_kind(self.kind)

    @property
    def row(self) -> dict:
        """The setting as the manifest has it; of recordings a digest of their names and sizes."""
        digest = store.key(store.sizes(self.recordings)) if self.recordings else ""
        return dataclasses.asdict(self) | {"recordings": digest}


def add_noise_to_files(
    source: Path,
    target: Path,
    *,
    kind: str = "white",
    band: tuple[float, float] = (noise.LOW, noise.HIGH),
    snr_db: float = 0.0,
    seed: int = 0,
    over_active: bool = False,
    noise_folder: Path | None = None,
    overwrite: bool = False,
    connect: Callable | None = None,
) -> dict:
    """Write a noisy FLAC for a file (or WAV, if `target` ends so), or one for every file below a
    folder, and a manifest.

    The noise of a file depends on its path below `source` and on `seed` only, so the same call
    gives the same bytes, whatever else lies there. Rate and channels are kept; all channels of
    a file get the same noise, which repeats after PIECE samples, faded over. The manifest has,
    beside the setting, `scale`: what the clean signal was multiplied by so that the sum does not
    clip (1 mostly). What an earlier call of the same setting made is kept, and stays listed.
    `connect`: see `files.for_each_file`.

    Returns the report of `files.for_each_file` with "manifest", the path of the CSV. Raises
    FileError and ValueError before anything is written where nothing could be done.
    """
    low, high = map(float, band)
    recordings = recordings_for(kind, noise_folder)
    setting = Setting(kind, low, high, float(snr_db), bool(over_active), seed, recordings)
    pairs = files.plan_outputs(source, target)
    single = not Path(source).is_dir()
    above, place = (pairs[0][i].parent for i in (0, 1)) if single else map(Path, (source, target))
    path = pairs[0][1].with_suffix(".manifest.csv") if single else place / "manifest.csv"
    store.remove_leftovers(place)
    manifest = Manifest(path, setting.row, overwrite)

    work = functools.partial(
        noisy_row, above=above, place=place, setting=setting, overwrite=overwrite
    )

    def is_there(file: Path, output: Path) -> bool:
        return not overwrite and manifest.has(printable(output.relative_to(place)), output)

    report = files.for_each_file(pairs, work, is_there, connect=connect, keep=manifest.add)
    manifest.finish()
    return report | {"manifest": path}


def recordings_for(kind: str, folder: Path | None) -> tuple[Path, ...]:
    """The recordings that a kind needs: all below `folder` or, without one, those found."""
    if kind != "recorded":
        return ()
    return tuple(noise.recorded_files(folder or corpus.find_noise()))


# --- one file -----------------------------------------------------------------------------------


def noisy_row(
    file: Path, output: Path, above: Path, place: Path, setting: Setting, overwrite: bool
) -> dict:
    """Write a noisy copy as `write_noisy` does; what the manifest says of it, whose folder `place`
    is, while `above` is that of the inputs."""
    names = {"file": printable(file.relative_to(above))}
    names["noisy"] = printable(output.relative_to(place))
    return names | write_noisy(file, output, names["file"], setting, overwrite)


def write_noisy(file: Path, output: Path, name: str, setting: Setting, overwrite: bool) -> dict:
    """Write a noisy FLAC or WAV of 16 bits, block by block; gives its "scale" and "sha256".

    `name` decides the noise, with the seed. An output that is there already is left alone, unless
    `overwrite`; FileError is raised where it is another than this call makes.
    """
    blocks, sr, n_samples, n_channels = open_blocks(file, output)
    added = noise_for(n_samples, sr, noise.rng_for(name, setting.seed), setting)
    gain, scale = gains(blocks, added, sr, setting)
    if scale < 1 and not survives(blocks, scale):
        raise AudioError(
            f"{file}: too faint for 16 bits beside its loudest sample or this noise; "
            "mend that sample or choose a higher SNR"
        )
    noisy = (mixed(block, added, gain, scale) for block in blocks())
    kind = {"format": output.suffix[1:].upper(), "subtype": "PCM_16", "target": output}
    with store.atomic_path(output, overwrite=True) as temporary:
        audio.write_blocks(temporary, noisy, sr, n_channels, **kind)
        sha256 = file_hash(temporary)
        if output.exists() and not overwrite and file_hash(output) != sha256:
            raise FileError(f"{output}: exists already; choose another name or pass --overwrite")
    return {"scale": scale, "sha256": sha256}


def open_blocks(file: Path, output: Path) -> tuple[Blocks, int, int, int]:
    """The blocks of a file, each `(PIECE, channels)` but the last, its rate, length and channels.

    A file of one block is read once. Raises AudioError for what `output` cannot hold.
    """

    def read() -> Iterator[np.ndarray]:
        with audio.open_audio(file) as reader:
            yield from pieces(reader)

    with audio.open_audio(file) as reader:
        files.check_format(reader, file, output)
        sr, n_channels = reader.samplerate, reader.channels
        first, n_samples = None, 0
        for block in pieces(reader):
            first = block if first is None else first
            n_samples += len(block)
    return (read if n_samples > PIECE else lambda: [first]), sr, n_samples, n_channels


def pieces(reader: audio.Reader) -> Iterator[np.ndarray]:
    """Blocks of PIECE samples each, the last one of what is left; a reader's may be shorter."""
    waiting = []
    for block in reader.blocks(PIECE):
        waiting.append(block)
        if sum(map(len, waiting)) >= PIECE:
            joined = np.concatenate(waiting)
            yield joined[:PIECE]
            waiting = [joined[PIECE:]]
    if any(map(len, waiting)):
        yield np.concatenate(waiting)


def noise_for(n_samples: int, sr: int, rng: np.random.Generator, setting: Setting) -> np.ndarray:
    """Noise for a file, float32 `(min(n_samples, PIECE),)`; the end of a piece fits its beginning.

    A file of more than PIECE samples has the piece again and again, as a short recording.
    """
    fade = sr // 10 if n_samples > PIECE else 0
    length = min(n_samples, PIECE) + fade
    band = (setting.low, setting.high)
    added = noise.make(setting.kind, length, sr, rng, *band, setting.recordings)
    if fade:
        rise = np.sin(np.linspace(0, np.pi / 2, fade)).astype(np.float32)  # of constant power
        added[:fade] = added[:fade] * rise + added[PIECE:] * rise[::-1]
    return added[:PIECE]


def gains(blocks: Blocks, added: np.ndarray, sr: int, setting: Setting) -> tuple[float, float]:
    """What makes the SNR exact, as `noise.mix` does, for blocks: the noise's gain, and the scale
    of the sum that does not clip. Raises ValueError where speech or noise is silent.
    """
    sums, counts, start = np.zeros(2), np.zeros(2), 0
    speaks = speaking(blocks, sr) if setting.over_active else None
    for block in blocks():
        frames = (start + np.arange(len(block))) // (sr // FRAMES)
        start += len(block)
        parts = block if speaks is None else block[speaks[frames]], added[: len(block)]
        sums += [np.sum(np.square(part, dtype=np.float64)) for part in parts]
        counts += [part.size for part in parts]
    if not sums.all():
        raise ValueError("no SNR can be set: the clean speech or the noise is silent")
    powers = sums / counts
    gain = np.sqrt(powers[0] / powers[1] * 10 ** (-setting.snr_db / 10))
    peak = max(peak_of(block, added, gain) for block in blocks())
    return float(gain), float(min(1.0, 0.99 / peak))


def peak_of(block: np.ndarray, added: np.ndarray, gain: float) -> float:
    """The largest magnitude in a block `(n, channels)`, its noise, and their sum."""
    clean, louder = np.float64(block), np.float64(added[: len(block), None]) * gain
    return max(np.abs(part).max() for part in (clean, louder, clean + louder))


def mixed(block: np.ndarray, added: np.ndarray, gain: float, scale: float) -> np.ndarray:
    """A noisy block, float32 `(n, channels)`."""
    louder = np.float64(added[: len(block), None]) * gain
    return np.float32(np.float64(block) * scale) + np.float32(louder * scale)


def speaking(blocks: Blocks, sr: int) -> np.ndarray:
    """Which frames of 20 ms are speech, bool `(frames,)`: `noise.active` of their RMS."""
    length, rest, powers = sr // FRAMES, np.zeros(0), []
    for block in blocks():
        squares = np.square(block, dtype=np.float64).mean(axis=1)
        rest = np.concatenate([rest, squares])
        whole = len(rest) // length * length
        powers.append(rest[:whole].reshape(-1, length).mean(axis=1))
        rest = rest[whole:]
    last = np.pad(rest, (0, -len(rest) % length)).reshape(-1, length).mean(axis=1)
    return noise.active(np.sqrt(np.concatenate([*powers, last])), FRAMES)


def survives(blocks: Blocks, scale: float) -> bool:
    """Whether more than a thousandth of what 16 bits can hold of a file is left when it is scaled.

    It is not beside one sample of 1e20, which makes the rest of the file nothing.
    """
    counts = np.zeros(2)
    for block in blocks():
        counts += [np.sum(np.abs(block) * np.float64(y) >= FAINTEST) for y in (1, scale)]
    return bool(counts[1] > counts[0] / 1000)
