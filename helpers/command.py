"""How a command line runs: which command, one line for an error, the exit code, the worker
processes beside it, which end with it.

Shared by `denoiser` and `python -m experiments`.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

from helpers.reading import AudioWarning

ENDING = (signal.SIGTERM, signal.SIGHUP)  # what ends a command from outside
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
    if multiprocessing.active_children():
        from joblib.externals import loky

        with contextlib.suppress(RuntimeError):  # of workers that were about to begin
            loky.get_reusable_executor(reuse=True).shutdown(kill_workers=True)
    for process in multiprocessing.active_children():
        process.terminate()


def in_workers(tasks: Iterable, n_workers: int) -> Iterator:
    """Results of tasks (`joblib.delayed`), in their order, from worker processes that stay for the
    next call, and end with this process, however it ends.
    """
    import joblib

    watched = {"initializer": end_with, "initargs": (os.getpid(),)}
    return joblib.Parallel(n_workers, return_as="generator", **watched)(tasks)


def end_with(parent: int) -> None:
    """Let this process end soon after its parent, of which a killed one tells nobody."""

    def watch():
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends the work as Ctrl-C does."""


@contextlib.contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """SIGTERM raises Terminated in this block, so that what is done is told and kept."""

    def stop(*_):
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
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
