"""Folders on a cluster of Dask: as the plain command does them, whatever is killed on the way."""

import hashlib
import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import time

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import heed_signals

from helpers import command, store
from helpers.__main__ import main
from helpers.data import conditions, corpus
from helpers.denoise import systems
from helpers.evaluation import scoring
from helpers.tool import cluster, files

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="no Dask: make test-distributed"
)
SR = 16_000
N_FILES, N_KILLS = 400, 5
QUIET = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 100}


@pytest.fixture(scope="module")
def address():
    """Where two workers wait that the command does not start itself."""
    import distributed

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as workers:
        yield workers.scheduler_address


@pytest.fixture
def folder(tmp_path, noisy):
    """Eleven good files, two of one output, a bad one, one that is not as its header says."""
    (tmp_path / "in" / "a").mkdir(parents=True)
    for i in range(10):
        sf.write(tmp_path / "in" / "a" / f"{i}.wav", noisy[: 4_000 + 777 * i], SR)
    sf.write(tmp_path / "in" / "a" / "0.aiff", noisy[:4_000], SR)
    (tmp_path / "in" / "bad.wav").write_text("not audio")
    crashed = tmp_path / "in" / "crashed.wav"
    sf.write(crashed, noisy[:SR], SR)
    data = bytearray(crashed.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = bytes(4)
    crashed.write_bytes(data)
    return tmp_path / "in"


def contents(out):
    """Names, from their folder on, and digests of all that lies below it."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def said(capsys):
    """What a command printed, without its seconds and the line of the dashboard."""
    return [
        re.sub(r"in \d+\.\d s", "in SECONDS", re.sub(r"note: dashboard at .*\n", "", text))
        for text in capsys.readouterr()
    ]


COMMANDS = (
    ["denoise"],
    ["denoise", "--method", "low-pass", "--mix", "0.9"],
    ["add-noise", "--kind", "pink", "--low", "2500", "--snr", "5"],
)


@needs_dask
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_cluster_does_what_the_plain_command_does(
    command, folder, address, tmp_path, capsys, monkeypatch
):
    """Outputs, manifest, words, codes; paths as they are given; the second and third time, too."""
    monkeypatch.chdir(tmp_path)
    name, *options = command
    one = ["--jobs", "1"] if name == "denoise" else []  # whose notes this process hears
    for again in ([], [], ["--overwrite"]):
        code = main([name, "in", "out", *options, *again, *one])
        plain, there = said(capsys), contents(tmp_path / "out")
        os.rename("out", "plain")
        if os.path.exists("shared"):
            os.rename("shared", "out")
        assert main([name, "in", "out", *options, *again, "--cluster", address]) == code == 1
        assert said(capsys) == plain
        assert contents(tmp_path / "out") == there
        os.rename("out", "shared")
        os.rename("plain", "out")
    assert len(there) >= 11


@needs_dask
def test_a_single_file_is_replaced_only_when_told(folder, address, tmp_path, capsys):
    call = ["denoise", str(folder / "a" / "1.wav"), str(tmp_path / "b.flac"), "--cluster", address]
    assert main(call) == 0
    capsys.readouterr()
    assert main(call) == 1
    assert "exists already; choose another name or pass --overwrite" in said(capsys)[1]
    assert main([*call, "--overwrite"]) == 0


# --- killed workers -------------------------------------------------------------------------------


def workers_of(parent):
    """Process ids of the workers that a command has started, as Linux knows them."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"{entry.path}/stat") as stat, open(f"{entry.path}/cmdline") as line:
                    is_ours = int(stat.read().rpartition(") ")[2].split()[1]) == parent
                    if is_ours and "spawn_main" in line.read():
                        found.append(int(entry.name))
            except OSError:
                continue  # it has just ended
    return found


@needs_dask
def test_scores_from_a_cluster_are_those_of_two_processes_here(address):
    from distributed import Client

    table = corpus.read_corpus(store.ROOT / "data" / "sample")
    utterances = corpus.pick(table, "test", 2)
    heard = systems.make("noisy", "low-pass")
    here = scoring.evaluate(utterances, [conditions.WHITE], heard)
    with command.tasks_on(address):
        there = scoring.evaluate(utterances, [conditions.WHITE], heard)
        processes = set(command.in_workers([joblib.delayed(os.getpid)()] * 8, 2))
        with Client(address) as client:
            assert processes <= set(client.run(os.getpid).values())
    same = here.columns.drop("cpu")
    pd.testing.assert_frame_equal(here[same], there[same])
    assert len(here) == 4
    assert here.pesq.notna().all()
    with command.tasks_on("local:2"):
        processes = set(command.in_workers([joblib.delayed(os.getpid)()] * 8, 2))
    assert processes
    assert os.getpid() not in processes
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9"), command.tasks_on("127.0.0.1:9"):
        pass


@needs_dask
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_each_file_is_done_once_whatever_is_killed(tmp_path, noisy):
    source, chance = tmp_path / "in", random.Random(1)
    source.mkdir()
    rng = np.random.default_rng(0)
    for i in range(N_FILES):
        sf.write(source / f"{i:03d}.wav", noisy[: 1_600 + rng.integers(3_200)], SR)
    call = [sys.executable, "-m", "helpers", "denoise", source]
    environment = os.environ | {"PYTHONPATH": str(store.ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": store.ROOT}
    plain = subprocess.run([*call, tmp_path / "plain"], env=environment, check=True, **pipes)
    out = tmp_path / "out"
    shared = subprocess.Popen([*call, out, "--cluster", "local:2"], env=environment, **pipes)
    killed = set()
    for n_done in sorted(chance.sample(range(1, N_FILES // 2), N_KILLS)):
        while (
            len(list(out.glob("*.flac"))) < n_done
            or not (alive := set(workers_of(shared.pid)) - killed)  # some may not have ended yet
        ):
            assert shared.poll() is None
            time.sleep(0.01)
        killed.add(worker := chance.choice(sorted(alive)))
        os.kill(worker, signal.SIGKILL)
    told, errors = shared.communicate()
    assert shared.returncode == 0, errors
    assert len(killed) == N_KILLS
    assert re.fullmatch(r"note: dashboard at http://\S+\n", errors)
    assert told.splitlines()[:-1] == [
        line.replace(str(tmp_path / "plain"), str(out)) for line in plain.stdout.splitlines()[:-1]
    ]
    assert told.splitlines()[-1].startswith(f"{N_FILES} done")
    assert contents(out) == contents(tmp_path / "plain")
    assert len(contents(out)) == N_FILES


def copy_or_die(source, target):
    """A work that ends its process, as a crash in C does, at one file."""
    if source.name == "poison.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(source.read_bytes())
    return {"n": 1}


@needs_dask
def test_a_file_that_kills_its_workers_is_told_and_the_rest_done(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(30):
        sf.write(tmp_path / "in" / f"{i:02d}.wav", np.ones(100) / 2, SR)
    os.rename(tmp_path / "in" / "07.wav", tmp_path / "in" / "poison.wav")
    pairs = files.plan_outputs(tmp_path / "in", tmp_path / "out")
    kept = []
    report = files.for_each_file(
        pairs, copy_or_die, connect=lambda: cluster.Cluster("local:2"), keep=kept.append
    )
    assert [output.name for _, output, _ in report["done"]] == [
        output.name for _, output in pairs if output.stem != "poison"
    ]
    (failed,) = report["failed"]
    poison = tmp_path / "in" / "poison.wav"
    assert failed == (poison, f"{poison}: its worker died, 4 times; try it alone")
    assert len(contents(tmp_path / "out")) == len(kept) == 29


@needs_dask
def test_ctrl_c_ends_all_in_one_line(folder, tmp_path, noisy):
    for i in range(100):
        sf.write(folder / f"{i}.flac", noisy, SR)
    out, pipe = tmp_path / "out", subprocess.PIPE
    call = [sys.executable, "-m", "helpers", "denoise", folder, out, "--cluster", "local:2"]
    options = {"env": os.environ | {"PYTHONPATH": str(store.ROOT)}, "text": True}
    options["preexec_fn"] = heed_signals
    command = subprocess.Popen(call, start_new_session=True, stdout=pipe, stderr=pipe, **options)
    while len(list(out.glob("*.flac"))) < 10:
        assert command.poll() is None
        time.sleep(0.01)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does, to the workers, too
    errors = command.communicate()[1]
    assert command.returncode == 130, errors
    assert errors.endswith("interrupted; the same call goes on from here\n")
    assert "Traceback" not in errors
    left = [output for _, output in files.plan_outputs(folder, out) if not output.exists()]
    assert left
    assert not list(out.rglob(f"{store.TEMPORARY}*"))


# --- what cannot be -------------------------------------------------------------------------------


@needs_dask
def test_a_place_where_no_scheduler_is_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    for address in ("127.0.0.1:1", "local:0", "nowhere"):
        assert main(["denoise", str(folder), str(tmp_path / "out"), "--cluster", address]) == 1
        assert re.fullmatch(
            rf"error: --cluster {address}: no Dask scheduler answers there; give HOST:PORT of "
            "`dask scheduler`, or local:N\n",
            capsys.readouterr().err,
        )


@needs_dask
def test_a_cluster_without_workers_is_one_line(folder, tmp_path, capsys, monkeypatch):
    import distributed

    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.5)
    with distributed.LocalCluster(n_workers=0, **QUIET) as empty:
        place = empty.scheduler_address
        assert main(["denoise", str(folder), str(tmp_path / "out"), "--cluster", place]) == 1
    assert re.search(r"error: the cluster had no worker for .*; start some", said(capsys)[1])


@needs_dask
@pytest.mark.skipif(sys.platform != "linux", reason="a folder that one process alone sees")
def test_hosts_that_do_not_share_the_files_are_one_line(folder, address, tmp_path, capsys):
    handle = os.open(folder, os.O_RDONLY)
    here = f"/proc/self/fd/{handle}"
    assert main(["denoise", here, str(tmp_path / "out"), "--cluster", address]) == 1
    os.close(handle)
    assert re.fullmatch(
        rf"error: {here}/\S+: \S+ does not see it; --cluster needs folders that all hosts share\n",
        said(capsys)[1],
    )


def test_without_dask_there_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    call = ["add-noise", str(folder), str(tmp_path / "out"), "--cluster", "local:2"]
    assert main(call) == 1
    assert re.fullmatch(
        r"error: --cluster needs Dask, which is not installed \(.*\); `pip install distributed`\n",
        capsys.readouterr().err,
    )
