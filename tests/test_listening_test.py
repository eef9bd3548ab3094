"""`helpers.display.listening_test`: blind trials, kept answers, their analysis and export."""

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
