"""`helpers.evaluation.metrics`, its `tables` and `helpers.denoise.baselines`: the yardsticks."""

import numpy as np
import pandas as pd
import pytest

from helpers import audio
from helpers.data import noise
from helpers.denoise import baselines
from helpers.evaluation import metrics, tables

SR = audio.SAMPLE_RATE


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def noisy(speech):
    """`speech` with white noise at 4-8 kHz and 5 dB."""
    added = noise.white(len(speech), SR, np.random.default_rng(0))
    return noise.mix(speech, added, 5)[2]


# --- one number a clip --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clean", "denoised", "expected"),
    [
        ([1, 0], [1, 1], 0),  # target 1, error 1
        ([1, 0], [3, 1], 10 * np.log10(9)),
        ([1, 1], [1, 0], 0),  # projection 0.5: target (0.5, 0.5), error (0.5, -0.5)
        ([1, 1, 0], [2, 2, 0.02], 10 * np.log10(8 / 0.0004)),
    ],
)
def test_si_sdr_by_hand(clean, denoised, expected):
    assert metrics.si_sdr(np.array(clean), np.array(denoised)) == pytest.approx(expected)


@pytest.mark.parametrize("gain", [0.01, -1, 30])
def test_si_sdr_does_not_see_the_scale(speech, noisy, gain):
    expected = metrics.si_sdr(speech, noisy)
    assert expected == pytest.approx(5, abs=0.5)
    assert metrics.si_sdr(speech, gain * noisy) == pytest.approx(expected, abs=1e-3)
    assert metrics.si_sdr(gain * speech, noisy) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("silent", [(0, 1), (1, 0), (0, 0)])
def test_si_sdr_says_nothing_about_silence(speech, silent):
    assert np.isnan(metrics.si_sdr(silent[0] * speech, silent[1] * speech))


def test_mse_and_level_by_hand(speech):
    assert metrics.mse(np.array([0.5, -0.5]), np.array([0.5, 0.5])) == pytest.approx(0.5)
    assert metrics.level(speech, 0.5 * speech) == pytest.approx(-6.02, abs=0.01)
    assert np.isnan(metrics.level(0 * speech, speech))


def test_identical_clips_get_the_best_marks(speech):
    row = metrics.score(speech, speech.copy())
    assert row["pesq"] > 4.5
    assert row["estoi"] == pytest.approx(1, abs=1e-3)
    assert row["si_sdr"] > 100
    assert (row["mse"], row["level"], row["reason"]) == (0, 0, "")


def test_noise_lowers_every_mark(speech, noisy):
    row, best = metrics.score(speech, noisy), metrics.score(speech, speech)
    assert set(row) == {*metrics.METRICS, *metrics.OPINIONS, "reason"}
    assert np.isnan([row[name] for name in metrics.OPINIONS]).all()
    assert all(row[m] < best[m] for m in ("pesq", "estoi", "si_sdr"))
    assert row["mse"] > 0
    assert row["level"] > 0


@pytest.mark.parametrize(
    ("clean_gain", "denoised_gain", "n_samples", "reason"),
    [
        (0, 1, 48_000, "silent"),
        (1, 0, 48_000, "silent"),
        (1, 1, 8_000, "shorter than 1 s"),
        (1, 1, 1, "shorter than 1 s"),
        (0, 0, 1, "silent"),
    ],
)
def test_score_of_a_clip_that_says_nothing(speech, clean_gain, denoised_gain, n_samples, reason):
    clip = speech[10_000 : 10_000 + n_samples]
    row = metrics.score(clean_gain * clip, denoised_gain * clip)
    assert row["reason"] == reason
    assert np.isnan([row["pesq"], row["estoi"]]).all()
    assert np.isfinite(row["mse"])


def test_score_of_a_click_in_silence_gives_a_reason():
    click = np.zeros(SR, np.float32)
    click[8_000] = 0.5
    row = metrics.score(click, click)
    assert row["reason"]
    assert np.isnan(row["estoi"])


