"""Several processes at one training, on one machine or many: Keras' own distribution, on JAX.

Each makes its share of every batch; `keras.distribution.DataParallel` keeps the same variables in
all and takes the loss over the whole batch, so gradients, their clipping and every step are those
of one process, but for the order of sums. TensorFlow stays for one process: `fit` of Keras 3 fails
under its MultiWorkerMirroredStrategy, which also clips the gradients of each worker for itself.

JAX comes with `requirements-distributed.txt` and is imported only where processes work together.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from pathlib import Path

from tqdm import tqdm

from helpers import store
from helpers.command import end_with, notes_in_one_line

HEARTBEAT_SECONDS = 20  # without a sign of life; then a worker counts as lost
AUTO = "auto"  # the address, where SLURM, Kubernetes or Open MPI tell it
LOST = re.compile(r"gloo|nccl|coordination|connection|heartbeat|deadline", re.IGNORECASE)
AGAIN = "start all again, they go on from the last checkpoint"


class WorkersError(RuntimeError):
    """Workers that cannot train together, or one that is lost; the message says what to do."""


# --- how many there are ---------------------------------------------------------------------------


def _on_jax() -> bool:
    return os.environ.get("KERAS_BACKEND") == "jax"


def rank() -> int:
    """The number of this process among those of a training, 0 for the first or only one."""
    if not _on_jax():
        return 0
    import jax

    return jax.process_index()


def world() -> int:
    """How many processes train together."""
    if not _on_jax():
        return 1
    import jax

    return jax.process_count()


def share_out(batch_size: int) -> None:
    """Let all devices of all processes have their part of each batch from now on.

    Raises WorkersError for a batch that cannot be parted evenly.
    """
    if not _on_jax():
        return
    import jax
    import keras

    n_devices = len(jax.devices())
    if batch_size % n_devices:
        raise WorkersError(
            f"a batch of {batch_size} has no {n_devices} equal parts; choose a batch_size that has"
        )
    shared = keras.distribution.DataParallel(auto_shard_dataset=False) if n_devices > 1 else None
    keras.distribution.set_distribution(shared)


def is_shared() -> bool:
    """Whether models that are built now are shared by several devices."""
    if not _on_jax():
        return False
    import keras

    return keras.distribution.distribution() is not None


def sum_once(model) -> None:
    """Let each device find the whole gradient of its share of a batch before any is summed.

    Left to itself, XLA sums the gradient of a recurrent kernel over all devices at each time step,
    300 times for 3 s of audio, and two workers are slower than one. `model` is compiled, its loss a
    mean over examples; without several devices it stays as it is.
    """
    if not is_shared():
        return
    import jax
    import keras
    from jax.sharding import PartitionSpec

    distribution, of_share = keras.distribution.distribution(), model.compute_loss_and_updates
    axis, mesh = distribution.batch_dim_name, distribution.device_mesh.backend_mesh
    same, parted = PartitionSpec(), PartitionSpec(axis)

    def loss_and_updates(*arguments, training=False, optimizer_variables=None):
        def work(*arguments):
            *arguments, optimizer_variables = arguments
            loss, (unscaled, denoised, states, metrics) = of_share(
                *arguments, training=training, optimizer_variables=optimizer_variables
            )
            loss, unscaled = (jax.lax.pmean(value, axis) for value in (loss, unscaled))
            return loss, (unscaled, denoised, states, metrics)

        return jax.shard_map(
            work,
            mesh=mesh,
            in_specs=(same, same, same, parted, parted, parted, same),
            out_specs=(same, (same, parted, same, same)),
            check_vma=False,  # else weights turn from shared to own in the loop, and sums go there
        )(*arguments, optimizer_variables)

    model.compute_loss_and_updates = loss_and_updates


def come_home() -> None:
    """Models that are built from now on are this process's own."""
    import keras

    keras.distribution.set_distribution(None)


def agree(number: int, what: str) -> None:
    """Wait for all processes. Raises WorkersError where they do not have the same number."""
    if world() == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    found = multihost_utils.process_allgather(np.int32(number)).ravel().tolist()
    if len(set(found)) > 1:
        raise WorkersError(
            f"workers differ in {what} ({', '.join(map(str, found))}); all need one folder "
            f"{store.shown(store.RUNS)}, shared by their machines, and the same plan"
        )


# --- the processes themselves ---------------------------------------------------------------------


def run(work, address: str, number: int | None, count: int | None) -> int:
    """Do `work()`, a function that can be pickled, as worker `number` of `count`; the exit code.

    `address`: HOST:PORT where worker 0 listens, or AUTO. It runs in a process of its own, because
    JAX ends a process at once, with pages of text, when it finds another one gone; here that
    becomes one line. Raises ValueError for a number that is none.
    """
    if address != AUTO and (number is None or count is None or not 0 <= number < count):
        raise ValueError(f"--workers {address}: add --rank and --world, 0 <= rank < world")
    if address != AUTO and not re.fullmatch(r".+:\d+", address):
        raise ValueError(f"--workers {address}: give HOST:PORT of the first worker, or {AUTO}")
    os.environ["KERAS_BACKEND"] = "jax"
    context = multiprocessing.get_context("spawn")
    log = store.RUNS / f"worker-{os.uname().nodename}-{os.getpid()}.log"
    arguments = (os.getpid(), log, work, address, number, count)
    process = context.Process(target=_work, args=arguments)
    process.start()
    process.join()
    if process.exitcode < 0:
        name = "" if number is None else f" {number}"
        why = signal.Signals(-process.exitcode).name
        cause = "another one is lost" if why == "SIGABRT" else "it was killed"
        print(
            f"error: worker{name} ended, {cause} ({why}, {store.shown(log)}); {AGAIN}",
            file=sys.stderr,
        )
    else:
        log.unlink(missing_ok=True)
    return 1 if process.exitcode else 0


def _work(
    parent: int, log: Path, work, address: str, number: int | None, count: int | None
) -> None:
    """The life of a worker. It ends at once after an error: in order it would wait for others.

    What JAX's C++ parts print goes to `log`.
    """
    end_with(parent)
    tqdm.set_lock(threading.RLock())  # one of all processes would be missed after a kill, and said
    try:
        with _quiet(log), notes_in_one_line():
            _join(address, number, count)
            work()
            import jax

            jax.distributed.shutdown()  # waits for the others
    except BaseException as error:
        text = " ".join(str(error).split())
        if not isinstance(error, WorkersError | store.FileError) and LOST.search(text):
            text = f"worker {number_of(number)} ended, another one is lost ({text[:160]}); {AGAIN}"
        print(f"error: {text or type(error).__name__}", file=sys.stderr, flush=True)
        if os.environ.get("DENOISER_DEBUG"):
            raise
        os._exit(1)


def number_of(number: int | None) -> str:
    """A worker's number as far as it is known."""
    return str(rank() if number is None else number)


@contextlib.contextmanager
def _quiet(log: Path):
    """What is printed to standard error by other than Python goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    with open(log, "w") as file:
        os.dup2(file.fileno(), 2)
    yield


def _join(address: str, number: int | None, count: int | None) -> None:
    """Find the other workers. Raises WorkersError where they do not come."""
    try:
        import jax
    except ImportError as error:
        raise WorkersError(
            f"no JAX here ({error}); `pip install -r requirements-distributed.txt`"
        ) from error
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    told = {} if address == AUTO else {"coordinator_address": address}
    given = {"num_processes": count, "process_id": number} if told else {}
    try:
        jax.distributed.initialize(**told, **given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise WorkersError(f"--workers {address}: the others are not found ({text})") from error
