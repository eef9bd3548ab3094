"""Batches of files: nothing lost, nothing half-written, and no batch that stops at one file."""

import contextlib
import errno
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import heed_signals, keep, save_model

from helpers import audio, reading, store, writing
from helpers.__main__ import main
from helpers.audio import AudioError
from helpers.command import n_cores
from helpers.data import noise
from helpers.models import export
from helpers.store import FileError
from helpers.tool import add_noise, files
from helpers.tool.add_noise import add_noise_to_files
from helpers.tool.files import denoise_file

SR = 16_000


def sound(path, n_samples=4_000, n_channels=1, sr=SR, **options):
    """A file of noise at -9 dBFS, the same for the same shape; returns its samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(n_samples).uniform(-0.6, 0.6, (n_samples, n_channels))
    with open(path, "wb") as stream:
        sf.write(stream, samples, sr, format=path.suffix[1:].upper(), **options)
    return samples


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of untrained weights, which pass everything, with their export."""
    folder = tmp_path_factory.mktemp("weights")
    save_model("spectrogram", folder, keep)
    export.write("spectrogram", folder)
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
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage)
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

    for place, name in ((store.Path, "chmod"), (os, "chmod"), (os, "fchmod")):
        monkeypatch.setattr(place, name, refuse)
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


@pytest.mark.parametrize("command", ["denoise", "add-noise"])
def test_a_name_that_gets_too_long_fails_alone(tmp_path, weights, command, capsys):
    long = tmp_path / "in" / ("n" * 251 + ".wav")
    sound(long)
    sound(tmp_path / "in" / ("n" * 250 + ".wav"))
    call = [command, str(tmp_path / "in"), str(tmp_path / "out")]
    call += ["--weights", str(weights)] if command == "denoise" else []
    assert main(call) == 1
    message = f"{tmp_path / 'out' / long.stem}.flac: the name is too long; rename the input"
    assert f"error: {message}" in capsys.readouterr().err
    assert f"{'n' * 250}.flac" in everything(tmp_path / "out")


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
    with pytest.raises(AudioError, match=rf"\A{nested.parent}: holds the input {nested}; choose"):
        files.plan_outputs(nested, nested.parent)


@pytest.mark.parametrize("command", ["denoise", "add-noise"])
def test_an_input_is_never_overwritten(tmp_path, command, capsys):
    sound(tmp_path / "a.flac")
    (tmp_path / "link.flac").symlink_to(tmp_path / "a.flac")
    before = (tmp_path / "a.flac").read_bytes()
    for target in (tmp_path, tmp_path / "a.flac", tmp_path / "link.flac"):
        assert main([command, str(tmp_path / "a.flac"), str(target), "--overwrite"]) == 1
        assert "is both input and output; choose another name for OUT" in capsys.readouterr().err
    assert (tmp_path / "a.flac").read_bytes() == before


def test_a_folder_that_cannot_be_read_fails_alone(tmp_path, nested, monkeypatch):
    """The tests may run as root, for whom every folder can be read."""
    scandir = store.os.scandir

    def refuse(place):
        if place == nested / "deep":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(reading.os, "scandir", refuse)
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
    process = subprocess.Popen(call, **pipes, preexec_fn=heed_signals)
    deadline = time.monotonic() + 120
    while not (out / "003.flac").exists():
        time.sleep(0.01)
        assert process.poll() is None
        if time.monotonic() > deadline:  # it may wait for a reader of what it complains about
            process.kill()
            raise AssertionError(process.communicate()[1])
    process.send_signal(sent)
    said, complained = process.communicate()
    assert process.returncode == code
    made = [name for name in everything(out) if name.endswith(".flac")]
    n_workers = n_cores() if command == "denoise" else 1
    assert 4 - (n_workers - 1) <= len(made) < 400  # the others may be at earlier files yet
    n_said = int(said.split(" done")[0].split("\n")[-1])
    assert len(made) - n_workers <= n_said <= len(made)  # it may come between writing and counting
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


