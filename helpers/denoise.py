"""Use a trained model: on an array, on a stream, on a file of any length.

Everything goes block by block through `Stream`, so memory does not grow with the file and the
result does not depend on where the blocks are cut. Taught in `04_spectrogram_autoencoder`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from helpers import audio, files, models
from helpers.audio import SAMPLE_RATE
from helpers.backend import tf
from helpers.gate import Change
from helpers.models.blocks import zero_states

BLOCK_SECONDS = 4.0
FINE = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_24", "ALAC_32"}  # written with 24 bits


class Denoiser:
    """A trained model of frames, compiled for blocks of one length.

    `method` is "waveform" or "spectrogram"; `folder` holds the weights (`data/models` by
    default). What comes out is `mix` x denoised + (1 - mix) x noisy (*observation adding*, K.
    Iwamoto et al., "How bad are artifacts?", Interspeech 2022). An input whose SNR above 2 kHz, as
    estimated, is over `gate_db` dB, or of whose noise more than `low_share` lies below 2 kHz, is
    left as it is (`helpers.gate`). By default none of this is done. Raises models.WeightsError
    where weights are missing or wrong, ValueError for a mix outside 0 to 1.
    """

    def __init__(
        self,
        method: str,
        folder: Path | None = None,
        mix: float = 1.0,
        gate_db: float = np.inf,
        low_share: float = 1.0,
    ):
        if not 0 <= mix <= 1:
            raise ValueError(f"mix {mix:g}: choose a share from 0 (noisy) to 1 (denoised)")
        self.method, self.mix = method, mix
        self.gate_db, self.low_share = gate_db, low_share
        self.model = models.load(method, folder)
        self.win_length = self.model.inputs[0].shape[-1]
        self.hop_length = models.METHODS[method].HOP_LENGTH
        self.block_frames = int(BLOCK_SECONDS * SAMPLE_RATE) // self.hop_length
        self.step = tf.function(lambda frames, states: self.model([frames, *states]))

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: a sample waits for the end of the last frame that holds it."""
        return 1000 * self.win_length / SAMPLE_RATE

    def __call__(self, noisy: np.ndarray) -> np.ndarray:
        """Denoise 16 kHz audio `(samples,)` or `(samples, channels)`; same shape, float32."""
        columns = noisy[:, None] if noisy.ndim == 1 else noisy
        stream = Stream(self, columns.shape[1])
        denoised = np.concatenate([stream.process(columns), stream.finish()])
        chosen = columns if stream.why_leave else denoised
        return np.float32(chosen).reshape(noisy.shape)


