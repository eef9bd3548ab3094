"""`helpers.models`: shapes, exactness, finiteness, losses, trainings that go on."""

import dataclasses
import hashlib
import json
import os
import re
import resource
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import audio, models, store
from helpers.backend import keras, tf
from helpers.data import corpus, noise_bank
from helpers.evaluation import metrics
from helpers.models import blocks, dense, losses, spectrogram, training, waveform
from helpers.models.blocks import WaveformWrapper, zero_states


def white(n_samples: int, rms: float = 0.1, seed: int = 0) -> np.ndarray:
    """White noise, float32 `(n_samples,)`."""
    return np.random.default_rng(seed).normal(0, rms, n_samples).astype("float32")


def perturbed(method: str, **settings) -> keras.Model:
    """A model of frames with every weight moved at random: it changes what it hears."""
    keras.utils.set_random_seed(1)
    model, rng = models.module(method).build(**settings), np.random.default_rng(1)
    model.set_weights(
        [w + 0.2 * rng.standard_normal(w.shape) * (np.std(w) or 1.0) for w in model.get_weights()]
    )
    return model


def hop_of(method: str) -> int:
    return models.module(method).HOP_LENGTH


def frames_of(model: keras.Model, n_frames: int, seed: int = 0) -> tf.Tensor:
    """Random frames for a model, float32 `(1, n_frames, win_length)`."""
    win_length = model.inputs[0].shape[-1]
    return tf.reshape(white(n_frames * win_length, seed=seed), [1, n_frames, win_length])


def through(model: keras.Model, method: str, samples: np.ndarray) -> np.ndarray:
    """One clip `(samples,)` through a model of frames as a whole."""
    return WaveformWrapper(model, hop_of(method))(samples[None])[0].numpy()


@pytest.mark.parametrize(("win_length", "hop_length"), [(512, 256), (160, 80), (512, 128)])
def test_overlap_add_is_that_of_tensorflow(win_length, hop_length):
    frames = tf.reshape(white(6 * win_length), [2, 3, win_length])
    np.testing.assert_allclose(
        blocks.overlap_add(frames, hop_length),
        tf.signal.overlap_and_add(frames, hop_length),
        atol=1e-6,
    )


@pytest.fixture(scope="module", params=models.METHODS)
def moved(request) -> tuple[str, keras.Model]:
    """A method and a model of it that is not the identity."""
    return request.param, perturbed(request.param)


# --- the dense autoencoder and its loss -------------------------------------------------------


def test_dense_shapes():
    network = dense.build()
    widths = [layer.output.shape[-1] for layer in network.layers]
    assert widths == [16_000, 1024, 512, 256, 512, 1024, 16_000]
    assert network.count_params() == 34_098_048
    assert network(np.zeros((2, 16_000), "float32")).shape == (2, 16_000)


# --- the models of frames ---------------------------------------------------------------------


@pytest.mark.parametrize("method", models.METHODS)
def test_untrained_model_passes_everything_at_one_gain(method):
    samples = white(4_001)
    out = through(models.build(method), method, samples)
    gain = 1 - 1 / (1 + np.exp(2))  # the gate is ajar
    assert np.abs(out - gain * samples).max() < 1e-6


@pytest.mark.parametrize("past", [0, 2, 5])
def test_fourier_basis_gives_the_input_back(past):
    encoder, decoder = waveform.fourier_basis(past)
    samples = white(1_237)
    frames = audio.frame(samples, 160, 80)
    hops = np.concatenate([np.zeros((past, 80)), frames[:, :80]])
    long_frames = np.concatenate([hops[i : i + len(frames)] for i in range(past)] + [frames], 1)
    again = audio.overlap_add(long_frames @ encoder @ decoder, 80, len(samples))
    assert encoder.shape == (160 + 80 * past, decoder.shape[0])
    assert np.abs(again - samples).max() < 1e-6


def test_look_back_puts_the_samples_before_a_frame_in_front_of_it():
    samples = np.arange(80 * 7, dtype="float32")
    frames = np.stack([samples[80 * i :][:160] for i in range(6)])
    first, past = waveform.LookBack()(frames[None, :2], np.zeros((1, 3, 80), "float32"))
    second, _ = waveform.LookBack()(frames[None, 2:], past)
    long_frames = np.concatenate([first[0], second[0]])
    before = np.concatenate([np.zeros(240, "float32"), samples])
    assert np.array_equal(long_frames, [before[80 * i :][:400] for i in range(6)])


@pytest.mark.parametrize("method", models.METHODS)
def test_size(method):
    assert 0.2e6 <= models.build(method).count_params() <= 0.8e6


@pytest.mark.parametrize("method", models.METHODS)
def test_any_number_of_models_can_be_built_in_one_process(method):
    """Keras numbers what we do not name, and its numbers must not meet our names."""
    keras.utils.clear_session()
    outputs = [len(models.build(method).outputs) for _ in range(8)]
    assert set(outputs) == {7}


