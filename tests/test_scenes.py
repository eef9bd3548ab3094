"""`helpers.data.scenes`: what a recording holds beside speech and noise, and its conditions."""

import numpy as np
import pytest

from helpers import audio
from helpers.data import conditions, noise, scenes
from helpers.data.conditions import Condition

SR = audio.SAMPLE_RATE
LEVELS = {
    "room tone": scenes.ROOM_TONE_DB,
    "hum": scenes.HUM_DB,
    "rumble": scenes.RUMBLE_DB,
    "music": scenes.MUSIC_DB,
}


def rng():
    return np.random.default_rng(3)


def energy(samples, low=0.0, high=SR / 2):
    return float(np.sum(audio.band_limit(np.float64(samples), SR, low, high) ** 2))


@pytest.mark.parametrize("name", scenes.SCENES)
def test_a_scene_is_the_same_again_and_as_long_as_the_speech(name, speech):
    clean, background = scenes.SCENES[name](np.float64(speech), SR, rng())
    assert clean.shape == background.shape == speech.shape
    assert np.isfinite(clean).all()
    assert np.isfinite(background).all()
    again = scenes.SCENES[name](np.float64(speech), SR, rng())
    assert np.array_equal(again, (clean, background))


@pytest.mark.parametrize("name", LEVELS)
def test_a_background_has_its_level(name, speech):
    clean, background = scenes.SCENES[name](np.float64(speech), SR, rng())
    assert np.array_equal(clean, np.float64(speech))
    assert 10 * np.log10(energy(clean) / energy(background)) == pytest.approx(LEVELS[name])


@pytest.mark.parametrize(
    ("name", "low", "high"), [("hum", 45, 730), ("rumble", 19, 121), ("music", 200, 7_000)]
)
def test_a_background_lies_where_it_should(name, low, high, speech):
    _, background = scenes.SCENES[name](np.float64(speech), SR, rng())
    assert energy(background, low, high) > 0.99 * energy(background)


def test_room_tone_falls_by_six_db_an_octave(speech):
    _, tone = scenes.room_tone(np.float64(speech), SR, rng())
    octaves = [10 * np.log10(energy(tone, f, 2 * f)) for f in (250, 500, 1_000, 2_000)]
    np.testing.assert_allclose(np.diff(octaves), -3, atol=0.7)  # each octave is twice as wide


def test_a_telephone_cuts_and_a_room_lets_the_speech_ring(speech):
    narrow, background = scenes.telephone(np.float64(speech), SR, rng())
    assert not background.any()
    assert energy(narrow, *scenes.TELEPHONE) == pytest.approx(energy(narrow))
    click = np.zeros(SR)
    click[100] = 1
    ringing, _ = scenes.reverberation(click, SR, rng())
    assert ringing[100] == pytest.approx(1)
    tail = np.sum(ringing[101:] ** 2)
    assert 10 * np.log10(1 / tail) == pytest.approx(scenes.DIRECT_DB, abs=0.1)
    early, late = (np.sum(ringing[a : a + 400] ** 2) for a in (101, 101 + SR // 4))
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=1.5)  # half of the 60 dB


@pytest.mark.parametrize("title", conditions.RECORDINGS)
def test_noisy_is_the_sum_and_the_noise_has_its_snr(title, speech):
    condition = conditions.RECORDINGS[title]
    clean, rest, noisy = conditions.make_noisy("a", speech, condition, 0)
    np.testing.assert_allclose(clean + rest, noisy, atol=1e-6)
    assert np.abs(noisy).max() <= 1
    kind, scene = scenes.split_kind(condition.kind)
    if kind != "none" and scene in ("", "offset", "telephone", "reverberation"):
        added = energy(rest, condition.low - 1, condition.high + 1)
        assert 10 * np.log10(energy(clean) / added) == pytest.approx(condition.snr_db, abs=0.1)


def test_a_scene_is_drawn_by_the_utterance(speech):
    """The same one again for the same name, another for another."""
    condition = Condition("white + hum")
    first, again = (conditions.make_noisy("a", speech, condition, 0)[2] for _ in range(2))
    assert np.array_equal(first, again)
    other = conditions.make_noisy("b", speech, condition, 0)[2]
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["white + sea", "sea + hum", "white + hum + music"])
def test_an_unknown_scene_is_refused(kind):
    with pytest.raises(ValueError, match="choose"):
        Condition.parse(kind)


def test_beeps_go_on_and_off():
    samples = noise.beeps(4 * SR, SR, rng(), 2_200, 2_400)
    assert energy(samples, 2_100, 2_500) > 0.99 * energy(samples)
    loud = np.abs(samples).reshape(-1, SR // 50).max(axis=1)
    assert 0.3 < np.mean(loud < 0.1) < 0.7
