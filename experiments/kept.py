"""One cache for all work that is done once: a part is kept under the name of what decides it.

The caller states the facts: constants, the SHA-256 of weights, names and sizes of clips and
recordings, and the code that makes the part (`store.code`). A run that was stopped goes on, and
what has changed, and only that, is made anew. Of installed packages only the recognisers and the
peers count, by their versions.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import joblib
import pandas as pd

from helpers import audio, store
from helpers.data import conditions, noise, scenes
from helpers.data.conditions import Condition
from helpers.evaluation import tables, word_errors


def kept(name: str, facts, make: Callable[[], object]):
    """What `make()` gives, or gave when the facts were these; kept as `data/cache/<name>-<key>`."""
    if not is_kept(name, facts):
        value = make()
        with store.atomic_path(kept_path(name, facts), overwrite=True) as temporary:
            joblib.dump(value, temporary)
    return joblib.load(kept_path(name, facts))


def is_kept(name: str, facts) -> bool:
    """Whether `kept` would make nothing."""
    return kept_path(name, facts).exists()


def kept_path(name: str, facts) -> Path:
    """Where it lies."""
    return store.CACHE / f"{name}-{store.key(facts)}.joblib"


def kept_rows(path: Path, which: dict, facts, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """As `kept`, in a table of results that grows part by part: all its rows, these among them.

    The column `part` holds the key of the facts. Rows that `which` (column -> value) tells, made
    under other facts, are replaced; the file is written anew after each part. Several processes
    may fill one file.
    """
    part = store.key(facts)
    if not _has_part(rows := _read(path), part):
        new = make().assign(part=part)
        with store.alone(path, wait=True):
            if not _has_part(rows := _read(path), part):  # another process may have made it
                rows = pd.concat([rows[~_told(rows, which)], new], ignore_index=True)
                tables.save_rows(rows, path)
    return rows


def parts_of(path: Path) -> set[str]:
    """The keys of the parts that a table of results has."""
    return set(_read(path).part.dropna())


def _read(path: Path) -> pd.DataFrame:
    return word_errors.read_heard(path) if path.exists() else pd.DataFrame({"part": []})


def _has_part(rows: pd.DataFrame, part: str) -> bool:
    return bool((rows.part == part).any())


def _told(rows: pd.DataFrame, which: dict) -> pd.Series:
    """Which rows have these values in these columns; NaN is like NaN."""
    same = pd.Series(bool(len(rows)), rows.index)
    for name, value in which.items() if len(rows) else ():
        same &= rows[name].isna() if pd.isna(value) else rows[name] == value
    return same


# --- facts that several experiments share -------------------------------------------------------


def facts_of_clips(utterances: pd.DataFrame) -> list:
    """Names and sizes of the files of utterances."""
    return [(one.utterance, one.path.stat().st_size) for one in utterances.itertuples()]


def facts_of_noisy(condition: Condition, seed: int, files=()) -> list:
    """What decides the noisy clips of a condition: its numbers, its recordings, its code.

    Other kinds of noise do not count. What a file holds is told by its size, not by `audio.read`.
    """
    row = condition.row | {name: float(condition.row[name]) for name in ("low", "high", "snr_db")}
    facts = [list(row.items()), seed]  # 2500 is 2500.0
    kind, scene = scenes.split_kind(condition.kind)
    if kind == "recorded":
        facts += [store.sizes(files), store.code(noise.recorded, told=(audio.read,))]
    elif kind != "none":
        facts.append(store.code(noise.KINDS[kind]))
    if scene:
        facts.append(store.code(scenes.SCENES[scene]))
    without = (noise.make, noise.recorded)  # which lead to every kind; the one that counts is above
    return [*facts, store.code(conditions.make_noisy, told=without)]


def facts_of_spread(condition: Condition, seed: int, files=()) -> list:
    """As `facts_of_noisy`, where recorded noise is drawn by category."""
    if condition.kind not in conditions.RECORDED:
        return facts_of_noisy(condition, seed, files)
    mixed = dataclasses.replace(condition, kind="recorded")
    noisy = facts_of_noisy(mixed, seed, conditions.recordings_of(condition, files))
    return [condition.kind, *noisy, store.code(conditions.by_category, told=(audio.read,))]
