"""The command line without TensorFlow: what one process costs, and several that share a folder."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import soundfile as sf
from conftest import assert_all_end, heed_signals, needs_proc, processes_of

from helpers import command, models
from helpers.__main__ import main
from helpers.tool import files

SR = 16_000

# --- one process ----------------------------------------------------------------------------------

TOO_HEAVY = ("tensorflow", "keras", "scipy", "pandas", "librosa", "matplotlib", "joblib", "av")
ALONE = """
import sys
from helpers.__main__ import main
code = main(sys.argv[1:])
print([name for name in {names!r} if name in sys.modules])
sys.exit(code)
"""


def alone(*arguments):
    """Denoise in a process of its own; what it said, its CPU seconds and its peak in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = ALONE.format(names=TOO_HEAVY)
    call = [sys.executable, "-c", script, "denoise", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PYTHONPATH"] = str(models.store.ROOT)
    # a shell in between: its peak is not that of this process, which is large when it forks
    measured = [sys.executable, "-c", MEASURE, *call]
    done = subprocess.run(measured, capture_output=True, text=True, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    *said, kilobytes = done.stdout.splitlines()
    assert done.stderr == ""
    return said, seconds, int(kilobytes) / 1000


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in kilobytes on Linux")
def test_a_second_of_sound_takes_half_a_second_and_little_memory(tmp_path, method, noisy):
    sf.write(tmp_path / "a.wav", noisy[:SR], SR)
    said, seconds, megabytes = alone(tmp_path / "a.wav", tmp_path / "b.flac", "--method", method)
    assert said[-1] == "[]"  # nothing of TOO_HEAVY was imported
    assert said[-2].startswith("1 done, 1.0 s of audio in ")
    assert seconds <= 0.5
    assert megabytes <= 150
    assert sf.info(tmp_path / "b.flac").frames == SR


# --- several processes ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, noisy):
    """Good files, two of one output, a bad one."""
    for i in range(6):
        path = tmp_path / "in" / f"{i % 2}" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, noisy[: SR + 777 * i], SR)
    sf.write(tmp_path / "in" / "0" / "0.aiff", noisy[:SR], SR)
    (tmp_path / "in" / "bad.wav").write_text("not audio")
    return tmp_path / "in"


def test_several_processes_do_what_one_does(tmp_path, folder, capsys):
    told = []
    for jobs in ("1", "3"):
        out = tmp_path / jobs
        assert main(["denoise", str(folder), str(out), "--jobs", jobs]) == 1
        said, complained = capsys.readouterr()
        made = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.flac")}
        lines = [line for line in said.splitlines() if " done, " not in line]
        told.append((made, lines, complained))
    assert told[0] == told[1]
    made, lines, complained = told[0]
    assert len(made) == 6
    assert [line.split(":")[0] for line in lines] == [
        str(folder / name) for name in ("0/0.aiff", "0/2.wav", "0/4.wav", "1/1.wav", "1/3.wav")
    ] + [str(folder / "1/5.wav")]
    assert complained.splitlines()[-1] == "2 failed, 6 done"
    assert "0.wav: 0.aiff has the same output; rename one" in complained


def test_a_note_of_a_worker_is_one_line_too(tmp_path, folder, capfd):
    (folder / "bad.wav").unlink()
    (folder / "0" / "0.aiff").unlink()
    data = bytearray((folder / "1" / "1.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = bytes(4)  # a recorder that crashed
    (folder / "1" / "1.wav").write_bytes(data)
    assert main(["denoise", str(folder), str(tmp_path / "out"), "--jobs", "2"]) == 0
    [note] = capfd.readouterr().err.splitlines()
    assert note.startswith(f"note: {folder / '1' / '1.wav'}: its header says 0 bytes of sound, ")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("whom", ["it", "its group"])
def test_several_processes_stop_in_order(tmp_path, noisy, sent, code, whom):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(300):
        sf.write(source / f"{i:03d}.wav", noisy, SR)
    call = [sys.executable, "-m", "helpers", "denoise", source, out, "--jobs", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ways = {"start_new_session": True, "preexec_fn": heed_signals}
    process = subprocess.Popen([*map(str, call)], **pipes, **ways)
    while not (out / "003.flac").exists():
        time.sleep(0.01)
        assert process.poll() is None
    (process.send_signal if whom == "it" else lambda one: os.killpg(process.pid, one))(sent)
    said, complained = process.communicate(timeout=30)
    assert process.returncode == code, complained
    made = [path.name for path in out.iterdir()]
    assert 3 <= len(made) < 300  # one may be at an earlier file yet
    assert not [name for name in made if name.startswith(".")]
    assert len(made) - 2 <= int(said.splitlines()[-1].split(" done")[0]) <= len(made)
    assert complained == "interrupted; the same call goes on from here\n"
    assert all(sf.info(out / name).frames == len(noisy) for name in made)


@needs_proc
def test_a_killed_parent_leaves_no_workers(tmp_path, noisy):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(300):
        sf.write(source / f"{i:03d}.wav", noisy, SR)
    call = [sys.executable, "-m", "helpers", "denoise", source, tmp_path / "out", "--jobs", "2"]
    process = subprocess.Popen([*map(str, call)], start_new_session=True)
    while not (tmp_path / "out" / "003.flac").exists():
        time.sleep(0.01)
        assert process.poll() is None
    assert len(processes_of(process.pid)) > 1
    process.kill()
    process.wait()
    assert_all_end(process.pid, 10)


# --- the processes alone --------------------------------------------------------------------------


def squares(task):
    """Two events a task; 3 kills its process."""
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    yield task**2
    yield os.getpid()


def test_workers_share_tasks_and_a_death_costs_one():
    workers = command.Workers(squares, range(8), 2)
    events = list(workers)
    died = [(task, event) for task, event in events if isinstance(event, command.Died)]
    assert [task for task, _ in died] == [3]
    assert "died with code -9" in str(died[0][1])
    others = [task for task in range(8) if task != 3]
    for task in others:
        square, pid = (event for one, event in events if one == task)
        assert square == task**2
        assert pid != os.getpid()
    assert workers.end() == []


def test_what_workers_told_before_their_end_is_not_lost(tmp_path):
    def endless(task):
        yield "told"
        (tmp_path / str(task)).touch()
        time.sleep(60)

    workers = command.Workers(endless, [1, 2], 2)
    first = next(iter(workers))
    assert first[1] == "told"
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:  # both have told
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = time.monotonic()
    [rest] = workers.end()
    assert {first[0], rest[0]} == {1, 2}
    assert time.monotonic() - before < 3


def test_a_file_whose_process_died_fails_alone(tmp_path, folder):
    def work(file, output):
        if file.name == "2.wav":
            os.kill(os.getpid(), signal.SIGKILL)

    report = files.for_each_file(files.plan_outputs(folder, tmp_path / "out"), work, n_workers=2)
    messages = {file.name: message for file, message in report["failed"]}
    assert messages["2.wav"].startswith(f"{folder / '0' / '2.wav'}: its process died with code -9;")
    assert len(report["done"]) == 6  # the bad one too, of which this work knows nothing
