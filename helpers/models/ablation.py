"""From a picture to a mask, one remedy at a time, each trained on the same budget.

Every step keeps what the one above it has, but for the loss where its output asks for another, and
a narrower latent once there is memory; the other losses are tried on the last network. Taught in
`04_spectrogram_autoencoder`; `python -m experiments ablate` trains and scores them all.
"""

from collections.abc import Callable

import numpy as np

from helpers import audio
from helpers.backend import keras, tf
from helpers.models import losses, picture
from helpers.models.blocks import WaveformWrapper
from helpers.models.picture import HOP_LENGTH, WIN_LENGTH
from helpers.models.training import WarmRestarts
from helpers.quick import size

SEED = 4
STEPS, BATCH_SIZE, SECONDS = size(300, 2), 16, 2.0  # the budget: 2.7 hours of audio
LEARNING_RATE = 2e-3
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
    spectra = (losses.spectrum(x, WIN_LENGTH, HOP_LENGTH) for x in (clean, denoised))
    levels = [10 * tf.math.log(tf.abs(S) ** 2 / 256 + 1e-6) / tf.math.log(10.0) for S in spectra]
    low, high = picture.RANGE_DB
    first, second = (tf.clip_by_value((x - low) / (high - low), 0, 1) for x in levels)
    return tf.reduce_mean((first - second) ** 2, [1, 2])


def log_magnitude_error(clean, denoised):
    """Absolute difference of natural log magnitudes, 60 dB of range below the clip's level."""
    spectra = (losses.spectrum(x, WIN_LENGTH, HOP_LENGTH) for x in (clean, denoised))
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


def sample_error(clean, denoised):
    """Squared difference of samples."""
    return tf.reduce_mean((clean - denoised) ** 2, -1)


def magnitude_error(clean, denoised):
    """Squared difference of compressed magnitudes."""
    return compressed_error(clean, denoised, with_phase=False)


def complex_error(clean, denoised):
    """Squared difference of compressed complex spectra."""
    return compressed_error(clean, denoised, with_phase=True)


def compressed_error(clean, denoised, with_phase: bool):
    """Squared difference of compressed magnitudes, or of compressed complex spectra."""
    spectra = [losses.spectrum(x, WIN_LENGTH, HOP_LENGTH) for x in (clean, denoised)]
    first, second = (losses.compress(S)[int(with_phase)] for S in spectra)
    return tf.reduce_mean(tf.abs(first - second) ** 2, [1, 2])


def bounded_si_sdr(clean, denoised):
    """Minus the SI-SDR in units of 10 dB, as bounded as in `losses.DenoisingLoss`.

    Without the bound, examples without noise rule: passing everything is worth 80 dB there.
    """
    return -tf.minimum(losses.si_sdr(clean, denoised), losses.MAX_SI_SDR) / 10


LOSSES: dict[str, Callable] = {
    "picture": scaled(picture_error),
    "MSE of samples": scaled(sample_error),
    "log magnitude": scaled(log_magnitude_error),
    "multi-resolution STFT": scaled(multi_resolution_error),
    "compressed magnitude": scaled(magnitude_error),
    "compressed complex": scaled(complex_error),
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


# --- training -------------------------------------------------------------------------------------


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
        samples = audio.istft(magnitude * phase, n_samples, HOP_LENGTH)
        phase = np.exp(1j * np.angle(audio.stft(samples, WIN_LENGTH, HOP_LENGTH)))
    return np.float32(audio.istft(magnitude * phase, n_samples, HOP_LENGTH))


def system(step: str, model: WaveformWrapper) -> Callable:
    """A trained step as a function of the noisy clip; the first one invents its phase."""

    def denoise(noisy):
        estimate = model.predict_on_batch(noisy[None])[0]
        if step == INVENTED:
            return griffin_lim(np.abs(audio.stft(estimate, WIN_LENGTH, HOP_LENGTH)), len(noisy))
        return estimate

    return denoise
