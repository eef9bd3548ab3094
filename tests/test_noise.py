"""`helpers.data.noise` and `noise_bank`: what noise is made of, and mixing at an SNR."""

import types

import numpy as np
import pytest
import scipy.signal
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from helpers import audio
from helpers.data import noise, noise_bank
from helpers.data.noise_bank import NoiseBank

SR = 16_000
seeds = st.integers(0, 2**32 - 1)
kinds = pytest.mark.parametrize("kind", noise.KINDS)


def rng(seed=0):
    return np.random.default_rng(seed)


def db(ratio):
    return 10 * np.log10(ratio)


def power(samples):
    return np.mean(np.square(samples, dtype=np.float64))


def outside_db(samples, low, high, sr=SR):
    """Energy outside the band re all energy, from one spectrum of the whole clip."""
    energy = np.abs(np.fft.rfft(samples)) ** 2
    f = np.fft.rfftfreq(len(samples), 1 / sr)
    return db(energy[(f < low) | (f > high)].sum() / energy.sum() + 1e-30)


@st.composite
def bands(draw):
    """A band of 500 Hz or more within 0-8 kHz."""
    low = draw(st.floats(0, 7_500))
    return low, draw(st.floats(low + 500, 8_000))


# --- kinds --------------------------------------------------------------------------------------


@kinds
@given(seed=seeds, band=bands(), n_samples=st.integers(800, 20_000))
def test_kind_has_unit_level_and_stays_in_its_band(kind, seed, band, n_samples):
    samples = noise.make(kind, n_samples, SR, rng(seed), *band)
    assert samples.dtype == np.float32
    assert samples.shape == (n_samples,)
    assert np.sqrt(power(samples)) == pytest.approx(1, abs=1e-3)  # NaN and infinity fail, too
    assert outside_db(samples, *band) < -60


