"""The test protocol: every condition and every system, in parts that are kept until all are done.

A part is one system on one condition. It is kept under `data/cache/evaluation` by a digest of
all that decides it, so a run that was stopped goes on, and after a training only the trained
model is scored again. Taught in `05_evaluation`.
"""

import ast
import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from helpers import audio, baselines, corpus, evaluation, metrics, noise, peers
from helpers.evaluation import CEILING, FLOOR, METHODS, Condition
from helpers.quick import size

CACHE = corpus.ROOT / "data" / "cache" / "evaluation"
UTTERANCES = size(30, 2)  # of the test speakers, and as many of the *other* ones
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
CONDITIONS = (
    HEADLINE
    + tuple(  # the shipped models, and what stands below and above them
        [Condition("white", snr_db=snr) for snr in (-5.0, 5.0, 15.0, 20.0)]
        + [
            dataclasses.replace(one, snr_db=snr)
            for one in HEADLINE[2:6]
            for snr in (0.0, 10.0)
            if snr != one.snr_db
        ]
        + [Condition("white", snr_db=0.0, level_db=level) for level in (-20.0, -35.0)]
    )
)
WITH_OPINIONS = HEADLINE[:1]  # the slow metrics of `metrics.OPINIONS` are for these
CLASSICAL: dict[str, evaluation.System] = {
    "spectral subtraction": lambda clean, noisy: baselines.spectral_subtraction(noisy),
    "log-MMSE": lambda clean, noisy: baselines.log_mmse(noisy),
    "oracle Wiener": baselines.oracle_wiener,
}
ORACLES: dict[str, evaluation.System] = {
    "oracle IRM": baselines.oracle_irm,
    "oracle complex": baselines.oracle_complex,
}
ORDER = (*FLOOR, *CLASSICAL, *peers.PACKAGES, *METHODS, *CEILING, *ORACLES)  # of rows in tables


def run(table: pd.DataFrame, noise_folder: Path | None, with_peers: bool = False) -> pd.DataFrame:
    """Score the test and *other* speakers of a corpus, or finish a run that was stopped.

    `table`: of `corpus.read_corpus`. Without recorded noise (None) its conditions are left out.
    `with_peers`: instead of the course's own systems, those of `helpers.peers`, whose environment
    must be the one that runs; their rows have a `version`. Quick mode takes two utterances a split
    and the first two conditions.
    """
    splits = "+".join(split for split in ("test", "other") if (table.split == split).any())
    utterances = evaluation.pick(table, splits, UTTERANCES)
    conditions = size(HEADLINE if with_peers else CONDITIONS, HEADLINE[:2])
    if noise_folder is None:
        conditions = [one for one in conditions if one.kind != "recorded"]
    files = tuple(noise.recorded_files(noise_folder, "test"))
    if with_peers:
        versions = peers.versions()
        systems = {name: _of_noisy(peer) for name, peer in peers.load().items()}
    else:
        systems = FLOOR | CLASSICAL | {name: evaluation.neural(name) for name in METHODS}
        systems |= CEILING | ORACLES
        versions = {name: _digest_of_weights(name) for name in METHODS}
    parts = []
    for condition in tqdm(conditions, "conditions", disable=None):
        wanted = {
            name: system
            for name, system in systems.items()
            if is_among(condition, HEADLINE) or name not in (CLASSICAL | ORACLES)
        }
        parts.append(_score(utterances, condition, wanted, files, versions))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(version=rows.system.map(peers.versions())) if with_peers else rows


def is_among(condition: Condition, conditions) -> bool:
    """Whether a condition is one of several; `in` would find no level (NaN) equal to itself."""
    return repr(condition) in map(repr, conditions)


def _score(utterances, condition, systems: Mapping, files, versions: Mapping) -> pd.DataFrame:
    """The rows of one condition; systems whose part is kept are not run again."""
    paths = {
        name: CACHE / f"{_digest(utterances, condition, name, files, versions.get(name))}.csv"
        for name in systems
    }
    missing = {name: system for name, system in systems.items() if not paths[name].exists()}
    if missing:
        opinions = is_among(condition, WITH_OPINIONS)
        rows = evaluation.evaluate(utterances, [condition], missing, SEED, files, opinions=opinions)
        for name, part in rows.groupby("system"):
            with audio.atomic_path(paths[name]) as temporary:
                part.to_csv(temporary, index=False)
    return pd.concat([evaluation.load_rows(path) for path in paths.values()], ignore_index=True)


def _digest(utterances, condition, name: str, files, version: str | None) -> str:
    """Of all that decides a part: clips, noise, metrics, and the system's weights or code."""
    recipe = [name, version, dataclasses.astuple(condition), SEED, evaluation.LONGEST]
    recipe += [code(part) for part in (noise, metrics, evaluation.make_noisy, evaluation.clips)]
    recipe += [code(baselines)] if version is None else []
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


def _digest_of_weights(method: str) -> str:
    from helpers.models import weights_path

    return hashlib.sha256(weights_path(method).read_bytes()).hexdigest()


def _of_noisy(peer: peers.Peer) -> evaluation.System:
    return lambda clean, noisy: peer(noisy)