def test_macs_by_hand():
    """One frame: a dense layer, a convolution of 8 bins to 4, one transposed back, and a GRU."""
    layers = keras.layers
    x = frames = keras.Input((None, 6))
    x = layers.Dense(16)(x)  # 96
    x = layers.Reshape((-1, 8, 2))(x)
    x = layers.Conv2D(3, (1, 2), strides=(1, 2))(x)  # 12 weights x 4 bins of output
    x = layers.Conv2DTranspose(1, (1, 2), strides=(1, 2))(x)  # 6 weights x 4 bins of input
    x = layers.Reshape((-1, 8))(x)
    x = layers.GRU(5, return_sequences=True)(x)  # 3 x 5 x (8 + 5)
    per_frame = 96 + 48 + 24 + 195
    assert models.macs_per_second(keras.Model(frames, x), 160) == per_frame * 100


def test_perturbed_model_is_not_the_identity(moved):
    method, model = moved
    samples = white(4_000)
    assert metrics.si_sdr(samples, through(model, method, samples)) < 30


def assert_blocks_equal_the_whole(model: keras.Model, lengths) -> None:
    """Feed 30 frames as a whole, and in blocks of some lengths with the states of the last one."""
    frames = frames_of(model, 30)
    whole = model([frames, *zero_states(model, 1)])
    states, parts, start = zero_states(model, 1), [], 0
    for length in lengths:
        part, *states = model([frames[:, start : start + length], *states])
        parts.append(part)
        start += length
    np.testing.assert_allclose(tf.concat(parts, axis=1), whole[0], atol=1e-5)
    for state, expected in zip(states, whole[1:], strict=True):
        np.testing.assert_allclose(state, expected, atol=1e-5, rtol=1e-4)


def test_blocks_with_states_equal_the_whole(moved):
    assert_blocks_equal_the_whole(moved[1], (1, 2, 12, 1, 14))


def test_no_frame_depends_on_a_later_one(moved):
    _, model = moved
    frames, n_past = frames_of(model, 20), 12
    other = tf.concat([frames[:, :n_past], 10 * frames_of(model, 8, seed=5)], axis=1)
    first, second = (model([f, *zero_states(model, 1)])[0].numpy() for f in (frames, other))
    np.testing.assert_allclose(first[:, :n_past], second[:, :n_past], atol=1e-6)
    assert np.abs(first[:, n_past:] - second[:, n_past:]).max() > 1e-3


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_the_spectrogram_model_waits_for_so_many_frames_and_no_longer(ahead):
    model, samples = perturbed("spectrogram", ahead=ahead), white(4_000)
    latency, changes_at = 320 + 160 * ahead, 2_000  # samples
    other = np.concatenate([samples[:changes_at], white(2_000, seed=5)])
    change = np.abs(np.subtract(*(through(model, "spectrogram", x) for x in (samples, other))))
    first = np.flatnonzero(change > 1e-5)[0]
    assert changes_at - latency < first <= changes_at - latency + 160
    frame = model([frames_of(model, 5), *zero_states(model, 1)])[0].numpy()
    assert frame.shape[-1] == latency
    assert frame[..., :320].any()
    assert not frame[..., 320:].any()