@kinds
@pytest.mark.parametrize("sr", [8_000, 44_100])
def test_kind_at_other_rates(kind, sr):
    samples = noise.make(kind, sr // 2, sr, rng(), 1_000, 3_500)
    assert outside_db(samples, 1_000, 3_500, sr) < -60


@kinds
def test_all_randomness_comes_from_the_generator(kind):
    first, again, other = (noise.make(kind, 8_000, SR, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.fixture(scope="module")
def density():
    """A function kind, low, high -> frequencies well inside the band, power density there in dB."""

    def measure(kind, low, high):
        samples = noise.make(kind, 60 * SR, SR, rng(), low, high)
        f, p = scipy.signal.welch(samples, SR, nperseg=1_024)
        inside = (f > low + 50) & (f < high - 50)
        return f[inside], db(p[inside])

    return measure


@pytest.mark.parametrize("band", [(4_000, 8_000), (100, 7_900)])
def test_white_is_flat(density, band):
    _, p_db = density("white", *band)
    assert np.abs(p_db - p_db.mean()).max() < 1


@pytest.mark.parametrize(("kind", "slope"), [("white", 0), ("pink", -3), ("blue", 3)])
def test_slope_in_db_per_octave(density, kind, slope):
    f, p_db = density(kind, 200, 7_900)
    assert np.polyfit(np.log2(f), p_db, 1)[0] == pytest.approx(slope, abs=0.2)


@pytest.mark.parametrize("band", [(-1, 4_000), (4_000, 4_000), (5_000, 4_000), (4_000, 8_001)])
def test_impossible_band(band):
    with pytest.raises(ValueError, match=r"band .* does not fit 0-8000 Hz"):
        noise.make("white", 1_000, SR, rng(), *band)


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"unknown noise kind 'mauve'; choose white, .*recorded"):
        noise.make("mauve", 1_000, SR, rng())


def test_generator_of_an_item_depends_on_its_name_and_seed():
    draws = [
        noise.rng_for(n, s).integers(2**60) for n, s in (("a", 1), ("a", 1), ("b", 1), ("a", 2))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


# --- recorded noise -----------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path):
    """A long and a short recording, each with energy all over the spectrum."""
    paths = []
    for name, n_samples in (("long", 40_000), ("short", 3_000)):
        paths.append(tmp_path / f"{name}.wav")
        sf.write(paths[-1], rng(n_samples).uniform(-0.1, 0.1, n_samples), SR)
    return paths


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("low", [0, 2_000, 4_000])
def test_recorded_fills_the_length_and_the_band(recordings, which, low):
    samples = noise.make("recorded", 2 * SR, SR, rng(), low, 8_000, files=[recordings[which]])
    assert samples.shape == (2 * SR,)
    assert np.sqrt(power(samples)) == pytest.approx(1, abs=1e-3)
    assert outside_db(samples, low, 8_000) < -60
    assert outside_db(samples, 0, 6_000) > -20  # what lies in the band is there
    tenths = [power(part) for part in np.split(samples, 20)]
    assert min(tenths) > 0.2  # a repeated recording leaves no hole


def test_recorded_cuts_are_reproducible_and_differ(recordings):
    first, again, other = (
        noise.make("recorded", 8_000, SR, rng(seed), files=recordings[:1]) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_recorded_looks_for_a_cut_with_energy_in_the_band(tmp_path, recordings):
    sf.write(tmp_path / "silence.wav", np.zeros(SR), SR)
    files = [recordings[0], tmp_path / "silence.wav"]
    assert all(noise.recorded(8_000, SR, rng(seed), files=files).any() for seed in range(10))


def test_recorded_without_files():
    with pytest.raises(ValueError, match="no recorded noise here; set DENOISER_NOISE"):
        noise.make("recorded", 1_000, SR, rng())


def test_recordings_split_by_category(tmp_path):
    for i in range(40):
        (tmp_path / f"category{i}").mkdir()
        for name in ("1.wav", "2.FLAC", "3.ogg", "notes.txt"):
            (tmp_path / f"category{i}" / name).touch()
    everything = noise.recorded_files(tmp_path)
    assert len(everything) == 120
    assert everything == sorted(everything)
    splits = [noise.recorded_files(tmp_path, s) for s in ("train", "validation", "test")]
    assert sorted(path for files in splits for path in files) == everything
    categories = [{path.parent for path in files} for files in splits]
    assert all(categories)
    assert sum(map(len, categories)) == 40  # no category stands in two
    assert noise.recorded_files(None) == []


# --- mixing -------------------------------------------------------------------------------------


@given(
    seed=seeds,
    snr_db=st.floats(-20, 40),
    level=st.floats(-60, 0),
    n_samples=st.integers(1, 8_000),
)
def test_mix_reaches_the_snr_without_clipping(seed, snr_db, level, n_samples):
    clean = np.float32(10 ** (level / 20) * rng(seed).uniform(-1, 1, n_samples))
    added = np.float32(rng(seed + 1).standard_normal(n_samples))
    before = clean.copy(), added.copy()
    parts = noise.mix(clean, added, snr_db)
    assert np.array_equal(clean, before[0])
    assert np.array_equal(added, before[1])
    assert all(x.dtype == np.float32 and np.abs(x).max() <= 1 for x in parts)
    new_clean, new_noise, noisy = parts
    assert db(power(new_clean) / power(new_noise)) == pytest.approx(snr_db, abs=0.01)
    np.testing.assert_allclose(noisy, new_clean + new_noise, rtol=0, atol=1e-7)
    scale = np.abs(new_clean).max() / np.abs(clean).max()
    assert scale <= 1 + 1e-6
    np.testing.assert_allclose(new_clean, clean * scale, rtol=1e-5)


def test_mix_leaves_the_level_alone_where_nothing_clips():
    clean = np.float32(0.1 * rng().uniform(-1, 1, 1_000))
    assert np.array_equal(noise.mix(clean, rng(1).uniform(-1, 1, 1_000), 0)[0], clean)


def half_silent(n_channels):
    """1 s that sounds in its first half only; with two channels, the second is turned over."""
    clean = 0.1 * np.sin(2 * np.pi * 440 * np.arange(SR) / SR) * (np.arange(SR) < SR // 2)
    return np.stack([clean, -clean][:n_channels], axis=1)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_mix_over_active_speech(n_channels):
    clean, added = half_silent(n_channels), rng().standard_normal(SR)
    assert noise.active(clean, SR).tolist() == [True] * (SR // 2) + [False] * (SR // 2)
    new_clean, new_noise, noisy = noise.mix(clean, added, 5, over_active=True)
    assert noisy.shape == clean.shape
    assert db(power(new_clean[: SR // 2]) / power(new_noise)) == pytest.approx(5, abs=0.01)
    new_clean, new_noise, _ = noise.mix(clean, added, 5)
    assert db(power(new_clean) / power(new_noise)) == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("over_active", [False, True])
@pytest.mark.parametrize("silent", [(0, 1), (1, 0), (0, 0)])
def test_mix_refuses_silence(silent, over_active):
    clean, added = (gain * np.float32(rng().uniform(-1, 1, 1_000)) for gain in silent)
    with pytest.raises(ValueError, match="silent"):
        noise.mix(clean, added, 0, over_active=over_active)


# --- the equaliser ------------------------------------------------------------------------------


@pytest.fixture
def responses():
    """A function giving what the equaliser does to each frequency, in dB, for twenty seeds."""

    def measure():
        impulse = np.zeros(4_096)
        impulse[0] = 1
        equalised = [noise_bank.equalise(impulse, rng(seed)) for seed in range(20)]
        return 20 * np.log10(np.abs(np.fft.rfft(equalised)))

    return measure


def test_equaliser_stays_within_its_gains(responses, monkeypatch):
    monkeypatch.setattr(noise_bank, "TILT_RANGE", (0.0, 0.0))
    assert np.abs(responses()).max() <= noise_bank.LARGEST_DB + 0.01
    assert np.abs(responses()).max() > noise_bank.LARGEST_DB - 1


def test_equaliser_tilts_about_1_khz(responses, monkeypatch):
    monkeypatch.setattr(noise_bank, "LARGEST_DB", 0.0)
    at = [int(f / 8_000 * 2_048) for f in (1_000, 2_000, 4_000, 8_000)]
    low, middle, high, top = responses()[:, at].T
    assert np.allclose(low, 0, atol=0.05)
    assert np.allclose([high, top], [2 * middle, 3 * middle], atol=0.1)
    assert middle.min() < -0.5
    assert middle.max() > 2
    assert noise_bank.TILT_RANGE[0] <= middle.min() <= middle.max() <= noise_bank.TILT_RANGE[1]


# --- the bank -----------------------------------------------------------------------------------


def test_training_never_hears_the_held_out_kinds():
    assert sum(noise_bank.KIND_SHARES.values()) == pytest.approx(1)
    assert not set(noise.HELD_OUT_KINDS) & set(noise_bank.KIND_SHARES)
    assert set(noise.HELD_OUT_KINDS) <= set(noise.KINDS)
    assert set(noise_bank.KIND_SHARES) <= {*noise.TRAINING_KINDS, "coloured", "recorded"}


@given(seed=seeds)
def test_chopper_stays_in_its_band(seed):
    low, high = noise_bank.random_band(rng(seed))
    samples = noise.chopper(8_000, SR, rng(seed), low, high)
    assert samples.dtype == np.float32
    assert power(samples) == pytest.approx(1, abs=1e-3)
    assert outside_db(samples, low, high) < -60


def test_chopper_is_a_rectangular_wave_of_its_duty_cycle(monkeypatch):
    monkeypatch.setattr(noise, "slow_walk", lambda n_samples, *_: np.zeros(n_samples))
    uniform, integers = iter([5_000.0, np.array([0.2])]), iter([5, 1])  # 1 kHz, one load
    drawn = types.SimpleNamespace(
        uniform=lambda *_: next(uniform), integers=lambda *_: next(integers)
    )
    samples = noise.chopper(SR, SR, drawn, 1_500, 7_500)
    t = np.arange(1, SR * 16 + 1) / (SR * 16)  # at 16 times the rate there is little aliasing
    wave = scipy.signal.square(2 * np.pi * (1_000 * t + 0.1), duty=0.2)
    expected = noise.unit_rms(audio.band_limit(wave, SR * 16, 1_500, 7_500)[15::16])
    assert np.corrcoef(samples, expected)[0, 1] > 0.995


@given(seed=seeds)
def test_random_band_is_wide_enough_and_possible(seed):
    low, high = noise_bank.random_band(rng(seed))
    assert noise_bank.LOW_RANGE[0] <= low <= high - 500
    assert high <= 8_000


@given(seed=seeds, n_samples=st.integers(1, 50_000))
def test_burst_envelope_is_a_gain(seed, n_samples):
    envelope = noise_bank.burst_envelope(n_samples, rng(seed))
    assert envelope.shape == (n_samples,)
    assert envelope.min() >= 0
    assert envelope.max() <= 1


def test_bursts_come_and_go():
    envelopes = [noise_bank.burst_envelope(160_000, rng(seed)) for seed in range(20)]
    assert all(envelope.min() < 0.6 and envelope.max() > 0.6 for envelope in envelopes)


def test_recordings_of_the_bank_are_coloured_anew_each_time(recordings, monkeypatch):
    monkeypatch.setattr(noise_bank, "KIND_SHARES", {"recorded": 1.0})
    monkeypatch.setattr(noise_bank, "WHOLE_SHARE", 1.0)
    monkeypatch.setattr(noise_bank, "BURST_SHARE", 0.0)
    clips = [noise_bank.random_noise(rng(seed), SR, tuple(recordings[:1])) for seed in range(20)]
    spectra = np.abs(np.fft.rfft(clips)) ** 2  # the recording is white, and bins are 1 Hz
    octaves_db = 10 * np.log10([spectra[:, f : 2 * f].mean(axis=1) for f in (500, 2_000)])
    assert np.std(octaves_db[1] - octaves_db[0]) > 3
    assert np.allclose(np.sqrt(np.mean(np.square(clips), axis=1)), 1, atol=1e-3)


def render(path, seed=0, **options):
    return NoiseBank.render(path, n_clips=8, seconds=0.5, seed=seed, verbose=False, **options)


def test_bank_is_reproducible(tmp_path, recordings):
    first, again, other = (
        render(tmp_path / f"{i}", seed, files=tuple(recordings)) for i, seed in enumerate((1, 1, 2))
    )
    assert first.clips.shape == (8, 8_000)
    assert np.array_equal(first.clips, again.clips)
    assert not np.array_equal(first.clips, other.clips)
    levels = np.sqrt(np.mean(np.square(first.clips, dtype=np.float64), axis=1))
    np.testing.assert_allclose(levels, 1, atol=2e-3)


def test_bank_of_one_kind_holds_nothing_else(tmp_path, recordings):
    kinds = ("chopper", "inverter", "coloured", "recorded")
    banks = [render(tmp_path / "bank", files=tuple(recordings), only=kind) for kind in kinds]
    assert len(list(tmp_path.glob("bank-*.npy"))) == len(kinds)
    files = tuple(recordings)
    for kind, bank in zip(kinds, banks, strict=True):
        clip = noise_bank.random_noise(np.random.default_rng([0, 0]), 8_000, files, kind)
        np.testing.assert_array_equal(bank.clips[0], np.float16(clip))
    with pytest.raises(ValueError, match="no recorded noise here"):
        render(tmp_path / "bank", only="recorded")
    with pytest.raises(ValueError, match="unknown noise kind 'hum'; choose white, "):
        noise_bank.check_kind("hum")


@pytest.mark.parametrize(("share", "n_recordings"), [(0.0, 1), (1.0, 2)])
def test_a_scene_is_two_recordings_on_top_of_each_other(
    monkeypatch, recordings, share, n_recordings
):
    cuts = []

    def recording(rng, n_samples, low, files):
        cuts.append(noise.unit_rms(rng.standard_normal(n_samples)))
        return cuts[-1].copy()

    monkeypatch.setattr(noise_bank, "recording", recording)
    monkeypatch.setattr(noise_bank, "SCENE_SHARE", share)
    monkeypatch.setattr(noise_bank, "BURST_SHARE", 0.0)
    clip = noise_bank.random_noise(rng(1), 4_000, tuple(recordings), "recorded")
    assert len(cuts) == n_recordings
    gains, residual, *_ = np.linalg.lstsq(np.stack(cuts, axis=1), clip)
    assert residual < 1e-6 * (clip**2).sum()
    assert 0.3 < gains[-1] / gains[0] <= 1  # the second at most 10 dB quieter


def test_one_kind_is_all_that_a_clip_is_made_of(monkeypatch):
    monkeypatch.setattr(noise_bank, "BURST_SHARE", 0.0)
    monkeypatch.setitem(noise.TRAINING_KINDS, "chopper", lambda n_samples, *_: np.arange(n_samples))
    for seed in range(20):  # by its share it would be one in sixteen
        assert noise_bank.random_noise(rng(seed), 5, (), "chopper").tolist() == [0, 1, 2, 3, 4]


def test_bank_is_reopened_not_rendered_again(tmp_path, monkeypatch):
    first = render(tmp_path / "bank", seed=1)
    monkeypatch.setattr(noise_bank, "tqdm", None)  # rendering again would fail
    assert np.array_equal(first.clips, render(tmp_path / "bank", seed=1).clips)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_second_to_finish_a_bank_replaces_it_by_an_equal_one(tmp_path, monkeypatch):
    """Two trainings begin at once, and both find no bank."""
    ended = []

    def make(*args):
        if not ended:
            ended.append(True)
            ended.append(render(tmp_path / "bank", seed=1).clips)
        return one_clip(*args)

    one_clip = noise_bank.random_noise
    monkeypatch.setattr(noise_bank, "code_of_noise", lambda only: "the same")
    monkeypatch.setattr(noise_bank, "random_noise", make)
    second = render(tmp_path / "bank", seed=1).clips
    assert np.array_equal(second, ended[1])  # which the first goes on to read
    assert len(list(tmp_path.iterdir())) == 1


def test_bank_of_something_else_is_not_taken_for_it(tmp_path, recordings):
    first = render(tmp_path / "bank", seed=1)
    for other in (
        render(tmp_path / "bank", seed=2),
        render(tmp_path / "bank", 1, files=recordings),
    ):
        assert not np.array_equal(first.clips, other.clips)
    assert len(list(tmp_path.glob("bank-*.npy"))) == 3


@given(seed=seeds, n_samples=st.integers(1, 35))
def test_draw_cuts_and_wraps_around(seed, n_samples):
    bank = NoiseBank(np.float16([np.arange(10), 100 + np.arange(10)]))
    cut = bank.draw(rng(seed), n_samples)
    assert cut.dtype == np.float32
    assert cut.shape == (n_samples,)
    assert np.unique(cut // 100).size == 1  # one clip
    assert (np.diff(cut) % 10 == 1).all()


def test_draw_reaches_every_clip_and_every_start():
    bank = NoiseBank(np.float16([np.arange(10), 100 + np.arange(10)]))
    starts = {bank.draw(rng(seed), 1).item() for seed in range(200)}
    assert starts == {*range(10), *range(100, 110)}
