"""`experiments.bright`: recordings that are mostly high, of categories that training heard."""

import numpy as np
import pytest

from experiments import bright, evaluate
from helpers import audio, store
from helpers.data import conditions, corpus, noise, recordings
from helpers.evaluation import scoring, tables

SAMPLE = store.ROOT / "data" / "sample"
SR = audio.SAMPLE_RATE


@pytest.fixture
def noise_folder(tmp_path):
    """A high and a low recording in each of some categories, of all three splits."""
    for i in range(30):
        folder = tmp_path / "noise" / f"category{i}"
        for name, low in (("high", 4_000), ("low", 100)):
            rng = noise.rng_for(f"{i}", seed=0)
            hiss = 0.1 * noise.white(SR, SR, rng, low, 8_000 if low > 100 else 1_000)
            audio.write(store.writable(folder) / f"{name}.flac", hiss)
    return tmp_path / "noise"


def test_only_high_recordings_that_are_no_test_are_taken(noise_folder):
    found = bright.bright_recordings(noise_folder)
    every = recordings.read_recordings(noise_folder)
    assert set(found.split) == {"train", "validation"}
    assert len(found) == every[every.split != "test"].category.nunique()
    assert set(found.path.map(lambda path: path.stem)) == {"high"}
    assert found.share.min() > 0.9


def test_rows_say_where_their_noise_was_heard_and_how_high_it_is(
    noise_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate, "UTTERANCES", 1)
    monkeypatch.setattr(evaluate, "ON_RECORDINGS", ("noisy", "low-pass"))
    whole = scoring.evaluate
    monkeypatch.setattr(scoring, "evaluate", lambda *a, **k: whole(*a, **k | {"workers": 1}))
    path, table = tmp_path / "bright.csv", corpus.read_corpus(SAMPLE)
    rows = bright.score_bright(path, table, noise_folder)
    splits = recordings.read_recordings(noise_folder).groupby("category").split.first()
    assert set(rows.snr_db) == {0.0, 5.0, 10.0}
    assert list(rows.heard_in) == [splits[source] for source in rows.source]
    assert "test" not in set(rows.heard_in)
    assert (rows.share > 0.9).all()
    tables.save_rows(rows, path)
    again = bright.score_bright(path, table, noise_folder)  # nothing is scored twice
    assert np.array_equal(again.si_sdr, tables.load_rows(path).si_sdr)
    assert list(again.columns).count("share") == 1


def test_without_high_recordings_it_says_so(tmp_path):
    with pytest.raises(ValueError, match="set DENOISER_NOISE"):
        bright.score_bright(tmp_path / "bright.csv", corpus.read_corpus(SAMPLE), None)


def test_committed_rows_are_of_known_noise_and_new_speakers():
    rows = tables.load_rows(store.RESULTS / "bright.csv")
    test = tables.load_rows(store.RESULTS / "test.csv")
    assert set(rows.heard_in) == {"train", "validation"}
    assert not set(rows.source) & set(test.source[test.kind == conditions.BRIGHT])
    assert set(rows.utterance) == set(test.utterance)
