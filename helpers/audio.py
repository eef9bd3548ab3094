"""Sound in and out: files, rates, levels, frames with overlap-add, and the STFT.

Arrays are float32 in [-1, 1] full scale, shape `(samples,)` for one channel.
Taught in `01_dataset` (files, STFT) and `03_waveform_autoencoder` (frames, overlap-add).
"""

from pathlib import Path

import numpy as np
import soxr

from helpers.reading import ENDINGS as ENDINGS
from helpers.reading import AudioError as AudioError
from helpers.reading import AudioWarning as AudioWarning
from helpers.reading import Reader as Reader
from helpers.reading import audio_files as audio_files
from helpers.reading import files_below as files_below
from helpers.reading import note as note
from helpers.reading import open_audio as open_audio
from helpers.store import atomic_path
from helpers.writing import write_blocks as write_blocks

SAMPLE_RATE = 16_000  # Hz, of LibriSpeech and of every model here
# Frames of the pictures that the chapters draw. Models, metrics and filters name their own.
WIN_LENGTH = 512  # samples, 32 ms
HOP_LENGTH = 256  # samples, 16 ms
COMPRESSION = 0.3  # exponent on magnitudes, in what the models hear and in their loss
LOUDER = 4.0  # than the rest: what is beyond that, and full scale, is a glitch
SILENCE_DB = -120.0  # dBFS, what the level of digital silence is called


# --- files ------------------------------------------------------------------------------------


def read(path: Path, sr: int = SAMPLE_RATE) -> np.ndarray:
    """The one loader: a whole file as mono at `sr` Hz, float32 `(samples,)`.

    Channels are averaged; another rate is converted with soxr. For files of any length use
    `helpers.tool.files`, which streams. Raises AudioError as `open_audio` and `Reader.blocks` do.
    """
    with open_audio(path) as reader:
        mono = np.concatenate(list(reader.blocks(1 << 20))).mean(axis=1)
        return resample(mono, reader.samplerate, sr)


def write(path: Path, samples: np.ndarray, sr: int = SAMPLE_RATE, overwrite: bool = False) -> None:
    """Write float samples `(samples,)` or `(samples, channels)` as 16-bit FLAC (RFC 9639).

    Values beyond full scale are clipped. Raises FileError as `store.atomic_path` and
    `write_blocks` do.
    """
    n_channels = 1 if np.ndim(samples) == 1 else np.shape(samples)[1]
    with atomic_path(path, overwrite) as temporary:
        kind = {"format": "FLAC", "subtype": "PCM_16", "target": path}
        write_blocks(temporary, [samples], sr, n_channels, **kind)


def resample(samples: np.ndarray, sr_in: float, sr_out: float) -> np.ndarray:
    """Convert the rate with soxr (https://sourceforge.net/p/soxr), along the first axis."""
    samples = np.asarray(samples, np.float32)
    return samples if sr_in == sr_out else soxr.resample(samples, sr_in, sr_out)


# --- arrays that people bring -----------------------------------------------------------------

MOST_CHANNELS = 64  # more columns than that are samples, of an array that stands on its side


