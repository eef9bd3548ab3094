"""How a command line runs: which command, one line for an error, the exit code.

Shared by `denoiser` and `python -m experiments`.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator


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

    An error is one line on standard error; with DENOISER_DEBUG set it is raised.
    """
    open_standard_streams()
    args = parser.parse_args(argv)
    try:
        return args.work(args) or 0
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("DENOISER_DEBUG"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("interrupted", file=sys.stderr)
        return stop_code(stop)


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
