"""Losses on waveforms `(batch, samples)`, float32: compressed spectra and SI-SDR.

Taught in `04_spectrogram_autoencoder`.
"""

from helpers import audio
from helpers.audio import COMPRESSION
from helpers.backend import keras, ops

NOISE_ONLY_DB = -35.0  # dBFS, the talker against whom a pause is weighed
MAX_SI_SDR = 35.0  # dB, better than this earns nothing more
TINY = 1e-8


def spectrum(samples, win_length: int, hop_length: int):
    """Root-Hann STFT, complex64 `(batch, frames, win_length // 2 + 1)`, as `audio.stft`."""
    overlap = win_length - hop_length
    padded = ops.pad(samples, [[0, 0], [overlap, overlap + (-samples.shape[1]) % hop_length]])
    frames = ops.extract_sequences(padded, win_length, hop_length)
    window = ops.convert_to_tensor(audio.root_hann(win_length), "float32")
    return ops.view_as_complex(ops.stack(ops.rfft(frames * window), axis=-1))


def compress(S, exponent: float = COMPRESSION) -> tuple:
    """Magnitude to a power, phase kept: `(magnitude**exponent, S * magnitude**(exponent - 1))`.

    The square of a tiny constant under the root keeps the gradient finite at silence.
    """
    parts = ops.view_as_real(S)
    power = ops.sum(ops.square(parts), axis=-1) + 1e-9
    magnitude = power ** (exponent / 2)
    return magnitude, ops.view_as_complex(parts * (magnitude * power**-0.5)[..., None])


def si_sdr(clean, denoised):
    """Scale-invariant signal-to-distortion ratio in dB, `(batch,)` (Le Roux et al., ICASSP 2019).

    0 where the clean signal is silent: the measure says nothing there.
    """
    energy = ops.sum(clean**2, axis=-1, keepdims=True)
    target = ops.sum(clean * denoised, axis=-1, keepdims=True) / (energy + TINY) * clean
    ratio = (ops.sum(target**2, axis=-1) + TINY) / (
        ops.sum((denoised - target) ** 2, axis=-1) + TINY
    )
    return ops.where(energy[:, 0] > TINY, 10 * ops.log10(ratio), 0.0)


def level_error(clean, denoised):
    """Difference of levels in dB without its sign, `(batch,)`, smooth below 1 dB; 0 at silence.

    sqrt(1 + d^2) - 1, the pseudo-Huber loss (Charbonnier et al., IEEE Trans. Image Processing
    6(2), 1997).
    """
    energies = [ops.sum(x**2, axis=-1) for x in (clean, denoised)]
    d = 10 * ops.log10((energies[1] + TINY) / (energies[0] + TINY))
    return ops.where(energies[0] > TINY, ops.sqrt(1 + d**2) - 1, 0.0)


@keras.saving.register_keras_serializable("denoiser")
class DenoisingLoss(keras.losses.Loss):
    """0.7 x magnitude + 0.3 x complex error of compressed spectra, minus a little SI-SDR.

    Errors e are squared; those smaller than `linear_below`, c, count c e instead, which is more:
    max(e^2, c e). Squares alone are ruled by the noise band, where errors are large, and hardly
    see the many bins that are nearly right already and should stay so. (The reverse of Huber's
    loss: A. Owen, "A robust hybrid of lasso and ridge regression", 2007.)

    Both signals are first scaled to a clean level of one, so that a quiet talker counts as much
    as a loud one; where the clean signal is silent, as if it had been NOISE_ONLY_DB.
    Compressed spectra: Braun and Tashev, "A consolidated view of loss functions for supervised
    deep learning-based speech enhancement", TSP 2021. SI-SDR enters in units of 10 dB, bounded
    at MAX_SI_SDR, times `si_sdr_weight`. Neither holds the level: under noise the best guess is
    too quiet, which `level_weight` times `level_error` weighs.
    """

    def __init__(
        self,
        win_length=512,
        hop_length=256,
        linear_below=0.0,
        si_sdr_weight=0.1,
        level_weight=0.0,
        name="denoising",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.win_length, self.hop_length = win_length, hop_length
        self.linear_below, self.si_sdr_weight = linear_below, si_sdr_weight
        self.level_weight = level_weight

    def call(self, clean, denoised):
        power = ops.mean(clean**2, axis=-1)
        power = ops.where(power > TINY**2, power, 10 ** (NOISE_ONLY_DB / 10))
        scale = ops.rsqrt(power)[:, None]
        clean, denoised = clean * scale, denoised * scale
        spectra = [spectrum(x, self.win_length, self.hop_length) for x in (clean, denoised)]
        (mag, cplx), (mag_hat, cplx_hat) = [compress(S) for S in spectra]
        magnitude_error = self.mean_error((mag - mag_hat) ** 2)
        complex_error = self.mean_error(ops.sum(ops.view_as_real(cplx - cplx_hat) ** 2, axis=-1))
        ratio = ops.minimum(si_sdr(clean, denoised), MAX_SI_SDR) / 10
        loss = 0.7 * magnitude_error + 0.3 * complex_error - self.si_sdr_weight * ratio
        return loss + self.level_weight * level_error(clean, denoised)

    def mean_error(self, squared):
        """Mean over frames and bins of max(e^2, c e), with a finite gradient at 0."""
        linear = self.linear_below * ops.sqrt(squared + 1e-8)
        return ops.mean(ops.maximum(squared, linear), axis=(1, 2))

    def get_config(self):
        return super().get_config() | {
            "win_length": self.win_length,
            "hop_length": self.hop_length,
            "linear_below": self.linear_below,
            "si_sdr_weight": self.si_sdr_weight,
            "level_weight": self.level_weight,
        }