def as_columns(samples, n_channels: int | None = None) -> np.ndarray:
    """Samples as float32 `(samples, channels)`, full scale 1; integers by the range of their type.

    `samples`: float, or integers of 8, 16 or 32 bits, `(samples,)` or `(samples, channels)`;
    `n_channels`: how many channels they must have, any if None. Raises ValueError for
    `(channels, samples)`, NaN or infinity, and other types.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise ValueError(f"an array {array.shape}; give (samples,) or (samples, channels)")
    columns = array[:, None] if array.ndim == 1 else array
    found = columns.shape[1]
    if found != (n_channels or found) or not 1 <= found <= MOST_CHANNELS:
        wanted = f"{n_channels} channels" if n_channels else "channels"
        raise ValueError(
            f"an array {array.shape}, not (samples, {wanted}); if it is (channels, samples), "
            "give its .T"
        )
    if columns.dtype.kind in "iu" and columns.dtype.itemsize <= 4:
        full = 2.0 ** (8 * columns.dtype.itemsize - 1)
        columns = columns / full - (columns.dtype.kind == "u")
    if columns.dtype.kind != "f":
        raise ValueError(f"samples of type {array.dtype}, of no known full scale; give float32")
    columns = columns.astype(np.float32, copy=False)
    if not np.isfinite(columns).all():
        raise ValueError("samples that are NaN or infinite; replace them (np.nan_to_num)")
    return columns


# --- levels -----------------------------------------------------------------------------------


def level_db(samples: np.ndarray) -> float:
    """Root-mean-square level in dB re full scale, never below SILENCE_DB."""
    power = np.mean(np.square(samples, dtype=np.float64)) if np.size(samples) else 0.0
    return float(10 * np.log10(max(power, 10 ** (SILENCE_DB / 10))))


def set_level(samples: np.ndarray, target_db: float) -> np.ndarray:
    """Scale to an RMS level in dBFS; digital silence stays silence."""
    level = level_db(samples)
    gain = 0.0 if level <= SILENCE_DB else 10 ** ((target_db - level) / 20)
    return np.asarray(samples, np.float32) * np.float32(gain)


def without_glitches(samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Samples with single ones far beyond full scale and beyond the others bounded.

    One sample of 10,000, as a damaged float file has it, would make all else look faint to the
    running level for many seconds. The bound along `axis`, the time, is full scale or, in louder
    inputs, LOUDER times what all but a thousandth stay below. Within full scale nothing changes.
    """
    size = np.abs(samples)
    if size.max(initial=0) <= 1:
        return samples
    usual = np.quantile(size, 0.999, axis=axis, keepdims=True, method="lower")
    bound = np.maximum(1, LOUDER * usual)
    return np.clip(samples, -bound, bound)


def band_limit(samples: np.ndarray, sr: float, low: float, high: float) -> np.ndarray:
    """Keep `low`..`high` Hz only, with edges one FFT bin wide (zero outside)."""
    spectrum = np.fft.rfft(samples)
    f = np.fft.rfftfreq(len(samples), 1 / sr)
    spectrum[(f < low) | (f > high)] = 0
    return np.fft.irfft(spectrum, len(samples))


# --- frames and the STFT ----------------------------------------------------------------------


def hann(length: int) -> np.ndarray:
    """Periodic Hann window, float64 `(length,)`: its copies half a length apart sum to one."""
    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, length + 1)[:-1])


def root_hann(length: int) -> np.ndarray:
    """Square root of the periodic Hann window, for use before and after a transform."""
    return np.sqrt(hann(length))


def frame(samples: np.ndarray, win_length: int, hop_length: int) -> np.ndarray:
    """Overlapping frames `(frames, win_length)` that cover every sample.

    `win_length - hop_length` zeros stand before the first sample and enough behind the last,
    so that each sample lies in `win_length / hop_length` frames and `overlap_add` gives it back.
    """
    overlap = win_length - hop_length
    n_frames = -(-(len(samples) + overlap) // hop_length)
    padded = np.zeros(overlap + n_frames * hop_length, samples.dtype)
    padded[overlap : overlap + len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, win_length)[::hop_length]


def overlap_add(frames: np.ndarray, hop_length: int, n_samples: int) -> np.ndarray:
    """Sum frames `(frames, win_length)` at their places: the inverse of `frame`, `(n_samples,)`.

    Exact when the products of analysis and synthesis windows sum to one over the overlaps
    (constant overlap-add; Allen and Rabiner, Proc. IEEE 65(11), 1977).
    """
    n_frames, win_length = frames.shape
    total = np.zeros((n_frames - 1) * hop_length + win_length, frames.dtype)
    for i, one in enumerate(frames):
        total[i * hop_length : i * hop_length + win_length] += one
    overlap = win_length - hop_length
    return total[overlap : overlap + n_samples]


def stft(
    samples: np.ndarray, win_length: int = WIN_LENGTH, hop_length: int = HOP_LENGTH
) -> np.ndarray:
    """Root-Hann STFT, complex `(frames, win_length // 2 + 1)`, rows in time."""
    return np.fft.rfft(frame(samples, win_length, hop_length) * root_hann(win_length))


def istft(S: np.ndarray, n_samples: int, hop_length: int = HOP_LENGTH) -> np.ndarray:
    """Inverse of `stft`, float64 `(n_samples,)`, exact where the hop is half a window."""
    win_length = 2 * (S.shape[1] - 1)
    return overlap_add(np.fft.irfft(S) * root_hann(win_length), hop_length, n_samples)


def power_db(power: np.ndarray, reference: float = 1.0) -> np.ndarray:
    """Power to dB re `reference`, floored at SILENCE_DB."""
    return 10 * np.log10(np.maximum(np.abs(power) / reference, 10 ** (SILENCE_DB / 10)))
