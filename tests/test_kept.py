"""`experiments.kept` and what is kept by it: made anew when a fact changes, and only then."""

import dataclasses
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from experiments import ablate, evaluate, kept, phonemes, recognise
from experiments.__main__ import check_rows, main, out_path
from helpers import models, store
from helpers.backend import keras
from helpers.data import conditions, corpus, noise, noise_bank
from helpers.data.conditions import Condition
from helpers.evaluation import asr, metrics, word_errors
from helpers.models import ablation, blocks, training

SAMPLE = store.ROOT / "data" / "sample"
WHITE, RECORDED = Condition("white"), Condition("recorded", 0, 8_000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")


@pytest.fixture
def table():
    return corpus.read_corpus(SAMPLE).head(3)


@pytest.fixture
def recordings(tmp_path):
    path = tmp_path / "noise" / "rain" / "one.flac"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1234")
    return (path,)


# --- the cache itself ---------------------------------------------------------------------------


def test_a_part_is_made_once_for_the_same_facts(cache):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"x": [1.5, np.nan]})

    first = kept.kept("some/part", {"seed": 1, "clips": [("a", 2)]}, make)
    again = kept.kept("some/part", {"seed": 1, "clips": [("a", 2)]}, make)
    assert len(made) == 1
    pd.testing.assert_frame_equal(first, again)
    for facts in ({"seed": 2, "clips": [("a", 2)]}, {"seed": 1, "clips": [("a", 3)]}):
        assert not kept.is_kept("some/part", facts)
        kept.kept("some/part", facts, make)
    assert len(made) == 3


def test_a_part_that_breaks_off_is_not_kept(cache):
    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        kept.kept("part", 1, fail)
    assert not kept.is_kept("part", 1)
    assert not list(store.CACHE.glob("**/*"))


def test_rows_of_a_part_are_replaced_and_others_stay(tmp_path):
    def rows(system, errors):
        return pd.DataFrame({"system": [system] * 2, "errors": errors, "heard": ["a", ""]})

    path = tmp_path / "rows.csv"
    kept.kept_rows(path, {"system": "one"}, [1], lambda: rows("one", [1, 2]))
    kept.kept_rows(path, {"system": "two"}, [1, 1], lambda: rows("two", [3, 4]))
    kept.kept_rows(path, {"system": "one"}, [1], lambda: pytest.fail("it is there"))
    found = kept.kept_rows(path, {"system": "one"}, [2], lambda: rows("one", [5, 6]))
    assert found.errors.tolist() == [3, 4, 5, 6]
    assert pd.read_csv(path).errors.tolist() == [3, 4, 5, 6]
    assert found.part.nunique() == 2


# --- two at once --------------------------------------------------------------------------------


def test_the_second_to_finish_a_part_finds_that_of_the_first(cache):
    made = []

    def make():
        made.append(1)
        if len(made) == 1:  # meanwhile another process makes the same, and ends first
            assert kept.kept("part", 1, make) == [1.5]
        return [1.5]

    assert kept.kept("part", 1, make) == [1.5]
    assert len(made) == 2
    assert [path.name for path in store.CACHE.iterdir()] == [kept.kept_path("part", 1).name]


@pytest.mark.parametrize("other", ["two", "one"])
def test_no_row_is_lost_where_two_fill_one_file(tmp_path, other):
    path, made = tmp_path / "rows.csv", []

    def make(system):
        made.append(system)
        if len(made) == 1:  # meanwhile another process makes a part, and ends first
            kept.kept_rows(path, {"system": other}, [other], lambda: make(other))
        return pd.DataFrame({"system": [system] * 2, "heard": ["a", "b"]})

    rows = kept.kept_rows(path, {"system": "one"}, ["one"], lambda: make("one"))
    assert made == ["one", other]
    assert rows.system.tolist() == ["two", "two", "one", "one"][-2 * len(set(made)) :]
    pd.testing.assert_frame_equal(word_errors.read_heard(path), rows, check_dtype=False)
    assert list(tmp_path.iterdir()) == [path]


# --- a comment keeps all, a fact changes what it decides ----------------------------------------


