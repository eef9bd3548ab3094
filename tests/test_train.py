"""`experiments.train`: plans of steps as files, what they name, and how they go on."""

import dataclasses
import itertools
import json

import pytest
from conftest import SAMPLE

from experiments import train
from experiments.__main__ import main
from helpers import models, store
from helpers.models import training
from helpers.models.training import Plan


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of runs, which are on the bundled sample and synthetic noise."""
    monkeypatch.setenv("DENOISER_CORPUS", str(SAMPLE))
    monkeypatch.setattr(training.corpus, "find_noise", lambda verbose=False: None)
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        'method = "spectrogram"\n\n'
        '[[step]]\nname = "first"\ncycles = [2, 1]\nbatches = 3\n\n'
        '[[step]]\nname = "second"\ncycles = [1]\noptimizer = "Muon"\nseed = 5\nbatches = 3\n'
    )
    return path


@pytest.mark.parametrize(
    ("name", "steps", "hours"), [("spectrogram", 8, 653), ("waveform", 6, 341)]
)
def test_the_shipped_models_have_their_plans(runs, name, steps, hours):
    found = train.read_plan(name)
    assert [step.plan.method for step in found] == [name] * steps
    assert sum(step.plan.hours for step in found) == pytest.approx(hours, abs=1)
    assert found[0].plan.start == ""
    for before, after in itertools.pairwise(found):
        assert after.plan.start == str(before.plan.run_dir) == str(before.out)
    assert found[-1].out == models.FOLDER


@pytest.mark.parametrize("method", models.METHODS)
def test_the_last_step_is_that_of_the_card(runs, method):
    step, card = train.read_plan(method)[-1].plan, models.card(method)["plan"]
    for name in ("cycles", "batch_size", "optimizer", "learning_rate", "level_weight", "seed"):
        value = getattr(step, name)
        assert (list(value) if name == "cycles" else value) == card[name]
    assert step.start_share == card.get("start_share", 0)


def test_the_plan_of_the_full_corpus_grows_the_network(runs):
    steps = train.read_plan("librispeech-960")
    assert sum(step.plan.hours for step in steps) == 4800
    assert {step.plan.units for step in steps} == {256}
    assert all(step.plan.batch_size % 64 == 0 for step in steps)  # equal parts for many devices
    grown = training.network(steps[0].plan)
    assert grown.count_params() > 1.5 * models.build("spectrogram").count_params()
    assert grown.count_params() * 4 < 5e6  # bytes that may ship


def test_a_run_of_the_usual_size_keeps_its_name(runs):
    plan = Plan("spectrogram", optimizer="Muon")
    before = dataclasses.asdict(plan)
    del before["units"]
    assert plan.run_dir.name == f"spectrogram-{store.key(before)}"
    assert dataclasses.replace(plan, units=256).run_dir != plan.run_dir


def test_a_run_is_named_by_all_that_decides_it(runs, plan_file):
    steps = train.read_plan(str(plan_file))
    for field, value in {
        "cycles": (3, 1),
        "seed": 2,
        "level_weight": 0.1,
        "noise": "white",
    }.items():
        other = dataclasses.replace(steps[0].plan, **{field: value})
        assert other.run_dir != steps[0].plan.run_dir
    text = plan_file.read_text().replace("cycles = [2, 1]", "cycles = [2, 2]")
    plan_file.write_text(text)
    again = train.read_plan(str(plan_file))
    assert again[1].plan.run_dir != steps[1].plan.run_dir  # it starts from other weights
    plan_file.write_text(text.replace("name", "\n# a comment\nname"))
    assert train.read_plan(str(plan_file)) == again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method = ", "not a training plan"),
        ('method = "spectrogram"\n', "not a training plan"),
        ('method = "spectrogram"\nstep = []\n', "it has no step"),
        ('method = "spectogram"\n[[step]]\nname = "a"\ncycles = [1]\n', "choose waveform, "),
        ('method = "spectrogram"\n[[step]]\nname = "a"\ncycles = [1]\ncycle = 2\n', "cycle"),
        ('method = "spectrogram"\n[[step]]\nname = "a"\ncycles = [0]\n', "an epoch or more"),
        ('method = "spectrogram"\n[[step]]\nname = "a"\ncycles = [1]\nnoise = "hum"\n', "hum"),
    ],
)
def test_a_plan_that_is_none_is_one_line(tmp_path, text, message, capsys):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert main(["train", str(path), "--dry-run"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {path}: not a training plan (")
    assert message in error
    assert "\n" not in error


def test_an_unknown_plan_names_those_that_are_there(capsys):
    assert main(["train", "wave"]) == 1
    assert (
        "choose anew, fresh, librispeech-960, peer_architecture, specialist, spectrogram, waveform"
        in capsys.readouterr().err
    )


@pytest.fixture
def trained(monkeypatch):
    """Trainings that only leave their checkpoint and history; lists the plans that ran."""
    ran = []

    def run(plan, stop_after=None, verbose=0):
        ran.append(plan)
        plan.run_dir.mkdir(parents=True, exist_ok=True)
        (plan.run_dir / f"epoch-{plan.epochs:04d}.weights.h5").touch()
        (plan.run_dir / "history.csv").write_text("epoch,loss,seconds,val_loss\n0,1,60,1\n")
        return models.build(plan.method)

    monkeypatch.setattr(training, "train", run)
    monkeypatch.setattr(train.scoring, "add_scores", lambda *_: None)
    return ran


def test_a_plan_runs_step_by_step_and_goes_on_where_it_stopped(
    runs, plan_file, trained, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "weights"
    call = ["train", str(plan_file), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(training, "export", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        assert main(call) == 1
    assert main([*call, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("first: 3 epochs of 3 x 16, 0 h of audio, from epoch 3")
    assert lines[1].endswith("not begun")
    trained.clear()
    assert main(call) == 0
    assert [plan.seed for plan in trained] == [1, 5]
    card = json.loads((out / "spectrogram.json").read_text())
    assert card["step"] == f"second of {plan_file}"
    assert card["start"]["step"] == f"first of {plan_file}"
    trained.clear()
    assert main([*call, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(", done") == 2
    assert main(call) == 0
    assert trained == []  # all is there


def test_weights_that_were_replaced_are_made_again(runs, plan_file, trained, tmp_path):
    out = tmp_path / "weights"
    train.run_plan(str(plan_file), out)
    trained.clear()
    with open(models.weights_path("spectrogram", out), "ab") as file:
        file.write(b" ")
    train.run_plan(str(plan_file), out)
    assert [plan.seed for plan in trained] == [5]


def test_a_plan_that_is_done_is_not_done_with_other_speech(
    runs, plan_file, trained, tmp_path, monkeypatch
):
    for _ in range(2):
        train.run_plan(str(plan_file), tmp_path / "weights")
    table = training.corpus.read_corpus(SAMPLE)
    fewer = table[table.utterance != table.utterance[table.split == "train"].iloc[0]]
    monkeypatch.setattr(training.corpus, "read_corpus", lambda folder: fewer)
    with pytest.raises(store.FileError, match="begun with other speech; bring that back"):
        train.run_plan(str(plan_file), tmp_path / "weights")


def test_a_start_outside_the_runs_counts_by_its_weights(runs, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spectrogram.keras").write_bytes(b"weights")
    plans = [Plan("spectrogram", start=str(tmp_path / name)) for name in ("one", "two")]
    assert plans[0].run_dir == plans[1].run_dir
    (tmp_path / "two" / "spectrogram.keras").write_bytes(b"other weights")
    assert plans[0].run_dir != plans[1].run_dir
