"""Every system on every condition: one row a clip, with all metrics.

Taught in `05_evaluation`. The whole test protocol, which can be stopped and goes on, is
`python -m experiments evaluate`.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, command, models, store
from helpers.data import conditions, corpus
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.denoise.systems import Oracle, System
from helpers.evaluation import metrics

LONGEST = 8.0  # s of an utterance that is scored


def clips(
    utterances: pd.DataFrame,
    inputs: Sequence[Condition],
    heard: Mapping[str, System | Oracle],
    seed: int = 0,
    files=(),
) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
    """One `(row, clean, estimate)` for each utterance, condition and system."""
    for one in utterances.itertuples():
        whole = audio.read(one.path)[: int(LONGEST * audio.SAMPLE_RATE)]
        for condition in inputs:
            clean, _, noisy = conditions.make_noisy(one.utterance, whole, condition, seed, files)
            row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
            row |= condition.row
            for name, system in heard.items():
                start = time.process_time()
                estimate = systems.apply(system, clean, noisy)
                cpu = (time.process_time() - start) * audio.SAMPLE_RATE / len(clean)
                yield row | {"system": name, "cpu": cpu}, clean, estimate


def evaluate(
    utterances: pd.DataFrame,
    inputs: Sequence[Condition],
    heard: Mapping[str, System | Oracle],
    seed: int = 0,
    files=(),
    workers: int = 2,
    keep: Callable[[dict, np.ndarray, np.ndarray], None] = lambda row, clean, estimate: None,
    opinions: bool = False,
) -> pd.DataFrame:
    """One row for each utterance, condition and system: what it is, then `metrics.score`.

    Column `cpu`: CPU seconds a second of audio that the system took. The systems run here, the
    metrics in `workers` processes beside it. `keep(row, clean, estimate)` is called here with
    every clip; `opinions` as for `metrics.score`.
    """

    def tasks():
        for clip in clips(utterances, inputs, heard, seed, files):
            keep(*clip)
            yield joblib.delayed(_score)(*clip, opinions)

    rows = command.in_workers(tasks(), workers)
    total = len(utterances) * len(inputs) * len(heard)
    return pd.DataFrame(tqdm(rows, "scoring", total=total, unit="clip", disable=None, leave=False))


def _score(row: dict, clean: np.ndarray, estimate: np.ndarray, opinions: bool) -> dict:
    return row | metrics.score(clean, estimate, opinions=opinions)


def add_scores(method: str, folder: Path | None = None, n_utterances: int = 24) -> None:
    """Score a trained model on validation speakers and write the means into its card."""
    utterances = corpus.pick(corpus.read_corpus(corpus.find_corpus()), "validation", n_utterances)
    heard = systems.make(*systems.names("floor")) | {method: systems.neural(method, folder)}
    rows = evaluate(utterances, [Condition(snr_db=0.0), Condition(snr_db=10.0)], heard)
    means = rows.groupby(["snr_db", "system"], sort=False)[["si_sdr", "pesq", "estoi"]].mean()
    scores = {
        f"{system}, {snr_db:g} dB": {name: round(value, 3) for name, value in row.items()}
        for (snr_db, system), row in means.iterrows()
    }
    scores = {"input": f"white 4-8 kHz, {len(utterances)} validation utterances"} | scores
    content = models.card(method, folder) | {"scores": scores}
    path = models.beside(method, ".json", folder)
    with store.atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