def facts_of(name: str, table, files):
    """The facts of one part of each experiment."""
    clips = {"utterances": table, "files": files}
    if name == "evaluation":
        code = store.code(metrics.score)
        noisy = kept.facts_of_noisy(WHITE, conditions.SEED, files)
        return [noisy, code, kept.facts_of_clips(table), evaluate.trained("spectrogram").code]
    if name == "recognition":
        part = recognise.Part("PocketSphinx", WHITE, "noisy", evaluate.simple("noisy"))
        return part.facts(**clips)
    if name == "ablation":
        settings, loss = ablation.steps()["complex mask"]
        return ablate.facts_of_step("complex mask", settings, loss, table, table, files)
    return phonemes.facts_of_features(name, table, files)


EVERYTHING = ("evaluation", "recognition", "ablation", "train", "test")


def keys(table, files) -> dict[str, str]:
    return {name: store.key(facts_of(name, table, files)) for name in EVERYTHING}


def test_nothing_changes_by_itself(table, recordings):
    assert keys(table, recordings) == keys(table, recordings)


def changed(before: dict, after: dict) -> set:
    return {name for name in before if before[name] != after[name]}


def test_a_kind_of_noise_that_is_not_used_throws_nothing_away(table, recordings, monkeypatch):
    before = keys(table, recordings)
    monkeypatch.setitem(noise.KINDS, "siren", noise.tones)
    monkeypatch.setitem(noise.TRAINING_KINDS, "siren", noise.tones)
    assert changed(before, keys(table, recordings)) == set()


def another_white(n_samples, sr, rng, low=0, high=1):
    return np.ones(n_samples, np.float32)


def another_equaliser(samples, rng):
    return samples


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ((noise.KINDS, "white", another_white), {"evaluation", "recognition", "ablation", "test"}),
        ((noise_bank, "equalise", another_equaliser), {"ablation", "train"}),
        ((noise_bank, "TILT_RANGE", (0.0, 1.0)), {"ablation", "train"}),
        ((ablation, "LEARNING_RATE", 1.0), {"ablation"}),
        ((ablation, "SEED", 99), {"ablation"}),
        ((ablate, "CLIP_SECONDS", 1.0), {"ablation"}),
        ((ablate, "BANK_CLIPS", 7), {"ablation"}),
        ((phonemes, "SNR_RANGE", (0.0, 1.0)), {"train"}),
        ((phonemes.phonemes, "N_MELS", 32), {"train", "test"}),
        ((metrics, "SHORTEST", 2.0), {"evaluation", "ablation"}),
        ((blocks, "LEVEL_SECONDS", 1.0), {"evaluation", "train", "test"}),  # not in the picture
        ((blocks, "MASK_BOUND", 1.0), {"evaluation", "ablation", "train", "test"}),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_fact_that_changes_is_seen_where_it_counts(table, recordings, monkeypatch, change, what):
    before = keys(table, recordings)
    place, name, value = change
    patch = monkeypatch.setitem if isinstance(place, dict) else monkeypatch.setattr
    patch(place, name, value)
    assert changed(before, keys(table, recordings)) == what


def test_whole_numbers_and_their_floats_are_one_condition():
    whole, floats = Condition("pink", 2_500, 7_000, 0), Condition("pink", 2_500.0, 7_000.0, 0.0)
    assert store.key(kept.facts_of_noisy(whole, 0)) == store.key(kept.facts_of_noisy(floats, 0))


def test_other_clips_and_other_recordings_are_seen(table, recordings):
    before = keys(table, recordings)
    assert changed(before, keys(table.head(2), recordings)) == set(EVERYTHING)
    recordings[0].write_bytes(b"12345")
    assert changed(before, keys(table, recordings)) == {"ablation", "train", "test"}
    part = recognise.Part("PocketSphinx", RECORDED, "noisy", evaluate.simple("noisy"))
    first = store.key(part.facts(table, recordings))
    recordings[0].write_bytes(b"123456")
    assert store.key(part.facts(table, recordings)) != first


def test_another_recogniser_or_its_version_is_seen(table, monkeypatch, tmp_path):
    part = recognise.Part("PocketSphinx", WHITE, "noisy", evaluate.simple("noisy"))
    first = store.key(part.facts(table, ()))
    monkeypatch.setattr(recognise, "version", lambda package: "0.0.1")
    assert store.key(part.facts(table, ())) != first
    monkeypatch.undo()
    whisper = dataclasses.replace(part, recogniser="Whisper tiny.en")
    monkeypatch.setattr(recognise, "version", lambda package: "1.2.1")
    shipped = store.key(whisper.facts(table, ()))
    (tmp_path / "model.bin").write_bytes(b"another network")
    monkeypatch.setenv("DENOISER_WHISPER", str(tmp_path))
    assert store.key(whisper.facts(table, ())) != shipped
    monkeypatch.undo()
    monkeypatch.setitem(asr.RECOGNISERS, "PocketSphinx", asr.whisper)
    assert store.key(part.facts(table, ())) != first
    other = dataclasses.replace(part.entry, version="1")
    assert store.key(dataclasses.replace(part, entry=other).facts(table, ())) != first


