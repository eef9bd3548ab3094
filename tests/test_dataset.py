"""`helpers.data.dataset`: training pairs that can be made again from their number."""

import numpy as np
import pytest

from helpers import audio
from helpers.data import dataset, noise_bank

N_SAMPLES = 16_000
ITEMS = 300


@pytest.fixture(scope="module")
def pool(speech_files):
    return dataset.load_speech(speech_files, verbose=False)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank"
    return noise_bank.NoiseBank.render(path, n_clips=10, seconds=3, verbose=False)


@pytest.fixture(scope="module")
def examples(pool, bank):
    """Pairs number 0 to ITEMS - 1."""
    return [dataset.example(i, pool, bank, N_SAMPLES, seed=1) for i in range(ITEMS)]


def is_clean(pair):
    return np.array_equal(*pair)


def is_noise_only(pair):
    return not pair[1].any()


def test_pool_is_all_files_end_to_end(pool, speech_files):
    clips = [audio.read(path) for path in speech_files]
    assert pool.dtype == np.int16
    np.testing.assert_allclose(pool / 32768, np.concatenate(clips), atol=2e-4)


def test_example_is_reproducible_bit_for_bit(pool, bank, examples):
    for item in (0, 7, 123):
        again = dataset.example(item, pool, bank, N_SAMPLES, seed=1)
        assert np.array_equal(again, examples[item])
    assert not np.array_equal(dataset.example(0, pool, bank, N_SAMPLES, seed=2), examples[0])


def test_examples_are_finite_float32_of_the_asked_length(examples):
    for part in np.array(examples).reshape(-1, N_SAMPLES):
        assert np.isfinite(part).all()
    assert {x.dtype for pair in examples for x in pair} == {np.dtype(np.float32)}
    assert len({pair[0].tobytes() for pair in examples}) == ITEMS  # no two alike


def test_shares_of_clean_and_noise_only_examples(examples):
    clean = sum(map(is_clean, examples)) / ITEMS
    noise_only = sum(map(is_noise_only, examples)) / ITEMS
    assert clean == pytest.approx(noise_bank.CLEAN_SHARE, abs=0.05)
    assert noise_only == pytest.approx(noise_bank.NOISE_ONLY_SHARE, abs=0.035)


def test_levels_and_snr_fill_their_ranges(examples):
    with_speech = [pair for pair in examples if not is_noise_only(pair)]
    levels = [audio.level_db(clean) for _, clean in with_speech]
    mixed = [pair for pair in with_speech if not is_clean(pair)]
    snrs = [audio.level_db(clean) - audio.level_db(noisy - clean) for noisy, clean in mixed]
    for values, (low, high) in ((levels, noise_bank.LEVEL_RANGE), (snrs, noise_bank.SNR_RANGE)):
        assert low - 0.01 <= min(values) < low + 3
        assert high - 5 < max(values) <= high + 0.01
    assert max(np.abs(noisy).max() for noisy, _ in mixed) <= 1


def test_speech_shorter_than_an_example_is_padded(pool):
    rng = np.random.default_rng(0)
    cuts = [dataset.cut_speech(pool[:5_000], rng, N_SAMPLES) for _ in range(20)]
    assert {cut.shape for cut in cuts} == {(N_SAMPLES,)}
    assert any(np.array_equal(cut[:5_000], pool[:5_000] / np.float32(32768)) for cut in cuts)
    longest = int(5_000 / dataset.SPEED_RANGE[0])
    assert all(cut[:3_000].any() and not cut[longest + 1 :].any() for cut in cuts)


def test_most_speech_keeps_its_speed_and_all_of_its_band():
    rng = np.random.default_rng(0)
    ramp = np.arange(-20_000, 20_000, dtype=np.int16)  # the slope of a cut is its speed
    cuts = np.array([dataset.cut_speech(ramp, rng, N_SAMPLES) for _ in range(ITEMS)])
    slopes = 32768 * np.diff(cuts, axis=1)
    untouched = (slopes == 1).all(axis=1)
    assert 1 - untouched.mean() == pytest.approx(dataset.SPEED_SHARE, abs=0.08)
    low, high = dataset.SPEED_RANGE
    speeds = slopes[~untouched][:, 4_000:-4_000].mean(axis=1)
    assert speeds.min() == pytest.approx(low, abs=0.02)
    assert speeds.max() == pytest.approx(high, abs=0.02)


def test_dataset_gives_batches_and_goes_on_where_it_stopped(pool, bank, examples):
    options = {"seconds": 1.0, "batch_size": 4, "n_batches": 5, "seed": 1}
    whole = list(dataset.make_dataset(pool, bank, **options).as_numpy_iterator())
    tail = list(dataset.make_dataset(pool, bank, **options, first_batch=3).as_numpy_iterator())
    assert [np.shape(batch) for batch in whole] == [(2, 4, N_SAMPLES)] * 5
    assert np.array_equal(whole[3:], tail)
    assert np.array_equal(np.swapaxes(whole, 1, 2).reshape(20, 2, N_SAMPLES), examples[:20])


def test_workers_that_each_make_some_batches_give_the_same(pool, bank, examples):
    def draw(item):
        return dataset.example(item, pool, bank, N_SAMPLES, 1)

    batches = dataset.Batches(draw, 4, range(3, 5))  # as PyTorch takes them
    assert len(batches) == 2
    tail = [batches[i] for i in range(len(batches))]
    assert np.array_equal(np.swapaxes(tail, 1, 2).reshape(8, 2, N_SAMPLES), examples[12:20])
