"""`helpers.models.ladder`, `experiments.ladder`: training without clean targets, rung by rung."""

import itertools

import numpy as np
import pandas as pd
import pytest

from experiments import ladder as experiment
from helpers import store
from helpers.audio import SAMPLE_RATE
from helpers.data import conditions, corpus
from helpers.evaluation import metrics, tables
from helpers.models import ladder


@pytest.fixture(scope="module")
def pool():
    """Ten seconds of a sound that comes and goes, float32, unit RMS."""
    t = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    samples = np.sin(2 * np.pi * 300 * t) * np.sin(2 * np.pi * 2 * t)
    return np.float32(samples / np.std(samples))


def test_noises_are_of_one_level_and_in_their_bands(pool):
    rng = np.random.default_rng(0)
    for _ in range(4):
        noises = ladder.draw(pool, rng, SAMPLE_RATE)[1:]
        levels = [np.std(one) for one in noises]
        assert all(one.shape == (SAMPLE_RATE,) and one.dtype == np.float32 for one in noises)
        assert np.allclose(levels, levels[0], rtol=1e-3)
        snr_db = -20 * np.log10(levels[0])
        assert ladder.SNR_RANGE[0] - 0.1 < snr_db < ladder.SNR_RANGE[1] + 0.1
        for noise, low in zip(noises, (4_000, 4_000, ladder.WRONG[0]), strict=True):
            spectrum = np.abs(np.fft.rfft(noise)) ** 2  # a bin a Hz
            assert spectrum[: int(low) - 1].sum() < 1e-6 * spectrum.sum()
        assert abs(np.corrcoef(noises[0], noises[1])[0, 1]) < 0.05


def test_only_the_supervised_rung_has_a_clean_target(pool):
    speech, first, second, wrong = ladder.draw(pool, np.random.default_rng(1), 8_000)
    made = ladder.pairs(speech, first, second, wrong)
    assert tuple(made) == ladder.RUNGS
    clean = [rung for rung, (_, target) in made.items() if np.array_equal(target, speech)]
    assert clean == ["supervised"]
    for rung, (heard, target) in made.items():
        assert heard.shape == target.shape == speech.shape
        added = {"noisier": second, "wrong noise": wrong}.get(rung)
        if added is not None:  # the target is what was there, the input has more
            np.testing.assert_allclose(heard - target, added, atol=1e-5)


def test_every_rung_draws_the_same_again(pool):
    def first(rung, seed=3):
        return next(ladder.examples(rung, pool, seed))

    for rung in ladder.RUNGS:
        heard, target = first(rung)
        assert np.std(heard) == pytest.approx(1, abs=1e-3)
        assert np.array_equal(target, first(rung)[1])
    assert np.array_equal(first("supervised")[0], first("two takes")[0])
    assert not np.array_equal(first("supervised")[0], first("supervised", seed=4)[0])


@pytest.mark.parametrize("a", [0.5, 1.0, 2.0])
def test_the_correction_gives_the_mean_of_the_speech(a):
    """On Gaussian numbers, where the means given z are straight lines."""
    rng = np.random.default_rng(5)
    speech, noise, more = rng.standard_normal((3, 400_000)) * np.array([[1], [0.7], [0.7 * a]])
    z = speech + noise + more
    line = np.dot(z, speech + noise) / np.dot(z, z)
    of_speech = np.dot(z, speech) / np.dot(z, z)
    np.testing.assert_allclose(ladder.corrected(line * z, z, a), of_speech * z, atol=0.1)
    assert abs(line - of_speech) > 0.05  # uncorrected it is another line


def test_the_corrected_system_is_made_of_the_noisier_one(pool, monkeypatch):
    monkeypatch.setattr(experiment, "CLIP_SECONDS", 1.0)
    trainer = experiment.train("noisier", pool, seed=1, steps=2)
    found = experiment.systems_of("noisier", trainer)
    assert list(found) == ["noisier", "noisier, corrected"]
    noisy = pool[:SAMPLE_RATE]
    plain, corrected = (system(noisy) for system in found.values())
    assert plain.shape == noisy.shape
    np.testing.assert_allclose(corrected, 2 * plain - noisy, atol=1e-5)

    table = corpus.pick(corpus.read_corpus(store.ROOT / "data" / "sample"), "test", 1)
    rows = experiment.score(found, table)
    assert len(rows) == len(found) * len(experiment.CONDITIONS)
    clean = experiment.audio.read(table.path[0])[:SAMPLE_RATE]
    condition = experiment.CONDITIONS[0]
    noisy = conditions.make_noisy(table.utterance[0], clean, condition, conditions.SEED)[2]
    expected = metrics.si_sdr(clean, found["noisier"](noisy))
    assert rows.si_sdr[0] == pytest.approx(expected, abs=1e-4)


# --- the committed results ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return tables.load_rows(store.RESULTS / "ladder.csv")


def test_results_have_every_rung_seed_and_clip(rows):
    clips = set(zip(rows.utterance, rows.snr_db, strict=True))
    trained = rows[rows.seed.notna()]
    names = [*ladder.RUNGS, "noisier, corrected"]
    assert set(trained.system) == set(names)
    for name, seed in itertools.product(names, (1, 2, 3)):
        part = trained[(trained.system == name) & (trained.seed == seed)]
        assert set(zip(part.utterance, part.snr_db, strict=True)) == clips, (name, seed)
        assert not part[["si_sdr", "pesq", "estoi"]].isna().any().any()
    assert {"noisy", "low-pass", "oracle PSM"} == set(rows[rows.seed.isna()].system)
    tested = pd.read_csv(store.RESULTS / "test.csv", usecols=["utterance"])
    assert set(rows.utterance) <= set(tested.utterance)  # of no speaker of training


def test_the_order_of_the_rungs_holds_where_the_chapter_says_so(rows):
    for _, part in rows.groupby("snr_db"):
        for upper, lower in (
            ("noisier, corrected", "noisier"),
            ("noisier", "wrong noise"),
            ("wrong noise", "noisy"),
            ("supervised", "noisier"),
        ):
            assert tables.paired(part, upper, lower, "si_sdr")[1] > 1, (upper, lower)
        assert abs(tables.paired(part, "two takes", "supervised", "si_sdr")[0]) < 0.5
