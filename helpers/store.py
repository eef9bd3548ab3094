"""Where things lie, how a file is written whole or not at all, and what a kept file depends on.

`code` and `key` name a file by all that decides what is in it, so that a file made of something
else is never taken for it. Used wherever work is kept: the noise bank (`02_noise`), trainings, and
the experiments.
"""

import ast
import contextlib
import errno
import fcntl
import functools
import hashlib
import importlib
import inspect
import itertools
import os
import secrets
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "data" / "cache"  # what can be made again
RUNS = ROOT / "data" / "runs"  # trainings and their checkpoints
RESULTS = ROOT / "data" / "results"  # what the experiments measured
OURS = ("helpers", "experiments")
TEMPORARY = ".denoiser-"  # so begin the names of files that are being written
NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}


class FileError(ValueError):
    """A file that cannot be read or written; the message names it and the remedy in one line."""


class PlaceError(FileError):
    """A folder that cannot be written, or has no room."""


def shown(path: Path) -> str:
    """A path as it reads from the project's root, without one machine's folders."""
    path = Path(path).resolve()
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT.parent) else str(path)


def with_ending(path: Path, ending: str) -> Path:
    """A path with ".csv" or ".md" behind it, in place of such an ending; other dots stay."""
    path = Path(path)
    name = path.stem if path.suffix in (".csv", ".md") else path.name
    return path.with_name(name + ending)


@contextlib.contextmanager
def atomic_path(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` only when the block ends well.

    Raises FileError when `path` exists and `overwrite` is false or its name is too long, PlaceError
    when its folder cannot be written or its disk is full. Nothing half-written is left behind,
    unless the process is killed: see `remove_leftovers`.
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
        raise PlaceError(f"{place}: cannot be written ({cause}); choose another folder") from error


@contextlib.contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """The same for a disk that gets full while `path` is written; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise PlaceError(no_room(path, NO_ROOM[error.errno])) from error


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
def alone(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `path` through the block; `.<name>.lock` beside it is gone afterwards.

    A process that dies, however it does, holds it no longer. Where another one holds it, `wait`,
    or raise FileError. Raises PlaceError where the folder cannot be written.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    handle = _lock(lock, wait)
    if handle is None:
        raise FileError(f"{path}: another process is at work on it; wait for its end")
    try:
        yield
    finally:
        with contextlib.closing(os.fdopen(handle)):
            lock.unlink(missing_ok=True)


def _lock(lock: Path, wait: bool) -> int | None:
    """An open handle that holds a lock file, None where another process does."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # who was here before has removed its folder
        except OSError as error:
            raise _no_place(lock.parent, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if lock.exists() and os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        os.close(handle)  # who held it has removed it: it keeps nobody out


def _no_place(folder: Path, error: OSError) -> PlaceError:
    return PlaceError(f"{folder}: cannot be written ({error.strerror}); choose another folder")


def check_place(path: Path) -> None:
    """Raise PlaceError where a file of this name cannot be written: to be known before hours."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _no_place(path.parent, error) from error


@functools.cache
def writable(folder: Path) -> Path:
    """The folder, or an empty temporary one where it cannot be written; then a warning says so."""
    try:
        check_place(Path(folder) / "any")
    except PlaceError as error:
        place = Path(tempfile.mkdtemp(prefix="denoiser-"))
        warnings.warn(f"{error}; until then {place} is taken", stacklevel=2)
        return place
    return Path(folder)


@contextlib.contextmanager
def spared(loss: str) -> Iterator[None]:
    """A block whose files can be done without: where they cannot be written, it ends early.

    A process is warned once of each `loss`, as a sentence, for example "answers are not kept".
    """
    try:
        yield
    except (PlaceError, OSError) as error:
        _warn_once(loss, str(error))


_told = set()


def _warn_once(loss: str, why: str) -> None:
    if loss not in _told:
        _told.add(loss)
        warnings.warn(f"{loss}: {why}", stacklevel=5)


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

    For example `code(noise.white)` also holds `noise.coloured`, `noise.unit_rms`, LOW and HIGH.
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
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                inner = sys.modules.get(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = getattr(module, alias.name, inner)
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
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_plain(k)}: {_plain(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_plain, value)))}}}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return repr(value)
