"""Noisy copies of clean files on disk, and the manifest that makes them again.

Taught in `02_noise`.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import audio, store
from helpers.data import corpus, noise
from helpers.tool import files


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
) -> dict:
    """Write a noisy FLAC for a file, or for every file below a folder, and a manifest.

    The noise of a file depends on its path below `source` and on `seed` only, so the same call
    gives the same bytes, whatever else lies there. Rate and channels are kept; all channels of
    a file get the same noise. The manifest has, beside the setting, `scale`: what the clean
    signal was multiplied by so that the sum does not clip (1 mostly).

    Returns the report of `files.for_each_file` with "manifest", the path of the CSV. Raises
    AudioError and ValueError before anything is written where nothing could be done.
    """
    source, target = Path(source), Path(target)
    recordings = recordings_for(kind, noise_folder)
    noise.check_kind(kind)
    single = not source.is_dir()
    pairs = files.plan_outputs(source, target)
    manifest = pairs[0][1].with_suffix(".manifest.csv") if single else target / "manifest.csv"

    def work(file: Path, output: Path) -> dict:
        name = file.name if single else file.relative_to(source).as_posix()
        clean, sr = read_whole(file)
        rng = noise.rng_for(name, seed)
        added = noise.make(kind, len(clean), sr, rng, *band, recordings)
        scaled, _, noisy = noise.mix(clean, added, snr_db, sr, over_active)
        audio.write(output, noisy, sr, overwrite)
        written = output.name if single else output.relative_to(target).as_posix()
        scale = np.abs(scaled).max() / np.abs(clean).max()
        return {"file": name, "noisy": written, "scale": scale, "sha256": file_hash(output)}

    with store.atomic_path(manifest, overwrite) as temporary:
        report = files.for_each_file(pairs, work)
        setting = {"kind": kind, "low": band[0], "high": band[1], "snr_db": snr_db}
        setting |= {"over_active": over_active, "seed": seed}
        rows = [result | setting for _, _, result in report["done"]]
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return report | {"manifest": manifest}


def recordings_for(kind: str, folder: Path | None) -> tuple[Path, ...]:
    """The recordings that a kind needs: all below `folder` or, without one, those found."""
    if kind != "recorded":
        return ()
    return tuple(noise.recorded_files(folder or corpus.find_noise()))


def read_whole(file: Path) -> tuple[np.ndarray, int]:
    """All samples of a file at its own rate, float32 `(samples, channels)`, and the rate."""
    with audio.open_audio(file) as reader:
        files.check_format(reader, file, Path("any.flac"))
        return np.concatenate(list(reader.blocks(1 << 20))), reader.samplerate


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
