"""The committed results: `data/results`, `data/listening`, and the cards in `data/models`."""

import itertools

import pandas as pd
import pytest

from experiments import evaluate, recognise, report
from helpers import audio, models
from helpers.data import conditions, corpus
from helpers.data.conditions import Condition
from helpers.denoise import baselines, systems
from helpers.display import listening_test
from helpers.display.listening_test import ANCHOR, REFERENCE, SCALES
from helpers.evaluation import asr, metrics, phonemes, scoring, tables, word_errors
from helpers.models import ablation, picture
from helpers.store import RESULTS, ROOT

SR = audio.SAMPLE_RATE


# --- the test protocol --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    """The committed results: the course's own systems, and the peers."""
    return [tables.load_rows(RESULTS / f"{name}.csv") for name in ("test", "peers")]


def test_results_are_complete_and_of_speakers_never_trained_on(results):
    own, installed = results
    assert own.utterance.nunique() >= 60
    assert set(own.split) == {"test", "other"}
    assert set(own.utterance) == set(installed.utterance)
    by = list(conditions.COLUMNS)
    for_peers = [*conditions.FOR_ALL.values(), evaluate.FOR_PEERS]
    for rows, wanted in ((own, conditions.CONDITIONS), (installed, for_peers)):
        assert len(rows[by].drop_duplicates()) == len(wanted)
        counts = rows.groupby([*by, "system"], dropna=False).size()
        assert set(counts) == {own.utterance.nunique()}
    assert set(installed.system) == set(systems.PEERS)
    assert set(own.system) | set(installed.system) == set(systems.TABLE)
    assert installed.version.str.contains(r"^[\w-]+ \d").all()


def test_results_are_those_of_the_shipped_weights(results):
    for method in models.METHODS:
        versions = results[0].version[results[0].system == method]
        assert set(versions) == {models.weights_sha256(method)}


def test_results_hold_the_same_noisy_clips_as_today(results):
    """One clip of the committed table, made again where the corpus is at hand."""
    folder = corpus.find_data("LibriSpeech")
    if folder is None:
        pytest.skip("no real corpus here")
    row = results[0].query("system == 'low-pass' and kind == 'pink' and snr_db == 0").iloc[0]
    table = corpus.read_corpus(folder).set_index("utterance")
    if row.utterance not in table.index:
        pytest.skip("another corpus than that of the results")
    whole = audio.read(table.path[row.utterance])[: int(scoring.LONGEST * SR)]
    condition = Condition("pink", 2_500, 7_000, 0.0)
    clean, _, noisy = conditions.make_noisy(row.utterance, whole, condition, conditions.SEED)
    assert metrics.si_sdr(clean, baselines.low_pass(noisy)) == pytest.approx(row.si_sdr, abs=0.01)


def test_speeds_are_those_of_every_system_in_one_run():
    found = pd.read_csv(RESULTS / "speed.csv")
    assert sorted(found.system) == sorted(systems.TABLE)
    assert found.seconds.nunique() == 1  # the same clips
    dates = pd.to_datetime(found.date)
    assert dates.max() - dates.min() < pd.Timedelta(minutes=10)


# --- the ablation -------------------------------------------------------------------------------


def test_rows_of_the_ablation_are_those_of_the_steps():
    rows = pd.read_csv(RESULTS / "ablation.csv")
    steps = ablation.steps()
    floor, ceiling = systems.names("floor"), systems.names("ceiling")
    assert list(rows.step.unique()) == [*floor, *steps, *ceiling]
    assert rows.groupby("step").utterance.nunique().eq(24).all()
    trained = rows[rows.step.isin(steps)].groupby("step")[["loss", "parameters"]].first()
    for step, (settings, loss) in steps.items():
        assert trained.loss[step] == loss
        assert picture.build(**settings).count_params() == trained.parameters[step]


# --- word errors --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heard():
    return word_errors.load_heard(RESULTS / "recognition.csv")


@pytest.fixture(scope="module")
def tried():
    """What was heard on validation speakers."""
    return word_errors.load_heard(RESULTS / "recognition_validation.csv")


def inputs_of(name):
    """On what a recogniser hears the systems of the tables."""
    return recognise.INPUTS.get(name, recognise.CONDITIONS + recognise.RECORDINGS)


