"""Batches of (noisy, clean) training pairs, mixed on the fly and reproducible by item number.

Taught in `02_noise` (mixing) and `03_waveform_autoencoder` (training).
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers import audio
from helpers.backend import tf
from helpers.data import noise, noise_bank

SPEED_RANGE = (0.9, 1.1)  # resampling factor, changes pitch and tempo together
SPEED_SHARE = 1 / 3  # of the examples; slower speech ends below 8 kHz, and a model learns that too


def load_speech(paths: Iterable[Path], verbose: bool = True) -> np.ndarray:
    """All utterances end to end, int16 `(samples,)` at 16 kHz: the pool that training cuts from."""
    paths = list(paths)
    cuts = [
        np.int16(np.clip(audio.read(path), -1, 1) * 32767)
        for path in tqdm(paths, "speech", disable=None if verbose else True, leave=False)
    ]
    return np.concatenate(cuts)


def cut_speech(speech: np.ndarray, rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """A random cut `(n_samples,)`, at times faster or slower (Ko et al., Interspeech 2015)."""
    speed = rng.uniform(*SPEED_RANGE) if rng.random() < SPEED_SHARE else 1.0
    length = min(int(np.ceil(n_samples * speed)) + 8, len(speech))
    start = rng.integers(len(speech) - length + 1)
    cut = speech[start : start + length].astype(np.float32) / 32768
    cut = audio.resample(cut, length, length / speed)[:n_samples]
    return np.pad(cut, (0, n_samples - len(cut)))


def example(
    item: int, speech: np.ndarray, bank: noise_bank.NoiseBank, n_samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training pair number `item`: `(noisy, clean)`, float32 `(n_samples,)` each.

    The same item, seed, speech and bank give the same pair bit for bit, so an interrupted
    training goes on where it stopped. The shares and ranges stand in `noise_bank`.
    """
    rng = np.random.default_rng([seed, item])
    clean = noise_bank.equalise(cut_speech(speech, rng, n_samples), rng)
    clean = audio.set_level(clean, rng.uniform(*noise_bank.LEVEL_RANGE))
    kind, snr_db = rng.random(), rng.uniform(*noise_bank.SNR_RANGE)
    added = bank.draw(rng, n_samples)
    if rng.random() < noise_bank.TWO_NOISES_SHARE:
        added = added + 10 ** rng.uniform(-0.75, 0) * bank.draw(rng, n_samples)
    silent = not clean.any() or not added.any()
    if kind < noise_bank.CLEAN_SHARE or silent:
        return clean, clean
    clean, _, noisy = noise.mix(clean, added, snr_db)
    if kind < noise_bank.CLEAN_SHARE + noise_bank.NOISE_ONLY_SHARE:
        return noisy - clean, np.zeros_like(clean)
    return noisy, clean


def make_dataset(
    speech: np.ndarray,
    bank: noise_bank.NoiseBank,
    seconds: float,
    batch_size: int,
    n_batches: int,
    seed: int,
    first_batch: int = 0,
):
    """Batches `(noisy, clean)` from `first_batch` to `n_batches` (excluded), each float32
    `(batch_size, seconds * SAMPLE_RATE)`: a `tf.data.Dataset`, on PyTorch a `DataLoader`.
    """
    n_samples = int(seconds * audio.SAMPLE_RATE)

    def draw(item):
        return example(int(item), speech, bank, n_samples, seed)

    def pair(item):
        noisy, clean = tf.numpy_function(draw, [item], [tf.float32, tf.float32])
        return tf.ensure_shape(noisy, [n_samples]), tf.ensure_shape(clean, [n_samples])

    if tf is None:
        return _make_loader(Batches(draw, batch_size, range(first_batch, n_batches)))
    items = tf.data.Dataset.range(first_batch * batch_size, n_batches * batch_size)
    pairs = items.map(pair, num_parallel_calls=2, deterministic=True)
    return pairs.batch(batch_size, drop_remainder=True).prefetch(4)


class Batches:
    """The same batches by their number, for workers that each make some of them."""

    def __init__(self, draw, batch_size: int, numbers: range):
        self.draw, self.batch_size, self.numbers = draw, batch_size, numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        first = self.numbers[i] * self.batch_size
        pairs = [self.draw(item) for item in range(first, first + self.batch_size)]
        noisy, clean = zip(*pairs, strict=True)
        return np.stack(noisy), np.stack(clean)


def shared_batches(
    speech: np.ndarray,
    bank: noise_bank.NoiseBank,
    seconds: float,
    batch_size: int,
    n_batches: int,
    seed: int,
    first_batch: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The part of `make_dataset`'s batches that one of several workers makes, with all its cores.

    `share`: the number of the worker, and how many there are; `batch_size` is that of all, which
    they part evenly. The parts in the order of the workers are the batch.
    """
    (rank, world), n_samples = share, int(seconds * audio.SAMPLE_RATE)

    def draw(item):
        return example(item, speech, bank, n_samples, seed)

    numbers = range(first_batch * world + rank, n_batches * world, world)
    return in_order(Batches(draw, batch_size // world, numbers), os.cpu_count() or 2)


def in_order(batches: "Batches", n_threads: int) -> Iterator:
    """Batches one after another, of which the next ones are being made in threads."""
    with ThreadPoolExecutor(n_threads) as threads:
        ahead = deque()
        for i in range(len(batches)):
            ahead.append(threads.submit(batches.__getitem__, i))
            if len(ahead) > n_threads + 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _make_loader(batches: Batches):
    from torch.utils.data import DataLoader

    workers = max(1, (os.cpu_count() or 2) - 2)
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4)