def test_opinions_fall_with_noise(speech):
    """DNSMOS, ViSQOL and STOI: the right end of their scales, and worse with more noise."""
    hiss = noise.make("white", len(speech), SR, np.random.default_rng(0), 0, 8_000)
    inputs = [speech, *(noise.mix(speech, hiss, snr_db)[2] for snr_db in (20, 0))]
    rows = [metrics.score(speech, x, opinions=True) for x in inputs]
    for name in ("stoi", "visqol", "dnsmos_bak", "dnsmos_ovrl"):
        best, good, bad = (row[name] for row in rows)
        assert best > good > bad, name
    assert rows[0]["stoi"] == pytest.approx(1, abs=1e-3)
    assert 4 < rows[0]["visqol"] < 4.9  # identical clips; 5 would be the mapping without lattice
    assert 1 <= rows[2]["dnsmos_bak"] < 2


def test_dnsmos_grades_one_window(speech):
    whole = np.resize(speech, int(metrics.DNSMOS_SECONDS * SR))
    assert metrics.dnsmos(speech) == pytest.approx(metrics.dnsmos(whole), abs=1e-3)
    assert metrics.dnsmos(3 * whole)["dnsmos_sig"] > 0  # beyond full scale: clipped, no crash


# --- tables -------------------------------------------------------------------------------------


def test_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = tables.bootstrap(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(400), rel=0.1)
    assert tables.bootstrap(values) == (low, high)
    assert tables.bootstrap(np.insert(values, [0, 200], np.nan)) == (low, high)


def test_bootstrap_draws_speakers_when_they_are_named():
    speakers = np.repeat(np.arange(40), 10)
    values = np.repeat(np.random.default_rng(0).normal(3, 2, 40), 10)  # alike within a speaker
    low, high = tables.bootstrap(values, speakers)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.1)
    narrow = np.subtract(*tables.bootstrap(values)[::-1])
    assert high - low > 2.5 * narrow  # sqrt(10)
    each = tables.bootstrap(values[::10], np.arange(40))
    assert each == pytest.approx(tables.bootstrap(values[::10]))
    assert np.isnan(tables.bootstrap(values[:10], speakers[:10])).all()


def test_sources_are_drawn_beside_speakers(rng):
    speakers, sources = np.repeat(np.arange(30), 5), np.tile(np.arange(5), 30)
    by_source = np.array([0.0, 1, 2, 3, 4])[sources]  # all that differs is the source
    assert np.ptp(tables.bootstrap(by_source, speakers)) == 0
    low, high = tables.bootstrap(by_source, speakers, sources)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(2 / 5), rel=0.1)
    one = np.full(150, "")
    values = rng.normal(size=150)
    assert tables.bootstrap(values, speakers, one) == tables.bootstrap(values, speakers)


def test_intervals_that_draw_both_hold_the_truth_as_often_as_they_say(rng):
    """Simulated means of crossed speakers and sources, true mean 0."""
    held = {"speakers": 0, "both": 0}
    for _ in range(100):
        speakers, sources = np.repeat(np.arange(20), 8), np.tile(np.arange(8), 20)
        values = rng.normal(size=20)[speakers] + 2 * rng.normal(size=8)[sources]
        values += rng.normal(size=160)
        for name, drawn in {"speakers": [speakers], "both": [speakers, sources]}.items():
            low, high = tables.bootstrap(values, *drawn, n_draws=1_000)
            held[name] += low < 0 < high
    assert held["speakers"] < 70
    assert held["both"] > 85


@pytest.mark.parametrize(("n_categories", "least", "most"), [(5, 8, 17), (3, 18, 30)])
def test_intervals_from_few_categories_are_too_short(n_categories, least, most):
    """As the page of results says; how often in 100 cases they miss the truth, which is 0."""
    rng, missed = np.random.default_rng(0), 0
    for _ in range(200):
        speakers, categories = np.arange(60) % 36, rng.integers(n_categories, size=60)
        values = rng.normal(size=36)[speakers] + 2 * rng.normal(size=n_categories)[categories]
        values += rng.normal(size=60)
        low, high = tables.bootstrap(values, speakers, categories, n_draws=1_000)
        missed += not low < 0 < high
    assert least < missed / 2 < most


def test_p_value_by_hand():
    draws = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    many, alike = range(30), np.full(1_000, 3.0)
    assert tables.p_value(draws, many) == pytest.approx(2 * 0.15)  # the 0 counts half
    assert tables.p_value(alike, many) == pytest.approx(2 / 1_000)
    assert tables.p_value(alike, range(4)) == pytest.approx(1 / 8)
    assert tables.p_value(alike, many, [1, 2, 3] * 10) == pytest.approx(1 / 4)  # of three sources
    assert tables.p_value(alike, many, [""] * 30) == pytest.approx(2 / 1_000)  # none was drawn
    assert tables.p_value(np.zeros(10), many) == 1
    assert np.isnan(tables.p_value(None, [1]))


