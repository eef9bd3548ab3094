"""`helpers.models.adversarial` and `experiments.adversarial`: judges, their losses, training."""

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from experiments import adversarial as experiment
from helpers import audio, store
from helpers.backend import keras, layers, tf
from helpers.data import conditions
from helpers.evaluation import phonemes
from helpers.models import adversarial, losses
from helpers.models.blocks import WaveformWrapper

SR = audio.SAMPLE_RATE


@pytest.fixture
def pair():
    """A clean and a noisy batch, float32 (2, 8000); noise above 4 kHz."""
    rng = np.random.default_rng(0)
    clean = rng.normal(0, 0.1, (2, 8_000)) * np.sin(np.arange(8_000) / 500)
    noise = [audio.band_limit(rng.normal(0, 0.3, 8_000), SR, 4_000, 8_000) for _ in range(2)]
    return np.float32(clean), np.float32(clean + noise)


# --- what a judge sees --------------------------------------------------------------------------


@pytest.mark.parametrize(("win_length", "hop_length"), adversarial.RESOLUTIONS)
def test_a_picture_is_level_free_and_sees_made_up_sound_only_above_4_khz(
    win_length, hop_length, pair
):
    clean, noisy = map(tf.constant, pair)
    image = adversarial.picture(clean, noisy, win_length, hop_length).numpy()
    assert image.shape[2:] == (win_length // 4, 2)
    assert image.dtype == np.float32
    assert image.min() >= 0
    louder = adversarial.picture(10 * clean, 10 * noisy, win_length, hop_length).numpy()
    np.testing.assert_allclose(louder, image, atol=1e-3)
    true = adversarial.picture(clean, clean, win_length, hop_length).numpy()
    np.testing.assert_array_equal(true[..., 1], image[..., 1])
    assert image[..., 0].mean() > true[..., 0].mean() + 1
    f = 6_000  # Hz: a tone shows in its own bin of the first channel
    tone = np.float32(np.sin(2 * np.pi * f * np.arange(8_000) / SR))[None]
    image = adversarial.picture(tf.constant(tone), tf.constant(tone), win_length, hop_length)
    strongest = int(image.numpy()[0, 5, :, 0].argmax())
    assert (strongest + win_length // 4 + 1) * SR / win_length == pytest.approx(f, abs=SR / 512)


def test_a_picture_of_silence_is_empty_and_has_a_gradient(pair):
    silence, made = tf.zeros([2, 8_000]), tf.Variable(0 * pair[0])
    with tf.GradientTape() as tape:
        image = adversarial.picture(silence, made, 512, 256)
        loss = tf.reduce_sum(image)
    assert float(loss) == pytest.approx(0, abs=0.1)
    assert np.isfinite(tape.gradient(loss, made).numpy()).all()


def test_the_weights_of_a_judge_have_a_gain_of_one(pair):
    judge = adversarial.build_judge(128)
    image = adversarial.picture(*map(tf.constant, pair), 512, 256)
    for _ in range(30):  # the power iteration takes some
        judge(image, training=True)
    for name in ("convolve_1", "convolve_2", "convolve_3", "score"):
        wrapped = next(
            one.layer
            for one in judge.layers
            if isinstance(one, layers.SpectralNormalization) and one.layer.name == name
        )
        kernel = wrapped.kernel.numpy()
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        assert largest == pytest.approx(1, abs=0.05)
    score, *features = judge(image)
    assert score.shape[-1] == 1
    assert len(features) == len(adversarial.FILTERS)


# --- losses -------------------------------------------------------------------------------------


def test_the_hinge_stops_where_the_judge_is_sure():
    real, fake = tf.constant([3.0, 1.0]), tf.constant([-1.0, -7.0])
    assert float(adversarial.judge_loss(real, fake)) == 0
    assert float(adversarial.judge_loss(fake, real)) == pytest.approx(5 + 3)
    assert float(adversarial.fooling_loss(real)) == -2


def test_features_match_only_themselves():
    rng = np.random.default_rng(0)
    one, two = ([tf.constant(rng.normal(size=(2, 3)), tf.float32)] * 2 for _ in range(2))
    assert float(adversarial.matching_loss(one, one)) == 0
    assert float(adversarial.matching_loss(one, two)) > 0.5
    twice = [2 * x for x in one]
    assert float(adversarial.matching_loss(twice, one)) == pytest.approx(0.5, abs=1e-5)


def test_level_counts_loud_noise_only(pair):
    clean, noisy = map(tf.constant, pair)
    assert float(adversarial.high_level(clean, noisy, clean)) == pytest.approx(0, abs=1e-4)
    half = float(adversarial.high_level(clean, noisy, 0.5 * clean))
    assert half == pytest.approx(-6.02, abs=0.01)
    assert float(adversarial.high_level(clean, clean, 0.5 * clean)) == 0


def test_the_log_spectrum_asks_for_the_level_that_a_judge_looks_at(pair):
    clean = tf.constant(pair[0])
    assert float(adversarial.log_spectrum_loss(clean, clean)) == 0
    high = np.float32([audio.band_limit(np.float64(x), SR, 4_000, 8_000) for x in pair[0]])
    distances = [
        float(adversarial.log_spectrum_loss(clean, clean + gain * high))
        for gain in (-0.9, -0.5, 0.0, 0.5)
    ]
    assert distances == sorted(distances[:3], reverse=True) + distances[3:]
    assert distances[3] > 0.1
    loud = float(adversarial.loud_spectrum_loss(clean, clean - 0.9 * high))
    assert 0 < loud < distances[0]  # most of it is fainter than LOUD_DB
    low = clean - high
    assert float(adversarial.log_spectrum_loss(clean, clean + low)) < 0.05


def test_what_a_recogniser_hears_is_its_own_feature(speech):
    both = tf.constant(speech[None]), tf.constant(0.1 * speech[None])
    true, made = (x.numpy()[0] for x in experiment.log_mel(*both))
    wanted = np.float32(phonemes.log_mel(speech))
    n_frames = min(len(true), len(wanted))  # padded differently at the end
    assert np.mean(np.abs(true[:n_frames] - wanted[:n_frames])) < 0.05
    assert (made < true - 0.3).mean() > 0.5
    silence = tf.zeros([1, 8_000])
    with tf.GradientTape() as tape:
        tape.watch(quiet := tf.constant(speech[None, :8_000]))
        loss = experiment.filter_bank_loss(
            tf.concat([silence, quiet], 0), tf.concat([quiet] * 2, 0)
        )
    assert float(loss) < 100
    assert np.isfinite(tape.gradient(loss, quiet).numpy()).all()


def test_deep_features_are_those_of_the_recognisers_layers(speech):
    keras.utils.set_random_seed(0)
    loss = experiment.deep_loss(phonemes.build(units=4, filters=6))
    clean = tf.constant(speech[None, :16_000])
    with tf.GradientTape() as tape:
        tape.watch(made := clean + 0.01 * tf.random.normal(clean.shape, seed=1))
        distance = loss(clean, made)
    assert float(loss(clean, clean)) == 0
    assert float(distance) > 0.01
    assert np.abs(tape.gradient(distance, made).numpy()).max() > 0


def test_a_term_adds_to_the_loss_with_its_weight():
    added = experiment.with_term(lambda a, b: a + b, lambda a, b: a * b, 0.5)
    assert added(3.0, 4.0) == 13.0


# --- training by turns --------------------------------------------------------------------------


@keras.saving.register_keras_serializable("test")
class Gains(layers.Layer):
    """A gain below and one above 4 kHz, both learnt: all that a denoiser of level has to know."""

    def build(self, shape):
        self.gains = self.add_weight(shape=(2,), initializer="ones", name="gains")

    def call(self, frames):
        real, imag = keras.ops.rfft(frames)
        above = keras.ops.cast(keras.ops.arange(real.shape[-1]) > real.shape[-1] // 2, "float32")
        gain = self.gains[0] * (1 - above) + self.gains[1] * above
        return keras.ops.irfft((real * gain, imag * gain), frames.shape[-1])


@pytest.fixture
def trainer_of_gains(monkeypatch):
    """`(weight, seed) -> trainer` of two gains with one small judge, whose high gain is 0.2."""
    monkeypatch.setattr(adversarial, "RESOLUTIONS", ((128, 64),))

    def make(weight, seed=0):
        keras.utils.set_random_seed(seed)
        frames = keras.Input((None, 256))
        layer = Gains(name="gains")
        model = keras.Model([frames], [layer(frames)])
        layer.gains.assign([1.0, 0.2])
        trainer = adversarial.AdversarialTrainer(WaveformWrapper(model, 256), weight, ramp=5)
        optimizers = keras.optimizers.Adam(0.05), keras.optimizers.Adam(5e-3, beta_1=0.5)
        trainer.compile(*optimizers, losses.DenoisingLoss())
        trainer.build((2, 8_000))
        return trainer

    return make


def high_gain(trainer):
    return float(trainer.denoiser.frame_model.get_layer("gains").gains.numpy()[1])


def test_judges_bring_a_missing_level_back_where_the_own_loss_is_content(pair, trainer_of_gains):
    clean = tf.constant(pair[0])
    trainer = trainer_of_gains(1.0)
    trainer.own_loss = lambda clean, denoised: 0 * keras.ops.mean(denoised)
    data = tf.data.Dataset.from_tensors((clean, clean)).repeat()
    log = trainer.fit(data, epochs=1, steps_per_epoch=20, shuffle=False, verbose=0).history
    assert 0.5 < high_gain(trainer) < 2
    assert set(log) == set(adversarial.CURVE)
    assert all(np.isfinite(values).all() for values in log.values())


def test_the_control_has_no_judges(pair, trainer_of_gains):
    trainer = trainer_of_gains(0.0)
    assert not trainer.judges
    assert not trainer.judge_variables
    np.testing.assert_allclose(trainer(pair[1]), trainer.denoiser(pair[1]))


@pytest.fixture
def small_training(pair, trainer_of_gains, monkeypatch, tmp_path):
    """The experiment's training with two gains, three epochs of two steps; `run(weight)`."""
    monkeypatch.setattr(store, "RUNS", tmp_path)
    monkeypatch.setattr(experiment, "EPOCHS", 3)
    monkeypatch.setattr(experiment, "STEPS", 2)
    monkeypatch.setattr(experiment, "training_facts", lambda table, files: ["of a test"])
    monkeypatch.setattr(
        experiment, "start_trainer", lambda one, term: trainer_of_gains(one.weight, one.seed)
    )

    def batches(table, files, first_epoch, epochs):
        clean, noisy = pair
        scales = np.float32([1 / (1 + n) for n in range(2 * epochs)])[2 * first_epoch :]
        pairs = tf.data.Dataset.from_tensor_slices(scales)
        return pairs.map(lambda scale: (scale * noisy, clean))

    monkeypatch.setattr(experiment, "make_batches", batches)
    return lambda weight: experiment.train(of_judges(weight), None, ())


def of_judges(weight):
    return experiment.Training("discriminator", weight, 0)


def test_a_training_that_was_killed_goes_on_bit_for_bit(small_training, monkeypatch):
    whole = small_training(0.5).frame_model.get_weights()
    folder = of_judges(0.5).run_dir(["of a test"])
    curve = (folder / "curve.csv").read_text()
    shutil.rmtree(folder)

    class Kill(experiment.Curve):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(experiment, "Curve", Kill)
        with pytest.raises(KeyboardInterrupt):
            small_training(0.5)
    assert not (folder / "finished.weights.h5").exists()
    (folder / "epoch-0002.weights.h5").unlink()  # as if killed while it was written
    parts = small_training(0.5).frame_model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert (folder / "curve.csv").read_text() == curve
    again = small_training(0.5).frame_model.get_weights()  # finished: loaded, not trained
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))
    assert of_judges(0.25).run_dir(["of a test"]) != folder


def test_a_quick_run_has_a_ramp_too():
    """Without a step of it the judge's weight is 0 / 0, and so are the network's, soon."""
    script = "from experiments import adversarial as a; print(a.STEPS * a.EPOCHS // 6)"
    environment = os.environ | {"DENOISER_QUICK": "1", "PYTHONPATH": str(store.ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert int(told.stdout) >= 1


# --- the experiment -----------------------------------------------------------------------------


def test_scores_of_the_band_that_is_missing(speech):
    high = audio.band_limit(np.float64(speech), SR, 4_000, 8_000)
    for gain_db in (-6.0, 0.0, 3.0):
        raised = experiment.raise_band(speech, gain_db)
        assert raised.dtype == np.float32
        assert experiment.level_high(speech, raised) == pytest.approx(gain_db, abs=0.3)
        assert experiment.lsd_high(speech, raised) == pytest.approx(abs(gain_db), abs=0.8)
    assert experiment.level_high(speech, speech - high) < -15
    assert experiment.spoken(speech).mean() > 0.3
    found = experiment.measure(speech, speech)
    assert found["level_high"] == 0
    assert np.isnan(found["visqol"])


def test_as_good_as_a_strangers_noise_has_8_db():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 0.1, (2, 10 * SR))
    assert experiment.lsd_high(one, two) == pytest.approx(7.9, abs=0.3)


def test_weights_and_seeds_have_curves_of_their_own(tmp_path):
    path = tmp_path / "curves"

    def curve(seed, own):
        return pd.DataFrame({"epoch": [1, 2], "own": own, "system": "control", "seed": seed})

    experiment.add_curves(path, curve(1, [0.1, 0.2]))  # without a weight
    experiment.add_curves(path, curve(2, [0.3, 0.4]).assign(weight=0.5))
    experiment.add_curves(path, curve(1, [0.5, 0.6]))
    found = pd.read_csv(tmp_path / "curves.csv").sort_values("own")
    assert list(found.own) == [0.3, 0.4, 0.5, 0.6]
    assert list(found.columns[:3]) == ["system", "weight", "seed"]


def test_parts_that_are_scored_are_not_scored_again(speech_files, tmp_path):
    utterances = [
        {"utterance": path.stem, "speaker": path.parts[-3], "split": "validation", "path": path}
        for path in speech_files
    ]
    made = []

    def make():
        made.append(1)
        return lambda noisy: 0.5 * noisy

    entries = [
        experiment.Entry("noisy", lambda: lambda noisy: noisy),
        experiment.Entry("discriminator", make, "a", 0.3, 1),
    ]
    inputs = {conditions.WHITE: (2, 0)}
    for _ in range(2):
        rows = experiment.score_all(tmp_path / "a", pd.DataFrame(utterances), entries, inputs)
    assert made == [1]
    assert list(rows.system) == ["noisy"] * 2 + ["discriminator"] * 2
    assert set(rows.split) == {"validation"}
    halved, noisy = (
        rows[rows.system == name].level_high.mean() for name in ("discriminator", "noisy")
    )
    assert halved - noisy == pytest.approx(-6.02, abs=0.05)
    entries[1] = dataclasses.replace(entries[1], version="b")
    rows = experiment.score_all(tmp_path / "a", pd.DataFrame(utterances), entries, inputs)
    assert made == [1, 1]
    assert len(rows) == 4


# --- a judge that learns a metric, and an equaliser that it likes -------------------------------


def loudness(clean, samples):
    """A metric that is easy to learn: how loud the clip is beside the clean one, 0 to 1."""
    if not clean.any():
        return np.nan
    return float(np.clip(np.std(samples) / (2 * np.std(clean)), 0, 1))


def test_old_clips_come_back_and_silence_is_left_out(pair):
    replay = adversarial.Replay(loudness)
    clean, noisy = (np.concatenate([x, 0 * x[:1]]) for x in pair)
    true, samples, scores = replay(clean, noisy)
    assert true.shape == samples.shape == (4, 8_000)
    np.testing.assert_allclose(scores, [loudness(*p) for p in zip(true, samples, strict=True)])
    replay(clean, 0.5 * noisy)
    assert len(replay.kept) == 4


def test_a_judge_learns_a_metric_and_pulls_the_denoiser(pair, trainer_of_gains):
    clean, noisy = map(tf.constant, pair)
    denoiser = trainer_of_gains(0.0).denoiser
    trainer = adversarial.MetricTrainer(denoiser, adversarial.Replay(loudness), own_weight=0.0)
    optimizers = keras.optimizers.Adam(1e-2), keras.optimizers.Adam(3e-3)
    trainer.compile(*optimizers, losses.DenoisingLoss())
    data = tf.data.Dataset.from_tensors((noisy, clean)).repeat()
    before = denoiser.frame_model.get_layer("gains").gains.numpy().copy()
    log = trainer.fit(data, epochs=6, steps_per_epoch=15, shuffle=False, verbose=0).history
    assert log["judge"][-1] < 0.5 * log["judge"][0]
    after = denoiser.frame_model.get_layer("gains").gains.numpy()
    assert np.abs(after - before).max() > 0.05
    guessed = trainer.guess(clean, clean).numpy()
    np.testing.assert_allclose(guessed, 1, atol=0.2)


def test_an_equaliser_of_no_gain_changes_nothing(speech):
    assert experiment.equalise(speech, [0.0] * 9).dtype == np.float32
    assert experiment.share_of_pesq(speech, speech) == pytest.approx(1, abs=0.01)
    assert np.isnan(experiment.share_of_pesq(0 * speech, speech))
    np.testing.assert_allclose(experiment.equalise(speech, [0.0] * 9), speech, atol=1e-6)
    twice = experiment.equalise(speech, [6.02] * 9)
    np.testing.assert_allclose(twice, 2 * speech, atol=1e-3)


def test_the_search_raises_pesq(speech, noisy, monkeypatch):
    monkeypatch.setattr(experiment, "GAIN_STEPS", (12.0,))
    gains = experiment.find_gains([(speech, noisy)])
    assert len(gains) == len(experiment.KNOTS)
    assert max(np.abs(gains)) <= 24
    heard = (noisy, experiment.equalise(noisy, gains))
    before, after = (experiment.share_of_pesq(speech, x) for x in heard)
    assert after > before
