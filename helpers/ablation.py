"""From a picture to a mask, one remedy at a time, each trained on the same budget.

Every step keeps what the one above it has, but for the loss where its output asks for another, and
a narrower latent once there is memory; the other losses are tried on the last network. Trained
steps are kept in `data/cache/ablation`, so a run that was stopped goes on. Taught in
`04_spectrogram_autoencoder`.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, dataset, evaluation, losses, metrics, noise, noise_bank, protocol
from helpers.audio import SAMPLE_RATE
from helpers.backend import keras, tf
from helpers.models import blocks, picture
from helpers.models.blocks import WaveformWrapper
from helpers.quick import size
from helpers.training import CACHE, WarmRestarts

SEED = 4
STEPS, BATCH_SIZE, SECONDS = size(300, 2), 16, 2.0  # the budget: 2.7 hours of audio
LEARNING_RATE = 2e-3
BANK_CLIPS = size(400, 8)
UTTERANCES, CLIP_SECONDS = size(24, 2), 4.0
CONDITION = evaluation.Condition("white", snr_db=0.0)
HOP_LENGTH = audio.HOP_LENGTH
MAGNITUDES = {"latent": 256, "skips": True, "full_size": True, "scale": "compressed"}
MASK = MAGNITUDES | {"latent": 128, "memory": True, "output": "complex"}
INVENTED = "picture, phase invented"
NETWORKS = {  # step -> what `picture.build` is told
    INVENTED: {},
    "phase of the input": {},
    "latent of 256 instead of 32": {"latent": 256},
    "skips, no pooling of time": {"latent": 256, "skips": True},
    "every bin and frame": {"latent": 256, "skips": True, "full_size": True},
    "compressed magnitude": MAGNITUDES,
    "mask instead of picture": MAGNITUDES | {"output": "mask"},
    "memory (two GRUs)": MASK | {"output": "mask"},
    "complex mask": MASK,
}


# --- losses -------------------------------------------------------------------------------------


def scaled(loss: Callable) -> Callable:
    """A loss of `(clean, denoised)` on signals that were brought to a clean level of one."""

    def wrapped(clean, denoised):
        power = tf.reduce_mean(clean**2, -1, keepdims=True)
        gain = tf.math.rsqrt(tf.where(power > 1e-12, power, 10**-3.5))
        return loss(gain * clean, gain * denoised)

    return wrapped


def picture_error(clean, denoised):
    """Squared difference of two pictures in decibels (see `picture.Picture`)."""
    spectra = (losses.spectrum(x, audio.WIN_LENGTH, HOP_LENGTH) for x in (clean, denoised))
    levels = [10 * tf.math.log(tf.abs(S) ** 2 / 256 + 1e-6) / tf.math.log(10.0) for S in spectra]
    low, high = picture.RANGE_DB
    first, second = (tf.clip_by_value((x - low) / (high - low), 0, 1) for x in levels)
    return tf.reduce_mean((first - second) ** 2, [1, 2])


def log_magnitude_error(clean, denoised):
    """Absolute difference of natural log magnitudes, 60 dB of range below the clip's level."""
    spectra = (losses.spectrum(x, audio.WIN_LENGTH, HOP_LENGTH) for x in (clean, denoised))
    first, second = (tf.math.log(tf.abs(S) / 16 + 1e-3) for S in spectra)
    return tf.reduce_mean(tf.abs(first - second), [1, 2])


