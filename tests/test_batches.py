"""Batches of files: nothing lost, nothing half-written, and no batch that stops at one file."""

import contextlib
import errno
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile as sf
from conftest import keep, save_model

from helpers import audio, store
from helpers.__main__ import main
from helpers.audio import AudioError
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


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of untrained weights, which pass everything."""
    folder = tmp_path_factory.mktemp("weights")
    save_model("spectrogram", folder, keep)
    return folder


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


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path):
    """A folder of sounds with all that must not be taken for input, and links."""
    folder = tmp_path / "in"
    for name in ("a.wav", "deep/b.wav", "deep/.hidden.wav", ".git/c.wav", ".denoiser-x.flac"):
        sound(folder / name)
    sound(tmp_path / "elsewhere" / "d.wav")
    sound(tmp_path / "elsewhere" / "more" / "e.wav")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "up").symlink_to(folder)
    (tmp_path / "elsewhere" / "more" / "round").symlink_to(tmp_path / "elsewhere")
    (folder / "nowhere.wav").symlink_to(tmp_path / "missing.wav")
    (folder / "itself.wav").symlink_to(folder / "itself.wav")
    return folder


def planned(folder, target):
    return [str(file.relative_to(folder)) for file, _ in files.plan_outputs(folder, target)]


def test_hidden_names_are_no_input_and_links_are_followed_without_end(tmp_path, nested):
    names = ["a.wav", "deep/b.wav", "linked/d.wav", "linked/more/e.wav"]
    assert planned(nested, tmp_path / "out") == names
    assert planned(tmp_path / "in" / ".git", tmp_path / "out") == ["c.wav"]  # the user's own word


def test_two_links_to_one_folder_are_two_places(tmp_path, nested):
    (nested / "again").symlink_to(tmp_path / "elsewhere")
    assert [name for name in planned(nested, tmp_path / "out") if "again" in name] == [
        "again/d.wav",
        "again/more/e.wav",
    ]


def test_the_output_below_the_input_is_no_input(nested):
    before = planned(nested, nested / "deep" / "out")
    sound(nested / "deep" / "out" / "b.flac")
    assert planned(nested, nested / "deep" / "out") == before
    assert "deep/out/b.flac" in planned(nested, nested / "other")
    with pytest.raises(AudioError, match=r"is both input and output; choose another folder"):
        files.plan_outputs(nested, nested / "deep" / "..")


def test_a_folder_that_cannot_be_read_fails_alone(tmp_path, nested, monkeypatch):
    """The tests may run as root, for whom every folder can be read."""
    scandir = store.os.scandir

    def refuse(place):
        if place == nested / "deep":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(audio.os, "scandir", refuse)
    pairs = files.plan_outputs(nested, tmp_path / "out")
    report = files.for_each_file(pairs, lambda file, output: None)
    assert [file.name for file, *_ in report["done"]] == ["a.wav", "d.wav", "e.wav"]
    message = f"{nested / 'deep'}: this folder cannot be read; make it readable or move it away"
    assert report["failed"] == [(nested / "deep", message)]
    with pytest.raises(AudioError, match=rf"\A{nested / 'deep'}: cannot be read .*; make it"):
        audio.audio_files(nested)


def test_a_batch_survives_every_kind_of_error(tmp_path):
    for name in "abcd":
        sound(tmp_path / "in" / f"{name}.wav")
    errors = {"a": MemoryError(), "b": ZeroDivisionError("by zero"), "c": AssertionError()}

    def work(file, output):
        if file.stem in errors:
            raise errors[file.stem]

    report = files.for_each_file(files.plan_outputs(tmp_path / "in", tmp_path / "out"), work)
    assert [file.name for file, *_ in report["done"]] == ["d.wav"]
    assert [(file.stem, str(file) in message) for file, message in report["failed"]] == [
        ("a", True),
        ("b", True),
        ("c", True),
    ]


def test_a_rate_that_is_none_is_told(pass_through, tmp_path):
    for rate in (1, 49, 700_000):
        sound(tmp_path / "in" / f"{rate}.wav", sr=rate)
    sound(tmp_path / "in" / "good.wav", sr=50)
    report = files.for_each_file(
        files.plan_outputs(tmp_path / "in", tmp_path / "out"),
        lambda *pair: denoise_file(pass_through, *pair),
    )
    assert [file.name for file, *_ in report["done"]] == ["good.wav"]
    for file, message in report["failed"]:
        assert message == f"{file}: a rate of {file.stem} Hz; resample it to one of 50 to 655350 Hz"


# --- the command line, run again and stopped ----------------------------------------------------


def test_a_second_run_takes_what_is_there_as_done(tmp_path, weights, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.wav", "deep/b.wav"):
        sound(folder / name)
    call = ["denoise", str(folder), str(out), "--weights", str(weights)]
    assert main(call) == 0
    before = {name: (out / name).stat().st_mtime_ns for name in everything(out)}
    sound(folder / "c.wav")
    assert main(call) == 0
    captured = capsys.readouterr()
    assert "1 done, 0.2 s of audio" in captured.out
    assert "note: 2 were there already (--overwrite makes them again)" in captured.out
    assert not captured.err
    assert everything(out) == ["a.flac", "c.flac", "deep/b.flac"]
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())
    (out / "a.flac").write_text("precious")
    assert main(call) == 1
    assert (
        f"error: {out / 'a.flac'}: exists already and is no whole sound" in capsys.readouterr().err
    )
    assert (out / "a.flac").read_text() == "precious"
    assert main([*call, "--overwrite"]) == 0
    assert "3 done" in capsys.readouterr().out
    assert all((out / name).stat().st_mtime_ns > when for name, when in before.items())


def test_what_a_killed_run_left_goes_and_what_another_writes_stays(tmp_path, weights):
    folder, out = tmp_path / "in", tmp_path / "out"
    sound(folder / "a.wav")
    out.mkdir()
    script = "import os, sys, pathlib; from helpers import store\n"
    script += "with store.atomic_path(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert (
        subprocess.run([sys.executable, "-c", script, out / "b.flac"], check=False).returncode == -9
    )
    [left] = everything(out)
    assert left.startswith(store.TEMPORARY)
    with store.atomic_path(out / "c.flac") as temporary:
        assert main(["denoise", str(folder), str(out), "--weights", str(weights)]) == 0
        assert everything(out) == sorted(["a.flac", temporary.name])
        audio.write(temporary, np.zeros(10), overwrite=True)
    assert everything(out) == ["a.flac", "c.flac"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("command", ["denoise", "add-noise"])
def test_a_stopped_batch_says_what_is_done_and_goes_on(tmp_path, weights, command, sent, code):
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(400):
        sound(folder / f"{i:03d}.wav", 16_000)
    call = [sys.executable, "-m", "helpers", command, str(folder), str(out)]
    call += ["--weights", str(weights)] if command == "denoise" else []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(call, **pipes)
    while not (out / "003.flac").exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(sent)
    said, complained = process.communicate()
    assert process.returncode == code
    made = [name for name in everything(out) if name.endswith(".flac")]
    assert 4 <= len(made) < 400
    n_said = int(said.split(" done")[0])
    assert len(made) - 1 <= n_said <= len(made)  # the signal may come between writing and counting
    assert complained.strip().splitlines()[-1] == "interrupted; the same call goes on from here"
    assert "Traceback" not in complained
    assert not [name for name in everything(out) if name.startswith(".")]
    assert all(sf.info(out / name).frames == 16_000 for name in made)


@pytest.mark.parametrize("option", ["--snr=nan", "--snr=-inf", "--snr=-4000", "--seed=-1"])
def test_a_number_that_is_none_is_refused_before_anything(tmp_path, option, capsys):
    sound(tmp_path / "a.wav")
    with pytest.raises(SystemExit) as caught:
        main(["add-noise", str(tmp_path / "a.wav"), str(tmp_path / "b.flac"), option])
    assert caught.value.code == 2
    name, _, value = option.partition("=")
    assert f"error: argument {name}: {value}: choose " in capsys.readouterr().err
    assert everything(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("size", ["0", "-3", "1.5"])
def test_a_batch_of_no_clips_is_refused(size, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "spectrogram", "--batch-size", size])
    assert caught.value.code == 2
    assert f"argument --batch-size: {size}: choose a whole number" in capsys.readouterr().err
