"""`experiments.design`: a peer's network and ours, trained on the same noise."""

import numpy as np
import pytest

from experiments import design, evaluate, train
from helpers import models, store
from helpers.data import conditions, corpus
from helpers.evaluation import scoring

SAMPLE = store.ROOT / "data" / "sample"


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The steps by system, none of them trained; their runs lie in `tmp_path`."""
    monkeypatch.setattr(store, "ROOT", tmp_path)  # of data/runs
    return design.steps()


def test_peer_and_ours_hear_the_same_for_as_long(steps):
    assert list(steps) == ["DTLN, 53 h", "spectrogram, 53 h"]
    theirs, ours = (vars(step.plan) for step in steps.values())
    assert theirs | {"method": "spectrogram"} == ours  # noise, speech, loss, optimiser, seed, hours
    assert len({step.out for step in steps.values()}) == 2


def test_a_training_that_was_not_finished_is_named(steps):
    with pytest.raises(
        models.WeightsError, match=r"dtln.keras: not trained to the end; run `make design`"
    ):
        design.entries()


def test_each_is_scored_with_its_own_weights(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(train.Step, "is_done", True)

    def made(method, folder):
        late = 0 if method == "dtln" else 800
        return evaluate.Entry(lambda noisy: np.roll(noisy, late), "code", str(folder))

    monkeypatch.setattr(evaluate, "trained", made)
    monkeypatch.setattr(design, "INPUTS", {"white": conditions.WHITE})
    monkeypatch.setattr(evaluate, "UTTERANCES", 1)
    whole = scoring.evaluate
    monkeypatch.setattr(scoring, "evaluate", lambda *a, **k: whole(*a, **k | {"workers": 1}))

    table = corpus.read_corpus(SAMPLE)
    rows = design.compare_designs(tmp_path / "design.csv", table, None)
    assert list(rows.system) == list(steps)
    assert list(rows.version) == [str(step.out) for step in steps.values()]
    first, second = rows.si_sdr
    assert first == pytest.approx(0, abs=0.1)  # the input as it is
    assert second < -10
