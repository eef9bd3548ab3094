"""How a command line runs: which command, one line for an error, the exit code.

Shared by `denoiser` and `python -m experiments`.
"""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable

from helpers.reading import AudioWarning


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
    a sound that is not as its header says.
    """
    args = parser.parse_args(argv)
    try:
        with notes_in_one_line():
            return args.work(args) or 0
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("DENOISER_DEBUG"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


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