def test_p_value_says_what_the_interval_says(rng):
    for shift in (0.0, 0.2, 0.4):
        values, speakers = rng.normal(shift, 1, 60), np.arange(60)
        _, draws = tables.draws_of_ratio(values, np.ones(60), speakers)
        low, high = tables.bootstrap(values, speakers)
        assert (tables.p_value(draws, range(60)) < 0.05) == (low > 0 or high < 0)


def test_holm_by_hand():
    assert list(tables.holm([0.01, 0.04, 0.03, 0.005])) == [True, False, False, True]
    assert list(tables.holm([0.04])) == [True]
    assert list(tables.holm([0.03, 0.03])) == [False, False]
    assert list(tables.holm([np.nan, 0.01])) == [False, True]
    assert tables.holm([]).shape == (0,)


def test_summarise_draws_speakers(rng):
    rows = pd.DataFrame({"system": "x", "reason": "", "pesq": np.repeat(rng.normal(3, 1, 8), 5)})
    single = tables.summarise(rows, ["system"], ["pesq"]).iloc[0]
    rows["speaker"] = np.repeat(list("abcdefgh"), 5)
    clustered = tables.summarise(rows, ["system"], ["pesq"]).iloc[0]
    assert clustered.pesq == single.pesq
    assert clustered.pesq_high - clustered.pesq_low > 1.5 * (single.pesq_high - single.pesq_low)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [np.nan] * 3])
def test_bootstrap_of_too_few_values(values):
    assert np.isnan(tables.bootstrap(values)).all()


def test_summarise_keeps_order_and_leaves_out_what_has_no_mark():
    table = [
        ("noisy", 10, 1.0, ""),
        ("noisy", 10, 3.0, ""),
        ("denoised", 10, np.nan, "silent"),
        ("denoised", 10, 5.0, ""),
        ("noisy", 0, 2.0, ""),
    ]
    rows = pd.DataFrame(table, columns=["system", "snr_db", "pesq", "reason"])
    summary = tables.summarise(rows, ["snr_db", "system"], measures=["pesq"])
    columns = ["snr_db", "system", "n", "pesq", "pesq_low", "pesq_high", "left_out"]
    assert list(summary.columns) == columns
    assert summary[["snr_db", "system", "n", "pesq", "left_out"]].to_numpy().tolist() == [
        [10, "noisy", 2, 2.0, 0],
        [10, "denoised", 2, 5.0, 1],
        [0, "noisy", 1, 2.0, 0],
    ]
    assert summary.loc[0, "pesq_low"] < 2 < summary.loc[0, "pesq_high"]
    assert summary.loc[1:, ["pesq_low", "pesq_high"]].isna().all(axis=None)


def test_a_table_counts_what_it_leaves_out():
    row = {"utterance": "a", "speaker": "s", "system": "noisy", "mse": 0.0, "level": 0.0}
    row |= {"kind": "none", "low": 0, "high": 1, "snr_db": 0, "level_db": np.nan}
    row |= {"si_sdr": np.inf, "pesq": np.nan, "estoi": np.nan, "reason": "silent"}
    text = tables.table_text(pd.DataFrame([row, row | {"utterance": "b"}]))
    assert "clean input" in text
    assert "∞" in text
    assert "2 clips lack a metric (silent)" in text


