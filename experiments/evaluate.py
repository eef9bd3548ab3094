"""The test protocol: every condition and every system, in parts that are kept until all are done.

A part is one system on one condition (`kept`), so a run that was stopped goes on, and after a
training only the trained model is scored again. Read in `05_evaluation`.
"""

import dataclasses
import datetime
import functools
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments import peers
from experiments.kept import facts_of_clips, facts_of_noisy, is_kept, kept
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
PART = "evaluation/part"  # the name of what is kept
ON_ALL = ("floor", "ours", "ceiling")  # kinds of systems that are scored on every condition


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
    names = [name for name, row in systems.TABLE.items() if row.kind != "peer"]
    return {name: trained(name) if name in models.METHODS else simple(name) for name in names}


def simple(name: str) -> Entry:
    """A system of the table that is code only."""
    system = systems.TABLE[name].make()
    return Entry(system, store.code(getattr(system, "function", system)))


def trained(method: str, folder: Path | None = None) -> Entry:
    """A trained model, the shipped one by default. Raises models.WeightsError."""
    from helpers.denoise.stream import Denoiser

    system = systems.neural(method, folder)  # which looks at the weights first
    code = store.code(Denoiser, models.module(method).build, told=(models.load,))  # by the SHA-256
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
    table: pd.DataFrame, noise_folder: Path | None, with_peers: bool = False
) -> pd.DataFrame:
    """Score the test and *other* speakers of a corpus, or finish a run that was stopped.

    `table`: of `corpus.read_corpus`. Without recorded noise (None) its conditions are left out.
    `with_peers`: the peers, instead of the course's systems. Systems of the kinds ON_ALL are
    scored on all conditions, others on `conditions.FOR_ALL` only. The rows are those of
    `scoring.evaluate`, and `version` and `megabytes` of each system. Quick mode takes two
    utterances a split and two conditions.
    """
    splits = "+".join(split for split in ("test", "other") if (table.split == split).any())
    utterances = corpus.pick(table, splits, UTTERANCES)
    files = tuple(noise.recorded_files(noise_folder, "test"))
    every = conditions.FOR_ALL if with_peers else conditions.CONDITIONS
    inputs = conditions.possible(list(every.values())[: size(None, 2)], files)
    entries = peer_entries() if with_peers else course_entries()
    parts = []
    for condition in tqdm(inputs, "conditions", disable=None):
        wanted = {
            name: entry
            for name, entry in entries.items()
            if condition.title in conditions.FOR_ALL or systems.TABLE[name].kind in ON_ALL
        }
        parts += score_parts(utterances, condition, wanted, files)
    rows = pd.concat(parts, ignore_index=True)
    about = pd.DataFrame.from_dict(
        {name: (entry.version, entry.megabytes) for name, entry in entries.items()},
        orient="index",
        columns=["version", "megabytes"],
    )
    return rows.join(about, on="system")


def score_parts(utterances, condition: Condition, entries: dict[str, Entry], files) -> list:
    """The rows of each system on one condition; those whose part is kept are not run again."""
    opinions, seed = condition in WITH_OPINIONS, conditions.SEED
    told = (audio.read, conditions.make_noisy)  # told by the other facts
    shared = {
        "clips": facts_of_clips(utterances),
        "noisy": facts_of_noisy(condition, seed, files),
        "metrics": [opinions, store.code(scoring.clips, metrics.score, told=told)],
    }
    facts = {
        name: shared | {"system": [name, entry.version, entry.code]}
        for name, entry in entries.items()
    }
    missing = {name: entries[name].system for name in facts if not is_kept(PART, facts[name])}

    @functools.cache
    def fresh() -> pd.DataFrame:
        return scoring.evaluate(utterances, [condition], missing, seed, files, opinions=opinions)

    def make(name: str) -> pd.DataFrame:
        return fresh()[fresh().system == name]

    return [kept(PART, facts[name], functools.partial(make, name)) for name in entries]


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
