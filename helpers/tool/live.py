"""Denoise what a microphone hears while it is heard: `denoiser live`.

Two callbacks of the sound card only copy, one a block in, one a block out. A thread denoises, two
blocks ahead of the card, so that it is not heard when it is late by less. Where the output stops
for a while or a block comes too late, more blocks wait from then on; those that for a second nobody
needed are dropped, so that the latency comes back. `README.md` here says how a virtual microphone
is made. Needs `pip install -r requirements-live.txt`.
"""

import collections
import concurrent.futures
import contextlib
import datetime
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import soxr

from helpers import store
from helpers.audio import SAMPLE_RATE
from helpers.denoise.stream import Denoiser
from helpers.writing import write_blocks

BLOCK_SECONDS = 0.01
AHEAD = 2  # blocks that are there before the first is denoised
UNUSED_BLOCKS = round(1.0 / BLOCK_SECONDS)  # what lies there through so many is dropped
TELL_SECONDS = 1.0


class LiveError(RuntimeError):
    """Sound cannot be taken or given; the message is one line that says what to do."""


class Chain:
    """What happens to a running sound, mono at `sr` Hz: to 16 kHz, denoised, and back."""

    def __init__(self, denoiser: Denoiser, sr: int):
        self.stream = denoiser.stream(1)
        rates = (sr, SAMPLE_RATE)
        self.down = soxr.ResampleStream(*rates, 1) if sr != SAMPLE_RATE else None
        self.up = soxr.ResampleStream(*rates[::-1], 1) if sr != SAMPLE_RATE else None

    def process(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take float32 `(n,)`; give what went into the model, what came out, and that at `sr`."""
        before = self.down.resample_chunk(block) if self.down else block
        after = self.stream.process(before[:, None])[:, 0]
        return before, after, self.up.resample_chunk(after) if self.up else after

    def finish(self) -> np.ndarray:
        """The rest that the model owes, at 16 kHz, so that after is as long as before."""
        return self.stream.finish()[:, 0]

    @staticmethod
    def lag(denoiser: Denoiser, sr: int, block: int, seconds: float = 1.0) -> int:
        """The most samples that a chain is behind after a block: measured on silence."""
        chain, behind, most = Chain(denoiser, sr), 0, 0
        for _ in range(int(seconds * sr / block)):
            *_, out = chain.process(np.zeros(block, np.float32))
            behind += block - len(out)
            most = max(most, behind)
        return most


class Live:
    """The sound between the two ends of a card, in blocks of `block` samples at `sr` Hz.

    `hear` and `speak` are the callbacks of sounddevice's InputStream and OutputStream; `work` runs
    in a thread until `stop`. `late` counts blocks that were not there in time, `overruns` those
    before or after which the card lost sound, `dropped` those that waited unused for a second,
    `skipped` those not denoised because the work was a second behind; `longest` is the longest time
    that a block took, in seconds.
    """

    def __init__(self, denoiser: Denoiser, sr: int, block: int, tap=None):
        self.block, self.sr, self.tap = block, sr, tap or (lambda before, after: None)
        self.wait = Chain.lag(denoiser, sr, block) + AHEAD * block  # samples; also warms it up
        self.chain = Chain(denoiser, sr)
        self.heard, self.ready = queue.SimpleQueue(), queue.SimpleQueue()
        self.cut = np.zeros(0, np.float32)  # what does not fill a block yet
        self._hand_out(np.zeros(self.wait, np.float32))
        self.waiting = collections.deque(maxlen=UNUSED_BLOCKS)  # blocks, whenever one is taken
        self.late = self.overruns = self.dropped = self.skipped = self.blocks = self.blocks_done = 0
        self.longest = 0.0
        self.error: Exception | None = None

    def hear(self, indata, frames, when, status) -> None:
        """Copy a block `(block, 1)` in."""
        if status:
            self.overruns += 1
        self.heard.put(indata[:, 0].copy())
        self.blocks += 1

    def speak(self, outdata, frames, when, status) -> None:
        """Copy a block `(block, 1)` out, silence where none is ready; drop what nobody needs."""
        if status:
            self.overruns += 1
        outdata.fill(0)
        if not self.blocks:  # the input has not begun
            return
        self.waiting.append(self.ready.qsize() + self.dropped)  # as if all of them still waited
        if len(self.waiting) == UNUSED_BLOCKS:
            for _ in range(min(self.waiting) - self.dropped - AHEAD):
                self.ready.get_nowait()
                self.dropped += 1
        try:
            outdata[:, 0] = self.ready.get_nowait()
        except queue.Empty:
            self.late += 1

    def work(self) -> None:
        """Denoise what is heard, block by block, until `stop`; an error is kept in `error`."""
        try:
            while (block := self.heard.get()) is not None:
                if self.heard.qsize() > UNUSED_BLOCKS:  # this machine is too slow
                    self.skipped += 1
                    continue
                start = time.perf_counter()
                before, after, out = self.chain.process(block)
                self._hand_out(out)
                self.longest = max(self.longest, time.perf_counter() - start)
                self.tap(before, after)
                self.blocks_done += 1
            self.tap(np.zeros(0, np.float32), self.chain.finish())
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Let `work` end, once all that was heard is denoised."""
        self.heard.put(None)

    def _hand_out(self, out: np.ndarray) -> None:
        joined = np.concatenate([self.cut, out])
        whole = len(joined) // self.block * self.block
        for piece in joined[:whole].reshape(-1, self.block):
            self.ready.put(piece)
        self.cut = joined[whole:]


def until_none(first: np.ndarray, blocks: queue.SimpleQueue) -> Iterator[np.ndarray]:
    """A block and those of a queue, until None comes."""
    block = first
    while block is not None:
        yield block
        block = blocks.get()


@contextlib.contextmanager
def recorder(folder: Path | None) -> Iterator:
    """A function of before and after, float32 `(n,)` at 16 kHz each, that keeps both as FLAC.

    They are `<date>_before.flac` and `<date>_after.flac` of `folder`, and appear at the end, if
    anything was heard. Raises FileError as `audio.write`; the function does where writing failed.
    """
    if folder is None:
        yield None
        return
    store.check_place(folder / "x")
    date = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    queues = queue.SimpleQueue(), queue.SimpleQueue()

    def write(name: str, blocks: queue.SimpleQueue) -> None:
        path, first = folder / f"{date}_{name}.flac", blocks.get()
        if first is None:
            return
        with store.atomic_path(path) as temporary:
            kind = {"format": "FLAC", "subtype": "PCM_16", "target": path}
            write_blocks(temporary, until_none(first, blocks), SAMPLE_RATE, 1, **kind)

    def keep(before: np.ndarray, after: np.ndarray) -> None:
        for one in writing:
            if one.done():  # too early: the disk is full
                one.result()
        for blocks, samples in zip(queues, (before, after), strict=True):
            blocks.put(samples[:, None])

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        writing = [
            threads.submit(write, name, blocks)
            for name, blocks in zip(("before", "after"), queues, strict=True)
        ]
        try:
            yield keep
        finally:
            for blocks in queues:
                blocks.put(None)
        for one in writing:
            one.result()


# --- the sound card -----------------------------------------------------------------------------


def sound_module() -> ModuleType:
    """The package sounddevice. Raises LiveError where it, or PortAudio below it, is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise LiveError(
            "sounddevice is not installed; pip install -r requirements-live.txt"
        ) from error
    except OSError as error:
        raise LiveError(
            "PortAudio is not installed; Debian: apt install libportaudio2, macOS: brew install "
            "portaudio"
        ) from error
    return sounddevice


def list_devices(sd: ModuleType) -> str:
    """The devices with their numbers, a line each. Raises LiveError where there is none."""
    devices = sd.query_devices()
    if len(devices) == 0:
        raise LiveError("no sound card was found; the README of helpers/tool names virtual ones")
    return str(devices)


def as_device(text: str | None) -> int | str | None:
    """A device by its number or by a part of its name, None for the default."""
    return int(text) if text and text.isdigit() else text


def device_rate(sd: ModuleType, devices: tuple) -> int:
    """16 kHz where both devices can, else the rate of the input, in Hz.

    Raises LiveError where an input or output is missing.
    """
    list_devices(sd)
    try:
        source, _ = sd.query_devices(devices[0], "input"), sd.query_devices(devices[1], "output")
    except (sd.PortAudioError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LiveError(
            f"no such input or output ({reason}); --list shows what there is"
        ) from error
    try:
        sd.check_input_settings(devices[0], channels=1, samplerate=SAMPLE_RATE)
        sd.check_output_settings(devices[1], channels=1, samplerate=SAMPLE_RATE)
    except sd.PortAudioError:
        return round(source["default_samplerate"])
    return SAMPLE_RATE


def run(denoiser: Denoiser, devices: tuple, folder: Path | None = None, sd=None) -> Live:
    """Denoise from the first device to the second until Ctrl-C, then say how it went.

    `folder` records both sounds. Raises LiveError where a device is missing, refuses or goes away.
    """
    sd = sd or sound_module()
    sr = device_rate(sd, devices)
    with recorder(folder) as tap:
        live = Live(denoiser, sr, round(BLOCK_SECONDS * sr), tap)
        thread = threading.Thread(target=live.work)
        settings = {"channels": 1, "dtype": "float32", "latency": "low"}
        try:
            with (  # two, so that sound that the output loses does not wait in the input
                sd.OutputStream(sr, live.block, devices[1], callback=live.speak, **settings) as out,
                sd.InputStream(
                    sr, live.block, devices[0], callback=live.hear, **settings
                ) as source,
            ):
                thread.start()
                print(opening_words(live, source.latency + out.latency, denoiser), flush=True)
                watch(live, (source, out))
        except sd.PortAudioError as error:
            raise LiveError(f"the sound card refuses: {error}; choose others of --list") from error
        finally:
            if thread.ident:
                live.stop()
                thread.join()
    print(closing_words(live))
    return live


def watch(live: Live, streams: tuple) -> None:
    """Wait for Ctrl-C; on a terminal, tell each second how it goes."""
    try:
        while all(stream.active for stream in streams) and not live.error:
            time.sleep(TELL_SECONDS)
            if sys.stdout.isatty():
                print(f"\r{closing_words(live)} ", end="", flush=True)
    except KeyboardInterrupt:
        print()
        return
    raise live.error or LiveError("the sound card went away; choose others of --list")


def opening_words(live: Live, card_seconds: float, denoiser: Denoiser) -> str:
    """The latency, and of what it is made, in ms."""
    inside, card = 1000 * live.wait / live.sr, 1000 * card_seconds
    ahead = 1000 * AHEAD * BLOCK_SECONDS
    return (
        f"{denoiser.method} at {live.sr} Hz: {inside + card:.0f} ms from microphone to ear; "
        f"{inside - ahead:.0f} of them in the model, {ahead:.0f} in {AHEAD} blocks ahead, "
        f"{card:.0f} in the sound card (Ctrl-C ends)"
    )


def closing_words(live: Live) -> str:
    """Seconds, late blocks, overruns, what was dropped, and the longest block."""
    block_ms = 1000 * BLOCK_SECONDS
    return (
        f"{live.blocks * live.block / live.sr:.0f} s, {live.late} late blocks, {live.overruns} "
        f"overruns, dropped {(live.dropped + live.skipped) * block_ms:.0f} ms to catch up, "
        f"{1000 * live.longest:.1f} ms for the slowest of {block_ms:.0f} ms"
    )
