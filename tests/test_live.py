"""The command `live`, with a sound card that is made of a thread: jitter, loss, Ctrl-C, no card."""

import _thread
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile as sf

from helpers import __main__ as command_line
from helpers import audio
from helpers.denoise import Denoiser
from helpers.store import ROOT
from helpers.tool import live


class PortAudioError(Exception):
    pass


class Card:
    """What `live` uses of the package sounddevice: a card that plays `noisy` into the callback.

    Its clock counts blocks and does not run by itself, so that a busy machine changes nothing:
    both callbacks come for the i-th time at `times[i]`, and the worker, which a `Paced` denoiser
    holds up, takes `costs[i]` for its block. At the places `lost` the output asks for nothing, and
    reports it when it asks again. When all is played the card presses Ctrl-C.
    """

    PortAudioError = PortAudioError

    def __init__(self, noisy, times=None, costs=None, rate=16_000, devices=("card",), lost=()):
        self.noisy, self.rate, self.devices = noisy, rate, devices
        self.times, self.costs, self.lost, self.out = times, costs, set(lost), []
        self.streams, self.active = {}, True
        self.gone = self.refuses = self.stopped = False
        self.permits = threading.Semaphore(0)

    def query_devices(self, device=None, kind=None):
        if kind is None:
            return self.devices
        if not self.devices or (device or "card") not in self.devices:
            raise ValueError(f"No {kind} device\nmatching {device!r}")
        return {"default_samplerate": float(self.rate)}

    def check_input_settings(self, device, channels, samplerate):
        if samplerate != self.rate:
            raise PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def open(self, kind, samplerate, blocksize, device, callback, **settings):
        if self.refuses:
            raise PortAudioError("Device unavailable")
        assert samplerate == self.rate
        assert settings == {"channels": 1, "dtype": "float32", "latency": "low"}
        assert device is None or device in self.devices
        self.blocksize, self.streams[kind] = blocksize, Stream(self, kind, callback)
        return self.streams[kind]

    def InputStream(self, *places, **settings):
        return self.open("input", *places, **settings)

    def OutputStream(self, *places, **settings):
        return self.open("output", *places, **settings)

    def start(self):
        """Play, once both streams are started."""
        if all(stream.started for stream in self.streams.values()) and len(self.streams) == 2:
            self.thread = threading.Thread(target=self.run)
            self.thread.start()

    def stop(self):
        self.stopped = True
        self.thread.join()
        self.permits.release(len(self.noisy))

    def run(self):
        try:
            self.play()
        finally:
            self.active = False

    def play(self):
        n = self.blocksize
        n_blocks = len(self.noisy) // n
        times = np.arange(n_blocks) if self.times is None else self.times[:n_blocks]
        costs = np.zeros(n_blocks) if self.costs is None else self.costs[:n_blocks]
        ends = np.zeros(n_blocks)  # of the worker
        for i in range(n_blocks):
            ends[i] = max(times[i], ends[i - 1]) + costs[i]
        done = 0
        for i in range(n_blocks):
            due = int(np.searchsorted(ends[:i], times[i], side="right"))
            self.let_work(done, due)
            done = due
            if self.stopped:
                return
            block = self.noisy[i * n : (i + 1) * n, None]
            self.streams["input"].callback(block, n, None, 0)
            out = np.zeros((n, 1), np.float32)  # what is heard where the output asks for nothing
            if i not in self.lost:
                self.streams["output"].callback(out, n, None, i - 1 in self.lost)
            self.out.append(out)
        self.permits.release(n_blocks)
        if not self.gone:
            _thread.interrupt_main()
            time.sleep(0.2)

    def let_work(self, done, due):
        """Let the worker do the blocks from `done` to `due`, and no more."""
        for _ in range(due - done):
            self.permits.release()
        worker = self.streams["input"].callback.__self__
        while worker.blocks_done < due and not self.stopped:
            time.sleep(0.0005)


class Stream:
    """One direction of a Card."""

    def __init__(self, card, kind, callback):
        self.card, self.callback = card, callback
        self.latency = {"input": 0.01, "output": 0.02}[kind]
        self.started = False

    @property
    def active(self):
        return self.card.active

    def __enter__(self):
        self.started = True
        self.card.start()
        return self

    def __exit__(self, *_):
        self.card.stop()


class Paced:
    """A denoiser whose last stream waits for the permits of a card."""

    def __init__(self, denoiser, card):
        self.denoiser, self.card = denoiser, card
        self.method, self.streams = denoiser.method, 0

    def stream(self, n_channels):
        self.streams += 1
        stream = self.denoiser.stream(n_channels)
        if self.streams == 2:  # the first only measures
            process = stream.process

            def wait_and_process(block):
                self.card.permits.acquire()
                return process(block)

            stream.process = wait_and_process
        return stream