class Stream:
    """One running signal: takes blocks of any length and gives back what is ready.

    Blocks are float32 `(samples, channels)` at 16 kHz. All that comes out, joined, is as long as
    all that went in, and aligned with it. It is mixed as the denoiser says; the gate, which looks
    at a whole input, is not for streams.
    """

    def __init__(self, denoiser: Denoiser, n_channels: int):
        self.denoiser = denoiser
        overlap = denoiser.win_length - denoiser.hop_length
        self.waiting = np.zeros((n_channels, overlap), np.float32)
        self.tail = np.zeros((n_channels, overlap), np.float32)  # of the overlap-add
        self.states = zero_states(denoiser.model, n_channels)
        self.to_drop = overlap  # output that belongs before the first sample
        self.noisy = np.zeros((0, n_channels), np.float32)  # taken in and not yet given back
        self.change = Change(n_channels)

    @property
    def owed(self) -> int:
        """Samples taken in and not yet given back."""
        return len(self.noisy)

    @property
    def why_leave(self) -> str:
        """Why the gate would leave what came in so far as it is, "" if it would not."""
        return self.change.why_leave(self.denoiser.gate_db, self.denoiser.low_share)

    def process(self, block: np.ndarray) -> np.ndarray:
        """Take `(n, channels)`, give what is complete, `(m, channels)`."""
        self.noisy = np.concatenate([self.noisy, np.float32(block)])
        self.waiting = np.concatenate([self.waiting, np.float32(block).T], axis=1)
        ready = list(self._full_blocks())
        return self._hand_out(ready)

    def finish(self) -> np.ndarray:
        """Give the rest, by letting zeros in behind the last sample."""
        ready = []
        length = self.denoiser.block_frames * self.denoiser.hop_length
        while self.owed + self.to_drop > sum(part.shape[1] for part in ready):
            self.waiting = np.pad(self.waiting, ((0, 0), (0, length)))
            ready += self._full_blocks()
        return self._hand_out(ready)

    def _full_blocks(self) -> Iterator[np.ndarray]:
        win, hop = self.denoiser.win_length, self.denoiser.hop_length
        n_frames = self.denoiser.block_frames
        length, overlap = n_frames * hop, win - hop
        while self.waiting.shape[1] >= length + overlap:
            windows = np.lib.stride_tricks.sliding_window_view(self.waiting, win, axis=1)
            frames, *self.states = self.denoiser.step(
                tf.constant(windows[:, :length:hop]), self.states
            )
            total = tf.signal.overlap_and_add(frames, hop).numpy()
            total[:, :overlap] += self.tail
            self.tail = total[:, length:]
            self.waiting = self.waiting[:, length:]
            yield total[:, :length]

    def _hand_out(self, ready: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([self.tail[:, :0], *ready], axis=1)
        dropped = min(self.to_drop, joined.shape[1])
        self.to_drop -= dropped
        denoised = joined[:, dropped : dropped + self.owed].T
        noisy, self.noisy = self.noisy[: len(denoised)], self.noisy[len(denoised) :]
        self.change.add(noisy, denoised)
        mix = self.denoiser.mix
        return denoised if mix == 1 else mix * denoised + (1 - mix) * noisy


# --- files ------------------------------------------------------------------------------------


def resampler(sr_in: float, sr_out: float, n_channels: int) -> Callable:
    """A function (block, last) -> block that converts the rate of a stream with soxr."""
    if sr_in == sr_out:
        return lambda block, last=False: block
    return soxr.ResampleStream(sr_in, sr_out, n_channels, dtype="float32").resample_chunk


def denoise_file(denoiser: Denoiser, source: Path, target: Path, overwrite: bool = False) -> dict:
    """Denoise one file: same length, rate and channels, every channel for itself, streamed.

    Written as FLAC (or WAV, if `target` ends so), with 24 bits where the input has more than 16.
    Returns {"seconds", "sr", "clipped", "left"} (seconds of audio, samples clipped to full scale,
    why the gate left the input as it is: "clean", "whole band" or "" for neither). Raises
    AudioError, and then leaves nothing behind.
    """
    with audio.open_audio(source) as reader, audio.atomic_path(target, overwrite) as temporary:
        files.check_format(reader, source, target)
        sr, channels = reader.samplerate, reader.channels
        bits = "PCM_24" if reader.subtype in FINE else "PCM_16"
        kind = {"subtype": bits, "format": target.suffix[1:].upper()}

        def write(blocks: Iterator[np.ndarray]) -> int:
            clipped = 0
            with sf.SoundFile(temporary, "w", sr, channels, **kind) as writer:
                for block in blocks:
                    clipped += int(np.sum(np.abs(block) > 1))
                    writer.write(np.clip(block, -1, 1))
            return clipped

        stream = Stream(denoiser, channels)
        clipped = write(denoised_blocks(stream, reader))
        if left := stream.why_leave:
            with audio.open_audio(source) as again:
                clipped = write(audio.read_blocks(again, int(BLOCK_SECONDS * sr)))
        return {"seconds": reader.frames / sr, "sr": sr, "clipped": clipped, "left": left}


def denoised_blocks(stream: Stream, reader: sf.SoundFile) -> Iterator[np.ndarray]:
    """Blocks `(n, channels)` at the file's own rate, as many samples in all as the file has."""
    sr, channels = reader.samplerate, reader.channels
    inward, outward = resampler(sr, SAMPLE_RATE, channels), resampler(SAMPLE_RATE, sr, channels)
    empty = np.zeros((0, channels), np.float32)
    left = reader.frames
    bar = tqdm(total=reader.frames / sr, unit="s", delay=2, leave=False, disable=None)
    for block in audio.read_blocks(reader, int(BLOCK_SECONDS * sr)):
        out = outward(stream.process(inward(block)))[:left]
        left -= len(out)
        bar.update(len(block) / sr)
        yield out
    rest = np.concatenate([stream.process(inward(empty, last=True)), stream.finish()])
    rest = outward(rest, last=True)[:left]
    yield np.pad(rest, ((0, left - len(rest)), (0, 0)))  # rates round to a sample less
    bar.close()