# --- add-noise ------------------------------------------------------------------------------------


def listed(out):
    """The noisy files that a manifest lists, sorted; all of them must be as it says."""
    table = pd.read_csv(out / "manifest.csv")
    for row in table.itertuples():
        assert add_noise.file_hash(out / row.noisy) == row.sha256
    return sorted(table.noisy)


def test_after_a_kill_nothing_is_made_twice_and_all_is_listed(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(120):
        sound(folder / f"{i:03d}.wav", 16_000)
    call = [sys.executable, "-m", "helpers", "add-noise", str(folder), str(out)]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "005.flac").exists():
        time.sleep(0.005)
        assert process.poll() is None
    process.kill()
    process.wait()
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("[!.]*.flac")}
    assert len(set(made) - set(listed(out))) <= 1  # the one of the moment of the kill
    known = listed(out)
    assert main(["add-noise", str(folder), str(out)]) == 0
    assert listed(out) == [f"{i:03d}.flac" for i in range(120)]
    assert all((out / name).stat().st_mtime_ns == made[name] for name in known)
    assert everything(out) == [*listed(out), "manifest.csv"]


def test_a_file_that_lost_its_row_gets_it_again(tmp_path, capsys):
    sound(tmp_path / "in" / "a.wav")
    sound(tmp_path / "in" / "b.wav", 5_000)
    out = tmp_path / "out"
    call = ["add-noise", str(tmp_path / "in"), str(out)]
    assert main(call) == 0
    table = (out / "manifest.csv").read_text()
    for left in (
        table.splitlines(keepends=True)[0],
        "".join(table.splitlines(True)[:2]),
        table[:-9],
    ):
        (out / "manifest.csv").write_text(left)
        assert main(call) == 0
        assert (out / "manifest.csv").read_text() == table
    (out / "manifest.csv").unlink()
    audio.write(out / "b.flac", np.zeros(10), overwrite=True)
    assert main(call) == 1
    assert f"error: {out / 'b.flac'}: exists already; choose another" in capsys.readouterr().err
    assert listed(out) == ["a.flac"]
    assert sf.info(out / "b.flac").frames == 10


