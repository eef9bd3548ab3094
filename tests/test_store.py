"""`helpers.store`: where files can be written, who is alone, what decides a kept file."""

import errno
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
import warnings

import matplotlib.pyplot as plt
import pytest

from helpers import store
from helpers.display import plots

# --- places that cannot be written --------------------------------------------------------------


@pytest.fixture(params=["read-only", "no permission"])
def unwritable(request, tmp_path, monkeypatch):
    """A folder in which no file can be made; root, who may all, is told so by `os.open`."""
    code = {"read-only": errno.EROFS, "no permission": errno.EACCES}[request.param]
    folder, opened, made = tmp_path / "checkout", os.open, os.mkdir
    folder.mkdir()

    def refuse(act):
        def wrapped(path, *args, **kwargs):
            if str(path).startswith(str(folder)):
                raise OSError(code, os.strerror(code), str(path))
            return act(path, *args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "open", refuse(opened))
    monkeypatch.setattr(os, "mkdir", refuse(made))
    monkeypatch.setattr(store, "ROOT", folder)
    monkeypatch.setattr(store, "_told", set())
    store.writable.cache_clear()
    yield folder
    store.writable.cache_clear()


def test_figures_of_a_read_only_checkout_are_shown_and_not_saved(unwritable):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert plots.save_figure("01_one") is None
        assert plots.save_figure("01_two", figure) is None
    assert [one.filename for one in caught] == [__file__]  # once, where it was called
    text = str(caught[0].message)
    assert text.startswith(f"figures are shown and not saved: {unwritable}/")
    assert "cannot be written" in text
    with pytest.raises(store.PlaceError, match="choose another folder"):
        plots.save_figure("comparison", figure, unwritable / "chosen")
    plt.close(figure)


def test_figures_that_find_no_room_are_shown_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROOT", tmp_path)
    monkeypatch.setattr(store, "_told", set())
    figure, _ = plt.subplots()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.warns(UserWarning, match="shown and not saved: .*the disk is full"):
        assert plots.save_figure("01_one", figure) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    plt.close(figure)


def test_what_must_be_written_goes_elsewhere_in_a_read_only_checkout(unwritable):
    with pytest.warns(UserWarning, match=f"{unwritable}/output: cannot be .* until then /"):
        place = store.writable(unwritable / "output")
    with warnings.catch_warnings(action="error"):
        assert store.writable(unwritable / "output") == place
    assert list(place.iterdir()) == []
    assert place.parent == type(place)(tempfile.gettempdir())
    place.rmdir()
    assert store.writable(unwritable.parent / "other") == unwritable.parent / "other"


def test_a_place_is_checked_without_a_trace(tmp_path, unwritable):
    store.check_place(tmp_path / "new" / "rows")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(store.PlaceError, match=r"cannot be written \(.*\); choose another folder"):
        store.check_place(unwritable / "new" / "rows")


# --- alone --------------------------------------------------------------------------------------

HOLD = """
import sys, time
from helpers import store
with store.alone(sys.argv[1], wait=len(sys.argv) > 2):
    print("mine", flush=True)
    sys.stdin.read()
"""


def hold(path, *wait):
    """A process that holds the lock of a path until its input is closed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", HOLD, str(path), *wait], **pipes)


def test_a_lock_keeps_others_out_and_dies_with_its_process(tmp_path):
    path = tmp_path / "new" / "run"
    with hold(path) as first:
        assert first.stdout.readline() == "mine\n"
        with pytest.raises(
            store.FileError, match=f"{path}: another process is at work on it; wait"
        ):
            store.alone(path).__enter__()
        first.kill()  # and leaves its file
    assert (path.parent / ".run.lock").exists()
    with store.alone(path):
        assert [one.name for one in path.parent.iterdir()] == [".run.lock"]
    assert list(path.parent.iterdir()) == []


def test_a_lock_that_is_waited_for_is_had_by_one_after_the_other(tmp_path):
    with hold(tmp_path / "run") as first:
        first.stdout.readline()
        with hold(tmp_path / "run", "wait") as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1.5)
            first.stdin.close()
            assert second.stdout.readline() == "mine\n"
            with pytest.raises(store.FileError):
                store.alone(tmp_path / "run").__enter__()
            second.stdin.close()
    assert list(tmp_path.iterdir()) == []


# --- what decides a kept file -------------------------------------------------------------------


def test_code_of_a_part_ignores_words_and_sees_changes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "plain": "def f(x):\n    return x + 1\n",
        "worded": '"""Module."""\n\n\ndef f(x):\n    """One more."""\n    return x + 1  # yes\n',
        "other": "def f(x):\n    return x + 2\n",
    }
    codes = {}
    for name, text in texts.items():
        (tmp_path / f"part_{name}.py").write_text(text)
        codes[name] = store.code(importlib.import_module(f"part_{name}").f)
    assert codes["plain"] == codes["worded"] != codes["other"]


COUNT = itertools.count()  # no module is taken for that of another test
PARTS = '''
LIMIT, PLACE = 3, __file__


class Box:
    """Two sizes."""

    def __init__(self, width: int = 1):
        if width < 0:
            raise ValueError("a negative width")
        self.width = width


def inner(x):
    return Box(x).width + LIMIT


def outer(x: int) -> int:
    return inner(x)


KINDS = {"inner": inner, "outer": outer}


def by_name(name, x):
    return KINDS[name](x)
'''


@pytest.fixture
def code_of(tmp_path, monkeypatch):
    """A function (old, new, name): the code of a part of PARTS with one text in another's place."""
    monkeypatch.syspath_prepend(tmp_path)

    def code(old="", new="", name="outer", **options):
        assert old in PARTS
        module = f"parts_{next(COUNT)}"
        (tmp_path / f"{module}.py").write_text(PARTS.replace(old, new) if old else PARTS)
        module = importlib.import_module(module)
        told = [getattr(module, one) for one in options.get("told", ())]
        return store.code(getattr(module, name), told=told)

    return code


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT, PLACE = 3", "LIMIT, PLACE = 4"),
        ("Box(x).width", "Box(x + 1).width"),
        ("width: int = 1", "width: int = 2"),
        ("width < 0", "width < 1"),
    ],
)
def test_code_sees_what_a_function_uses_wherever_it_stands(code_of, old, new):
    assert code_of(old, new) != code_of()
    assert code_of(old, new, told=("inner",)) == code_of(told=("inner",))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Two sizes."""', '"""One size."""\n    # which is enough'),
        ("a negative width", "less than nothing"),
        ("x: int) -> int", "x)"),
        ("def by_name(name, x):", "def by_name(name, x, other=1):"),
    ],
)
def test_code_does_not_see_words(code_of, old, new):
    assert code_of(old, new) == code_of()


def test_entries_of_a_table_of_functions_count_only_by_name(code_of):
    assert code_of("Box(x).width", "Box(x + 1).width", name="by_name") == code_of(name="by_name")


def test_a_key_names_facts_and_refuses_what_has_no_lasting_name():
    assert store.key({"a": [1, 2.5, "x"]}) == store.key({"a": [1, 2.5, "x"]})
    assert store.key([1]) != store.key([2])
    assert len(store.key(None)) == 16
    with pytest.raises(TypeError, match="without a lasting name"):
        store.key([print, object()])
