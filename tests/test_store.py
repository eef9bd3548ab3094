"""`helpers.store`: what decides a kept file."""

import importlib
import itertools

import pytest

from helpers import store


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
