"""`helpers.display.listening_test`: blind trials, kept answers, their analysis and export."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import soundfile as sf
import yaml

from helpers import audio
from helpers.display import listening_test
from helpers.display.listening_test import ANCHOR, QUESTIONS, REFERENCE, SCALES, ListeningTest


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


def test_two_widgets_keep_each_others_answers(trials, tmp_path):
    path = tmp_path / "answers.csv"
    ann, ben, twin = (ListeningTest(trials, path, name) for name in ("ann", "ben", "ann"))
    for test in (ann, ben, ann):
        answer(test, 4)
    kept = listening_test.read_answers(path)
    assert sorted(kept.listener) == ["ann", "ann", "ben"]
    answer(twin, 1)
    assert "has answered" in twin.title.value
    assert twin.position == 0
    pd.testing.assert_frame_equal(listening_test.read_answers(path), kept)
    path.unlink()
    answer(ann, 2)  # what was answered is not lost
    assert list(listening_test.read_answers(path).overall) == [4, 4, 2]


def test_each_scale_is_asked_in_a_sentence(trials, page, tmp_path):
    shown = [child.value for child in ListeningTest(trials, tmp_path / "a.csv").children[2:-1]]
    assert shown[::2] == list(QUESTIONS.values())
    assert QUESTIONS.keys() == SCALES.keys()
    assert data_of(page)["questions"] == QUESTIONS


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


def grades_of(system, *grades, listener="ann"):
    rows = {"listener": listener, "utterance": list("abcdef")[: len(grades)], "system": system}
    return pd.DataFrame(rows | {scale: list(grades) for scale in SCALES})


@pytest.mark.parametrize(
    ("grades", "listened"), [((3, 4), True), ((3, 3, 4, 5), True), ((3, 3, 5), False)]
)
def test_more_than_half_of_the_references_must_be_missed(grades, listened):
    """As exercise 2 of the appendix has it: a tie is not more than half."""
    answers = pd.concat([grades_of(REFERENCE, *grades), grades_of(REFERENCE, 5, listener="ben")])
    assert listening_test.analyse(answers).left_out.item() == (not listened)
    assert ("ann" in set(listening_test.attentive(answers).listener)) == listened


def test_nobody_left_is_said():
    with pytest.raises(ValueError, match=r"^nobody is left: all 1 [^\n]*$"):
        listening_test.analyse(grades_of(REFERENCE, 3))
    with pytest.raises(ValueError, match="no answers"):
        listening_test.analyse(pd.DataFrame(columns=ListeningTest.COLUMNS))


def test_two_systems_are_compared_by_a_paired_t_test(trials):
    opinions = {REFERENCE: dict.fromkeys(SCALES, 4.8)}
    opinions |= {name: dict.fromkeys(SCALES, mean) for name, mean in (("noisy", 2), (ANCHOR, 3))}
    answers = listening_test.simulate_answers(trials, opinions, 12, seed=3)
    deaf = answers[answers.listener == "simulated-01"].assign(listener="deaf", overall=3)
    found = listening_test.compare(pd.concat([answers, deaf]), ANCHOR, "noisy")
    means = answers.groupby(["system", "listener"]).overall.mean()
    expected = scipy.stats.ttest_rel(means[ANCHOR], means["noisy"])
    low, high = expected.confidence_interval()
    mean = means[ANCHOR].mean() - means["noisy"].mean()
    assert found[:4] == pytest.approx((mean, low, high, expected.pvalue))
    assert found.sd == pytest.approx((means[ANCHOR] - means["noisy"]).std())
    assert found.n == 12  # without the deaf one
    assert low < 1 < high
    assert listening_test.compare(answers, ANCHOR, "noisy", "signal") != found


def test_only_clips_graded_in_both_are_compared():
    parts = [grades_of("x", 5, 3, listener=one) for one in ("ann", "ben")]
    parts += [grades_of("y", 4, listener=one) for one in ("ann", "ben")]
    found = listening_test.compare(pd.concat(parts), "x", "y")
    assert (found.mean, found.sd, found.n) == (1, 0, 2)
    assert found.low == pytest.approx(1)
    same = listening_test.compare(pd.concat(parts[:2]), "x", "x")
    assert (same.mean, same.p) == (0, 1)


def test_a_comparison_without_answers_is_refused():
    answers = pd.concat([grades_of("x", 5), grades_of("y", 4)])
    with pytest.raises(ValueError, match="no answers on z"):
        listening_test.compare(answers, "x", "z")
    with pytest.raises(ValueError, match="graded by 1 listeners, and a test needs two"):
        listening_test.compare(answers, "x", "y")


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


def test_only_the_clips_of_an_earlier_test_are_deleted(speech, tmp_path):
    versions = {"clean": speech[:4000], "noisy": speech[:4000]}
    (tmp_path / "clip_of_mine.flac").write_text("mine")
    (tmp_path / "clip_009.flac").write_text("mine")
    page = listening_test.export_page(tmp_path, {"a": versions, "b": versions})
    assert len(list(tmp_path.glob("clip_00[1-6].flac"))) == 6
    listening_test.export_page(tmp_path, {"a": versions})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"clip_00{i}.flac" for i in (1, 2, 3, 9)),
        *("clip_of_mine.flac", "index.html"),
    ]
    assert (tmp_path / "clip_009.flac").read_text() == "mine"
    page.write_text("<p>My page</p>")
    with pytest.raises(ValueError, match=r"index\.html: not of a listening test"):
        listening_test.export_page(tmp_path, {"a": versions})
    assert page.read_text() == "<p>My page</p>"


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
    twice = save(pd.concat([answers, answers.tail(1)]), tmp_path / "twice.csv")
    assert f"{twice}: answered twice: simulated-03, " in message(twice)
    other = save(
        answers.assign(test="of june", listener=answers.listener + "x"), tmp_path / "other.csv"
    )
    said = message(good, other)
    for part in ("of different tests", f"of june in {other}", f"in {good}"):
        assert part in said
    both = save(pd.concat([answers, pd.read_csv(other)]), tmp_path / "both.csv")
    assert "of different tests" in message(both)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: b"", "no table"),
        (lambda text: text.splitlines(keepends=True)[0], "no answers"),
        (lambda text: text.replace(b"simulated-01", "Jürgen".encode("latin-1")), "not UTF-8"),
        (lambda text: text.replace(b"\n", b",1\n").replace(b",1\n", b"\n", 1), "no table"),
        (lambda text: text + b"1,2,3,4,5,6,7,8,9,10,11,12\n", "no table"),
        (lambda text: text.rsplit(b",", 1)[0] + b"\n", "a row with an empty cell"),
        (lambda text: text.replace(b",", b";"), "no column .*; not a listening test, or its cells"),
    ],
)
def test_a_broken_file_is_named_with_a_remedy(answers, tmp_path, change, said):
    good = save(answers, tmp_path / "good.csv")
    bad = tmp_path / "bad.csv"
    bad.write_bytes(change(good.read_bytes()))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(bad))}: {said}[^\n]*$"):
        listening_test.read_answers(tmp_path)


def test_what_excel_calls_utf_8_is_read(answers, tmp_path):
    path = save(answers, tmp_path / "excel.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(listening_test.read_answers(path), answers)


def test_a_file_that_names_no_test_is_read_and_continued(answers, trials, tmp_path):
    path = save(answers.drop(columns="test"), tmp_path / "old.csv")
    found = listening_test.read_answers(path)
    assert set(found.test) == {""}
    pd.testing.assert_frame_equal(found.drop(columns="test"), answers.drop(columns="test"))
    answer(ListeningTest(trials, path, "ann"), 4)
    found = listening_test.read_answers(path)
    assert len(found) == len(answers) + 1
    assert set(found.test) == {"", listening_test.id_of(trials)}


def test_answers_of_one_test_do_not_come_into_those_of_another(trials, tmp_path):
    path = tmp_path / "answers.csv"
    answer(ListeningTest(trials[::-1], path, "ann"), 4)  # the order does not matter
    answer(ListeningTest(trials, path, "ben"), 4)
    with pytest.raises(ValueError, match="answers of another test"):
        ListeningTest(trials[:2], path, "eve")


# --- how many listeners -------------------------------------------------------------------------


def grades(rng, mean, n_studies, n, n_clips):
    """Of listeners with biases, tastes and chance, rounded: their means (n_studies, n)."""
    taste = rng.normal(0, listening_test.TASTE_SD, (n_studies, n, 1))
    chance = rng.normal(0, listening_test.CHANCE_SD, (n_studies, n, n_clips))
    return np.clip(np.rint(mean + taste + chance), 1, 5).mean(axis=-1)


@pytest.mark.parametrize(("difference", "n_clips"), [(0.3, 4), (0.5, 1), (0.5, 8)])
def test_so_many_listeners_find_it_in_four_simulated_studies_of_five(difference, n_clips):
    rng, sd = np.random.default_rng(0), listening_test.difference_sd(n_clips)
    n = int(listening_test.listeners_needed(difference, sd))
    means = [grades(rng, mean, 2_000, n, n_clips) for mean in (3.5, 3.5 - difference)]
    assert (means[0] - means[1]).std() == pytest.approx(sd, rel=0.05)
    found = scipy.stats.ttest_rel(*means, axis=1)
    assert np.mean(found.pvalue < 0.05) == pytest.approx(0.8, abs=0.04)


def test_power_falls_with_spread_and_rises_with_the_difference():
    table = listening_test.power_table({"narrow": 0.6, "wide": 0.9}, (0.3, 0.6))
    assert (table.loc[0.3] > 1.5 * table.loc[0.6]).all()
    assert (table.wide > table.narrow).all()
    assert table.wide[0.3] == listening_test.listeners_needed(0.3, 0.9)
    assert np.isnan(listening_test.listeners_needed(0.1, 1.2, most=50))
    assert listening_test.listeners_needed(0.5, 1e-3) == 2


def test_no_difference_is_found_in_one_of_forty_each_way_round():
    assert np.isnan(listening_test.listeners_needed(0.0, 0.7))
    assert np.isnan(listening_test.listeners_needed(0.0, 0.7, power=0.026))
    assert listening_test.listeners_needed(0.0, 0.7, power=0.024) == 2
