"""`helpers.display.listening_test`: blind trials, kept answers, their analysis and export."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import yaml

from helpers import audio
from helpers.display import listening_test
from helpers.display.listening_test import ANCHOR, REFERENCE, SCALES, ListeningTest


@pytest.fixture
def trials(speech):
    versions = {"clean": speech, "noisy": 0.5 * speech}
    return listening_test.make_trials({"a": versions, "b": versions}, seed=1)


def answer(test, value):
    for question in test.questions.values():
        question.value = value
    test.next.click()


def test_trials_are_blind_and_seeded(trials, speech):
    assert len(trials) == 2 * 3
    names = [(trial.utterance, trial.system) for trial in trials]
    assert sorted(names) == sorted((u, s) for u in "ab" for s in (REFERENCE, ANCHOR, "noisy"))
    versions = {"clean": speech, "noisy": speech}
    orders = [
        [t.system for t in listening_test.make_trials({"a": versions, "b": versions}, seed)]
        for seed in (1, 1, 2, 3, 4)
    ]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) > 2
    anchor = next(trial.clip for trial in trials if trial.system == ANCHOR)
    S = np.abs(np.fft.rfft(anchor)) ** 2
    assert S[int(len(S) * 3_700 / 8_000) :].sum() < 1e-5 * S.sum()


def test_every_answer_is_kept_at_once(trials, tmp_path):
    path = tmp_path / "new" / "answers.csv"
    test = ListeningTest(trials, path, "ann")
    assert test.gain * max(np.abs(trial.clip).max() for trial in trials) == pytest.approx(0.9)
    shown = test.title.value + test.player.value
    assert not any(trial.system in shown for trial in trials)
    assert test.next.disabled
    test.questions["signal"].value = 3
    assert test.next.disabled
    answer(test, 4)
    assert test.next.disabled  # nothing is chosen for the second clip
    assert all(question.value is None for question in test.questions.values())
    kept = listening_test.read_answers(path)
    assert kept[["listener", "position", *SCALES]].to_numpy().tolist() == [["ann", 1, 4, 4, 4]]
    for _ in trials[1:]:
        answer(test, 2)
    assert "Thank you" in test.title.value
    assert test.next not in test.children
    kept = listening_test.read_answers(path)
    assert list(kept.system) == [trial.system for trial in trials]

    answer(ListeningTest(trials, path, "ben"), 1)
    assert list(listening_test.read_answers(path).listener) == ["ann"] * 6 + ["ben"]
    with pytest.raises(ValueError, match="'ann' has answered"):
        ListeningTest(trials, path, "ann")


def test_a_file_of_something_else_is_refused(trials, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a listening test"):
        ListeningTest(trials, path)
    assert path.read_text() == "a,b\n1,2\n"


def test_analysis_finds_what_was_simulated(trials):
    opinions = {
        name: dict.fromkeys(SCALES, mean)
        for name, mean in ((REFERENCE, 4.6), ("noisy", 2.0), (ANCHOR, 3.0))
    }
    answers = listening_test.simulate_answers(trials, opinions, 30, seed=0)
    assert len(answers) == 30 * 6
    assert answers.groupby("listener").position.agg(set).map(len).eq(6).all()
    table = listening_test.analyse(answers).set_index("system")
    assert list(table.index) == [REFERENCE, ANCHOR, "noisy"]
    for name in ("noisy", ANCHOR):
        mean = opinions[name]["signal"]
        assert table.signal_low[name] - 0.1 < mean < table.signal_high[name] + 0.1
    left_out = table.left_out.iloc[0]
    assert left_out <= 2
    deaf = answers[answers.listener == "simulated-01"].assign(listener="deaf")
    deaf = deaf.assign(overall=6 - deaf.overall)
    table = listening_test.analyse(pd.concat([answers, deaf])).set_index("system")
    assert (table.left_out == left_out + 1).all()
    assert (table.n == 2 * (30 - left_out)).all()


def test_export_is_what_webmushra_reads(trials, tmp_path, speech):
    path = listening_test.export_webmushra(trials, tmp_path / "course")
    config = yaml.safe_load(path.read_text())
    order, *pages = config["pages"][0]
    assert order == "random"
    assert config["pages"][-1]["type"] == "finish"
    assert {page["type"] for page in pages} == {"mushra"}
    for page in pages:
        assert len(page["stimuli"]) == 2  # webMUSHRA hides the reference itself
        for name in [page["reference"], *page["stimuli"].values()]:
            folder, wav = name.removeprefix("configs/").split("/")
            assert folder == "course"
            samples, sr = sf.read(path.with_name(wav))
            assert (sr, len(samples)) == (16_000, len(speech))
    reference, _ = sf.read(path.with_name(pages[0]["reference"].split("/")[-1]))
    noisy = next(v for k, v in pages[0]["stimuli"].items() if "noisy" in k)
    noisy, _ = sf.read(path.with_name(noisy.split("/")[-1]))
    difference = audio.level_db(noisy) - audio.level_db(reference)
    assert difference == pytest.approx(-6.02, abs=0.05)  # one gain for all


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture
def page(speech, tmp_path):
    versions = {"clean": speech, "noisy": 0.5 * speech}
    return listening_test.export_page(tmp_path / "page", {"a": versions, "</script>": versions})


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="test">(.*?)</script>', text)[1]
    )


def test_the_page_has_all_clips_blind_and_at_one_gain(page, speech):
    test = data_of(page)
    assert test["columns"] == list(ListeningTest.COLUMNS)
    assert {name: tuple(words) for name, words in test["scales"].items()} == SCALES
    pairs = sorted((clip["utterance"], clip["system"]) for clip in test["clips"])
    names = (REFERENCE, ANCHOR, "noisy")
    assert pairs == sorted((u, s) for u in ("a", "</script>") for s in names)
    files = [clip["file"] for clip in test["clips"]]
    assert sorted([*files, "index.html"]) == sorted(path.name for path in page.parent.iterdir())
    assert not any(name.split()[0] in file for name in names for file in files)
    sounds = {
        clip["system"]: audio.read(page.with_name(clip["file"]))
        for clip in test["clips"]
        if clip["utterance"] == "a"
    }
    assert max(np.abs(sound).max() for sound in sounds.values()) == pytest.approx(0.9, abs=1e-4)
    np.testing.assert_allclose(sounds[REFERENCE], 2 * sounds["noisy"], atol=1e-4)


def test_the_page_asks_no_host_for_anything(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|src=\"//|fetch\(|XMLHttpRequest|import ", text)


# --- answers of several -------------------------------------------------------------------------


def save(answers, path):
    listening_test.write_answers(answers, path)
    return path


@pytest.fixture
def answers(trials):
    opinions = {name: dict.fromkeys(SCALES, 3.5) for name in (REFERENCE, "noisy", ANCHOR)}
    return listening_test.simulate_answers(trials, opinions, 3, seed=0)


def test_several_files_are_read_as_one(answers, tmp_path):
    parts = [part for _, part in answers.groupby("listener")]
    parts[0] = parts[0].assign(listener="NA")  # a name as good as another
    paths = [save(part, tmp_path / "in" / f"{i}.csv") for i, part in enumerate(parts)]
    (tmp_path / "in" / "notes.txt").write_text("not answers")
    for place in (tmp_path / "in", paths, str(tmp_path / "in")):
        found = listening_test.read_answers(place)
        pd.testing.assert_frame_equal(found, pd.concat(parts, ignore_index=True))


def test_files_that_do_not_belong_are_named_in_one_line(answers, tmp_path):
    def message(*files):
        with pytest.raises(ValueError, match=r".") as error:
            listening_test.read_answers(files[0] if len(files) == 1 else files)
        assert "\n" not in str(error.value)
        return str(error.value)

    good, again = (save(answers, tmp_path / f"{name}.csv") for name in ("good", "again"))
    said = message(good, again)
    for name in ("'simulated-01'", "'simulated-03'", str(good), str(again)):
        assert name in said
    short = save(answers.drop(columns=["overall", "seconds"]), tmp_path / "short.csv")
    assert f"{short}: no column overall, seconds" in message(good, short)
    beyond = save(answers.assign(listener="x", overall=6), tmp_path / "beyond.csv")
    assert f"{beyond}: grades other than 1 to 5" in message(good, beyond)
    (tmp_path / "empty").mkdir()
    assert "no answers" in message(tmp_path / "empty")


# --- how many listeners -------------------------------------------------------------------------


def test_power_is_what_the_formula_for_normal_grades_says():
    """Rounding adds 1/12 to each grade's variance; 7.85 = (1.96 + 0.84)^2, and two for t."""
    for difference, n_clips in ((0.3, 4), (0.5, 1)):
        chance = (listening_test.CHANCE_SD**2 + 1 / 12) / n_clips
        sd = np.sqrt(2 * (chance + listening_test.TASTE_SD**2))
        expected = 7.85 * (sd / difference) ** 2 + 2
        found = listening_test.listeners_needed(difference, n_clips, seed=1)
        assert found == pytest.approx(expected, rel=0.2)


def test_power_table_is_seeded_and_falls_with_difference_and_clips():
    table = listening_test.power_table((0.3, 0.6), (1, 4), seed=0)
    pd.testing.assert_frame_equal(table, listening_test.power_table((0.3, 0.6), (1, 4), seed=0))
    assert (table.loc[0.3] > 1.5 * table.loc[0.6]).all()
    assert (table["1 clip"] > table["4 clips"]).all()
    assert np.isnan(listening_test.listeners_needed(0.1, 1, most=50))


def test_systems_that_are_equal_are_told_apart_in_one_of_twenty():
    """So hardly ever by 80 %, and by 5 % about at once."""
    assert np.isnan(listening_test.listeners_needed(0.0, most=200))
    assert listening_test.listeners_needed(0.0, power=0.035, most=200) < 30
    assert np.isnan(listening_test.listeners_needed(0.0, power=0.09, most=200))