def test_every_condition_was_heard_with_every_system(heard):
    installed = word_errors.load_heard(RESULTS / "recognition_peers.csv")
    cells = pd.concat([heard, installed]).groupby(["recogniser", "input", "system"])
    cells = cells.utterance.agg(frozenset)

    def every(names, inputs, those):
        return itertools.product(names, [one.title for one in inputs], those)

    wanted = [
        *every(recognise.WITH_OTHERS, recognise.TO_ORACLE, [word_errors.ORACLE]),
        *every(recognise.WITH_OTHERS, recognise.TO_OTHERS, recognise.OTHERS),
        *every(set(asr.PACKAGES) - set(asr.OF_PHONEMES), recognise.TO_OTHERS, recognise.PEERS),
    ]
    for name in asr.PACKAGES:
        inputs = inputs_of(name)
        wanted += every([name], inputs, recognise.MAIN)
        wanted += every([name], set(inputs) & set(recognise.OVER_ALL), [word_errors.METHOD])
    assert {cells[cell] for cell in wanted} == {cells.iloc[0]}  # the same utterances everywhere
    assert len(cells.iloc[0]) == recognise.UTTERANCES


def test_no_gain_of_whisper_over_a_low_pass_is_sure_where_loud_noise_is_above_4_khz(heard):
    """As the README says; PocketSphinx gains there."""
    by = ["recogniser", "input"]
    changes = word_errors.change_of_errors(heard, systems.DEFAULT, "low-pass", by)
    loud = [
        Condition(kind, snr_db=snr_db).title
        for kind in ("white", "inverter")
        for snr_db in (-15, -5, 0)
    ]
    for name in set(asr.PACKAGES) - set(asr.OF_PHONEMES):
        part = changes[changes.recogniser == name]
        survive = tables.holm(part.p)[part.input.isin(loud)]
        assert len(survive) == 6
        assert survive.sum() == (6 if name == "PocketSphinx" else 0), name


def test_installed_denoisers_are_ahead_of_the_default_on_bright_recordings_as_the_page_says():
    title = "bright recordings 0-8 kHz, 5 dB"
    here = conditions.rows_of(tables.load_results(), conditions.BRIGHT_RECORDINGS[title])
    behind = {
        peer: sum(
            tables.difference(here, systems.DEFAULT, peer, m).high < 0
            for m in ("si_sdr", "pesq", "estoi")
        )
        for peer in systems.PEERS
    }
    assert {peer for peer, n in behind.items() if n == 3} == {"GTCRN", "DTLN", "Hush"}
    assert {peer for peer, n in behind.items() if n == 2} == {"NSNet2", "DeepFilterNet3"}
    for metric in ("si_sdr", "pesq", "estoi"):
        found = tables.difference(here, "spectrogram", "GTCRN", metric)
        assert found.low < 0 < found.high


def test_no_network_of_chapter_08_makes_surely_fewer_or_more_errors():
    known = word_errors.load_heard(RESULTS / "recognition.csv")
    words = word_errors.load_heard(RESULTS / "adversarial_words.csv")
    here = pd.concat([words, conditions.rows_of(known, conditions.WHITE)])
    changes = pd.concat(
        word_errors.change_of_errors(here, name, systems.DEFAULT, ["recogniser"])
        for name in words.system.unique()
    )
    changes = changes.dropna(subset="difference")
    assert set(changes.recogniser) == set(asr.PACKAGES) - set(asr.OF_PHONEMES)
    assert len(changes) == 18
    clear = changes[(changes.low > 0) | (changes.high < 0)]
    assert list(clear.recogniser) == ["Whisper tiny.en"] * 2
    assert not tables.holm(changes.p).any()


def test_half_of_the_clips_that_were_noisy_from_the_start_are_of_one_speaker():
    clips = word_errors.read_heard(RESULTS / "real_words.csv").drop_duplicates("utterance")
    assert clips.speaker.value_counts().max() * 2 == len(clips)


def test_every_mix_was_heard_on_noise_over_the_whole_band(tried):
    titles = {one.title for one in (word_errors.TO_MIX[1], *recognise.WHOLE_BAND)}
    mixes = tried[tried.input.isin(titles) & tried.system.str.startswith("mix")]
    cells = mixes.groupby(["recogniser", "input", "system"])
    assert set(mixes.input) == titles
    names = {"PocketSphinx", "Whisper tiny.en"}
    assert set(mixes.recogniser) == names
    assert len(cells) == len(names) * len(titles) * len(recognise.MIXES)
    assert cells.utterance.nunique().eq(40).all()


@pytest.mark.parametrize("method", models.METHODS)
def test_the_models_that_were_heard_are_the_shipped_ones(heard, method):
    versions = heard.version[heard.system == method]
    assert set(versions) == {models.card(method)["sha256"][:12]}


def test_the_default_makes_nowhere_more_errors_that_can_be_told(heard):
    by = ["recogniser", "input"]
    change = word_errors.change_of_errors(heard, systems.DEFAULT, "noisy", by).set_index(by)
    wanted = {(name, one.title) for name in asr.PACKAGES for one in inputs_of(name)}
    assert wanted <= set(change.index)
    assert not (change.low > 0).any()


def test_clean_input_stays(results):
    here = conditions.rows_of(results[0], conditions.CLEAN)
    assert here[here.system == systems.DEFAULT].si_sdr.mean() > 50


