"""Batches of files: nothing lost, nothing half-written, and no batch that stops at one file."""

import contextlib
import errno
import resource
import shutil

import numpy as np
import pytest
import soundfile as sf

from helpers import audio, store
from helpers.store import FileError
from helpers.tool import files
from helpers.tool.files import denoise_file

SR = 16_000


def sound(path, n_samples=4_000, n_channels=1, sr=SR, **options):
    """A file of noise at -9 dBFS, the same for the same shape; returns its samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(n_samples).uniform(-0.6, 0.6, (n_samples, n_channels))
    sf.write(path, samples, sr, **options)
    return samples


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_file_larger_than(n_bytes):
    """As on a disk that gets full: the system takes no byte beyond this of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("way", ["write", "denoise_file"])
def test_a_file_that_does_not_fit_is_told_and_the_old_one_stays(pass_through, tmp_path, way):
    """libsndfile says nothing when it loses the last frame of a FLAC."""
    source, target = tmp_path / "in.wav", tmp_path / "out" / "a.flac"
    samples = sound(source, 9_000)

    def make(path):
        if way == "write":
            audio.write(path, samples, overwrite=True)
        else:
            denoise_file(pass_through, source, path, overwrite=True)

    make(tmp_path / "whole.flac")
    size = (tmp_path / "whole.flac").stat().st_size
    audio.write(target, np.zeros(10))
    old = target.read_bytes()
    for room in [*range(100, size, 1_500), *range(size - 20, size)]:
        with (
            no_file_larger_than(room),
            pytest.raises(FileError, match=rf"\A{target}: cannot be written \(.*; choose "),
        ):
            make(target)
        assert everything(target.parent) == ["a.flac"]
        assert target.read_bytes() == old


def test_a_full_disk_is_named_with_the_output(pass_through, tmp_path, monkeypatch):
    source, target = tmp_path / "in.wav", tmp_path / "out" / "a.flac"
    sound(source, 9_000)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(audio.shutil, "disk_usage", lambda path: usage)
    with no_file_larger_than(5_000):
        report = files.for_each_file(
            [(source, target)], lambda *pair: denoise_file(pass_through, *pair)
        )
    message = f"{target}: cannot be written (the disk is full); make room or choose another folder"
    assert report["failed"] == [(source, message)]


def test_a_full_disk_is_named_whatever_is_written(tmp_path):
    def write():
        with store.atomic_path(tmp_path / "table.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        FileError, match=r"table\.csv: cannot be written \(the disk is full\); make"
    ):
        write()
    assert everything(tmp_path) == []


def test_a_file_system_without_modes_takes_files(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(store.Path, "chmod", refuse)
    audio.write(tmp_path / "a.flac", np.zeros(100))
    assert everything(tmp_path) == ["a.flac"]


def test_the_name_of_what_is_being_written_fits_where_the_name_fits(tmp_path):
    longest = tmp_path / ("n" * 250 + ".flac")
    audio.write(longest, np.zeros(100))
    odd = tmp_path / ("a." + "n" * 253)  # all of it an ending
    with store.atomic_path(odd) as temporary:
        temporary.write_text("whole")
    assert everything(tmp_path) == sorted([longest.name, odd.name])
    with pytest.raises(FileError, match=r"n\.flac: the name is too long; rename"):
        audio.write(tmp_path / ("n" * 251 + ".flac"), np.zeros(100))


def test_a_target_that_is_a_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=rf"\A{tmp_path}: cannot be written \(Is a directory\)"):
        audio.write(tmp_path, np.zeros(100), overwrite=True)
