"""The test protocol: every condition and every system, in parts that are kept until all are done.

A part is one system on one condition. It is kept under `data/cache/evaluation` by a digest of what
decides it (clips, noise, metrics, weights, code), so a run that was stopped goes on, and after a
training only the trained model is scored again. Installed packages do not count: with other ones
than the pinned, delete that folder. Taught in `05_evaluation`.
"""

import ast
import dataclasses
import datetime
import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, baselines, corpus, evaluation, metrics, noise, peers
from helpers.evaluation import CEILING, FLOOR, METHODS, Condition
from helpers.quick import size

CACHE = corpus.ROOT / "data" / "cache" / "evaluation"
UTTERANCES = size(30, 2)  # of the test speakers, and as many of the *other* ones
SPEED_UTTERANCES = size(8, 2)  # the first of them warms up
SEED = 0
HEADLINE = (  # every system is scored on these
    Condition("white", snr_db=0.0),
    Condition("white", snr_db=10.0),
    Condition("pink", 2_500, 7_000, 0.0),
    Condition("inverter", snr_db=0.0),
    Condition("recorded", 3_000, 8_000, 0.0),
    Condition("recorded", 0, 8_000, 5.0),
    Condition("white", snr_db=0.0, level_db=-50.0),
    Condition("none"),
)
SNRS = (-5.0, 0.0, 10.0, 20.0)  # dB, of every kind of noise
SWEEP = tuple(  # of white noise, on which every system is scored too
    Condition("white", snr_db=snr) for snr in (-5.0, 5.0, 20.0)
)
CONDITIONS = (
    HEADLINE
    + SWEEP
    + tuple(  # the shipped models, and what stands below and above them
        dataclasses.replace(one, snr_db=snr)
        for one in HEADLINE[2:6]
        for snr in SNRS
        if snr != one.snr_db
    )
    + tuple(Condition("white", snr_db=0.0, level_db=level) for level in (-20.0, -35.0))
)
WITH_OPINIONS = HEADLINE[:1]  # the slow metrics of `metrics.OPINIONS` are for these
CLASSICAL: dict[str, evaluation.System] = {
    "spectral subtraction": lambda clean, noisy: baselines.spectral_subtraction(noisy),
    "log-MMSE": lambda clean, noisy: baselines.log_mmse(noisy),
    "oracle low-pass": baselines.oracle_low_pass,
    "oracle Wiener": baselines.oracle_wiener,
}
ORACLES: dict[str, evaluation.System] = {
    "oracle IRM": baselines.oracle_irm,
    "oracle complex": baselines.oracle_complex,
}
ORDER = (*FLOOR, *CLASSICAL, *peers.PACKAGES, *METHODS, *CEILING, *ORACLES)  # of rows in tables


@dataclasses.dataclass(frozen=True)
class Entry:
    """A system, what tells it from an older one, and its network's size.

    `version`: of its weights or package; `made_by`: the module whose code makes its output.
    """

    system: evaluation.System
    made_by: ModuleType = baselines
    version: str = ""
    megabytes: float = np.nan


def course_entries() -> dict[str, Entry]:
    """The course's own systems: floor, classical rules, trained models, oracles."""
    entries = {name: Entry(system) for name, system in (FLOOR | CLASSICAL).items()}
    entries |= {name: trained(name) for name in METHODS}
    return entries | {name: Entry(system) for name, system in (CEILING | ORACLES).items()}


def trained(method: str, folder: Path | None = None) -> Entry:
    """A trained model, the shipped one by default. Raises models.WeightsError."""
    from helpers import denoise
    from helpers.models import weights_path

    system = evaluation.neural(method, folder)  # which looks at the weights first
    weights = weights_path(method, folder).read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    return Entry(system, denoise, digest, len(weights) / 1e6)


def peer_entries() -> dict[str, Entry]:
    """Those of `helpers.peers`, whose environment must be the one that runs."""
    versions, sizes = peers.versions(), peers.megabytes()
    return {
        name: Entry(
            lambda clean, noisy, peer=peer: peer(noisy), peers, versions[name], sizes.get(name)
        )
        for name, peer in peers.load().items()
    }


