"""Trainings by two processes: the same as by one, and safe from `kill -9`. They need JAX."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import models, store
from helpers.data import dataset, noise_bank
from helpers.models import blocks, training, workers
from tests.train_as_worker import OPTIMIZERS

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="no JAX: make test-distributed"
)
BOUND_SECONDS = workers.HEARTBEAT_SECONDS + 10  # from the end of one to that of all


def test_shares_in_their_order_are_the_batches(speech_files, tmp_path):
    speech = dataset.load_speech(speech_files, verbose=False)
    bank = noise_bank.NoiseBank.render(tmp_path / "bank", n_clips=4, seconds=2, verbose=False)
    sizes = {"seconds": 0.5, "batch_size": 6, "n_batches": 5, "seed": 1, "first_batch": 2}
    whole = list(dataset.make_dataset(speech, bank, **sizes).as_numpy_iterator())
    for world in (1, 2, 3):
        shares = [
            list(dataset.shared_batches(speech, bank, **sizes, share=(rank, world)))
            for rank in range(world)
        ]
        together = [np.concatenate(parts, axis=1) for parts in zip(*shares, strict=True)]
        assert np.array_equal(together, whole)


@pytest.mark.parametrize(
    ("address", "numbers", "message"),
    [
        ("here:1", (None, 2), "add --rank and --world"),
        ("here:1", (2, 2), "add --rank and --world"),
        ("here", (0, 2), "give HOST:PORT"),
    ],
)
def test_numbers_that_are_none_are_refused(address, numbers, message):
    with pytest.raises(ValueError, match=message):
        workers.run(print, address, *numbers)


def test_alone_on_tensorflow_there_is_one_worker():
    assert (workers.rank(), workers.world(), workers.is_shared()) == (0, 1, False)
    workers.agree(3, "anything")


@needs_jax
def test_workers_that_do_not_agree_are_refused(monkeypatch):
    from jax.experimental import multihost_utils

    monkeypatch.setattr(workers, "world", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.array([mine, 4]))
    workers.agree(4, "epochs done")
    with pytest.raises(workers.WorkersError, match=r"differ in epochs done \(3, 4\); all need one"):
        workers.agree(3, "epochs done")


# --- two processes ------------------------------------------------------------------------------


def launch(out, *told, kill="-1 -1", **more):
    environment = os.environ | {
        "DENOISER_CORPUS": str(store.ROOT / "data" / "sample"),
        "PYTHONPATH": str(store.ROOT),
        "KILL": kill,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train_as_worker", str(out), *map(str, told)],
        cwd=store.ROOT,
        env=environment | more,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(out, kill="-1 -1"):
    """Two workers that train to their end, or to that of one: exit codes, standard errors, and the
    seconds from the end of the first to that of the last."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes, ends = [launch(out, address, rank, 2, kill=kill) for rank in (0, 1)], {}
    while len(ends) < len(processes):
        for process in processes:
            if process.poll() is not None:
                ends.setdefault(process.pid, time.monotonic())
        time.sleep(0.1)
    errors = [process.communicate()[1] for process in processes]
    seconds = max(ends.values()) - min(ends.values())
    return [process.returncode for process in processes], errors, seconds


def weights(out, optimizer):
    with np.load(out / f"{optimizer}.npz") as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    process = launch(out)
    errors = process.communicate(timeout=900)[1]
    assert process.returncode == 0, errors
    return out


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    out = tmp_path_factory.mktemp("shared")
    assert together(out)[:2] == ([0, 0], ["", ""])
    return out


@needs_jax
def test_two_workers_give_the_weights_of_one(alone, shared):
    for optimizer in OPTIMIZERS:
        largest = [
            np.abs(one - other).max()
            for one, other in zip(
                weights(alone, optimizer), weights(shared, optimizer), strict=True
            )
        ]
        print(f"{optimizer}: largest difference {max(largest):.1e}")
        assert max(largest) < 2e-5
    assert np.abs(weights(shared, "Adam")[0] - weights(shared, "Muon")[0]).max() > 1e-3
    curves = [next((out / "runs").glob("*/history.csv")).read_text() for out in (alone, shared)]
    assert [curve.count("\n") for curve in curves] == [4, 4]