# --- a recogniser of phonemes that was trained on something else --------------------------------


def test_a_trained_phoneme_recogniser_is_not_taken_for_another_denoiser(
    cache, table, recordings, monkeypatch
):
    def sets():
        facts = phonemes.facts_of_features("train", table, recordings)
        return {split: ([], table, facts) for split in ("train", "validation")}

    first = phonemes.run_dir("denoised", sets())
    assert phonemes.run_dir("denoised", sets()) == first
    assert phonemes.run_dir("clean", sets()) != first
    monkeypatch.setattr(models, "weights_sha256", lambda *_: "other weights")
    assert phonemes.run_dir("denoised", sets()) != first


def test_a_phoneme_recogniser_that_was_stopped_becomes_what_it_would_have(
    cache, table, monkeypatch
):
    """Stopped after the first of three epochs, which leaves half a line of its curve."""
    rng = np.random.default_rng(0)
    features = {"clean": [rng.normal(size=(200, 64)).astype("float16") for _ in table.text]}
    sets = {split: ([features], table, []) for split in ("train", "validation")}

    def small():  # quickly traced
        parts = [keras.layers.Dropout(0.5), keras.layers.AveragePooling1D(4)]
        parts += [keras.layers.Dense(40)]
        return keras.Sequential([keras.Input((None, 64)), *parts])

    monkeypatch.setattr(phonemes.phonemes, "build", small)
    in_one_go = phonemes.train_phonemes("clean", sets, epochs=3).get_weights()
    folder = phonemes.run_dir("clean", sets, epochs=3)
    assert (folder / "history.csv").read_text().startswith("epoch,loss,seconds,val_loss\n0,")
    shutil.rmtree(folder)

    class Stopped(Exception):
        """Two epochs are over, the line of the second half written."""

    def stop(self, epoch, logs=None):
        keep(self, epoch, logs)
        if epoch == 1:
            history = self.run_dir / "history.csv"
            history.write_text(history.read_text()[:-5])
            raise Stopped

    keep = training.History.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(training.History, "on_epoch_end", stop)
        with pytest.raises(Stopped):
            phonemes.train_phonemes("clean", sets, epochs=3)
    assert not (folder / "finished.weights.h5").exists()
    resumed = phonemes.train_phonemes("clean", sets, epochs=3).get_weights()
    for one, other in zip(in_one_go, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
    assert pd.read_csv(folder / "history.csv").epoch.tolist() == [0, 1, 2]
    assert (folder / "finished.weights.h5").exists()
    assert not (folder / "partial.weights.h5").exists()


# --- committed results ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ({"utterance": "someone-else", "kind": "white"}, "speech"),
        ({"utterance": "", "kind": "recorded"}, "recorded noise"),
    ],
)
def test_results_of_other_data_are_not_replaced_in_part(table, tmp_path, rows, what):
    name = rows["utterance"] or table.utterance[0]
    pd.DataFrame([rows | {"utterance": name}]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(ValueError, match=rf"was made of {what} that is not here; name another"):
        check_rows(tmp_path / "test.csv", table, None)
    check_rows(tmp_path / "missing.csv", table, None)
    own = {"utterance": table.utterance, "kind": "recorded"}
    pd.DataFrame(own).to_csv(tmp_path / "test.csv", index=False)
    check_rows(tmp_path / "test.csv", table, tmp_path)


def test_results_have_the_name_that_was_given():
    assert [out_path(text).name for text in ("a.csv", "a", "a.2")] == ["a", "a", "a.2"]


# --- quick runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evaluate", "speed", "recognise", "phonemes", "ablate"])
def test_a_quick_run_does_not_replace_committed_results(name, monkeypatch, capsys):
    monkeypatch.setattr("experiments.__main__.QUICK", True)
    out = os.path.relpath(store.RESULTS / "test")
    with pytest.raises(SystemExit) as caught:
        main([name, "--out", out])
    assert caught.value.code == 2
    assert "a quick run would replace full results" in capsys.readouterr().err