def run(denoiser, card, devices=(None, None), folder=None):
    return live.run(Paced(denoiser, card), devices, folder, card)


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser("spectrogram", by_frequency=True)


@pytest.fixture(scope="module")
def noisy(speech):
    noise = np.random.default_rng(0).normal(0, 0.03, len(speech)).astype(np.float32)
    return speech + audio.band_limit(noise, 16_000, 4_000, 8_000)


@pytest.fixture(autouse=True)
def told_often(monkeypatch, heeds_ctrl_c):
    monkeypatch.setattr(live, "TELL_SECONDS", 0.02)


def heard(card, worker):
    """What the card played, without the latency in front."""
    return np.concatenate(card.out)[worker.wait :, 0]


def test_a_block_too_early_is_not_heard_and_both_sounds_are_kept(denoiser, noisy, tmp_path, capsys):
    card = Card(noisy, times=np.arange(300) // 2 * 2)  # two callbacks at once
    worker = run(denoiser, card, folder=tmp_path)
    assert (worker.late, worker.overruns, worker.blocks) == (0, 0, 300)
    expected = denoiser(noisy)
    np.testing.assert_allclose(heard(card, worker), expected[: -worker.wait], atol=2e-6)
    before, after = (sf.read(path, dtype="float32")[0] for path in sorted(tmp_path.iterdir())[::-1])
    np.testing.assert_allclose(before, noisy, atol=2**-15)
    np.testing.assert_allclose(after, expected, atol=2**-15)
    said = capsys.readouterr().out
    assert "100 ms from microphone to ear; 50 of them in the model, 20 in 2 blocks ahead" in said
    assert "3 s, 0 late blocks, 0 overruns, dropped 0 ms to catch up" in said


@pytest.mark.parametrize("method", ["spectrogram", "waveform"])
def test_jitter_of_card_and_worker_makes_no_block_late(noisy, method, monkeypatch):
    denoiser, rng = Denoiser(method, by_frequency=True), np.random.default_rng(0)
    times, costs = np.arange(300) + rng.uniform(0, 0.8, 300), rng.uniform(0, 1, 300)
    card = Card(noisy, times, costs)
    worker = run(denoiser, card)
    assert worker.late == worker.dropped == 0
    np.testing.assert_allclose(heard(card, worker), denoiser(noisy)[: -worker.wait], atol=2e-6)
    monkeypatch.setattr(live, "AHEAD", 0)
    assert run(denoiser, Card(noisy, times, costs)).late > 2  # so it is the blocks ahead that help


def test_what_comes_too_late_is_counted_and_the_latency_comes_back(denoiser, noisy):
    costs = np.full(300, 0.5)
    costs[100] = 12.0  # once, and the worker catches up
    card = Card(noisy, costs=costs)
    worker = run(denoiser, card)
    assert 8 <= worker.late == worker.dropped <= 25
    expected, got = denoiser(noisy)[: -worker.wait], heard(card, worker)
    wrong = np.flatnonzero(np.abs(got - expected) > 2e-6) // 160
    assert 90 < wrong.min() < wrong.max() < 230  # in a second
    assert np.abs(expected[230 * 160 :]).max() > 0.1


@pytest.mark.parametrize(
    "losses", [[range(50, 60)], [range(20, 23), range(60, 67), range(170, 180)]]
)
def test_after_underruns_the_latency_comes_back_to_what_was_promised(
    denoiser, noisy, losses, tmp_path, capsys
):
    """What the output did not ask for waits, is dropped within a second, and is recorded still."""
    lost = [i for loss in losses for i in loss]
    card = Card(np.tile(noisy, 2), lost=lost)
    worker = run(denoiser, card, folder=tmp_path)
    assert (worker.late, worker.dropped, worker.overruns) == (0, len(lost), len(losses))
    assert f"dropped {10 * len(lost)} ms to catch up" in capsys.readouterr().out
    expected, got = denoiser(card.noisy), heard(card, worker)
    wrong = np.flatnonzero(np.abs(got - expected[: len(got)]) > 2e-6) // 160 + worker.wait // 160
    assert wrong.min() >= lost[0]
    assert wrong.max() <= lost[-1] + live.UNUSED_BLOCKS + 1
    before, after = (sf.read(path, dtype="float32")[0] for path in sorted(tmp_path.iterdir())[::-1])
    np.testing.assert_allclose(before, card.noisy, atol=2**-15)
    np.testing.assert_allclose(after, expected, atol=2**-15)


def test_an_output_that_begins_before_the_input_takes_nothing_yet(denoiser):
    worker = live.Live(denoiser, 16_000, 160)
    there, out = worker.ready.qsize(), np.ones((160, 1), np.float32)
    for _ in range(10):
        worker.speak(out, 160, None, 0)
    assert (worker.ready.qsize(), worker.late, np.abs(out).max()) == (there, 0, 0)


def test_work_that_is_a_second_behind_leaves_out_what_it_cannot_do(denoiser):
    kept = []
    worker = live.Live(denoiser, 16_000, 160, tap=lambda *both: kept.append(both))
    for i in range(150):
        worker.hear(np.full((160, 1), i / 1_000, np.float32), 160, None, 0)
    worker.stop()
    worker.work()
    assert (worker.error, worker.skipped, worker.blocks_done) == (None, 50, 100)
    assert "dropped 500 ms to catch up" in live.closing_words(worker)
    before, after = (np.concatenate(one) for one in zip(*kept, strict=True))
    np.testing.assert_array_equal(before, np.repeat(np.arange(50, 150) / 1_000, 160).astype("f4"))
    assert len(after) == len(before)


def test_another_rate_of_the_card_is_converted(denoiser, noisy):
    card = Card(audio.resample(noisy, 16_000, 48_000), rate=48_000)
    worker = run(denoiser, card)
    assert (worker.sr, worker.block, worker.late) == (48_000, 480, 0)
    got, expected = heard(card, worker), audio.resample(denoiser(noisy), 16_000, 48_000)
    rest = got - expected[: len(got)]
    assert audio.level_db(rest) < audio.level_db(expected) - 30


def test_overruns_are_counted(denoiser):
    worker = live.Live(denoiser, 16_000, 160)
    block = np.zeros((160, 1), np.float32)
    for status in (0, "input overflow", 0):
        worker.hear(block, 160, None, status)
        worker.speak(block, 160, None, status and "output underflow")
    assert (worker.blocks, worker.overruns) == (3, 2)


# --- what can go wrong --------------------------------------------------------------------------


def test_errors_are_one_line_each(denoiser, noisy, tmp_path):
    def message(card, devices=(None, None)):
        with pytest.raises(live.LiveError) as error:
            run(denoiser, card, devices, tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no sound card" in message(Card(noisy, devices=()))
    assert "No input device matching 'x'" in message(Card(noisy), ("x", None))
    card = Card(noisy)
    card.refuses = True
    assert "refuses: Device unavailable" in message(card)
    assert not list(tmp_path.iterdir())  # no empty recordings
    card = Card(noisy[:16_000])
    card.gone = True
    assert "went away" in message(card)
    assert len(list(tmp_path.iterdir())) == 2  # what was heard until then


def test_a_recording_that_cannot_be_kept_ends_the_command(denoiser, noisy, tmp_path, monkeypatch):
    def full(path, blocks, *rest, **settings):
        next(iter(blocks))
        raise audio.AudioError("x.flac: cannot be written (the disk is full)")

    monkeypatch.setattr(live, "write_blocks", full)
    card = Card(np.tile(noisy, 10))
    with pytest.raises(audio.AudioError, match="the disk is full"):
        run(denoiser, card, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_worker_ends_the_command(denoiser, noisy):
    broken = noisy.copy()
    broken[8_000] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        run(denoiser, Card(broken))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("ImportError('no such module')", "pip install -r requirements-live.txt"),
        ("OSError('PortAudio library not found')", "apt install libportaudio2"),
    ],
)
def test_a_machine_without_portaudio_says_so_in_one_line(tmp_path, error, remedy):
    (tmp_path / "sounddevice.py").write_text(f"raise {error}")
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "live", "--list"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert remedy in done.stderr
    assert not done.stdout


def test_the_command_line_lists_and_runs(noisy, monkeypatch, capsys, tmp_path):
    card = Card(noisy[:16_000], devices=("card", "2 cable"))
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    assert command_line.main(["live", "--list"]) == 0
    assert "2 cable" in capsys.readouterr().out
    options = ["--in", "card", "--out", "2 cable", "--method", "a", "--whole-band", "--mix", "0.5"]
    assert command_line.main(["live", *options, "--record", str(tmp_path)]) == 0
    assert "waveform at 16000 Hz" in capsys.readouterr().out
    before, after = (sf.read(path, dtype="float32")[0] for path in sorted(tmp_path.iterdir())[::-1])
    np.testing.assert_allclose(before, noisy[:16_000], atol=2**-15)
    expected = Denoiser("waveform", mix=0.5)(noisy[:16_000])
    np.testing.assert_allclose(after, expected, atol=2**-15)
    assert command_line.main(["live", "--in", "y"]) == 1
    assert live.as_device("3") == 3
