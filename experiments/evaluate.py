"""The test protocol: every condition and every system, in a file that grows part by part.

A part is one system on one condition (`kept_rows`), so a run that was stopped goes on, and after a
training only the trained model is scored again. Read in `05_evaluation`.
"""

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments import peers
from experiments.kept import facts_of_clips, facts_of_spread, kept_rows, parts_of
from helpers import audio, models, store
from helpers.data import conditions, corpus, noise
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.denoise.systems import Oracle, System
from helpers.evaluation import metrics, scoring, tables
from helpers.quick import size

UTTERANCES = size(30, 2)  # of the test speakers, and as many of the *other* ones
SPEED_UTTERANCES = size(8, 2)  # the first of them warms up
WITH_OPINIONS = (conditions.WHITE,)  # the slow metrics of `metrics.OPINIONS` are for these
ON_ALL = ("floor", "ours", "ceiling")  # kinds of systems that are scored on every noise
FOR_PEERS = conditions.BRIGHT_RECORDINGS["bright recordings 0-8 kHz, 5 dB"]
ON_RECORDINGS = ("noisy", "low-pass", "spectrogram", systems.DEFAULT, "oracle PSM")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A system, what tells it from an older one, and its network's size.

    `version`: of its weights or package; `code`: of what makes its output.
    """

    system: System | Oracle
    code: str = ""
    version: str = ""
    megabytes: float = np.nan


def course_entries() -> dict[str, Entry]:
    """The course's own systems: floor, classical rules, trained models, oracles."""
    ours = {name: trained(name) for name in systems.names("ours")}
    ours[systems.DEFAULT] = trained("spectrogram", by_frequency=True)
    names = [name for name, row in systems.TABLE.items() if row.kind != "peer"]
    return {name: ours.get(name) or simple(name) for name in names}


def simple(name: str) -> Entry:
    """A system of the table that is code only."""
    system = systems.TABLE[name].make()
    return Entry(system, store.code(getattr(system, "function", system)))


def trained(method: str, folder: Path | None = None, by_frequency: bool = False) -> Entry:
    """A trained model, the shipped one by default. Raises models.WeightsError."""
    from helpers.denoise.account import Account
    from helpers.denoise.stream import Denoiser

    system = systems.neural(method, folder, by_frequency)  # which looks at the weights first
    told = (models.load, Account)  # the weights' SHA-256 tells the first; the second hears only
    code = store.code(Denoiser, models.module(method).build, told=told)
    megabytes = models.weights_path(method, folder).stat().st_size / 1e6
    return Entry(system, code, models.weights_sha256(method, folder), megabytes)


def peer_entries() -> dict[str, Entry]:
    """Those of `experiments.peers`, whose environment must be the one that runs."""
    versions, sizes = peers.versions(), peers.megabytes()
    return {
        name: Entry(system, code_of_peer(name), versions[name], sizes.get(name))
        for name, system in peers.load_peers().items()
    }


def code_of_peer(name: str) -> str:
    """Of the lines that run a peer and take its delay away."""
    return store.code(peers.MAKERS[name], peers.aligned, told=(corpus.read_corpus, audio.read))


def evaluate_all(
    path: Path, table: pd.DataFrame, noise_folder: Path | None, with_peers: bool = False
) -> pd.DataFrame:
    """Score the course's systems by the protocol, or `with_peers` the peers, by `score_all`.

    `is_scored` says which ones on what. Without recorded noise (None) its conditions are left out.
    """
    entries = peer_entries() if with_peers else course_entries()
    every = [*conditions.FOR_ALL.values(), FOR_PEERS]
    every = every if with_peers else list(conditions.CONDITIONS.values())
    wanted = {
        condition: {name: entry for name, entry in entries.items() if is_scored(name, condition)}
        for condition in every
    }
    return score_all(path, table, noise_folder, wanted)


def score_all(
    path: Path,
    table: pd.DataFrame,
    noise_folder: Path | None,
    wanted: Mapping[Condition, Mapping[str, Entry]],
    noise_splits: Sequence[str] = ("test",),
) -> pd.DataFrame:
    """Score the test and *other* speakers of a corpus, or finish a run that was stopped.

    The CSV `path` grows part by part and is put in the order of tables at the end.
    `table`: of `corpus.read_corpus`. `wanted`: the systems on each condition. `noise_splits`: of
    the recordings that are mixed in. The rows are those of `scoring.evaluate`, and `version` and
    `megabytes` of each system. Quick mode takes two utterances a split and two conditions.
    """
    splits = "+".join(split for split in ("test", "other") if (table.split == split).any())
    utterances = corpus.pick(table, splits, UTTERANCES)
    files = tuple(f for one in noise_splits for f in noise.recorded_files(noise_folder, one))
    inputs = conditions.possible(list(wanted)[: size(None, 2)], files)
    for condition in tqdm(inputs, "conditions", disable=None):
        score_parts(path, utterances, condition, wanted[condition], files)
    rows = tables.load_rows(path)
    parts = [
        here[here.system == name]
        for condition in inputs
        for here in [conditions.rows_of(rows, condition)]
        for name in wanted[condition]
    ]
    return pd.concat(parts, ignore_index=True)


