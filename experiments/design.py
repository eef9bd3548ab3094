"""Data or design: a peer's network and ours, both trained from scratch on the same noise.

Plan `peer_architecture` trains DTLN's network, plan `fresh` the spectrogram model, on the same
examples for as long. Read on the page of results.
"""

from pathlib import Path

import pandas as pd

from experiments import evaluate
from experiments.evaluate import Entry
from experiments.train import Step, read_plan
from helpers import models
from helpers.data import conditions

INPUTS = conditions.NOISES


def steps() -> dict[str, Step]:
    """System -> the one step that trained it, for example "DTLN, 53 h"."""
    named = {"DTLN": "peer_architecture", "spectrogram": "fresh"}
    found = [(name, read_plan(plan)) for name, plan in named.items()]
    return {f"{name}, {step.plan.hours:.0f} h": step for name, (step,) in found}


def entries() -> dict[str, Entry]:
    """The systems of `steps`. Raises models.WeightsError where a training was not finished."""
    found = {}
    for name, step in steps().items():
        if not step.is_done:
            path = models.weights_path(step.plan.method, step.out)
            raise models.WeightsError(f"{path}: not trained to the end; run `make design`")
        found[name] = evaluate.trained(step.plan.method, step.out)
    return found


def compare_designs(path: Path, table: pd.DataFrame, noise_folder: Path | None) -> pd.DataFrame:
    """Scores of `entries` on INPUTS, by `evaluate.score_all`."""
    trained = entries()
    return evaluate.score_all(path, table, noise_folder, dict.fromkeys(INPUTS.values(), trained))
