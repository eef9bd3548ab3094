"""`denoiser adapt` and its recipe: clips taken apart and mixed anew, going on, the card."""

import hashlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import SAMPLE

from experiments import remix as experiment
from helpers import audio, models, store
from helpers.__main__ import main
from helpers.backend import keras
from helpers.data import corpus
from helpers.denoise.stream import Denoiser
from helpers.evaluation import tables
from helpers.models import remix, spectrogram, training
from helpers.models.blocks import WaveformWrapper
from helpers.models.losses import DenoisingLoss
from helpers.models.remix import Recipe, Student
from helpers.tool import adapt

SHAPE = (4, 4_000)  # of a batch
STEPS = ["--steps", "6"]


@pytest.fixture(scope="module")
def noisy_folder(tmp_path_factory, speech_files):
    """64 s of bundled voices in noise above 3 kHz, in four files, beside one of silence."""
    folder, rng = tmp_path_factory.mktemp("noisy"), np.random.default_rng(0)
    for i in range(4):
        clean = np.resize(audio.read(speech_files[i % len(speech_files)]), 16 * 16_000)
        noise = audio.band_limit(rng.normal(0, 0.03, len(clean)), 16_000, 3_000, 8_000)
        audio.write(folder / f"{i}.flac", np.float32(clean + noise))
    audio.write(folder / "silence.flac", np.zeros(16_000, np.float32))
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with a tiny untrained model to start from."""
    folder = tmp_path_factory.mktemp("start")
    keras.utils.set_random_seed(0)
    path = models.weights_path("spectrogram", folder)
    tiny().save(path)
    card = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))
    return folder


def tiny() -> keras.Model:
    return spectrogram.build(filters=(2, 2, 2, 2), fine_filters=2, units=4)


def call(runs, *arguments) -> list[str]:
    """A quick run of `denoiser adapt` in a process of its own, its checkpoints below `runs`, its
    known noise synthetic, its level measured on one clip."""
    code = (
        "import pathlib, sys; from helpers import store; from helpers.__main__ import main; "
        "from helpers.data import corpus; corpus.find_noise = lambda verbose=False: None; "
        "from helpers.models import training; training.clean_gain.__defaults__ = (1,); "
        "store.RUNS = pathlib.Path(sys.argv[1]); sys.exit(main(['adapt', *sys.argv[2:]]))"
    )
    return [sys.executable, "-c", code, str(runs), *map(str, arguments)]


def environment() -> dict:
    return os.environ | {"DENOISER_QUICK": "1", "DENOISER_CORPUS": str(SAMPLE)}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, noisy_folder, start):
    """The folder of weights of a run that nobody stopped, and what it said."""
    folder = tmp_path_factory.mktemp("adapted")
    places = "--start", start, "--out", folder / "out"
    command = call(folder / "runs", noisy_folder, *places, *STEPS)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return folder / "out", done


def test_it_writes_weights_that_denoise(adapted, start, noisy):
    out, _ = adapted
    estimate = Denoiser("spectrogram", out)(noisy)
    assert estimate.shape == noisy.shape
    before, mine = (models.load("spectrogram", folder) for folder in (start, out))
    pairs = zip(before.get_weights(), mine.get_weights(), strict=True)
    assert any(np.any(one != other) for one, other in pairs)
    assert {path.suffix for path in out.iterdir()} == {".keras", ".json", ".csv", ".tflite"}


def test_the_card_says_what_it_is(adapted, start, noisy_folder):
    card = models.card("spectrogram", adapted[0])
    assert card["start"]["sha256"] == models.weights_sha256("spectrogram", start)
    assert [name for name, _ in card["plan"]["sounds"]] == [f"{i}.flac" for i in range(4)]
    for name, size in card["plan"]["sounds"]:
        assert (noisy_folder / name).stat().st_size == size
    assert card["plan"]["recipe"]["supervised"] == adapt.RECIPE.supervised
    assert card["steps"] == 6
    assert card["rule"] == adapt.RULE
    inputs = {line["input"] for line in card["scores"]}
    assert inputs >= {adapt.FOLDER_NOISE, "white 4-8 kHz, 0 dB", "clean"}
    assert card["take"] == adapt.what_to_take(pd.DataFrame(card["scores"]))


def test_it_prints_both_scores_and_what_to_take(adapted, start):
    out, done = adapted
    card = models.card("spectrogram", out)
    assert f"rule: {adapt.RULE}" in done.stdout
    folder = out if card["take"] == "adapted" else start
    assert done.stdout.strip().endswith(f"so take: --weights {folder}")
    for line in card["scores"]:
        assert f"{line['si_sdr']:.1f}" in done.stdout
    assert "silence.flac: left out: silence" in done.stderr


def test_killed_and_called_again_it_gives_the_same_weights(tmp_path, adapted, start, noisy_folder):
    places = "--start", start, "--out", tmp_path / "out"
    command = call(tmp_path / "runs", noisy_folder, *places, *STEPS)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
    process = subprocess.Popen(command, **quiet)
    while not list(tmp_path.glob("runs/*/epoch-0001.weights.h5")):
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "spectrogram.keras").exists()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert "6 steps of 2 x 1 s, 0 done" not in done.stdout
    first, second = (models.load("spectrogram", out) for out in (adapted[0], tmp_path / "out"))
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_waveform_model_is_adapted_and_its_level_is_set(tmp_path, noisy_folder, monkeypatch):
    """From the shipped weights. Learned bases let the level drift, so the end of it sets it."""
    places = "--out", tmp_path / "out"
    command = call(tmp_path / "runs", noisy_folder, *places, "--method", "waveform", "--steps", "2")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    card = models.card("waveform", tmp_path / "out")
    assert (card["plan"]["method"], card["steps"]) == ("waveform", 2)
    assert f"rule: {adapt.RULE}" in done.stdout
    monkeypatch.setenv("DENOISER_CORPUS", str(SAMPLE))
    model = models.load("waveform", tmp_path / "out")
    assert training.clean_gain(WaveformWrapper(model, 80), 1) == pytest.approx(1, abs=1e-3)


# --- bad input ----------------------------------------------------------------------------------


def only_silence(folder):
    audio.write(folder / "a.flac", np.zeros(70 * 16_000, np.float32))


def a_short_clip(folder):
    audio.write(folder / "a.flac", np.float32(np.random.default_rng(0).normal(0, 0.1, 80_000)))


def a_damaged_file(folder):
    (folder / "a.flac").write_bytes(b"fLaC and nothing else")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: None, "no audio files below this folder; check the path"),
        (lambda folder: folder.rmdir(), "no such folder; name a folder of noisy recordings"),
        (only_silence, "nothing but silence or damage; record it again"),
        (a_damaged_file, "nothing but silence or damage; record it again"),
        (a_short_clip, "5 s of noisy sound; adapting needs 60 s or more"),
    ],
)
def test_a_folder_that_is_no_good_is_one_line(tmp_path, fill, message, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    fill(folder)
    assert main(["adapt", str(folder), "--out", str(tmp_path / "out")]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "note: " not in line]
    assert errors == [f"error: {folder}: {message}"]


def test_places_that_are_no_good_are_one_line(tmp_path, noisy_folder, capsys):
    def error(*options) -> str:
        assert main(["adapt", str(noisy_folder), *map(str, options)]) == 1
        (line,) = [one for one in capsys.readouterr().err.splitlines() if "note: " not in one]
        return line

    inside, nowhere = noisy_folder / "out", tmp_path / "nowhere"
    assert f"{inside}: lies in {noisy_folder}; choose" in error("--out", inside)
    places = ["--start", nowhere, "--out", tmp_path / "out"]
    assert error(*places).startswith(f"error: {nowhere / 'spectrogram.keras'}: missing; ")
    assert "holds the weights to start from" in error("--out", models.FOLDER)
    assert not nowhere.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "out", "--minutes", "0"], "argument --minutes: 0: choose minutes, 1 or more"),
        (["--out", "out", "--steps", "0"], "argument --steps: 0: choose a whole number, 1 or more"),
        ([], "the following arguments are required: --out"),
    ],
)
def test_a_call_that_is_no_good_is_refused(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["adapt", "in", *options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"denoiser adapt: error: {message}\n")


# --- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "white", "clean", "take"),
    [
        (1.0, -0.4, -1.0, "adapted"),
        (0.4, 0.0, 0.0, "start"),
        (1.0, -0.6, 0.0, "start"),
        (1.0, 0.0, -2.5, "start"),
    ],
)
def test_the_rule(folder, white, clean, take):
    changed = {adapt.FOLDER_NOISE: folder, "white 4-8 kHz, 0 dB": white, "clean": clean}
    rows = [
        {"input": name, "system": system, "si_sdr": 20.0 + (change if system == "adapted" else 0)}
        for name, change in changed.items()
        for system in ("start", "adapted")
    ]
    assert adapt.what_to_take(pd.DataFrame(rows)) == take


def test_the_steps_are_those_of_the_first_start(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    plan = adapt.Adaptation("spectrogram", str(models.FOLDER), (("a.flac", 9),), minutes=5)
    plan.run_dir.mkdir()
    times = iter([100.0, 900.0])
    monkeypatch.setattr(adapt, "steps_in", lambda *_: next(times))
    adapt.fix_steps(plan, None, None, 0.0)
    adapt.fix_steps(plan, None, None, 0.0)
    assert adapt.fixed_steps(plan) == 100
    assert json.loads((plan.run_dir / "plan.json").read_text())["minutes"] == 5
    other = adapt.Adaptation("spectrogram", str(models.FOLDER), (("b.flac", 9),), minutes=5)
    assert other.run_dir != plan.run_dir


class NoisyClips:
    """In place of `adapt.Data`: the same batch again and again."""

    def batches(self, n_batches):
        return as_dataset(((clips(1), clips(2)), clips(3))).repeat(n_batches)


def test_the_steps_that_are_timed_are_undone(start, monkeypatch):
    """As if none had been: weights of both models, moments and number of steps."""
    moved = []

    def begin(model, before):
        pairs = zip(before, model.frame_model.get_weights(), strict=True)
        moved.append(any(np.any(one != other) for one, other in pairs))
        assert int(model.optimizer.iterations.numpy()) == 4
        undo(model, before)

    undo = remix.begin
    monkeypatch.setattr(remix, "begin", begin)
    monkeypatch.setattr(adapt, "TIMED", 2)
    sizes = {"batch_size": SHAPE[0], "seconds": SHAPE[1] / 16_000}
    plan = adapt.Adaptation("spectrogram", str(start), minutes=10, **sizes)
    model = Student(models.load("spectrogram", start), plan.recipe)
    before = model.frame_model.get_weights()
    steps = adapt.steps_in(plan, model, NoisyClips(), time.monotonic())
    assert 0 < steps < np.inf
    assert moved == [True]
    for one in (model, model.teacher):
        for old, now in zip(before, one.frame_model.get_weights(), strict=True):
            np.testing.assert_array_equal(now, old)
    assert not any(np.any(one.numpy()) for one in model.optimizer.variables)


# --- the recipe ---------------------------------------------------------------------------------


def clips(seed: int) -> np.ndarray:
    return np.float32(np.random.default_rng(seed).normal(0, 0.1, SHAPE))


def student(**recipe) -> Student:
    """A tiny one, ready to train."""
    keras.utils.set_random_seed(0)
    model = Student(tiny(), Recipe(**recipe))
    remix.compile_model(model, 1e-2, 10, DenoisingLoss(), SHAPE)
    return model


def test_each_speech_gets_the_noise_of_another_clip():
    speech, noise = clips(1), clips(2)
    mixed, target = map(np.asarray, remix.remixed(speech, noise))
    np.testing.assert_array_equal(target, speech)
    np.testing.assert_allclose(mixed - speech, noise[[3, 0, 1, 2]], atol=1e-6)


def test_found_noise_on_clean_speech_is_as_loud_as_the_known_one():
    clean, known, found = clips(1), clips(2), 7 * clips(3)
    clean[0] = known[1] = 0
    mixed, target = map(np.asarray, remix.on_clean(found, clean + known, clean))
    np.testing.assert_array_equal(target, clean)
    np.testing.assert_array_equal(mixed[1], clean[1])  # a clean example stays one
    added = mixed - clean
    np.testing.assert_allclose(np.mean(added**2, -1), np.mean(known**2, -1), rtol=1e-3)
    assert np.corrcoef(added[2], found[2])[0, 1] > 0.999


def test_noise_of_pauses_holds_none_of_the_speech():
    n = 32_000
    speech, noise = np.zeros((1, n), np.float32), np.float32(np.full((1, n), 0.1))
    speech[0, 4_000:20_000] = 1.0
    leaked = noise + 0.5 * speech
    found = np.asarray(remix.of_pauses(leaked, speech))
    assert found.shape == leaked.shape
    inner = found[0, remix.PAUSE_FRAME : -2 * remix.PAUSE_FRAME]
    np.testing.assert_allclose(inner, 0.1, atol=1e-4)


def test_noise_of_pauses_that_follow_each_other_is_untouched():
    noise = clips(4).reshape(1, -1)
    speech = np.zeros_like(noise)
    speech[0, 6_000:] = 1.0
    found = np.asarray(remix.of_pauses(noise, speech))[0]
    part = slice(remix.PAUSE_HOP, 3 * remix.PAUSE_HOP)  # of a quarter of 30 frames
    np.testing.assert_allclose(found[part], noise[0, part], atol=1e-6)


def test_a_batch_is_of_known_and_of_made_pairs():
    model = student(supervised=0.5, filtered=False)
    noisy, clean, found = clips(1), clips(2), clips(3)
    given, target = map(np.asarray, model.mixed((noisy, clean), found))
    np.testing.assert_array_equal(given[:2], noisy[:2])
    np.testing.assert_array_equal(target[:2], clean[:2])
    speech = np.asarray(model.teacher(found))
    np.testing.assert_allclose(target[2:], speech[2:], atol=1e-6)
    total = given[2:].sum(0)  # both clips, whichever noise stands where
    np.testing.assert_allclose(total, found[2:].sum(0), atol=1e-5)


@pytest.mark.parametrize(("momentum", "share"), [(1.0, 0.0), (0.75, 0.25)])
def test_the_teacher_stays_or_follows(momentum, share):
    model = student(momentum=momentum)
    before = model.frame_model.get_weights()
    data = ((clips(1), clips(2)), clips(3))
    model.fit(as_dataset(data), steps_per_epoch=1, verbose=0)
    after = model.frame_model.get_weights()
    assert any(np.any(one != other) for one, other in zip(before, after, strict=True))
    teacher = model.teacher.frame_model.get_weights()
    for old, new, now in zip(before, after, teacher, strict=True):
        np.testing.assert_allclose(now, old + share * (new - old), atol=1e-6)
    trained = {id(one) for one in model.trainable_variables}
    assert not trained & {id(one) for one in model.teacher.weights}
    remix.begin(model, before)
    for old, now in zip(before, model.teacher.frame_model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    assert int(model.optimizer.iterations.numpy()) == 0


def as_dataset(data):
    from helpers.backend import tf

    return tf.data.Dataset.from_tensors(data)


def test_batches_from_a_later_step_are_those_of_the_whole_run():
    from helpers.backend import tf

    pool = np.arange(1_000, dtype=np.int16)
    known = tf.data.Dataset.from_tensors((np.zeros((2, 10), np.float32),) * 2).repeat(5)
    whole = [found for _, found in remix.with_found(known, pool, seed=3).as_numpy_iterator()]
    later = remix.with_found(known.skip(3), pool, seed=3, first_step=3)
    for one, (_, other) in zip(whole[3:], later.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({found.tobytes() for found in whole}) == 5


def test_what_is_held_out_is_never_learned_from():
    pool = np.arange(1_000, dtype=np.int16)
    for step in range(50):
        learned = remix.cuts(pool, (8, 20), seed=1, step=step, share=(0.0, 0.9))
        scored = remix.cuts(pool, (8, 20), seed=1, step=step, share=(0.9, 1.0))
        assert learned.max() * 32_768 < 900 <= scored.min() * 32_768


# --- the experiment -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return tables.load_rows(store.RESULTS / "adapting.csv").fillna({"teacher": ""})


def test_every_row_is_scored_on_the_same_clips(results):
    assert set(results.columns) >= set(experiment.COLUMNS)
    assert set(results.system) >= {
        "noisy",
        "low-pass",
        "oracle PSM",
        "teacher",
        *experiment.RECIPES,
    }
    parts = results.groupby(["teacher", "system", "seed", "kind"]).utterance
    assert len({tuple(names) for names in parts.apply(sorted)}) == 1
    assert set(results.kind) == {"target", "white", "clean"}


def test_the_small_network_gains_by_noisy_clips_and_forgets_little(results):
    row = "teacher's noise on clean speech, half"
    assert experiment.gain(results, "B", "target", row, "control")[1] > 0
    assert experiment.gain(results, "B", "white", row, "control")[0] > -0.5
    assert experiment.way(results, "B", row)[1] > 0.3


def test_without_supervised_batches_clean_speech_suffers(results):
    for row in ("RemixIT, moving teacher", "RemixIT, frozen teacher"):
        assert experiment.gain(results, "B", "clean", row, "control")[2] < -5


def test_the_shipped_model_gains_nothing_by_them(results):
    for row in experiment.MAIN_ROWS:
        assert experiment.gain(results, "A", "target", row, "teacher")[0] < 0.2


def test_the_recordings_of_training_and_test_are_of_other_projects():
    adapting, testing = experiment.RAIN.adapting, experiment.RAIN.testing
    assert not set(adapting) & set(testing)
    table = corpus.read_corpus(store.ROOT / "data" / "sample")
    clean, noisy = (experiment.speakers(table, which) for which in (True, False))
    assert len(clean)
    assert len(noisy)
    assert not set(clean.speaker) & set(noisy.speaker)
    assert {*clean.split, *noisy.split} == {"train"}
    assert corpus.hash_split(experiment.RAIN.category) == "test"
