"""`helpers.models.ablation` and `helpers.models.picture`: the steps from a picture to a mask."""

import numpy as np
import pytest

from helpers import audio
from helpers.backend import tf
from helpers.evaluation import metrics
from helpers.models import ablation, picture
from helpers.models.blocks import WaveformWrapper

NETWORKS = pytest.mark.parametrize("settings", ablation.NETWORKS.values(), ids=ablation.NETWORKS)


@pytest.fixture(scope="module")
def pair():
    """A clean and a noisy batch, float32 (2, 8000)."""
    rng = np.random.default_rng(0)
    clean = rng.normal(0, 0.1, (2, 8_000)) * np.sin(np.arange(8_000) / 500)
    return np.float32(clean), np.float32(clean + rng.normal(0, 0.05, clean.shape))


@NETWORKS
@pytest.mark.parametrize("n_samples", [8_000, 3_001])
def test_as_long_as_it_came_and_level_free(settings, n_samples, pair):
    model = WaveformWrapper(picture.build(**settings), picture.HOP_LENGTH)
    noisy = pair[1][:, :n_samples]
    denoised = model(noisy).numpy()
    assert denoised.shape == noisy.shape
    assert np.isfinite(denoised).all()
    louder = model(10 * noisy).numpy()
    np.testing.assert_allclose(louder, 10 * denoised, atol=1e-3 * np.abs(louder).max() + 1e-7)


@pytest.mark.parametrize("scale", ["db", "compressed"])
def test_a_picture_can_be_turned_back(scale):
    rng = np.random.default_rng(1)
    S = np.float32(rng.normal(0, 1, (1, 16, 257, 2)))
    layer = picture.Picture(scale)
    image, level = layer(S)
    magnitude = layer.magnitude(image, level).numpy()[..., 0]
    expected = np.hypot(S[..., 0], S[..., 1])[:, :, 1:]
    loud = expected > 0.02  # below lies the floor of the picture
    np.testing.assert_allclose(magnitude[loud], expected[loud], rtol=5e-3)
    again = picture.Picture.from_config(layer.get_config())
    assert again.scale == scale


@pytest.mark.parametrize("name", ablation.LOSSES)
def test_loss_is_least_for_the_clean_signal(name, pair):
    clean, noisy = pair
    loss = ablation.LOSSES[name]
    right, wrong = (np.asarray(loss(tf.constant(clean), tf.constant(x))) for x in (clean, noisy))
    assert right.shape == (2,)
    assert (right < wrong).all()


@pytest.mark.parametrize("name", ablation.LOSSES)
def test_gradient_is_finite_where_nobody_speaks(name, pair):
    silence, denoised = tf.zeros([2, 8_000]), tf.Variable(pair[1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(ablation.LOSSES[name](silence, denoised))
    assert np.isfinite(tape.gradient(loss, denoised).numpy()).all()


def test_every_step_differs_in_one_thing():
    steps = ablation.steps()
    assert len(steps) == len(ablation.NETWORKS) + len(ablation.LOSSES) - 2
    settings = [settings for settings, _ in steps.values()]
    assert all(one == ablation.MASK for one in settings[len(ablation.NETWORKS) - 1 :])
    assert len({loss for _, loss in list(steps.values())[len(ablation.NETWORKS) - 1 :]}) == 7
    assert all(loss in ablation.LOSSES for _, loss in steps.values())


def test_griffin_lim_keeps_the_magnitude():
    t = np.arange(8_000) / audio.SAMPLE_RATE
    clean = np.float32(0.1 * np.sin(2 * np.pi * 440 * t))
    magnitude = np.abs(audio.stft(clean))
    again = ablation.griffin_lim(magnitude, len(clean))
    assert again.dtype == np.float32
    error = np.abs(audio.stft(again)) - magnitude
    assert np.sum(error**2) < 0.1 * np.sum(magnitude**2)
    assert metrics.level(clean, again) == pytest.approx(0, abs=1)
