"""Folders on a cluster: Dask (`dask.distributed`) hands the files out to workers, on this machine
or on many that share their folders.

What is to be done is decided once, here. A task may then run twice, where a worker died, and makes
the same file each time, under a temporary name until it is whole. A file on which workers die again
and again is told and left, after `distributed.scheduler.allowed-failures` (3) of Dask's settings.

Dask is imported only where `--cluster` is given.
"""

import asyncio
import functools
import logging
import multiprocessing
import os
import pickle
import queue
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, suppress
from pathlib import Path

from tqdm import tqdm

from helpers import store
from helpers.command import GRACE_SECONDS
from helpers.store import FileError
from helpers.tool import files

WINDOW = 500  # tasks that the scheduler has at a time
TASK_BYTES = 1 << 20  # of input, in a task of several files: about a minute of FLAC
TASKS_EACH = 8  # tasks for each worker at least, if there are so many files
CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 120.0  # without any worker
LOCAL = re.compile(r"local:([1-9]\d*)")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
SETTINGS = {  # of local clusters
    "distributed.scheduler.worker-saturation": 1.0,  # no task waits at a worker, and is blamed too
    "distributed.worker.profile.enabled": False,  # a hundred looks a second
    "distributed.admin.tick.interval": "500 ms",
    "distributed.deploy.lost-worker-timeout": "1 hour",  # a busy machine restarts one slowly
    # Dask's own also hands freed memory back at once, and each block of sound asks for it anew
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREADS, "1"),
}
ONE_FILE = threading.Lock()  # at a time in a worker, whatever threads it has: it has one model

Group = list[tuple[Path, Path]]  # files of one output, each with that
Task = list[Group]  # short ones together, for a task costs as much as a tenth of a second of sound


class ClusterError(RuntimeError):
    """A cluster that cannot do the work; the message says what to do."""


class NotShared(Exception):
    """A worker's host does not have a path; the arguments are both."""


class Cluster:
    """Workers for `files.for_each_file`. `address`: HOST:PORT of a Dask scheduler, or local:N for N
    processes here, which end with this one.

    Raises ClusterError where Dask is not installed or nothing answers.
    """

    def __init__(self, address: str):
        try:
            import dask
            import distributed
        except ImportError as error:
            raise ClusterError(
                f"--cluster needs Dask, which is not installed ({error}); `pip install distributed`"
            ) from error
        if not os.environ.get("DENOISER_DEBUG"):
            logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
        dask.config.set(SETTINGS)
        local = LOCAL.fullmatch(address)
        self.finished, self.at_work, self.token = queue.SimpleQueue(), {}, None
        try:
            self.local = local and start(int(local[1]))
            self.client = distributed.Client(self.local or address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"--cluster {address}: no Dask scheduler answers there; "
                "give HOST:PORT of `dask scheduler`, or local:N"
            ) from error
        print(f"note: dashboard at {self.client.dashboard_link}", file=sys.stderr)

    def work_on(
        self, groups: Iterable[Group], work: Callable, is_there: Callable | None
    ) -> Iterator[tuple[Task, tuple]]:
        """(task, outcome) for each outcome that `files.outcomes_of` has of each group, as they
        come. `work` must replace what is there and be of a kind that can be pickled.

        Raises ClusterError for a host that does not share the files, and where no worker is left.
        """
        groups, self.work = list(groups), work
        self.token = shared_file(groups)
        name, facts = f"files-{secrets.token_hex(4)}", (pickle.dumps(work), self.token.name)
        self.told = name, (os.getcwd(), *facts)
        most = len(groups) // (TASKS_EACH * (sum(self.client.nthreads().values()) or 100))
        task, n_bytes = [], 0
        for group in groups:
            if is_settled(group, is_there):
                yield from ((task, one) for one in files.outcomes_of(group, work, is_there))
                continue
            task.append(group)
            n_bytes += size(group)
            if len(task) >= most or n_bytes >= TASK_BYTES:
                self._submit(task)
                task, n_bytes = [], 0
            while len(self.at_work) >= WINDOW:
                yield from self._hear()
        self._submit(task)
        while self.at_work:
            yield from self._hear()

    def _submit(self, task: Task) -> None:
        if task:
            name, facts = self.told
            key = (name, os.fspath(task[0][0][1]), len(task))
            future = self.client.submit(work_there, task, *facts, key=key)
            self.at_work[future] = task
            future.add_done_callback(self.finished.put)

    def _hear(self) -> Iterator[tuple[Task, tuple]]:
        """What came of a task, after waiting for one that is finished."""
        try:
            future = self.finished.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            self._check_workers()
            return
        task = self.at_work.pop(future)
        for outcome in self._outcomes(future, task):
            yield task, outcome

    def _result(self, future):
        while True:  # it may be lost with its worker, and made again, when it is asked for
            try:
                return future.result(timeout=PATIENCE_SECONDS)
            except TimeoutError:
                self._check_workers()

    def _outcomes(self, future, task: Task) -> list[tuple]:
        from distributed import KilledWorker

        try:
            outcomes, notes = self._result(future)
        except KilledWorker as error:
            if len(task) > 1:  # it was one of them, or none
                for group in task:
                    self._submit([group])
                return []
            n_deaths = error.allowed_failures + 1
            return [
                ("failed", file, f"{file}: its worker died, {n_deaths} times; try it alone")
                for file, _ in task[0]
            ]
        except NotShared as error:
            host, path = error.args
            if path != self.token.name and not os.path.lexists(path):  # nor does this one any more
                return [one for group in task for one in files.outcomes_of(group, self.work, None)]
            raise ClusterError(
                f"{path}: {host} does not see it; --cluster needs folders that all hosts share"
            ) from error
        except (Exception, asyncio.CancelledError) as error:
            if os.environ.get("DENOISER_DEBUG") or isinstance(error, ClusterError):
                raise
            raise ClusterError(
                f"the cluster failed ({type(error).__name__}: {error}); see that it runs and that "
                "all hosts have this version of the project; the same call goes on from here"
            ) from error
        for message, category in notes:
            warnings.warn(message, category, stacklevel=2)
        return outcomes

    def _check_workers(self) -> None:
        workers = ()
        with suppress(Exception):  # the scheduler is gone, whatever this says of it
            workers = self.client.scheduler_info()["workers"]
        if not workers:
            raise ClusterError(
                f"the cluster had no worker for {PATIENCE_SECONDS:.0f} s; start some with "
                "`dask worker`; the same call goes on from here"
            )

    def end(self) -> list[tuple[Task, tuple]]:
        """Leave the cluster, or end a local one, whenever that is; what was not heard yet."""
        heard = []
        while not self.finished.empty():
            future = self.finished.get_nowait()
            task = self.at_work.pop(future, None)
            with suppress(Exception, asyncio.CancelledError):  # its worker may be gone by now
                heard += [(task, one) for one in future.result(timeout=GRACE_SECONDS)[0]]
        with suppress(Exception):
            self.client.cancel(list(self.at_work), force=True)
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(3 * GRACE_SECONDS)  # Dask may wait for a worker that begins, for ever
        for process in multiprocessing.active_children():
            if process.name.startswith("Dask Worker"):
                process.kill()
                process.join(GRACE_SECONDS)  # then what it had half-written is nobody's
        if self.token:
            self.token.close()
        return heard

    def _close(self) -> None:
        for one in filter(None, (self.client, self.local)):
            with suppress(Exception):
                one.close(timeout=GRACE_SECONDS)