def run(table: pd.DataFrame, noise_folder: Path | None, with_peers: bool = False) -> pd.DataFrame:
    """Score the test and *other* speakers of a corpus, or finish a run that was stopped.

    `table`: of `corpus.read_corpus`. Without recorded noise (None) its conditions are left out.
    `with_peers`: the peers, instead of the course's systems. The trained models, FLOOR and CEILING
    are scored on CONDITIONS, all others on HEADLINE and SWEEP only. The rows are those of
    `evaluation.evaluate`, and `version` and `megabytes` of each system. Quick mode takes two
    utterances a split and two conditions.
    """
    splits = "+".join(split for split in ("test", "other") if (table.split == split).any())
    utterances = evaluation.pick(table, splits, UTTERANCES)
    conditions = size(HEADLINE + SWEEP if with_peers else CONDITIONS, HEADLINE[:2])
    if noise_folder is None:
        conditions = [one for one in conditions if one.kind != "recorded"]
    files = tuple(noise.recorded_files(noise_folder, "test"))
    entries = peer_entries() if with_peers else course_entries()
    parts = []
    for condition in tqdm(conditions, "conditions", disable=None):
        wanted = {
            name: entry
            for name, entry in entries.items()
            if is_among(condition, HEADLINE + SWEEP) or name not in (CLASSICAL | ORACLES)
        }
        parts.append(_score(utterances, condition, wanted, files))
    rows = pd.concat(parts, ignore_index=True)
    about = pd.DataFrame.from_dict(
        {name: (entry.version, entry.megabytes) for name, entry in entries.items()},
        orient="index",
        columns=["version", "megabytes"],
    )
    return rows.join(about, on="system")


def speeds(path: Path, table: pd.DataFrame, with_peers: bool = False) -> pd.DataFrame:
    """CPU seconds a second of audio of every system, all on the same clips, nothing beside it.

    Written to the CSV `path`: system, cpu (median over clips), cpu_low and cpu_high (extremes),
    seconds (of audio), date. The first clip, on which programs load and compile, is not counted.
    Rows of other systems stay, so that the course's environment and that of the peers, one after
    the other, fill one file.
    """
    utterances = evaluation.pick(table, "test", SPEED_UTTERANCES)
    entries = peer_entries() if with_peers else course_entries()
    systems = {name: entry.system for name, entry in entries.items()}
    timed = []
    for row, clean, _ in evaluation.clips(utterances, [HEADLINE[0]], systems, SEED):
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
    with audio.atomic_path(path, overwrite=True) as temporary:
        found.to_csv(temporary, index=False, float_format="%.4g")
    return found


def load(folder: Path) -> pd.DataFrame:
    """All rows of `<folder>/test.csv` and `peers.csv`, the systems in the order of ORDER."""
    rows = pd.concat([evaluation.load_rows(folder / f"{name}.csv") for name in ("test", "peers")])
    order = ORDER.index
    return rows.sort_values("system", key=lambda names: names.map(order), kind="stable")


def title(condition: Condition) -> str:
    """For example `white 4-8 kHz, 10 dB`; clean input has no SNR."""
    text = evaluation.input_text(vars(condition))
    return text if condition.kind == "none" else f"{text}, {condition.snr_db:g} dB"


def of(rows: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    """The rows of one condition."""
    wanted = dataclasses.asdict(condition)
    level = wanted.pop("level_db")
    chosen = (rows[list(wanted)] == pd.Series(wanted)).all(axis=1)
    at_level = rows.level_db.isna() if np.isnan(level) else rows.level_db == level
    return rows[chosen & at_level]


def is_among(condition: Condition, conditions) -> bool:
    """Whether a condition is one of several; `in` would find no level (NaN) equal to itself."""
    return repr(condition) in map(repr, conditions)


def _score(utterances, condition, entries: Mapping[str, Entry], files) -> pd.DataFrame:
    """The rows of one condition; systems whose part is kept are not run again."""
    paths = {
        name: CACHE / f"{_digest(utterances, condition, name, entry, files)}.csv"
        for name, entry in entries.items()
    }
    missing = {name: one.system for name, one in entries.items() if not paths[name].exists()}
    if missing:
        opinions = is_among(condition, WITH_OPINIONS)
        rows = evaluation.evaluate(utterances, [condition], missing, SEED, files, opinions=opinions)
        for name, part in rows.groupby("system"):
            with audio.atomic_path(paths[name]) as temporary:
                part.to_csv(temporary, index=False)
    return pd.concat([evaluation.load_rows(path) for path in paths.values()], ignore_index=True)


def _digest(utterances, condition, name: str, entry: Entry, files) -> str:
    """Of what decides a part: clips, noise, metrics, the system's weights and code."""
    recipe = [name, entry.version, dataclasses.astuple(condition), SEED, evaluation.LONGEST]
    recipe += [is_among(condition, WITH_OPINIONS)]
    parts = (audio, noise, metrics, evaluation.make_noisy, evaluation.clips, entry.made_by)
    recipe += [code(part) for part in parts]
    recipe += [(one.utterance, one.path.stat().st_size) for one in utterances.itertuples()]
    if condition.kind == "recorded":
        recipe += [(file.parent.name, file.name, file.stat().st_size) for file in files]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def code(part) -> str:
    """What a module or function does: its source without comments and docstrings."""
    tree = ast.parse(inspect.getsource(part))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            node.body = [
                one for one in body if not isinstance(getattr(one, "value", 0), ast.Constant)
            ]
    return ast.dump(tree)
