"""How a command line runs: which command, one line for an error, the exit code, the worker
processes beside it, which end with it.

Shared by `denoiser` and `python -m experiments`.
"""

import argparse
import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

from helpers.reading import AudioWarning

ENDING = (signal.SIGTERM, signal.SIGHUP)  # what ends a command from outside
STOPPING = (*ENDING, signal.SIGINT)
GRACE_SECONDS = 5.0  # to do so in order
WATCH_SECONDS = 1.0  # between two looks of a worker at its parent


def new_parser(name: str, text: str) -> tuple[argparse.ArgumentParser, Callable]:
    """A parser of commands, and a function (name, work, text) that adds one and gives its parser.

    `work` takes the parsed arguments and returns the exit code, or None for 0.
    """
    parser = argparse.ArgumentParser(name, description=text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(command: str, work: Callable, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(command, help=text, description=text)
        sub.set_defaults(work=work)
        return sub

    return parser, add


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Run one command; 0 when all went well, 1 when something failed, 2 for a wrong call.

    An error is one line on standard error; with DENOISER_DEBUG set it is raised. So is a note on
    a sound that is not as its header says. A signal of ENDING raises SystemExit with 128 and its
    number, and ends worker processes, as Ctrl-C does.
    """
    open_standard_streams()
    args = parser.parse_args(argv)
    try:
        with notes_in_one_line(), ended_in_order():
            return args.work(args) or 0
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("DENOISER_DEBUG"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if os.environ.get("DENOISER_DEBUG") or not error.name:
            raise
        needed = error.name.partition(".")[0]
        print(
            f"error: {args.command} needs {needed}, which is not installed; "
            "`pip install -r requirements.txt` brings it",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as stop:
        print("interrupted", file=sys.stderr)
        return stop_code(stop)


@contextlib.contextmanager
def notes_in_one_line():
    """Print each AudioWarning once, as a line on standard error; other warnings as ever."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message, category, *place):
            if issubclass(category, AudioWarning):
                print(f"note: {message}", file=sys.stderr)
            else:
                others(message, category, *place)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """A block that a signal of ENDING leaves by SystemExit, so that files and workers are seen to.

    A signal that is ignored (`nohup`) or has a handler already is left alone; so are all where this
    is not the main thread, which alone can handle them. An exception out of a handler may get lost
    in whatever it interrupts, or make that print a traceback of its own; so nothing is printed from
    then on, and the process ends in any case, GRACE_SECONDS later.
    """
    told, errors = [], os.dup(2)

    def leave(number, frame):
        told.append(number)
        end_soon(number)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        raise SystemExit(128 + number)

    in_main = threading.current_thread() is threading.main_thread()
    ours = [one for one in ENDING if in_main and signal.getsignal(one) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    except KeyboardInterrupt:
        end_workers()
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if told:
            end_workers()
            os.dup2(errors, 2)
        os.close(errors)
        if told:
            raise SystemExit(128 + told[0])  # as a shell tells which signal ended a command


def end_soon(number: int) -> None:
    """End this process and its workers a little later, whatever becomes of it until then."""

    def end():
        for process in multiprocessing.active_children():
            process.terminate()
        os._exit(128 + number)

    timer = threading.Timer(GRACE_SECONDS, end)
    timer.daemon = True
    timer.start()


def end_workers() -> None:
    """End the processes of `in_workers`; a later call has new ones."""
    if multiprocessing.active_children() and "joblib" in sys.modules:
        from joblib.externals import loky

        with contextlib.suppress(RuntimeError):  # of workers that were about to begin
            loky.get_reusable_executor(reuse=True).shutdown(kill_workers=True)
    for process in multiprocessing.active_children():
        process.terminate()


def in_workers(tasks: Iterable, n_workers: int) -> Iterator:
    """Results of tasks (`joblib.delayed`), in their order, from worker processes that stay for the
    next call, and end with this process, however it ends; or from those of `tasks_on`.
    """
    import joblib

    watched = {"initializer": end_with, "initargs": (os.getpid(),)}
    return joblib.Parallel(n_workers, return_as="generator", **watched)(tasks)


@contextlib.contextmanager
def tasks_on(address: str | None) -> Iterator[None]:
    """A block in which `in_workers` gives its tasks to Dask, as many at a time as it has workers.

    `address`: HOST:PORT of a scheduler, local:N for N processes here, or None for none of both.
    Raises OSError where no scheduler answers.
    """
    if not address:
        yield
        return
    import distributed
    import joblib

    with contextlib.ExitStack() as stack:
        if address.startswith("local:"):
            n_workers, here = int(address.removeprefix("local:")), "127.0.0.1"
            options = {"threads_per_worker": 1, "host": here, "dashboard_address": f"{here}:0"}
            address = stack.enter_context(distributed.LocalCluster(n_workers=n_workers, **options))
        client = stack.enter_context(distributed.Client(address, timeout=10))
        print(f"note: dashboard at {client.dashboard_link}", file=sys.stderr)
        stack.enter_context(joblib.parallel_config("dask", client=client))
        yield


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends the work as Ctrl-C does."""


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Died(RuntimeError):
    """What a worker process that died leaves of a task."""


class Workers:
    """Processes that each take one task after another; light ones, of the standard library alone.

    Iterating gives (task, event) for each event that the generator `work(task)` gives, as they
    come, and (task, Died) where a process died in a task; another takes its place. `end` ends
    them, whenever that is, and gives what they had to tell until then; they end with this process
    too, however it ends. `work` must be of a kind that can be pickled, where it is not Linux.
    """

    def __init__(self, work: Callable[[object], Iterable], tasks: Iterable, n_workers: int):
        kind = "fork" if sys.platform == "linux" else "spawn"  # elsewhere forks are not safe
        self.context, self.work = multiprocessing.get_context(kind), work
        self.waiting, self.n_workers = collections.deque(tasks), n_workers
        self.at_work = {}  # connection -> its process and task

    def __iter__(self) -> Iterator[tuple]:
        while self.at_work or self.waiting:
            while self.waiting and len(self.at_work) < self.n_workers:
                self._start()
            for connection in multiprocessing.connection.wait(list(self.at_work)):
                yield from self._hear(connection)

    def _start(self) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=serve, args=(theirs, self.work), daemon=True)
        self.at_work[ours] = process, None
        with held_back():
            process.start()
        theirs.close()
        self._give(ours)

    def _give(self, connection) -> None:
        """The next task, or none any more."""
        process, _ = self.at_work[connection]
        task = self.waiting.popleft() if self.waiting else None
        self.at_work[connection] = process, task
        with contextlib.suppress(OSError):  # it has died, which is heard next
            connection.send(task)

    def _hear(self, connection) -> Iterator[tuple]:
        """What a process tells, if anything."""
        process, task = self.at_work[connection]
        try:
            is_event, event = connection.recv()
        except (EOFError, OSError):
            del self.at_work[connection]
            process.join()
            if task is not None:
                yield task, Died(f"its process died with code {process.exitcode}")
            return
        if is_event:
            yield task, event
        else:
            self._give(connection)

    def end(self) -> list[tuple]:
        """End all processes, at once those at work; what they told that was not heard yet."""
        heard = []
        for process, _ in self.at_work.values():
            process.terminate()
        for connection, (process, task) in self.at_work.items():
            with contextlib.suppress(Exception):  # its end, or what a stop left half-read
                while connection.poll(GRACE_SECONDS):
                    is_event, event = connection.recv()
                    heard += [(task, event)] if is_event else []
            process.join(GRACE_SECONDS)
            process.kill()
            process.join()
        self.at_work.clear()
        return heard


def serve(connection, work: Callable[[object], Iterable]) -> None:
    """What a process of Workers does: (True, event) for each event, (False, None) after each task.

    Ctrl-C is for the parent, which ends it by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in ENDING:
        signal.signal(number, raise_terminated)
    end_with(os.getppid())
    with contextlib.suppress(Terminated, EOFError, BrokenPipeError), notes_in_one_line():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        while (task := connection.recv()) is not None:
            for event in work(task):
                connection.send((True, event))
            connection.send((False, None))
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # it is about to end


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """A block in which signals wait, so that a process that begins has its handlers first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_terminated(*_) -> None:
    """A handler of signals."""
    raise Terminated


def end_with(parent: int) -> None:
    """Let this process end soon after its parent, of which a killed one tells nobody."""

    def watch():
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """SIGTERM raises Terminated in this block, so that what is done is told and kept."""

    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def open_standard_streams() -> None:
    """Give standard input, output and error a place if the caller closed them.

    Otherwise the next file that is opened takes their number, and messages are written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):  # as standard error: names that are not UTF-8 show
        sys.stdout.reconfigure(errors="backslashreplace")