def test_the_default_is_level_with_the_model_where_it_is_made_for(results):
    rows = results[0]
    for title, condition in conditions.HEADLINE.items():
        if condition.low == 0:
            continue  # noise over the whole band, of which the low part is passed on
        here = conditions.rows_of(rows, condition)
        least_pesq = -0.04 if condition.kind == "inverter" else -0.03  # its tones are narrow
        for metric, least in (("si_sdr", -0.05), ("pesq", least_pesq), ("estoi", -0.001)):
            mean, *_ = tables.paired(here, systems.DEFAULT, "spectrogram", metric)
            assert mean >= least, (title, metric)


def test_noise_and_network_give_decibels_and_more_hours_about_one(results):
    trained = tables.load_rows(RESULTS / "design.csv")
    rows = pd.concat([tables.load_results(), trained])
    peer, ours = trained.system.unique()
    pairs = {"noise": (peer, "DTLN"), "network": (ours, peer), "hours": ("spectrogram", ours)}
    for title, condition in conditions.NOISES.items():
        here = conditions.rows_of(rows, condition)
        gain = {name: tables.paired(here, *pair, "si_sdr")[0] for name, pair in pairs.items()}
        assert gain["network"] > 1.5, title
        assert 0.3 < gain["hours"] < 1.5, title
        assert gain["noise"] > 2.5 if condition.low else gain["noise"] < -3, title


def test_the_training_anew_misses_its_rule_by_the_mean_pesq_alone():
    rows = tables.load_rows(RESULTS / "anew.csv")
    assert set(rows.split) == {"validation"}
    assert rows.groupby(["kind", "low", "snr_db", "system"]).size().unique() == [24]
    for metric, of_all, of_one in (("si_sdr", -0.1, -0.3), ("pesq", -0.03, -0.09)):
        mean, *_ = tables.paired(rows, report.ANEW, "spectrogram", metric)
        assert (mean >= of_all) == (metric == "si_sdr")
        for noise, part in rows.groupby(["kind", "low"]):
            assert tables.paired(part, report.ANEW, "spectrogram", metric)[0] >= of_one, noise
        said = f"{mean:+.2f}" if metric == "si_sdr" else f"{mean:+.3f}".replace("0.", ".")
        assert said.lstrip("-") in (ROOT / "experiments" / "README.md").read_text()


def test_recordings_with_more_than_noise_gain_and_none_loses(results):
    for title, condition in conditions.RECORDINGS.items():
        here = conditions.rows_of(results[0], condition)
        is_noisy = not condition.kind.startswith("none")
        for metric in ("si_sdr", "pesq", "estoi"):
            mean, _, high = tables.paired(here, systems.DEFAULT, "noisy", metric)
            assert high >= 0, (title, metric)
            assert mean > 0 or not is_noisy, (title, metric)


# --- phoneme errors -----------------------------------------------------------------------------


def test_table_of_phoneme_errors_is_complete():
    rows = pd.read_csv(RESULTS / "phonemes.csv")
    cells = rows.groupby(["trained_on", "tried_on"])
    assert set(cells.groups) == {(a, b) for a in phonemes.KINDS for b in phonemes.KINDS}
    assert cells.utterance.agg(tuple).nunique() == 1  # the same clips everywhere
    rates = cells.errors.sum() / cells.words.sum()
    for kind in phonemes.KINDS:
        assert rates[kind, "clean"] < 0.45
    sha256 = models.card("spectrogram")["sha256"]
    assert set(rows.version) == {sha256[:12]}  # denoised by the shipped model
    curves = pd.read_csv(RESULTS / "phonemes_curves.csv")
    assert curves.groupby("trained_on").epoch.max().nunique() == 1


def test_denoising_gains_more_than_training_on_noise():
    rows = pd.read_csv(RESULTS / "phonemes.csv", dtype={"speaker": str}).assign(all=0)
    rows["system"] = rows.trained_on + " > " + rows.tried_on

    def change(system, other):
        return word_errors.change_of_errors(rows, system, other, ["all"])

    for system in ("clean > denoised", "noisy > noisy"):
        assert change(system, "clean > noisy").high.item() < 0
    assert change("clean > denoised", "noisy > noisy").high.item() < 0


# --- the listening test -------------------------------------------------------------------------


def test_answers_are_those_of_the_simulation():
    answers = listening_test.read_answers(ROOT / "data" / "listening" / "simulated_answers.csv")
    assert answers.listener.str.startswith("simulated-").all()
    assert answers.listener.nunique() == 10
    assert {REFERENCE, ANCHOR, "noisy", "low-pass", "spectrogram"} == set(answers.system)
    assert answers[list(SCALES)].isin(range(1, 6)).all(axis=None)