def is_scored(name: str, condition: Condition) -> bool:
    """Whether the protocol asks for a system on a condition.

    Everything on `conditions.FOR_ALL`, ON_RECORDINGS on `conditions.RECORDINGS`, the kinds ON_ALL
    on the others. Of `conditions.BRIGHT_RECORDINGS` peers hear the one of FOR_PEERS.
    """
    if name in systems.PEERS:
        return condition in (*conditions.FOR_ALL.values(), FOR_PEERS)
    if condition.title in conditions.RECORDINGS | conditions.BRIGHT_RECORDINGS:
        return name in ON_RECORDINGS
    return condition.title in conditions.FOR_ALL or systems.TABLE[name].kind in ON_ALL


def facts(utterances, condition: Condition, name: str, entry: Entry, files) -> dict:
    """What decides the rows of a system on a condition: clips, noise, metrics, system."""
    told = (audio.read, conditions.make_noisy)  # told by the other facts
    opinions = condition in WITH_OPINIONS
    return {
        "clips": facts_of_clips(utterances),
        "noisy": facts_of_spread(condition, conditions.SEED, files),
        "metrics": [opinions, store.code(scoring.clips, metrics.score, told=told)],
        "system": [name, entry.version, entry.code],
    }


def score_parts(
    path: Path, utterances, condition: Condition, entries: Mapping[str, Entry], files
) -> None:
    """Add the rows of each system on one condition to a CSV; parts that it has are not run again.

    Systems that are missing run together, so that the clips are made once.
    """
    those = {name: facts(utterances, condition, name, one, files) for name, one in entries.items()}
    there = parts_of(path)
    missing = {
        name: entry.system for name, entry in entries.items() if store.key(those[name]) not in there
    }

    @functools.cache
    def fresh() -> pd.DataFrame:
        opinions = condition in WITH_OPINIONS
        return spread(
            utterances,
            condition,
            files,
            lambda share: scoring.evaluate(
                share.utterances,
                [share.condition],
                missing,
                conditions.SEED,
                share.files,
                opinions=opinions,
            ),
        )

    for name in missing:

        def make(name=name):
            about = {"version": entries[name].version, "megabytes": entries[name].megabytes}
            return fresh()[fresh().system == name].assign(**about)

        kept_rows(path, {"system": name} | condition.row, those[name], make)


def spread(
    utterances: pd.DataFrame,
    condition: Condition,
    files,
    make: Callable[[conditions.Share], pd.DataFrame],
) -> pd.DataFrame:
    """Rows of `make(share)` for each category of noise, as rows of the condition.

    In the order of the utterances; `source` is the category, empty where noise is not recorded.
    """
    shares = conditions.by_category(utterances, condition, files)
    parts = [make(share).assign(kind=condition.kind, source=share.source) for share in shares]
    place = {name: i for i, name in enumerate(utterances.utterance)}
    rows = pd.concat(parts, ignore_index=True)
    return rows.sort_values("utterance", key=lambda names: names.map(place), kind="stable")


def speeds(path: Path, table: pd.DataFrame, with_peers: bool = False) -> pd.DataFrame:
    """CPU seconds a second of audio of every system, all on the same clips, nothing beside it.

    Written to the CSV `path`: system, cpu (median over clips), cpu_low and cpu_high (extremes),
    seconds (of audio), date. The first clip, on which programs load and compile, is not counted.
    Rows of other systems stay, so that the course's environment and that of the peers, one after
    the other, fill one file.
    """
    utterances = corpus.pick(table, "test", SPEED_UTTERANCES)
    entries = peer_entries() if with_peers else course_entries()
    heard = {name: entry.system for name, entry in entries.items()}
    timed = []
    for row, clean, _ in scoring.clips(utterances, [conditions.WHITE], heard, conditions.SEED):
        if row["utterance"] != utterances.utterance[0]:
            timed.append(row | {"seconds": len(clean) / audio.SAMPLE_RATE})
    found = (
        pd.DataFrame(timed)
        .groupby("system", sort=False)
        .agg(
            cpu=("cpu", "median"),
            cpu_low=("cpu", "min"),
            cpu_high=("cpu", "max"),
            seconds=("seconds", "sum"),
        )
    )
    found = found.reset_index().assign(date=f"{datetime.datetime.now():%Y-%m-%d %H:%M}")
    if path.exists():
        earlier = pd.read_csv(path)
        found = pd.concat([earlier[~earlier.system.isin(found.system)], found])
    tables.save_rows(found, path)
    return found
