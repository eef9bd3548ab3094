"""Where things lie, how a file is written whole or not at all, and what a kept file depends on.

`code` and `key` name a file by all that decides what is in it, so that a file made of something
else is never taken for it. Used wherever work is kept: the noise bank (`02_noise`), trainings, and
the experiments.
"""

import ast
import contextlib
import errno
import fcntl
import hashlib
import importlib
import inspect
import itertools
import os
import secrets
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "data" / "cache"  # what can be made again
RUNS = ROOT / "data" / "runs"  # trainings and their checkpoints
RESULTS = ROOT / "data" / "results"  # what the experiments measured
OURS = ("helpers", "experiments")


class FileError(ValueError):
    """A file that cannot be read or written; the message names it and the remedy in one line."""


def shown(path: Path) -> str:
    """A path as it reads from the project's root, without one machine's folders."""
    path = Path(path).resolve()
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT.parent) else str(path)


TEMPORARY = ".denoiser-"  # so begin the names of files that are being written
NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}


@contextlib.contextmanager
def atomic_path(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` only when the block ends well.

    Raises FileError when `path` exists and `overwrite` is false, its folder cannot be written,
    its name is too long or the disk is full. Nothing half-written is left behind, unless the
    process is killed: see `remove_leftovers`.
    """
    path = Path(path)
    with _refusals(path):
        if path.exists() and not overwrite:
            raise FileError(f"{path}: exists already; choose another name or pass --overwrite")
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix[:16]}")
    with contextlib.ExitStack() as at_end:
        at_end.callback(temporary.unlink, missing_ok=True)  # before it is there: a stop may come
        with _refusals(path):
            at_end.callback(os.close, _new_file(temporary))
        with _full_disk(path):
            yield temporary
        with _refusals(path):
            os.replace(temporary, path)


def _new_file(path: Path) -> int:
    """Make a file, locked until its handle is closed or the process ends; gives the handle."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        lock(handle)
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # `remove_leftovers` of another process came before the lock


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as a FileError that names it and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileError(
                f"{path}: the name is too long; rename the input or choose a shorter one"
            ) from error
        place = path if path.is_dir() else path.parent
        cause = NO_ROOM.get(error.errno, error.strerror)
        raise FileError(f"{place}: cannot be written ({cause}); choose another folder") from error


@contextlib.contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """The same for a disk that gets full while `path` is written; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise FileError(no_room(path, NO_ROOM[error.errno])) from error


def no_room(path: Path, cause: str) -> str:
    """What to say when `path` did not fit."""
    return f"{path}: cannot be written ({cause}); make room or choose another folder"


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half-written in a folder, and nothing that is in use."""
    for path in Path(folder).glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            if lock(stream.fileno(), wait=False):
                path.unlink()


def lock(handle: int, wait: bool = True) -> bool:
    """Lock an open file or folder against other processes until it is closed.

    False where another has it and `wait` is false, or where the file system knows no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time is in this block for this folder, where its file system knows locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


# --- what decides a file ------------------------------------------------------------------------


def key(facts) -> str:
    """Sixteen hex digits that name all facts: numbers, texts, and lists or dictionaries of them.

    Raises TypeError for a fact that has no lasting name, such as a function (give its `code`).
    """
    text = repr(facts)
    if " at 0x" in text:
        raise TypeError(f"a fact without a lasting name: {text[:200]}")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sizes(paths) -> list[tuple[str, str, int]]:
    """Folder, name and bytes of each file: what tells recordings apart without reading them."""
    return [(path.parent.name, path.name, path.stat().st_size) for path in map(Path, paths)]


def code(*parts, told=()) -> str:
    """A digest of what functions and classes do, and of all of this project that they use.

    Followed from name to name, wherever it stands: functions, classes, constants. Not counted, for
    it changes no result: comments, docstrings, the text of errors, the place of a function, paths,
    this module, packages from elsewhere. Nor are the entries of a table of functions: name the one
    that is used. `told`: what is not followed, because other facts tell what it gives.
    """
    texts, seen, waiting = set(), {id(inspect.unwrap(part)) for part in told}, list(parts)
    while waiting:
        part = inspect.unwrap(waiting.pop())
        if inspect.ismethod(part):
            waiting.append(type(part.__self__))
            continue
        if id(part) in seen:
            continue
        seen.add(id(part))
        tree = _without_words(ast.parse(textwrap.dedent(inspect.getsource(part))))
        texts.add(_text(tree))
        for name, value in itertools.chain(_used(tree, part), _enclosed(part)):
            if _is_ours(value, part):
                waiting.append(value)
            elif _is_plain(value):
                texts.add(f"{name} = {_plain(value)}")
            elif isinstance(value, tuple | list):
                waiting += [one for one in value if _is_ours(one, part)]
    return key(sorted(texts))


def _without_words(tree: ast.AST) -> ast.AST:
    """A syntax tree without docstrings, annotations of arguments, and what errors say."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            lone = [isinstance(one, ast.Expr) and _is_constant(one.value) for one in body]
            node.body = [one for one, drop in zip(body, lone, strict=True) if not drop]
            node.body = node.body or [ast.Pass()]
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
    return tree


def _text(node) -> str:
    """A syntax tree as text, the same in every Python: empty fields are left out."""
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_text(value)}"
        for name, value in ast.iter_fields(node)
        if value is not None and value != []
    ]
    return f"{type(node).__name__}({', '.join(fields)})"


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant)


def _used(tree: ast.AST, part) -> Iterator[tuple[str, object]]:
    """Names of other things in a syntax tree, and what they stand for where `part` stands."""
    names = dict(vars(sys.modules[part.__module__]))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                value = getattr(module, alias.name, None)
                names[alias.asname or alias.name] = value or sys.modules.get(
                    f"{node.module}.{alias.name}"
                )
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            value = _value(node, names)
            if value is not None and not ast.unparse(node).startswith("__"):
                yield ast.unparse(node).rpartition(".")[2], value


def _enclosed(part) -> Iterator[tuple[str, object]]:
    """What a function that another one returned carries with it."""
    names, cells = getattr(part, "__code__", None), getattr(part, "__closure__", None)
    if cells:
        yield from zip(names.co_freevars, (cell.cell_contents for cell in cells), strict=True)


def _value(node: ast.AST, names: dict):
    """What a name, or an attribute of one of our modules, stands for; None if for nothing."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        module = _value(node.value, names)
        if isinstance(module, ModuleType) and module.__name__.split(".")[0] in OURS:
            return getattr(module, node.attr, None)
    return None


def _is_ours(value, part) -> bool:
    """Whether a value is a function or class of this project, or of where `part` stands."""
    value = inspect.unwrap(value) if callable(value) else value
    if not (inspect.isfunction(value) or inspect.isclass(value)) or value.__module__ == __name__:
        return False
    top = value.__module__.split(".")[0]
    return top in OURS or top == part.__module__.split(".")[0]


def _is_plain(value) -> bool:
    """Whether a value is data: numbers, texts, arrays, and whatever holds only these."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return all(_is_plain(getattr(value, name)) for name in value.__dataclass_fields__)
    return value is None or isinstance(
        value, bool | int | float | complex | str | bytes | np.ndarray
    )


def _plain(value) -> str:
    """Data as text that is the same in every process."""
    if isinstance(value, set | frozenset):
        return repr(sorted(map(repr, value)))
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return repr(value)
