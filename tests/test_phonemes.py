"""`helpers.evaluation.phonemes`: pronunciations, features, batches, the loss and the best path."""

import numpy as np
import pytest

from experiments.phonemes import errors
from helpers import audio
from helpers.backend import keras
from helpers.evaluation import phonemes

SR = audio.SAMPLE_RATE


def test_words_become_phonemes_without_stress():
    assert phonemes.pronounce("HELLO WORLD") == ["HH", "AH", "L", "OW", "W", "ER", "L", "D"]
    assert len(phonemes.PHONEMES) == 39
    assert phonemes.is_known("THE CAT")
    assert not phonemes.is_known("THE DUNSTABLISH CAT")


def test_a_missing_word_is_read_like_the_nearest_spelling():
    assert phonemes.pronounce("MAINHALL") == phonemes.pronounce("MINSHALL")
    found = phonemes.classes(phonemes.pronounce("A CAT"))
    assert [phonemes.PHONEMES[k - 1] for k in found] == ["AH", "K", "AE", "T"]


def test_features_know_neither_level_nor_colour():
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 2 * SR).astype("float32")
    features = phonemes.log_mel(samples)
    assert features.dtype == np.float16
    assert features.shape[1] == phonemes.N_MELS
    assert abs(len(features) - 200) <= 3
    np.testing.assert_allclose(phonemes.log_mel(0.01 * samples), features, atol=0.02)
    np.testing.assert_allclose(features.mean(0, dtype="float32"), 0, atol=0.01)
    assert np.isfinite(phonemes.log_mel(np.zeros(SR, np.float32))).all()


def test_an_epoch_has_every_utterance_once_and_comes_again_the_same():
    rng = np.random.default_rng(1)
    versions = [[rng.normal(size=(n, 64)).astype("float16") for n in (90, 150, 210, 99, 30)]] * 2
    labels = [np.full(3 + i, i + 1, np.int32) for i in range(5)]
    for epoch in (0, 1):
        batches = list(phonemes.batches(versions, labels, 2, epoch))
        assert [len(x) for x, _ in batches].count(2) == 2
        assert sorted(row[0] for _, y in batches for row in y) == [1, 2, 3, 4, 5]
        for x, y in batches:
            assert x.dtype == np.float32
            assert x.shape[1] % 100 == 0
            assert y.dtype == np.int32
        again = list(phonemes.batches(versions, labels, 2, epoch))
        assert all(
            np.array_equal(a, b)
            for one, two in zip(batches, again, strict=True)
            for a, b in zip(one, two, strict=True)
        )
    hidden = phonemes.hide_blocks(versions[0][1], rng)
    assert 0 < np.mean(hidden == 0) < 0.8
    assert not np.any(versions[0][1] == 0)


def test_loss_is_that_of_keras():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 40, 40)).astype("float32")
    labels = phonemes.pad_labels([np.array([5, 5, 7]), np.array([1]), np.array([39, 2, 3, 4])])
    ours = phonemes.CTC(reduction="none")(labels, logits)
    theirs = keras.losses.CTC(reduction="none")(labels, logits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_best_path_merges_repeats_and_drops_blanks():
    path = [0, 5, 5, 0, 5, 7, 0, 0]

    def model(x, training):
        logits = np.full((len(x), len(path), 40), -9.0, np.float32)
        logits[:, np.arange(len(path)), path] = 9.0
        return logits

    names = [phonemes.PHONEMES[k - 1] for k in (5, 5, 7)]
    features = [np.zeros((30, 64), np.float16)] * 3
    assert phonemes.recognise(model, features, batch_size=2) == [" ".join(names)] * 3
    found = errors([names, names[:2], names], [" ".join(names)] * 3)
    assert found.errors.tolist() == [0, 1, 0]
    assert found.words.tolist() == [3, 2, 3]


def test_network_learns_one_utterance_by_heart():
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    features = [rng.normal(size=(80, 64)).astype("float16")]
    labels = [np.array([3, 9, 9, 30], np.int32)]
    model = phonemes.build(units=32, filters=32, dropout=0.0)
    assert model.output_shape == (None, None, 40)
    model.compile(keras.optimizers.Adam(3e-3), phonemes.CTC())
    x, y = next(phonemes.batches([features], labels, 1, 0, mask=False))
    for _ in range(1_000):
        model.reset_metrics()  # else the loss is the mean of all steps
        if (loss := model.train_on_batch(x, y)) < 0.05:
            break
    assert loss < 0.05
    (heard,) = phonemes.recognise(model, features)
    assert heard.split() == [phonemes.PHONEMES[k - 1] for k in labels[0]]


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_recogniser_takes_short_and_long_clips(seconds):
    samples = np.random.default_rng(4).normal(0, 0.1, int(seconds * SR)).astype("float32")
    model = phonemes.build(units=8, filters=8)
    assert len(phonemes.recognise(model, [phonemes.log_mel(samples)])) == 1