def start(n_workers: int):
    """A scheduler and N workers of one thread on this machine, that nobody else can reach."""
    import distributed

    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL + 1,
        memory_limit=None,
        env=ONE_THREAD,
        preload=[__name__],
    )


def size(group: Group) -> int:
    """Bytes of the files of a group."""
    return sum(os.path.getsize(file) for file, _ in group if os.path.isfile(file))


def is_settled(group: Group, is_there: Callable | None) -> bool:
    """Whether nothing is to be made of a group: its output is there, or may not be replaced."""
    try:
        return bool(is_there and is_there(*group[0]))
    except FileError:
        return True


def shared_file(groups: list[Group]):
    """A file among the outputs, by which workers see that they share them. Close it in the end."""
    folder = Path(
        os.path.commonpath([output.parent.absolute() for group in groups for _, output in group])
    )
    store.check_place(folder / "any")
    token = tempfile.NamedTemporaryFile(prefix=store.TEMPORARY, dir=folder)  # noqa: SIM115
    store.lock(token.fileno())  # or it counts as left over from a killed process
    return token


# --- in a worker ----------------------------------------------------------------------------------


def dask_setup(worker) -> None:
    """What Dask does first in a worker of a local cluster: Ctrl-C is for who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def work_there(task: Task, folder: str, pickled: bytes, token: str) -> tuple[list, list]:
    """The outcomes of a task's groups (`files.outcomes_of`), and warnings, each as text and kind.

    `folder`: where paths begin; `token` of `shared_file`. Raises NotShared.
    """
    with ONE_FILE, warnings.catch_warnings(record=True) as notes, there(folder):
        warnings.simplefilter("always")
        for path in (token, *(file for group in task for file, _ in group)):
            if not os.path.lexists(path):
                raise NotShared(socket.gethostname(), os.fspath(path))
        work = known(pickled)
        outcomes = [one for group in task for one in files.outcomes_of(group, work, None)]
        return outcomes, [(str(note.message), note.category) for note in notes]


def there(folder: str):
    """A block in a folder of the host that asks. Raises NotShared."""
    if not os.path.isdir(folder):
        raise NotShared(socket.gethostname(), folder)
    return chdir(folder)


@functools.lru_cache(maxsize=1)
def known(pickled: bytes) -> Callable:
    """What was pickled, once for all tasks: it has a model."""
    tqdm.set_lock(threading.RLock())  # one of all processes would be missed after a kill, and said
    return pickle.loads(pickled)
