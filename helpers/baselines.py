"""What a denoiser must be compared with: the low-pass filter below it, oracle masks above it.

Taught in `04_spectrogram_autoencoder` and `05_evaluation`.
"""

import numpy as np
import scipy.signal

from helpers import audio

CUTOFF = 3_900.0  # Hz


def low_pass(noisy: np.ndarray, sr: int = audio.SAMPLE_RATE, cutoff: float = CUTOFF) -> np.ndarray:
    """Linear-phase FIR low-pass with its delay removed, float32 `(samples,)`.

    513 taps, Hamming window: -6 dB at `cutoff`, 50 dB down 100 Hz above it.
    """
    taps = scipy.signal.firwin(513, cutoff, fs=sr)
    padded = np.pad(noisy, 256)
    return scipy.signal.oaconvolve(padded, taps, mode="valid").astype(np.float32)


def oracle_psm(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """The best a real mask in 0..1 can do, knowing the clean signal: float32 `(samples,)`.

    Phase-sensitive mask |S| / |Y| cos(phase difference) (Erdogan et al., ICASSP 2015).
    """
    S, Y = audio.stft(clean), audio.stft(noisy)
    mask = np.clip((S * Y.conj()).real / np.maximum(np.abs(Y) ** 2, 1e-20), 0, 1)
    return audio.istft(mask * Y, len(noisy)).astype(np.float32)