@needs_jax
def test_weights_made_on_jax_give_the_same_on_tensorflow(shared):
    clip = np.random.default_rng(0).normal(0, 0.1, (1, 8_000)).astype("float32")
    for optimizer in OPTIMIZERS:
        model = models.load("spectrogram", shared / optimizer)
        made = np.asarray(blocks.WaveformWrapper(model, 160)(clip))
        np.testing.assert_allclose(made, np.load(shared / f"{optimizer}.npy"), atol=1e-5)
    assert models.card("spectrogram", shared / "Adam")["backend"] == "jax"


@needs_jax
def test_a_killed_worker_ends_all_in_one_line_and_the_next_start_goes_on(shared, tmp_path):
    """First worker 1 is killed in the second epoch, then worker 0 in the third."""
    for killed, kill, done in ((1, "1 6", 1), (0, "0 6", 2)):
        codes, errors, seconds = together(tmp_path, kill)
        assert codes == [1, 1]
        assert seconds < BOUND_SECONDS
        for number, text in enumerate(errors):
            cause = "it was killed .SIGKILL" if number == killed else "another one is lost"
            assert re.fullmatch(rf"error: worker {number} ended, {cause}[^\n]*start all.*\n", text)
        (run,) = (tmp_path / "runs").glob("spectrogram-*/")
        assert training.epochs_done(run) == done
    assert together(tmp_path)[:2] == ([0, 0], ["", ""])
    for optimizer in OPTIMIZERS:
        for one, other in zip(
            weights(tmp_path, optimizer), weights(shared, optimizer), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@needs_jax
def test_the_command_reaches_its_worker(tmp_path):
    """What it is to do goes to a process of its own, which must find it there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    plan = tmp_path / "none.toml"
    told = ["--workers", address, "--rank", "0", "--world", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "train", plan, *told],
        cwd=store.ROOT,
        env=os.environ | {"PYTHONPATH": str(store.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"error: {plan}: no such plan; choose .*\n", done.stderr)


@needs_jax
def test_a_batch_without_equal_parts_is_one_line():
    command = """
import os; os.environ["KERAS_BACKEND"] = "jax"
from helpers.models import workers
workers.share_out(8); assert workers.is_shared()
workers.come_home(); assert not workers.is_shared()
try: workers.share_out(7)
except workers.WorkersError as error: print(error)
"""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment = os.environ | devices | {"PYTHONPATH": str(store.ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout == "a batch of 7 has no 2 equal parts; choose a batch_size that has\n"


@needs_jax
def test_gradients_are_summed_once_a_step_and_not_at_each_frame():
    """In the compiled step of two devices no sum over devices stands in a loop (a `while`)."""
    script = """
import os; os.environ["KERAS_BACKEND"] = "jax"
import jax, numpy as np
from helpers.backend import keras
from helpers.models import training, workers
training.network = lambda plan: keras.Sequential(
    [keras.Input((None, 320)), keras.layers.GRU(8, return_sequences=True), keras.layers.Dense(320)])
training.hop_length = lambda model: 160
for mend in (lambda model: None, workers.sum_once):
    workers.share_out(4)
    model = training.compile_model(training.Plan("spectrogram", batch_size=4, seconds=0.5))
    mend(model)
    x = np.zeros((4, 8_000), "float32")
    state = [[v.value for v in some] for some in (model.trainable_variables,
        model.non_trainable_variables, model.optimizer.variables, model.metrics_variables)]
    shares = keras.distribution.distribution().get_data_layout(x.shape)
    x = jax.device_put(x, shares.backend_layout)
    text = jax.jit(model.train_step).lower(state, (x, x)).compile().as_text()
    blocks = text.split("\\n\\n")
    print(*(("entry" if "ENTRY" in one else "loop") for one in blocks if " all-reduce(" in one))
"""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment = os.environ | devices | {"PYTHONPATH": str(store.ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    before, after = (set(line.split()) for line in told.stdout.splitlines())
    assert before == {"loop", "entry"}
    assert after == {"entry"}