@pytest.mark.parametrize("n_frames", [1, 3, 30])
def test_blocks_of_a_model_that_waits_equal_the_whole(n_frames):
    model = perturbed("spectrogram", ahead=2)
    assert_blocks_equal_the_whole(model, [n_frames] * (30 // n_frames))


@pytest.mark.parametrize("gain_db", [-30, 30])
def test_a_gain_passes_through(moved, gain_db):
    method, model = moved
    samples, gain = white(4_000, rms=0.02), np.float32(10 ** (gain_db / 20))
    plain, louder = through(model, method, samples), through(model, method, gain * samples)
    assert audio.level_db(louder) - audio.level_db(plain) == pytest.approx(gain_db, abs=0.1)
    assert metrics.si_sdr(plain, louder) > 30  # and nothing but the level changes


def test_the_waveform_model_can_be_made_louder():
    model, samples = perturbed("waveform"), white(4_000)
    before = through(model, "waveform", samples)
    waveform.scale_output(model, 1.5)
    np.testing.assert_allclose(through(model, "waveform", samples), 1.5 * before, atol=1e-5)


def test_clean_gain_brings_speech_back_to_its_level(monkeypatch):
    monkeypatch.setenv("DENOISER_CORPUS", str(store.ROOT / "data" / "sample"))
    untrained = WaveformWrapper(models.build("waveform"), 80)  # gives 0.88 times its input
    gain = training.clean_gain(untrained, n_clips=1)
    assert gain == pytest.approx(1 / (1 - 1 / (1 + np.exp(2))), rel=1e-3)


def test_batch_items_do_not_mix(moved):
    method, model = moved
    clips = np.stack([white(4_000, seed=i) for i in range(2)])
    together = WaveformWrapper(model, hop_of(method))(clips)
    np.testing.assert_allclose(together[1], through(model, method, clips[1]), atol=1e-5)


def test_clips_of_any_length_go_through_one_compiled_model(moved):
    method, model = moved
    wrapper = WaveformWrapper(model, hop_of(method))
    compiled = tf.function(wrapper, reduce_retracing=True)
    for n_samples in (3_000, 3_111, 4_096):  # from the second on the length is unknown to it
        noisy = white(n_samples)[None]
        assert np.allclose(compiled(noisy), wrapper(noisy), atol=1e-5)
    assert compiled.experimental_get_tracing_count() == 2


def test_running_level_ignores_digital_silence():
    silence, tone = np.zeros((1, 20, 160), "float32"), np.full((1, 20, 160), 0.1, "float32")
    frames = np.concatenate([silence, tone], axis=1)
    level, state = blocks.RunningLevel(80)(frames, np.zeros((1, 2), "float32"))
    assert np.isfinite(level).all()
    np.testing.assert_allclose(level[0, 20:, 0], 0.1, rtol=1e-3)
    assert state.shape == (1, 2)


def test_saved_model_gives_the_same(moved, tmp_path):
    _, model = moved
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    frames = frames_of(model, 10)
    before, after = (one([frames, *zero_states(one, 1)]) for one in (model, again))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert again.count_params() == model.count_params()


# --- weights and their card -------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """A folder with weights and the card that belongs to them."""
    path = models.weights_path("waveform", tmp_path)
    models.build("waveform").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    return path


def test_load_accepts_weights_of_their_card(weights):
    assert models.load("waveform", weights.parent).name == "waveform"


@pytest.mark.parametrize("suffix", [".keras", ".json"])
def test_missing_weights_or_card_raise(weights, suffix):
    weights.with_suffix(suffix).unlink()
    again = f"python -m experiments train waveform --out {weights.parent}"
    with pytest.raises(models.WeightsError, match=f"waveform{suffix}: missing; .*{again}"):
        models.load("waveform", weights.parent)


def test_missing_weights_are_said_to_come_from_where_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    for folder in (None, tmp_path):
        with pytest.raises(models.WeightsError, match="from the repository or run `make train-wav"):
            models.load("waveform", folder)
    with pytest.raises(models.WeightsError, match=r"dtln\.keras: missing; run `make design`"):
        models.load("dtln", tmp_path / "peer_architecture")


def test_weights_of_another_card_raise(weights):
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(models.WeightsError, match="not the weights that its card describes"):
        models.load("waveform", weights.parent)


def sign(path):
    """Write the card that these very weights have, as their training would have done."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest}))


def in_archive(path, name, change):
    """Change one file of an archive of weights, and sign it again."""
    with zipfile.ZipFile(path) as archive:
        contents = {one: archive.read(one) for one in archive.namelist()}
    contents[name] = change(contents[name])
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in contents.items():
            archive.writestr(one, content)
    sign(path)


def assert_refused(weights, match):
    """Loading is refused in one line, which names a file and the remedy."""
    with pytest.raises(models.WeightsError, match=match) as caught:
        models.load("waveform", weights.parent)
    again = rf"train waveform --out {weights.parent}`"
    assert re.fullmatch(rf"/\S+/waveform\.\w+: [^\n]+; .*{again}", str(caught.value))


def test_weights_of_the_other_method_under_this_name_are_refused(weights):
    models.build("spectrogram").save(weights)
    sign(weights)
    assert_refused(weights, "waveform.keras: weights of 'spectrogram', not of 'waveform'")


def test_a_network_of_this_name_that_maps_no_frames_is_refused(weights):
    inputs, state = keras.Input((None, 160)), keras.Input((2,))
    new_state = blocks.RunningLevel(80)(inputs, state)[1]
    for before, after in (
        (inputs, keras.layers.Dense(160)(inputs)),  # no frame rate
        ([inputs, state], [keras.layers.Dense(80)(inputs), new_state]),  # other frames
    ):
        keras.Model(before, after, name="waveform").save(weights)
        sign(weights)
        assert_refused(weights, "waveform.keras: no model of frames")


@pytest.mark.parametrize(
    "text", [b"", b'{"sha256": "1', b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 9999]
)
def test_a_damaged_card_is_one_line(weights, text):
    weights.with_suffix(".json").write_bytes(text)
    assert_refused(weights, "waveform.json: damaged, no card")


DAMAGES = {
    "no archive": lambda path: path.write_bytes(b"weights"),
    "half an archive": lambda path: path.write_bytes(path.read_bytes()[:100_000]),
    "half a config": lambda path: in_archive(path, "config.json", lambda b: b[: len(b) // 2]),
    "no config": lambda path: in_archive(path, "config.json", lambda b: b"{}"),
    "an unknown layer": lambda path: in_archive(
        path, "config.json", lambda b: b.replace(b"RunningLevel", b"WalkingLevel")
    ),
    "other shapes": lambda path: in_archive(
        path, "config.json", lambda b: re.sub(rb'"units": \d+', b'"units": 7', b)
    ),
    "half of the weights": lambda path: in_archive(
        path, "model.weights.h5", lambda b: b[: len(b) // 2]
    ),
    "no weights": lambda path: in_archive(path, "model.weights.h5", lambda b: b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_one_line_though_its_hash_fits(weights, damage):
    DAMAGES[damage](weights)
    sign(weights)
    assert_refused(weights, "waveform.keras: not a readable model")


# --- losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("win_length", "hop_length"), [(512, 256), (160, 80)])
@pytest.mark.parametrize("n_samples", [4_096, 4_097])
def test_spectrum_and_compression_are_those_of_numpy(win_length, hop_length, n_samples):
    samples = white(n_samples)
    expected = audio.stft(samples, win_length, hop_length)
    S = losses.spectrum(tf.constant(samples[None]), win_length, hop_length)
    np.testing.assert_allclose(S[0], expected, atol=1e-4)
    magnitude, compressed = losses.compress(S)
    power = np.abs(expected) ** 2 + 1e-9  # as `compress`, so that the gradient at 0 is finite
    np.testing.assert_allclose(magnitude[0], power**0.15, atol=1e-4)
    np.testing.assert_allclose(compressed[0], expected * power**-0.35, atol=1e-4)


def test_si_sdr_is_that_of_metrics():
    clean = np.stack([white(4_000, seed=i) for i in range(3)])
    error = np.stack([white(4_000, rms=0.05, seed=9 + i) for i in range(3)])
    denoised = np.float32(0.5) * clean + error
    expected = [metrics.si_sdr(*pair) for pair in zip(clean, denoised, strict=True)]
    np.testing.assert_allclose(losses.si_sdr(tf.constant(clean), denoised), expected, atol=1e-3)
    assert losses.si_sdr(tf.zeros([1, 100]), tf.ones([1, 100])) == 0


CLIPS = {
    "silent clean": (0.0, 0.1),
    "both silent": (0.0, 0.0),
    "silent output": (0.1, 0.0),
    "very quiet": (1e-6, 1e-6),
    "one step of 16 bits": (2**-15, 2**-15),
    "full scale": (1.0, 1.0),
}


@pytest.mark.parametrize("options", [{}, {"linear_below": 0.2}, {"level_weight": 0.01}])
@pytest.mark.parametrize("case", CLIPS)
def test_loss_and_gradient_are_finite(case, options):
    clean, denoised = (
        tf.constant(white(4_000, rms, seed)[None]) for seed, rms in enumerate(CLIPS[case])
    )
    with tf.GradientTape() as tape:
        tape.watch(denoised)
        loss = losses.DenoisingLoss(**options)(clean, denoised)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, denoised)).all()


@pytest.mark.parametrize("rms", [0.0, 1e-6])
def test_gradients_of_weights_are_finite_in_silence(moved, rms):
    method, model = moved
    wrapper, noisy = WaveformWrapper(model, hop_of(method)), white(2_000, rms)[None]
    with tf.GradientTape() as tape:
        loss = losses.DenoisingLoss()(tf.zeros_like(noisy), wrapper(noisy))
    for gradient in tape.gradient(loss, wrapper.trainable_variables):
        assert np.isfinite(gradient).all()


def test_a_closed_gate_passes_and_an_open_one_can_do_anything():
    def mask(gate, real, imag):
        logits = tf.constant([[[[gate, real, imag]] * 256]], "float32")
        return spectrogram.GatedMask()(logits).numpy()[0, 0]

    assert mask(0, 0, 0).shape == (257, 2)
    np.testing.assert_allclose(mask(-30, 3, -3), [[1, 0]] * 257, atol=1e-6)
    np.testing.assert_allclose(mask(30, 0, 0), 0, atol=1e-6)
    np.testing.assert_allclose(mask(30, 30, 30)[0], [-2, -2], atol=1e-6)
    np.testing.assert_allclose(mask(30, -30, -30)[0], [2, 2], atol=1e-6)


def test_running_mean_by_hand():
    features = np.random.default_rng(0).random((1, 5, 3)).astype("float32")
    mean, state = blocks.RunningMean(256, seconds=0.05)(features, tf.zeros([1, 4]))
    decay = np.exp(-256 / (0.05 * 16_000))
    weights = decay ** np.arange(5)[::-1]
    expected = (weights[:, None] * features[0]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(mean[0, -1], expected, rtol=1e-5)
    np.testing.assert_allclose(state[0, -1], weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(mean[0, 0], features[0, 0], rtol=1e-5)


def test_small_errors_count_linearly():
    loss = losses.DenoisingLoss(linear_below=0.2)
    errors = tf.constant([[[0.01, 0.1, 0.2, 0.5]]])
    expected = np.mean([0.2 * 0.01, 0.2 * 0.1, 0.2 * 0.2, 0.5 * 0.5])
    assert float(loss.mean_error(errors**2)[0]) == pytest.approx(expected, rel=0.02)


def test_the_error_of_the_level_has_no_sign_and_is_smooth_at_0():
    clean = white(4_000)
    outputs = np.stack([clean * 10 ** (gain_db / 20) for gain_db in (0, 1, -1, 6, -20)])
    found = losses.level_error(np.stack([clean] * 5), outputs)
    np.testing.assert_allclose(found, np.sqrt(1 + np.square([0, 1, -1, 6, -20])) - 1, atol=1e-3)
    assert losses.level_error(tf.zeros([1, 100]), tf.ones([1, 100])) == 0
    plain, weighed = (
        float(losses.DenoisingLoss(level_weight=weight)(clean[None], outputs[3:4]))
        for weight in (0.0, 0.01)
    )
    assert weighed - plain == pytest.approx(0.01 * float(found[3]), abs=1e-5)


def test_a_perfect_output_has_the_least_loss():
    clean = tf.constant(white(4_000)[None])
    loss = losses.DenoisingLoss()
    best, worse = float(loss(clean, clean)), float(loss(clean, clean + white(4_000, 0.01, 3)))
    assert best == pytest.approx(-0.1 * losses.MAX_SI_SDR / 10, abs=1e-5)
    assert worse > best


# --- training ---------------------------------------------------------------------------------


def one_layer(method: str) -> keras.Model:
    """A network that is quickly traced: the training around it is what is tested."""
    win_length = spectrogram.WIN_LENGTH
    frames, state = keras.Input((None, win_length)), keras.Input((2,))
    _, new_state = blocks.RunningLevel(spectrogram.HOP_LENGTH)(frames, state)
    outputs = [keras.layers.Dense(win_length)(frames), new_state]
    return keras.Model([frames, state], outputs, name=method)


def plain_loss(plan: training.Plan, cycle: int) -> keras.losses.Loss:
    """Another loss for each cycle, like the real ones, but quickly traced."""
    return [keras.losses.MeanSquaredError, keras.losses.MeanAbsoluteError][cycle]()


@pytest.fixture
def small_plan(tmp_path, monkeypatch) -> training.Plan:
    """Seconds of training on the bundled sample with synthetic noise, all files in `tmp_path`."""
    monkeypatch.setenv("DENOISER_CORPUS", str(store.ROOT / "data" / "sample"))
    monkeypatch.setattr(corpus, "find_noise", lambda verbose=False: None)
    monkeypatch.setattr(training, "build", one_layer)
    monkeypatch.setattr(training, "cycle_loss", plain_loss)
    monkeypatch.setattr(store, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    sizes = {"batches": 3, "batch_size": 4, "seconds": 1.0, "validation_batches": 1}
    return training.Plan("spectrogram", cycles=(3, 2), bank_clips=16, **sizes)


def test_training_in_parts_equals_one_go(small_plan, tmp_path, monkeypatch):
    untrained = training.compile_model(small_plan).get_weights()
    in_one_go = training.train(small_plan, verbose=0).get_weights()
    monkeypatch.setattr(store, "RUNS", tmp_path / "interrupted")
    for stop_after in (2, 3, 4):  # within a cycle, between two, within the last
        assert training.train(small_plan, stop_after, verbose=0) is None
    in_parts = training.train(small_plan, verbose=0).get_weights()
    for before, one, other in zip(untrained, in_one_go, in_parts, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one - before).max() > 1e-5


@pytest.mark.parametrize("where", ["in an epoch", "while a checkpoint is written"])
def test_a_killed_run_loses_one_epoch_at_most(small_plan, tmp_path, monkeypatch, where):
    in_one_go = training.train(small_plan, verbose=0).get_weights()
    monkeypatch.setattr(store, "RUNS", tmp_path / "killed")

    class Killed(BaseException):
        """Nothing catches it, as nothing catches a signal that kills."""

    def kill(self, epoch_or_batch, logs=None):
        if self.model.optimizer.iterations == (10 if where == "in an epoch" else 9):
            if where != "in an epoch":
                self.model.save_weights(self.run_dir / "partial.weights.h5", overwrite=True)
            raise Killed
        return finish(self, epoch_or_batch, logs)

    finish = training.Checkpoint.on_epoch_end
    with monkeypatch.context() as patch:
        if where == "in an epoch":
            finish = training.Checkpoint.on_train_batch_end
            patch.setattr(training.Checkpoint, "on_train_batch_end", kill)
        else:
            patch.setattr(training.Checkpoint, "on_epoch_end", kill)
        with pytest.raises(Killed):
            training.train(small_plan, verbose=0)
    kept = training.checkpoints(small_plan.run_dir)[-1].name
    assert kept == ("epoch-0003" if where == "in an epoch" else "epoch-0002") + ".weights.h5"
    resumed = training.train(small_plan, verbose=0).get_weights()
    for one, other in zip(in_one_go, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", models.METHODS)
def test_an_epoch_of_the_shipped_weights_took_less_than_ten_minutes(method):
    card = json.loads(models.weights_path(method).with_suffix(".json").read_text())
    assert card["minutes"] / sum(card["plan"]["cycles"]) < 10


def test_training_goes_on_from_trained_weights_by_muon(small_plan, tmp_path, monkeypatch):
    first = training.train(small_plan, verbose=0)
    training.export(small_plan, first, tmp_path / "first")
    more = dataclasses.replace(
        small_plan, cycles=(2,), optimizer="Muon", start=str(tmp_path / "first")
    )
    start = training.compile_model(more).get_weights()
    assert more.run_dir != small_plan.run_dir
    in_one_go = training.train(more, verbose=0)
    training.export(more, in_one_go, tmp_path / "second")
    card = json.loads((tmp_path / "second" / "spectrogram.json").read_text())
    assert card["start"] == json.loads((tmp_path / "first" / "spectrogram.json").read_text())
    assert card["plan"] == dataclasses.asdict(more) | {"cycles": [2]}

    monkeypatch.setattr(store, "RUNS", tmp_path / "interrupted")
    assert training.train(more, stop_after=1, verbose=0) is None
    in_parts = training.train(more, verbose=0)
    weights = (model.get_weights() for model in (first, in_one_go, in_parts))
    for before, earlier, one, other in zip(start, *weights, strict=True):
        np.testing.assert_array_equal(before, earlier)
        np.testing.assert_array_equal(one, other)
        assert np.abs(one - before).max() > 1e-5


def test_a_grown_model_starts_as_what_it_was():
    small, large = (
        keras.Sequential([keras.Input((9, 4, n)), keras.layers.Conv2D(3, (taps, 1))])
        for n, taps in ((2, 2), (5, 3))
    )
    large.set_weights(training.grown(small, large))
    x = white(9 * 4 * 5).reshape(1, 9, 4, 5)
    np.testing.assert_allclose(large(x), small(x[..., :2])[:, :-1], atol=1e-6)

    trained, samples = perturbed("spectrogram"), white(16_000)
    waits = spectrogram.build(ahead=1)
    waits.set_weights(training.grown(trained, waits))
    one, other = (through(model, "spectrogram", samples) for model in (trained, waits))
    # the one that waits hears a frame of zeros more at the start
    np.testing.assert_allclose(one[8_000:], other[8_000:], atol=2e-3)
    with pytest.raises(ValueError, match="of a larger model"):
        training.grown(large, small)


@pytest.mark.parametrize("method", models.TRAINABLE)
def test_a_model_with_more_units_starts_as_what_it_was_and_the_new_ones_can_learn(method):
    trained, larger = perturbed(method, units=16), models.module(method).build(units=24)
    larger.set_weights(training.grown(trained, larger))
    frames, outputs = frames_of(trained, 20), []
    with tf.GradientTape() as tape:
        for model in (trained, larger):
            outputs.append(model([frames, *zero_states(model, 1)])[0])
        loss = tf.reduce_sum(outputs[-1] ** 2)
    np.testing.assert_allclose(*outputs, atol=1e-5)
    assert np.std(outputs[0]) > 1e-3
    readers = [
        weight
        for weight, before in zip(larger.trainable_weights, trained.trainable_weights, strict=True)
        if isinstance(larger.get_layer(weight.path.split("/")[0]), keras.layers.Dense)
        and weight.shape[0] > before.shape[0] == 16
        and len(weight.shape) == 2
    ]
    assert readers
    for weight, gradient in zip(readers, tape.gradient(loss, readers), strict=True):
        assert np.all(np.abs(gradient[16:]).max(axis=1) > 0), weight.path


def test_muon_leaves_the_waveform_bases_and_what_is_no_matrix_to_adam():
    variables = waveform.build().trainable_variables
    optimizer = training.make_optimizer("Muon", 1e-3)
    optimizer.build(variables)
    found = zip(variables, optimizer.adam_velocities, strict=True)
    by_adam = {variable.path for variable, velocity in found if velocity is not None}
    convolutions = {variable.path for variable in variables if len(variable.shape) > 2}
    biases = {v.path for v in variables if len(v.shape) == 1}
    assert by_adam == {"encoder/kernel", "decoder/kernel"} | convolutions | biases


def test_the_weights_of_the_loss_reach_it():
    plan = training.Plan("waveform", si_sdr_weight=0.3, level_weight=0.02, start="data/models")
    assert training.cycle_loss(plan, 0).si_sdr_weight == 0.3
    assert training.cycle_loss(plan, 0).level_weight == 0.02
    assert training.cycle_loss(plan, 0).linear_below == 0.2  # no first cycle, having a start
    assert training.cycle_loss(training.Plan("waveform"), 0).linear_below == 0.0


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="choose Adam or Muon"):
        training.make_optimizer("SGD", 1e-3)


def test_a_share_of_the_weights_to_start_from_is_kept(small_plan, tmp_path):
    first = training.train(small_plan, verbose=0)
    training.export(small_plan, first, tmp_path)
    more = dataclasses.replace(small_plan, cycles=(1,), start=str(tmp_path))
    trained = training.train(more, verbose=0).get_weights()
    kept = training.train(dataclasses.replace(more, start_share=0.25), verbose=0).get_weights()
    for mean, old, new in zip(kept, first.get_weights(), trained, strict=True):
        np.testing.assert_allclose(mean, 0.25 * old + 0.75 * new, atol=1e-6)
    assert any(np.abs(old - new).max() > 1e-4 for old, new in zip(kept, trained, strict=True))


def test_a_share_of_no_weights_to_start_from_is_refused(small_plan):
    with pytest.raises(ValueError, match="add --start"):
        training.train(dataclasses.replace(small_plan, start_share=0.5))
    assert not small_plan.run_dir.exists()


def test_a_specialist_trains_on_one_kind_of_noise(small_plan, tmp_path):
    plan = dataclasses.replace(small_plan, cycles=(1,), noise="inverter")
    assert training.train(plan, verbose=0) is not None
    options = {"n_clips": 16, "seed": 1, "only": "inverter", "verbose": False}
    before = set((tmp_path / "cache").iterdir())
    noise_bank.NoiseBank.render(tmp_path / "cache" / "bank-train", (), **options)
    assert set((tmp_path / "cache").iterdir()) == before  # that very bank was there
    with pytest.raises(ValueError, match="unknown noise kind 'hum'"):
        training.train(dataclasses.replace(plan, noise="hum"))
    assert not dataclasses.replace(plan, noise="hum").run_dir.exists()


def test_a_training_does_not_go_on_with_other_noise(small_plan, tmp_path, monkeypatch):
    for i in range(12):
        place = tmp_path / "recordings" / f"pump{i}"
        place.mkdir(parents=True)
        audio.write(place / "one.flac", np.full(16_000, 0.1, "float32"))
    small_plan.run_dir.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "find_noise", lambda verbose=False: tmp_path / "recordings")
        training.check_data(small_plan)  # a start without an epoch binds nothing
    training.train(small_plan, stop_after=2, verbose=0)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "find_noise", lambda verbose=False: tmp_path / "recordings")
        with pytest.raises(store.FileError, match="begun with other noise; bring that back"):
            training.train(small_plan, verbose=0)
    assert training.epochs_done(small_plan.run_dir) == 2
    assert training.train(small_plan, verbose=0) is not None


def test_a_corpus_of_too_few_speakers_cannot_be_trained_on(small_plan, monkeypatch):
    table = corpus.read_corpus(corpus.find_corpus())
    monkeypatch.setattr(corpus, "read_corpus", lambda folder: table[table.split == "train"])
    with pytest.raises(corpus.CorpusError, match="too few speakers, none for validation and test"):
        training.train(small_plan)


def test_recordings_of_one_folder_cannot_train_a_specialist(small_plan, tmp_path, monkeypatch):
    folder = tmp_path / "recordings" / "pump"
    folder.mkdir(parents=True)
    audio.write(folder / "one.flac", np.full(16_000, 0.1, "float32"))
    monkeypatch.setattr(corpus, "find_noise", lambda verbose=False: folder.parent)
    with pytest.raises(ValueError, match=r"recordings: no recordings for .*ten or more"):
        training.train(dataclasses.replace(small_plan, noise="recorded"), verbose=0)


@pytest.mark.parametrize(
    "setting", [{"seed": 7}, {"cycles": (3, 1)}, {"noise": "inverter"}, {"level_weight": 0.01}]
)
def test_another_setting_is_another_run(small_plan, setting):
    assert dataclasses.replace(small_plan).run_dir == small_plan.run_dir
    other = dataclasses.replace(small_plan, **setting).run_dir
    assert other != small_plan.run_dir
    assert other.parent == small_plan.run_dir.parent


def test_an_unknown_method_is_refused_before_anything_is_written(small_plan):
    plan = dataclasses.replace(small_plan, method="spectogram")
    with pytest.raises(ValueError, match="'spectogram'; choose waveform, spectrogram, dtln"):
        training.train(plan)
    assert not store.RUNS.exists()


# --- weights, card and curve replaced as one ----------------------------------------------------


@pytest.fixture
def exported(small_plan, tmp_path):
    """A plan, its network of ones with a curve, exported into a folder."""
    network = one_layer(small_plan.method)
    network.set_weights([np.ones_like(one) for one in network.get_weights()])
    small_plan.run_dir.mkdir(parents=True)
    (small_plan.run_dir / "history.csv").write_text("epoch,loss,seconds,val_loss\n0,1,60,1\n")
    training.export(small_plan, network, tmp_path / "out")
    return small_plan, network, tmp_path / "out"


def three(folder) -> tuple:
    """A weight of the model that loads, the note on its card, and its learning curve."""
    weight = models.load("spectrogram", folder).get_weights()[0].flat[0]
    about = models.card("spectrogram", folder).get("about")
    return weight, about, models.beside("spectrogram", ".history.csv", folder).read_text()


def test_a_training_is_exported_where_there_is_no_git(exported, tmp_path, monkeypatch):
    plan, network, folder = exported
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    training.export(plan, network, folder)
    assert models.card("spectrogram", folder)["commit"] == ""


def test_weights_that_are_not_finite_are_not_exported(exported):
    plan, network, folder = exported
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for value in (np.nan, -np.inf):
        network.set_weights([np.full_like(one, value) for one in network.get_weights()])
        with pytest.raises(models.WeightsError, match=r"spectrogram.keras: .* not finite; remove"):
            training.export(plan, network, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


class Killed(BaseException):
    """Nothing catches it, as nothing catches a signal that kills."""


def test_a_kill_in_an_export_leaves_the_old_three_or_the_new(exported, monkeypatch):
    """Killed before each step that touches a file; nothing is tidied up after that."""
    plan, network, folder = exported
    old = three(folder)
    network.set_weights([0 * one for one in network.get_weights()])
    curve = "epoch,loss,seconds,val_loss\n0,2,60,2\n"
    (plan.run_dir / "history.csv").write_text(curve)
    new, found, steps = (0, "new", curve), [], 0
    while True:
        with monkeypatch.context() as patch:
            kill_before_step(patch, steps)
            try:
                training.export(plan, network, folder, {"about": "new"})
                break
            except Killed:
                found.append(three(folder))
        steps += 1
        assert steps < 100
    assert three(folder) == new
    assert set(found) == {old, new}
    assert found == sorted(found, key=[old, new].index)  # one switch, and no way back
    names = {"spectrogram.keras", "spectrogram.json", "spectrogram.history.csv"}
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == names


def kill_before_step(patch, n: int) -> None:
    """From its n-th renaming, writing or removing on, the process does nothing any more."""
    left = iter(range(n))

    def dying(act):
        def wrapped(*args, **kwargs):
            if next(left, None) is None:
                raise Killed
            return act(*args, **kwargs)

        return wrapped

    for place, name in (
        *((os, name) for name in ("replace", "open")),
        *((Path, name) for name in ("replace", "unlink", "write_text", "chmod", "mkdir")),
        (tempfile, "mkstemp"),
    ):
        patch.setattr(place, name, dying(getattr(place, name)))


def test_exports_follow_each_other_after_a_kill_at_the_switch(exported, monkeypatch):
    """Weights of the second, card and curve still under their staged names: then a third."""
    plan, network, folder = exported
    for about in ("second", "third"):
        network.set_weights([one + 1 for one in network.get_weights()])
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                training.export(plan, network, folder, {"about": about})
        assert three(folder)[1] == about
    training.export(plan, network, folder, {"about": "fourth"})
    assert three(folder)[1] == "fourth"
    assert len([path for path in folder.iterdir() if path.suffix != ".lock"]) == 3


# --- what a stop may leave in a run -------------------------------------------------------------


def test_half_a_plan_and_half_a_line_throw_no_training_away(small_plan, tmp_path, monkeypatch):
    in_one_go = training.train(small_plan, verbose=0).get_weights()
    monkeypatch.setattr(store, "RUNS", tmp_path / "stopped")
    assert training.train(small_plan, stop_after=3, verbose=0) is None
    history, plan = (small_plan.run_dir / name for name in ("history.csv", "plan.json"))
    history.write_text(history.read_text()[:-12])  # in the middle of the last number
    plan.write_text(plan.read_text()[:20])
    resumed = training.train(small_plan, verbose=0)
    for one, other in zip(in_one_go, resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    training.export(small_plan, resumed, tmp_path / "out")
    curve = pd.read_csv(tmp_path / "out" / "spectrogram.history.csv")
    assert curve.epoch.tolist() == [0, 1, 3, 4]
    assert list(curve) == list(training.CURVE)
    assert json.loads(plan.read_text())["seed"] == small_plan.seed


def test_a_full_disk_costs_a_checkpoint_and_is_one_line(small_plan, tmp_path, monkeypatch):
    """A limit on the size of files stands in for it."""
    in_one_go = training.train(small_plan, verbose=0).get_weights()
    monkeypatch.setattr(store, "RUNS", tmp_path / "full")
    training.train(small_plan, stop_after=2, verbose=0)
    kept = {path.name for path in small_plan.run_dir.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(store.FileError) as caught:
            training.train(small_plan, verbose=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = (
        rf"{small_plan.run_dir}/epoch-0003\S+: not written \(File too large\); make room .* epoch 2"
    )
    assert re.fullmatch(text, str(caught.value))
    assert {path.name for path in small_plan.run_dir.iterdir()} == kept
    resumed = training.train(small_plan, verbose=0).get_weights()
    for one, other in zip(in_one_go, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_plan_twice_at_once_is_refused_in_one_line(small_plan, monkeypatch):
    seen = []

    def during(plan, *args):
        with pytest.raises(store.FileError) as caught:
            training.train(plan)
        seen.append(str(caught.value))
        training.train(dataclasses.replace(plan, seed=9))  # another plan is another matter

    with monkeypatch.context() as patch:
        first = training._train
        patch.setattr(training, "_train", lambda *args: during(*args) if not seen else None)
        training.train(small_plan)
        patch.setattr(training, "_train", first)
    assert seen == [f"{small_plan.run_dir}: another process is at work on it; wait for its end"]
    assert not list(store.RUNS.glob(".*.lock"))
    assert training.train(small_plan, stop_after=1) is None  # nobody holds it now


def test_an_epoch_that_is_run_again_stands_once_in_the_curve(small_plan):
    training.train(small_plan, stop_after=3, verbose=0)
    training.checkpoints(small_plan.run_dir)[-1].unlink()
    training.train(small_plan, verbose=0)
    assert pd.read_csv(small_plan.run_dir / "history.csv").epoch.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("last", ["Stopwatch", "History", "Checkpoint"])
def test_a_kill_after_any_callback_costs_no_line_of_the_curve(small_plan, monkeypatch, last):
    def then_die(self, epoch, logs=None):
        act(self, epoch, logs)
        if epoch == 2:
            raise Killed

    callback = getattr(training, last)
    act = callback.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(callback, "on_epoch_end", then_die)
        with pytest.raises(Killed):
            training.train(small_plan, verbose=0)
    training.train(small_plan, verbose=0)
    assert pd.read_csv(small_plan.run_dir / "history.csv").epoch.tolist() == [0, 1, 2, 3, 4]
