"""`helpers.models.dtln`: a peer's network as a model of frames, and its training by a plan."""

import itertools

import numpy as np
import pytest

from experiments import evaluate, train
from helpers import models, store
from helpers.backend import keras
from helpers.data import corpus
from helpers.models import export, spectrogram, training
from helpers.models.blocks import WaveformWrapper, hop_length, zero_states


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.build("dtln")


def through(network: keras.Model, samples: np.ndarray) -> np.ndarray:
    """A clip `(samples,)` through the network as a whole."""
    return WaveformWrapper(network, hop_length(network))(samples[None])[0].numpy()


def changes(network: keras.Model, samples: np.ndarray, at: int) -> np.ndarray:
    """Absolute changes of the output, `(samples,)`, when the input changes from a sample on."""
    other = np.concatenate([samples[:at], -samples[at:]])
    return np.abs(through(network, samples) - through(network, other))


def test_size_is_the_published_one(network):
    assert network.count_params() == 986_753  # "987 k"


@pytest.mark.parametrize("n_samples", [1, 511, 512, 4_001])
def test_what_comes_out_is_as_long_as_what_goes_in(network, noisy, n_samples):
    out = through(network, noisy[:n_samples])
    assert out.shape == (n_samples,)
    assert np.isfinite(out).all()
    assert np.abs(out).max() > 0


@pytest.mark.parametrize("at", [2_000, 2_048])
def test_it_waits_for_one_frame_and_no_longer(network, noisy, at):
    change = changes(network, noisy[:4_000], at)
    first = -(-(at - 511) // 128) * 128  # of the first frame that holds the sample
    assert change[:first].max() < 1e-7
    assert change[first : first + 128].max() > 1e-5


def test_blocks_with_states_equal_the_whole(network):
    frames = keras.random.normal((1, 20, 512), stddev=0.1, seed=1)
    whole = network([frames, *zero_states(network, 1)])
    states, parts = zero_states(network, 1), []
    for start, end in itertools.pairwise((0, 1, 4, 13, 20)):
        part, *states = network([frames[:, start:end], *states])
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole[0], atol=1e-6)
    for state, expected in zip(states, whole[1:], strict=True):
        np.testing.assert_allclose(state, expected, atol=1e-6)


def test_masks_of_one_and_a_basis_of_single_samples_give_the_input_back(noisy):
    network = models.build("dtln")
    for name in ("mask_1", "mask_3"):
        network.get_layer(name).bias.assign(np.full(network.get_layer(name).bias.shape, 40.0))
    middle = np.eye(512, dtype="float32")[:, 128:384]  # half of a frame, so each sample is in two
    network.get_layer("encoder").set_weights([middle])
    network.get_layer("decoder").set_weights([middle.T / 2])
    np.testing.assert_allclose(through(network, noisy[:4_001]), noisy[:4_001], atol=1e-6)


def test_masks_of_zero_give_silence(noisy):
    network = models.build("dtln")
    layer = network.get_layer("mask_1")
    layer.set_weights([np.zeros(layer.kernel.shape), np.full(layer.bias.shape, -100.0)])
    assert np.abs(through(network, noisy[:4_001])).max() < 1e-9


# --- its training -------------------------------------------------------------------------------


def test_its_plan_is_one_step_of_the_spectrogram_model(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    (step,) = train.read_plan("peer_architecture")
    ours = next(one.plan for one in train.read_plan("spectrogram") if one.name == "seventh")
    assert step.plan.hours == pytest.approx(53.3, abs=0.1)
    free = {"method", "cycles", "seed", "start"}
    for name in vars(step.plan).keys() - free:
        assert getattr(step.plan, name) == getattr(ours, name), name
    assert step.out == store.ROOT / "data" / "runs" / "peer_architecture"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The folder of weights after two steps on the bundled sample, and the plan."""
    monkeypatch.setenv("DENOISER_CORPUS", str(store.ROOT / "data" / "sample"))
    monkeypatch.setattr(corpus, "find_noise", lambda verbose=False: None)
    monkeypatch.setattr(store, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    sizes = {"batches": 2, "batch_size": 2, "seconds": 1.0, "validation_batches": 1}
    plan = training.Plan("dtln", (1,), optimizer="Muon", bank_clips=16, **sizes)
    train.Step("all", plan, tmp_path / "out").finish("a test", 0)
    return tmp_path / "out", plan


def test_a_plan_trains_it_and_the_weights_are_a_system(trained, noisy):
    folder, plan = trained
    network = models.load("dtln", folder)
    assert models.card("dtln", folder)["plan"]["method"] == "dtln"
    before = training.compile_model(plan).frame_model
    for layer in network.layers:  # every kernel has learned
        for old, new in zip(
            before.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            assert np.abs(old - new).max() > 0, layer.name
    assert not export.can_export(network)
    assert not models.has_light_model("dtln", folder)
    entry = evaluate.trained("dtln", folder)
    out = entry.system(noisy[:20_001])
    assert out.shape == (20_001,)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, through(network, noisy[:20_001]), atol=1e-6)
    assert entry.version == models.weights_sha256("dtln", folder)
    assert entry.code != evaluate.trained("spectrogram").code


def test_a_layer_of_the_same_name_does_not_take_its_place():
    """`dtln` has `MaskedFrames` too, and was imported last."""
    assert type(models.load("spectrogram").get_layer("denoised")) is spectrogram.MaskedFrames