def test_new_files_are_added_and_another_setting_is_refused(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    sound(folder / "a.wav")
    call = ["add-noise", str(folder), str(out)]
    assert main([*call, "--snr", "5"]) == 0
    sound(folder / "deep" / "b.wav")
    assert main([*call, "--snr", "5"]) == 0
    assert "1 done, manifest" in (told := capsys.readouterr().out)
    assert "note: 1 were there already" in told
    before = {name: (out / name).read_bytes() for name in everything(out)}
    assert sorted(before) == ["a.flac", "deep/b.flac", "manifest.csv"]
    for other in (["--snr", "6"], ["--snr", "5", "--seed", "1"], ["--snr", "5", "--active"]):
        assert main([*call, *other]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {out / 'manifest.csv'}: lists files of ")
        assert error.endswith("choose another OUT or pass --overwrite\n")
    assert {name: (out / name).read_bytes() for name in everything(out)} == before
    assert main([*call, "--snr", "6", "--overwrite"]) == 0
    assert set(pd.read_csv(out / "manifest.csv").snr_db) == {6.0}
    assert listed(out) == ["a.flac", "deep/b.flac"]
    audio.write(out / "a.flac", np.zeros(10), overwrite=True)
    assert main([*call, "--snr", "6"]) == 1
    assert (
        f"error: {out / 'a.flac'}: not the file that manifest.csv lists" in capsys.readouterr().err
    )


def test_the_same_recordings_are_a_part_of_the_setting(tmp_path, capsys):
    sound(tmp_path / "in" / "a.wav")
    sound(tmp_path / "noise" / "fan" / "1.wav")
    call = ["add-noise", str(tmp_path / "in"), str(tmp_path / "out"), "--kind", "recorded"]
    call += ["--noise", str(tmp_path / "noise")]
    assert main(call) == 0
    assert main(call) == 0
    sound(tmp_path / "noise" / "fan" / "2.wav", 5_000)
    assert main(call) == 1
    assert "manifest.csv: lists files of recordings " in capsys.readouterr().err


def test_two_at_once_lose_no_row(tmp_path):
    out, processes = tmp_path / "out", []
    for half in ("left", "right", "both"):
        for i in range(40):
            for side in ("left", "right"):
                if half in (side, "both"):
                    sound(tmp_path / half / f"{side}-{i}.wav", 8_000)
        call = [sys.executable, "-m", "helpers", "add-noise", str(tmp_path / half), str(out)]
        processes.append(subprocess.Popen(call, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in processes] == [0, 0, 0]
    names = sorted(f"{side}-{i}.flac" for side in ("left", "right") for i in range(40))
    assert listed(out) == names
    assert everything(out) == sorted([*names, "manifest.csv"])


def test_no_manifest_without_rows(tmp_path, capsys):
    sound(tmp_path / "in" / "silent.wav", 0)
    assert main(["add-noise", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert not list(tmp_path.rglob("manifest.csv"))
    assert "manifest" not in capsys.readouterr().out
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "manifest.csv").write_text("my,own\n1,2\n")
    sound(tmp_path / "in" / "good.wav")
    assert main(["add-noise", str(tmp_path / "in"), str(tmp_path / "out"), "--overwrite"]) == 1
    assert "manifest.csv: no manifest of add-noise; move it away" in capsys.readouterr().err
    assert (tmp_path / "out" / "manifest.csv").read_text() == "my,own\n1,2\n"


@pytest.mark.parametrize("over_active", [False, True])
@pytest.mark.parametrize(("n_channels", "sr"), [(1, 16_000), (2, 22_050)])
def test_a_file_of_one_piece_is_what_mix_makes(tmp_path, speech, over_active, n_channels, sr):
    clean = np.stack([speech, speech[::-1]], axis=1)[:, :n_channels]
    sf.write(tmp_path / "a.wav", clean, sr, subtype="FLOAT")
    setting = {"kind": "buzz", "snr_db": 3.0, "seed": 5, "over_active": over_active}
    add_noise_to_files(tmp_path / "a.wav", tmp_path / "a.flac", **setting)
    added = noise.make("buzz", len(clean), sr, noise.rng_for("a.wav", 5))
    *_, noisy = noise.mix(clean, added, 3.0, sr, over_active)
    audio.write(tmp_path / "whole.flac", noisy, sr)
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "whole.flac").read_bytes()


def test_a_noisy_copy_is_what_its_name_says(tmp_path, capsys):
    sound(tmp_path / "a.flac")
    sf.write(tmp_path / "nine.wav", np.full((8_000, 9), 0.1), 16_000)
    for name in ("a.flac", "nine.wav"):
        assert main(["add-noise", str(tmp_path / name), str(tmp_path / f"of_{name[0]}.wav")]) == 0
        assert sf.info(tmp_path / f"of_{name[0]}.wav").format == "WAV"
    assert main(["add-noise", str(tmp_path / "a.flac"), str(tmp_path / "b.mp3")]) == 1
    assert "end its name in .flac or .wav" in capsys.readouterr().err
    assert main(["add-noise", str(tmp_path / "nine.wav"), str(tmp_path / "b.flac")]) == 1
    assert "write to a .wav" in capsys.readouterr().err
    assert not list(tmp_path.glob("b.*"))


@pytest.mark.parametrize("over_active", [False, True])
def test_a_file_of_many_pieces_has_the_exact_snr(tmp_path, speech, monkeypatch, over_active):
    monkeypatch.setattr(add_noise, "PIECE", 9_000)
    clean = 0.5 * np.stack([speech, 0.5 * speech], axis=1)
    sf.write(tmp_path / "a.wav", clean, 16_000, subtype="FLOAT")
    report = add_noise_to_files(
        tmp_path / "a.wav", tmp_path / "a.flac", snr_db=7.0, over_active=over_active
    )
    noisy = sf.read(tmp_path / "a.flac")[0]
    added = noisy - clean * pd.read_csv(report["manifest"]).scale[0]
    chosen = clean[noise.active(clean, 16_000)] if over_active else clean
    ratio = np.mean(chosen**2) / np.mean(added**2)
    assert 10 * np.log10(ratio) == pytest.approx(7, abs=0.01)
    np.testing.assert_allclose(added[:9_000], added[9_000:18_000], atol=2**-14)
    spectrum = np.abs(np.fft.rfft(added[:, 0] * np.hanning(len(added)))) ** 2
    in_band = np.fft.rfftfreq(len(added), 1 / 16_000) > 3_900
    assert spectrum[~in_band].sum() < 1e-4 * spectrum.sum()  # no click where it begins again


def test_memory_of_add_noise_does_not_grow_with_the_file(tmp_path, speech, monkeypatch):
    monkeypatch.setattr(add_noise, "PIECE", 1 << 17)
    peaks = []
    for minutes in (1, 3):
        source, target = tmp_path / f"{minutes}.flac", tmp_path / f"{minutes}-out.flac"
        audio.write(source, np.resize(speech, minutes * 60 * audio.SAMPLE_RATE))
        tracemalloc.start()
        assert not add_noise_to_files(source, target, over_active=True)["failed"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3e6  # two minutes more are 7.7 MB


def test_a_recording_of_nothing_does_not_hold_the_work_up(tmp_path):
    sound(tmp_path / "in" / "a.wav", 8_000)
    sound(tmp_path / "noise" / "short" / "click.wav", 1, sr=48_000)
    call = [
        sys.executable,
        "-m",
        "helpers",
        "add-noise",
        str(tmp_path / "in"),
        str(tmp_path / "out"),
    ]
    call += ["--kind", "recorded", "--noise", str(tmp_path / "noise")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'in' / 'a.wav'}: no recorded noise here; " in done.stderr
    sound(tmp_path / "noise" / "long" / "fan.wav", 4_000)
    assert subprocess.run(call, timeout=60, check=False).returncode == 0


def test_a_sample_far_too_loud_is_told(tmp_path, capsys):
    samples = sound(tmp_path / "in" / "good.wav")
    samples[100] = 1e20
    sf.write(tmp_path / "in" / "glitch.wav", samples, 16_000, subtype="FLOAT")
    assert main(["add-noise", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert f"error: {tmp_path / 'in' / 'glitch.wav'}: too faint for 16" in capsys.readouterr().err
    assert everything(tmp_path / "out") == ["good.flac", "manifest.csv"]


@pytest.mark.parametrize("command", ["denoise", "add-noise"])
def test_names_that_are_not_utf_8(tmp_path, weights, command, capsys):
    name = os.fsdecode(b"caf\xe9")
    sound(tmp_path / "in" / name / f"{name}.wav")
    (tmp_path / "in" / "n\not.wav").write_text("no sound")
    call = [command, str(tmp_path / "in"), str(tmp_path / name)]
    call += ["--weights", str(weights)] if command == "denoise" else []
    for _ in range(2):
        assert main(call) == 1
        [error, _] = capsys.readouterr().err.splitlines()
        assert "n ot.wav: not readable as audio" in error
    assert f"{name}/{name}.flac" in everything(tmp_path / name)
    if command == "add-noise":
        assert pd.read_csv(tmp_path / name / "manifest.csv").file[0] == r"caf\xe9/caf\xe9.wav"


# --- pipes and the environment ------------------------------------------------------------------


def denoiser(*arguments, shell="", env=None, without="", **options):
    """Run the command line, with redirections by a shell; the finished process, in bytes.

    `env`: variables to set, `without`: one to unset.
    """
    call = [sys.executable, "-m", "helpers", *map(str, arguments)]
    call = ["sh", "-c", f'"$@" {shell}', "sh", *call]
    env = os.environ | (env or {})
    env.pop(without, None)
    return subprocess.run(call, capture_output=True, timeout=120, check=False, env=env, **options)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_denoise_reads_a_pipe_and_writes_one(tmp_path, weights, name):
    samples = sound(tmp_path / "a.wav", 20_000)
    data = (tmp_path / "a.wav").read_bytes()
    done = denoiser("denoise", name, "-", "--weights", weights, input=data)
    assert done.returncode == 0, done.stderr
    assert b"1 done, 1.2 s of audio" in done.stderr
    info = sf.info(io.BytesIO(done.stdout))
    assert (info.format, info.frames, info.samplerate) == ("WAV", 20_000, 16_000)
    np.testing.assert_allclose(sf.read(io.BytesIO(done.stdout))[0], samples[:, 0], atol=2**-14)


def test_a_folder_does_not_go_into_a_pipe(tmp_path, capfd):
    sound(tmp_path / "in" / "a.wav")
    assert main(["denoise", str(tmp_path / "in"), "-", "--method", "low-pass"]) == 1
    out, err = capfd.readouterr()
    assert not out
    assert f"{tmp_path / 'in'}: is a folder, which no pipe can hold; name a folder" in err


def test_a_pipe_goes_into_a_folder(tmp_path, weights):
    sound(tmp_path / "a.wav", 20_000)
    call = ["denoise", "-", tmp_path / "out", "--weights", weights]
    done = denoiser(*call, shell=f"< '{tmp_path / 'a.wav'}'")
    assert done.returncode == 0
    assert everything(tmp_path / "out") == ["stdin.flac"]
    assert sf.info(tmp_path / "out" / "stdin.flac").frames == 20_000


@pytest.mark.parametrize(("data", "says"), [(b"", "is empty"), (b"no sound" * 9, "not readable")])
def test_a_pipe_of_nothing_is_told(weights, data, says):
    done = denoiser("denoise", "-", "-", "--weights", weights, input=data)
    assert done.returncode == 1
    assert done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert f"stdin: {says}" in line or f"stdin: the file {says}" in line


def test_a_reader_that_leaves_is_one_line(tmp_path, weights):
    sound(tmp_path / "a.wav", 200_000)
    done = denoiser("denoise", tmp_path / "a.wav", "-", "--weights", weights, shell="| head -c 9")
    assert len(done.stdout) == 9
    assert done.stderr.decode().splitlines()[-1].startswith("error: ")
    assert b"Traceback" not in done.stderr
    assert b"ignored" not in done.stderr


@pytest.mark.parametrize("shell", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_take_nothing_into_the_files(tmp_path, weights, shell):
    sound(tmp_path / "in" / "a.wav", 20_000)
    (tmp_path / "in" / "bad.wav").write_text("no sound")
    for command in ("denoise", "add-noise"):
        options = ["--weights", weights] if command == "denoise" else []
        out = tmp_path / command
        done = denoiser(command, tmp_path / "in", out, *options, shell=shell)
        assert done.returncode == 1
        assert b"error" not in done.stdout
        assert sf.info(out / "a.flac").frames == 20_000


@pytest.mark.parametrize("backend", ["jax", "nonsense"])
def test_an_absent_backend_is_one_line(tmp_path, backend):
    sound(tmp_path / "a.wav")
    (tmp_path / "weights").mkdir()
    save_model("spectrogram", tmp_path / "weights", keep)  # without an export
    call = ["denoise", tmp_path / "a.wav", tmp_path / "b.flac", "--weights", tmp_path / "weights"]
    done = denoiser(*call, env={"KERAS_BACKEND": backend})
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line.startswith(f"error: KERAS_BACKEND={backend}: not to be had here (")
    assert line.endswith("; unset it, or install that package")
    (tmp_path / "keras.json").write_text(f'{{"backend": "{backend}"}}')
    done = denoiser(*call, env={"KERAS_HOME": str(tmp_path)}, shell="", without="KERAS_BACKEND")
    assert done.returncode == 0, done.stderr