def multi_resolution_error(clean, denoised):
    """Spectral convergence and log magnitudes at three resolutions.

    R. Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, eqs. 4-6.
    """
    total = 0.0
    for win_length in (256, 512, 1024):
        spectra = (losses.spectrum(x, win_length, win_length // 4) for x in (clean, denoised))
        first, second = (tf.abs(S) + 1e-4 for S in spectra)
        convergence = tf.norm(first - second, axis=[1, 2]) / (tf.norm(first, axis=[1, 2]) + 1e-2)
        logs = tf.reduce_mean(tf.abs(tf.math.log(first) - tf.math.log(second)), [1, 2])
        total += (tf.minimum(convergence, 10.0) + logs) / 3
    return total


def compressed_error(clean, denoised, with_phase: bool):
    """Squared difference of compressed magnitudes, or of compressed complex spectra."""
    spectra = [losses.spectrum(x, audio.WIN_LENGTH, HOP_LENGTH) for x in (clean, denoised)]
    first, second = (losses.compress(S)[int(with_phase)] for S in spectra)
    return tf.reduce_mean(tf.abs(first - second) ** 2, [1, 2])


def bounded_si_sdr(clean, denoised):
    """Minus the SI-SDR in units of 10 dB, as bounded as in `losses.DenoisingLoss`.

    Without the bound, examples without noise rule: passing everything is worth 80 dB there.
    """
    return -tf.minimum(losses.si_sdr(clean, denoised), losses.MAX_SI_SDR) / 10


LOSSES: dict[str, Callable] = {
    "picture": scaled(picture_error),
    "MSE of samples": scaled(lambda clean, denoised: tf.reduce_mean((clean - denoised) ** 2, -1)),
    "log magnitude": scaled(log_magnitude_error),
    "multi-resolution STFT": scaled(multi_resolution_error),
    "compressed magnitude": scaled(lambda x, y: compressed_error(x, y, with_phase=False)),
    "compressed complex": scaled(lambda x, y: compressed_error(x, y, with_phase=True)),
    "SI-SDR": bounded_si_sdr,
    "both compressed and SI-SDR": losses.DenoisingLoss().call,
}


def steps() -> dict[str, tuple[dict, str]]:
    """Step -> its network's settings and its loss: the remedies, then the losses."""
    result = {}
    for name, settings in NETWORKS.items():
        in_db = settings.get("scale", "db") == "db"
        result[name] = settings, "picture" if in_db else "compressed magnitude"
    result["complex mask"] = MASK, "compressed complex"
    others = [name for name in LOSSES if name not in ("picture", "compressed complex")]
    return result | {f"loss: {name}": (MASK, name) for name in others}


# --- training and scoring -----------------------------------------------------------------------


def train(settings: dict, loss: str, training: tf.data.Dataset) -> WaveformWrapper:
    """A network trained on the budget."""
    keras.utils.set_random_seed(SEED)
    model = WaveformWrapper(picture.build(**settings), HOP_LENGTH)
    rate = WarmRestarts(LEARNING_RATE, [STEPS])
    model.compile(keras.optimizers.Adam(rate, clipnorm=3.0), LOSSES[loss])
    model.fit(training, epochs=1, steps_per_epoch=STEPS, shuffle=False, verbose=0)
    return model


def griffin_lim(magnitude: np.ndarray, n_samples: int, n_rounds: int = 60) -> np.ndarray:
    """Samples with about this magnitude `(frames, bins)` and an invented phase.

    D. Griffin and J. Lim, TASSP 32(2), 1984. Written out in the chapter.
    """
    phase = np.exp(2j * np.pi * np.random.default_rng(SEED).random(magnitude.shape))
    for _ in range(n_rounds):
        samples = audio.istft(magnitude * phase, n_samples)
        phase = np.exp(1j * np.angle(audio.stft(samples)))
    return np.float32(audio.istft(magnitude * phase, n_samples))


def make_training(table: pd.DataFrame, noise_folder) -> tf.data.Dataset:
    """The batches that every step is trained on, from train speakers and train noise."""
    paths = table.path[table.split == "train"].sample(frac=1, random_state=SEED)
    files = tuple(noise.recorded_files(noise_folder, "train"))
    speech = dataset.load_speech(paths[: size(400, 8)])
    bank = noise_bank.NoiseBank.render(CACHE / "bank-ablation", files, BANK_CLIPS, seed=SEED)
    return dataset.make_dataset(speech, bank, SECONDS, BATCH_SIZE, STEPS, SEED)


def clips(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Utterance -> (clean, noisy), the validation clips on which every step is scored."""
    result = {}
    for one in evaluation.pick(table, "validation", UTTERANCES).itertuples():
        speech = audio.read(one.path)[: int(CLIP_SECONDS * SAMPLE_RATE)]
        result[one.utterance] = evaluation.make_noisy(one.utterance, speech, CONDITION, SEED)[::2]
    return result


def system(step: str, model: WaveformWrapper) -> evaluation.System:
    """A trained step as a system; the first one invents its phase."""

    def denoise(clean, noisy):
        estimate = model.predict_on_batch(noisy[None])[0]
        if step == INVENTED:
            return griffin_lim(np.abs(audio.stft(estimate)), len(noisy))
        return estimate

    return denoise


def score(denoise: evaluation.System, pairs: dict) -> pd.DataFrame:
    """`metrics.score` of a system, a row a clip."""
    rows = []
    for utterance, (clean, noisy) in pairs.items():
        estimate = np.float32(denoise(clean, noisy))
        rows.append({"utterance": utterance} | metrics.score(clean, estimate))
    return pd.DataFrame(rows)


def run(table: pd.DataFrame, noise_folder: Path | None) -> pd.DataFrame:
    """Train and score every step that is not kept; a row an utterance and step.

    Columns beside those of `metrics.score`: `step`, `loss` and `parameters`, the last two of
    trained steps only. The first rows are those of the noisy input and both low-pass filters, the
    last those of an oracle.
    """
    pairs, training, trained, parts = clips(table), None, {}, []
    for step, (settings, loss) in tqdm(steps().items(), "steps", disable=None):
        path = CACHE / "ablation" / f"{_digest(step, settings, loss, table, noise_folder)}.csv"
        if not path.exists():
            training = training or make_training(table, noise_folder)
            if (key := repr((settings, loss))) not in trained:  # the first two share a network
                trained = {key: train(settings, loss, training)}
            rows = score(system(step, trained[key]), pairs)
            rows = rows.assign(step=step, loss=loss, parameters=trained[key].count_params())
            with audio.atomic_path(path) as temporary:
                rows.to_csv(temporary, index=False)
        parts.append(pd.read_csv(path))
    floor, ceiling = (
        [score(one, pairs).assign(step=name) for name, one in systems.items()]
        for systems in (evaluation.FLOOR, evaluation.CEILING)
    )
    rows = pd.concat([*floor, *parts, *ceiling], ignore_index=True)
    return rows.astype({"parameters": "Int64"})


def _digest(step: str, settings: dict, loss: str, table, noise_folder) -> str:
    """Of what decides a step's rows: its settings, budget, data and code."""
    code = (picture, blocks, losses, noise, noise_bank, dataset, metrics)
    code += (train, system, score, make_training, clips, picture_error, log_magnitude_error)
    code += (multi_resolution_error, compressed_error, bounded_si_sdr)
    recipe = [step, settings, loss, STEPS, BANK_CLIPS, UTTERANCES, noise_folder is not None]
    recipe += [protocol.code(part) for part in code] + sorted(table.utterance)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