def test_saved_rows_come_back_as_they_were(tmp_path):
    row = {"utterance": "84-1-0000", "speaker": "0084", "system": "noisy", "kind": "white"}
    row |= {"low": 4000.0, "high": 8000.0, "snr_db": 0.0, "level_db": np.nan, "reason": ""}
    rows = pd.DataFrame([row | dict.fromkeys(metrics.METRICS, 1.5) | {"source": ""}] * 2)
    tables.save_table(rows, tmp_path / "rows")
    again = tables.load_rows(tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(again, rows, check_dtype=False)
    assert tables.table_text(again) == tables.table_text(rows)


@pytest.mark.parametrize("name", ["snr0.5", "snr0.7", "rows.csv", "rows.md"])
def test_a_table_has_the_name_that_it_was_given(tmp_path, name):
    rows = pd.DataFrame({"x": [1.0]})
    stem = name.removesuffix(".csv").removesuffix(".md")
    assert tables.save_rows(rows, tmp_path / name) == tmp_path / f"{stem}.csv"
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.csv"]


def test_snr_and_segmental_snr_by_hand():
    clean = np.concatenate([np.full(4_800, 0.5), np.full(4_800, 0.05), np.zeros(4_800)])
    denoised = clean + 0.05  # 20 dB in the loud part, 0 dB in the soft one, the pause is left out
    assert metrics.snr(clean, denoised) == pytest.approx(10 * np.log10(0.2525 / 3 / 0.0025))
    assert metrics.segmental_snr(clean, denoised) == pytest.approx(10)
    assert metrics.segmental_snr(clean, clean) == 35
    assert metrics.snr(clean, 0.5 * clean) == pytest.approx(20 * np.log10(2))
    assert metrics.snr(clean, clean) == np.inf
    assert np.isnan(metrics.snr(0 * clean, clean))
    assert np.isnan(metrics.segmental_snr(0 * clean, clean))


def test_high_band_alone(speech):
    low = audio.band_limit(speech, SR, 0, 3_990)
    high = speech - low
    assert metrics.si_sdr_above(speech, 3 * low + 0.5 * high) > 40  # neither low band nor level
    assert np.isnan(metrics.si_sdr_above(speech, low))
    added = noise.white(len(speech), SR, np.random.default_rng(0))
    noisy = high + added * np.sqrt(np.mean(high**2))
    assert metrics.si_sdr_above(speech, noisy) == pytest.approx(0, abs=0.5)


def test_log_spectral_distance(speech, noisy):
    distance = metrics.log_spectral_distance
    assert distance(speech, speech, 0, 8_000) == 0
    ringing = np.random.default_rng(0).standard_normal(SR)
    assert distance(ringing, 2 * ringing, 0, 8_000) == pytest.approx(20 * np.log10(2), abs=0.01)
    assert distance(speech, noisy, 4_000, 8_000) > distance(speech, noisy, 0, 4_000) + 5
    assert np.isnan(distance(0 * speech, noisy, 0, 8_000))


# --- baselines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 2, 513, 16_000])
def test_low_pass_keeps_the_length(n_samples):
    filtered = baselines.low_pass(np.ones(n_samples, np.float32))
    assert filtered.shape == (n_samples,)
    assert filtered.dtype == np.float32


def test_low_pass_has_the_response_that_it_promises():
    impulse = np.zeros(4_096, np.float32)
    impulse[2_048] = 1
    response_db = 20 * np.log10(np.abs(np.fft.rfft(baselines.low_pass(impulse))) + 1e-12)
    f = np.fft.rfftfreq(4_096, 1 / SR)
    assert np.abs(response_db[f < 3_500]).max() < 0.1
    assert response_db[f > 4_200].max() < -45
    assert response_db[np.abs(f - 3_900).argmin()] == pytest.approx(-6, abs=0.5)


def test_low_pass_has_no_delay(speech):
    filtered = baselines.low_pass(speech)
    correlation = np.correlate(filtered[1_000:-1_000], speech[900:-900], mode="valid")
    assert correlation.argmax() == 100


def test_butterworth_lets_more_through(noisy):
    impulse = np.zeros(SR, np.float32)
    impulse[SR // 2] = 1
    f = np.fft.rfftfreq(SR, 1 / SR)
    response = np.abs(np.fft.rfft(baselines.butterworth(impulse)))
    response_db = 20 * np.log10(response + 1e-12)
    assert response_db[f == 3_900] == pytest.approx(-6, abs=0.1)
    assert response_db[f == 4_290] == pytest.approx(-22, abs=0.5)
    assert np.argmax(baselines.butterworth(impulse)) == SR // 2  # zero phase
    leaks = [
        np.sum(np.square(audio.band_limit(rule(noisy), SR, 4_000, 8_000)))
        for rule in (baselines.low_pass, baselines.butterworth)
    ]
    assert leaks[1] > 10 * leaks[0]


def test_baselines_stand_in_their_order(speech, noisy):
    filtered, oracle = baselines.low_pass(noisy), baselines.oracle_psm(speech, noisy)
    assert oracle.shape == noisy.shape
    marks = [metrics.si_sdr(speech, x) for x in (noisy, filtered, oracle)]
    assert marks[0] + 3 < marks[1] < marks[2] - 1


def test_oracle_passes_clean_speech(speech):
    np.testing.assert_allclose(baselines.oracle_psm(speech, speech), speech, atol=1e-6)


def test_noise_tracker_finds_a_steady_floor(rng):
    power = rng.exponential(4.0, (500, 64))  # |Y|^2 of Gaussian noise of power 4
    tracked = baselines.noise_psd(power)
    assert tracked.shape == power.shape
    assert 10 * np.log10(tracked[100:].mean() / 4) == pytest.approx(0, abs=1.5)  # it lies a bit low
    power[250:] *= 10  # 10 dB louder: it follows
    assert 10 * np.log10(baselines.noise_psd(power)[-50:].mean() / 40) == pytest.approx(0, abs=1.5)


@pytest.mark.parametrize("rule", [baselines.spectral_subtraction, baselines.log_mmse])
def test_classical_rules_take_steady_noise_away(rule, speech, rng):
    quiet = np.zeros(8_000, np.float32)  # they learn the noise from its beginning
    clean = np.concatenate([quiet, speech])
    hiss = noise.make("white", len(clean), 16_000, rng, 0, 8_000)
    clean, _, noisy = noise.mix(clean, hiss, 5)
    denoised = rule(noisy)
    assert denoised.dtype == np.float32
    assert denoised.shape == noisy.shape
    assert metrics.si_sdr(clean, denoised) > metrics.si_sdr(clean, noisy) + 3
    np.testing.assert_array_equal(rule(np.zeros(8_000, np.float32)), 0)


def test_oracles_stand_in_their_order(speech, noisy):
    oracles = (baselines.oracle_irm, baselines.oracle_psm, baselines.oracle_complex)
    scores = [metrics.si_sdr(speech, oracle(speech, noisy)) for oracle in oracles]
    assert scores == sorted(scores)
    for oracle in oracles:
        np.testing.assert_allclose(oracle(speech, speech), speech, atol=1e-6)


def test_the_best_cutoff_is_found(speech):
    hiss = noise.make("white", len(speech), SR, np.random.default_rng(0), 2_600, 8_000)
    clean, _, noisy = noise.mix(speech, hiss, 0)
    best = baselines.oracle_low_pass(clean, noisy)
    np.testing.assert_array_equal(best, baselines.low_pass(noisy, cutoff=2_500))
    scores = [
        metrics.si_sdr(clean, baselines.low_pass(noisy, cutoff=f)) for f in (2_000, 3_000, 3_900)
    ]
    assert metrics.si_sdr(clean, best) > max(scores) + 0.5
    np.testing.assert_array_equal(baselines.oracle_low_pass(0 * clean, 0 * noisy), 0)


def test_the_best_cutoff_is_never_behind_the_low_pass(speech):
    for low in (3_000, 3_950, 5_000):
        hiss = noise.make("white", len(speech), SR, np.random.default_rng(0), low, 8_000)
        clean, _, noisy = noise.mix(speech, hiss, 0)
        best, plain = baselines.oracle_low_pass(clean, noisy), baselines.low_pass(noisy)
        assert metrics.si_sdr(clean, best) >= metrics.si_sdr(clean, plain) - 1e-3
        assert np.array_equal(best, plain) == (low == 3_950)


def test_a_known_noise_spectrum_helps(speech, noisy):
    """Wiener with the true noise power stands between the classical rules and the masks."""
    wiener = metrics.si_sdr(speech, baselines.oracle_wiener(speech, noisy))
    for rule in (baselines.log_mmse, baselines.spectral_subtraction):
        assert wiener > metrics.si_sdr(speech, rule(noisy))
    assert wiener < metrics.si_sdr(speech, baselines.oracle_irm(speech, noisy))
    np.testing.assert_allclose(baselines.oracle_wiener(speech, speech), speech, atol=1e-3)


def test_no_metric_is_named_like_an_end_of_an_interval():
    names = {*metrics.METRICS, *metrics.OPINIONS}
    assert not {f"{name}_{end}" for name in names for end in ("low", "high")} & names
