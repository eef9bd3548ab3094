"""`helpers.protocol` and `helpers.peers`: the whole test protocol, and rivals made comparable."""

import dataclasses
import hashlib
import importlib.metadata
import time

import numpy as np
import pandas as pd
import pytest

from helpers import audio, baselines, corpus, evaluation, metrics, models, noise, peers, protocol

SAMPLE = corpus.ROOT / "data" / "sample"
SR = audio.SAMPLE_RATE


# --- the protocol -------------------------------------------------------------------------------


def test_protocol_holds_what_a_sceptic_asks_for():
    names = [repr(one) for one in protocol.CONDITIONS]
    assert len(set(names)) == len(names)
    white = [one for one in protocol.CONDITIONS if one.kind == "white"]
    normal = {one.snr_db for one in white if np.isnan(one.level_db)}
    assert {-5.0, 0.0, 5.0, 10.0, 20.0} == normal
    for one in protocol.HEADLINE[2:6]:
        for snr in protocol.SNRS:
            wanted = dataclasses.replace(one, snr_db=snr)
            assert protocol.is_among(wanted, protocol.CONDITIONS)
    assert {one.level_db for one in white if not np.isnan(one.level_db)} == {-20.0, -35.0, -50.0}
    kinds = {one.kind for one in protocol.CONDITIONS}
    assert {*noise.HELD_OUT_KINDS, "pink", "recorded", "none"} < kinds
    assert any(one.low == 0 for one in protocol.CONDITIONS if one.kind == "recorded")
    assert all(protocol.is_among(one, protocol.CONDITIONS) for one in protocol.HEADLINE)
    assert not protocol.is_among(evaluation.Condition(snr_db=1.0), protocol.CONDITIONS)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A protocol of three conditions and two clips, with its own cache; lists what is scored."""
    conditions = protocol.HEADLINE[0], protocol.HEADLINE[-1], protocol.CONDITIONS[-1]
    monkeypatch.setattr(protocol, "CONDITIONS", conditions)
    monkeypatch.setattr(protocol, "WITH_OPINIONS", ())
    monkeypatch.setattr(protocol, "UTTERANCES", 2)
    monkeypatch.setattr(protocol, "METHODS", ("spectrogram",))
    monkeypatch.setattr(protocol, "CACHE", tmp_path / "parts")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    (tmp_path / "spectrogram.keras").write_text("weights 1")
    monkeypatch.setattr(evaluation, "neural", lambda *_: lambda clean, noisy: 0.5 * noisy)
    scored = []
    whole = evaluation.evaluate

    def counted(utterances, conditions, systems, *args, **kwargs):
        scored.extend((conditions[0].kind, name) for name in systems)
        return whole(utterances, conditions, systems, *args, workers=1, **kwargs)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    return scored


def test_protocol_goes_on_and_scores_only_what_is_new(small, monkeypatch):
    table = corpus.read_corpus(SAMPLE)
    rows = protocol.run(table, None)
    headline, rest = 3 + 4 + 1 + 1 + 2, 3 + 1 + 1
    assert len(small) == 2 * headline + rest
    assert len(rows) == 2 * len(small)
    assert set(rows.split) == {"test"}
    assert rows.cpu.ge(0).all()
    keys = ["kind", "level_db", "system", "utterance"]
    assert not rows.duplicated(keys).any()

    small.clear()
    again = protocol.run(table, None)
    assert small == []
    pd.testing.assert_frame_equal(again, rows)

    lost = next(path for path in protocol.CACHE.glob("*.csv") if "oracle IRM" in path.read_text())
    lost.unlink()
    same = protocol.run(table, None).drop(columns="cpu")
    assert [name for _, name in small] == ["oracle IRM"]
    pd.testing.assert_frame_equal(same, rows.drop(columns="cpu"))

    small.clear()
    models.weights_path("spectrogram").write_text("weights 2, longer")
    trained_again = protocol.run(table, None)
    assert trained_again.megabytes.dropna().unique() == [17e-6]
    assert small == [(kind, "spectrogram") for kind in ("white", "none", "white")]


def test_speeds_of_two_environments_fill_one_file(monkeypatch, tmp_path):
    def slow(clean, noisy):
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        return noisy

    table, path = corpus.read_corpus(SAMPLE), tmp_path / "speed.csv"
    entries = {"noisy": protocol.Entry(lambda clean, noisy: noisy), "slow": protocol.Entry(slow)}
    monkeypatch.setattr(protocol, "SPEED_UTTERANCES", 3)
    monkeypatch.setattr(protocol, "course_entries", lambda: entries)
    monkeypatch.setattr(protocol, "peer_entries", lambda: {"peer": protocol.Entry(slow)})
    first = protocol.speeds(path, table).set_index("system")
    assert first.cpu["noisy"] < 1e-3
    seconds = evaluation.pick(table, "test", 3).seconds[1:].clip(upper=evaluation.LONGEST)
    assert first.seconds["slow"] == pytest.approx(seconds.sum(), abs=0.01)
    assert first.cpu["slow"] == pytest.approx(0.02 / seconds.mean(), rel=0.5)
    assert (first.cpu_low <= first.cpu).all()
    protocol.speeds(path, table, with_peers=True)
    protocol.speeds(path, table)
    assert sorted(pd.read_csv(path).system) == ["noisy", "peer", "slow"]


def test_committed_speeds_are_those_of_every_system_in_one_run():
    found = pd.read_csv(corpus.ROOT / "data" / "results" / "speed.csv")
    assert sorted(found.system) == sorted(protocol.ORDER)
    assert found.seconds.nunique() == 1  # the same clips
    dates = pd.to_datetime(found.date)
    assert dates.max() - dates.min() < pd.Timedelta(minutes=10)


def test_code_of_a_part_ignores_words_and_sees_changes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "plain": "def f(x):\n    return x + 1\n",
        "worded": '"""Module."""\n\n\ndef f(x):\n    """One more."""\n    return x + 1  # yes\n',
        "other": "def f(x):\n    return x + 2\n",
    }
    codes = {}
    for name, text in texts.items():
        (tmp_path / f"part_{name}.py").write_text(text)
        codes[name] = protocol.code(importlib.import_module(f"part_{name}"))
    assert codes["plain"] == codes["worded"] != codes["other"]


# --- the peers, whose packages are not installed here -------------------------------------------


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


def test_peers_that_are_missing_are_named():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        peers.versions()


# --- what was measured --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    """The committed results: the course's own systems, and the peers."""
    folder = corpus.ROOT / "data" / "results"
    return [evaluation.load_rows(folder / f"{name}.csv") for name in ("test", "peers")]


def test_results_are_complete_and_of_speakers_never_trained_on(results):
    own, installed = results
    assert own.utterance.nunique() >= 60
    assert set(own.split) == {"test", "other"}
    assert set(own.utterance) == set(installed.utterance)
    by = ["kind", "low", "high", "snr_db", "level_db"]
    for_peers = protocol.HEADLINE + protocol.SWEEP
    for rows, conditions in ((own, protocol.CONDITIONS), (installed, for_peers)):
        assert len(rows[by].drop_duplicates()) == len(conditions)
        counts = rows.groupby([*by, "system"], dropna=False).size()
        assert set(counts) == {own.utterance.nunique()}
    assert set(installed.system) == set(peers.PACKAGES)
    assert set(own.system) | set(installed.system) == set(protocol.ORDER)
    assert installed.version.str.contains(r"^[\w-]+ \d").all()


def test_results_are_those_of_the_shipped_weights(results):
    for method in evaluation.METHODS:
        weights = models.weights_path(method).read_bytes()
        versions = results[0].version[results[0].system == method]
        assert set(versions) == {hashlib.sha256(weights).hexdigest()}


def test_results_hold_the_same_noisy_clips_as_today(results):
    """One clip of the committed table, made again where the corpus is at hand."""
    folder = corpus.find_data("LibriSpeech")
    if folder is None:
        pytest.skip("no real corpus here")
    row = results[0].query("system == 'low-pass' and kind == 'pink' and snr_db == 0").iloc[0]
    table = corpus.read_corpus(folder).set_index("utterance")
    if row.utterance not in table.index:
        pytest.skip("another corpus than that of the results")
    whole = audio.read(table.path[row.utterance])[: int(evaluation.LONGEST * SR)]
    condition = evaluation.Condition("pink", 2_500, 7_000, 0.0)
    clean, _, noisy = evaluation.make_noisy(row.utterance, whole, condition, protocol.SEED)
    assert metrics.si_sdr(clean, baselines.low_pass(noisy)) == pytest.approx(row.si_sdr, abs=0.01)
