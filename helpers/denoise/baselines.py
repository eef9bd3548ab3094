"""What a denoiser must be compared with: filters and classical rules below, oracle masks above.

All take and give float32 `(samples,)` at 16 kHz; what is called oracle knows the clean signal.

Taught in `04_spectrogram_autoencoder` and `05_evaluation`.
"""

import numpy as np
import scipy.signal
import scipy.special

from helpers import audio

CUTOFF = 3_900.0  # Hz
WIN_LENGTH, HOP_LENGTH = 512, 256  # samples, 32 ms and 16 ms: of the rules and of the oracles
TINY = 1e-20


def low_pass(noisy: np.ndarray, sr: int = audio.SAMPLE_RATE, cutoff: float = CUTOFF) -> np.ndarray:
    """Linear-phase FIR low-pass with its delay removed, float32 `(samples,)`.

    513 taps, Hamming window: -6 dB at `cutoff`, 50 dB down 100 Hz above it.
    """
    taps = scipy.signal.firwin(513, cutoff, fs=sr)
    padded = np.pad(noisy, 256)
    return scipy.signal.oaconvolve(padded, taps, mode="valid").astype(np.float32)


def butterworth(noisy: np.ndarray, sr: int = audio.SAMPLE_RATE, cutoff: float = CUTOFF):
    """The filter that people reach for: Butterworth of order 8, forwards and back (zero phase).

    -6 dB at `cutoff`, only 22 dB down 10 % above it: some of the noise comes through.
    """
    sections = scipy.signal.butter(8, cutoff, fs=sr, output="sos")
    return scipy.signal.sosfiltfilt(sections, noisy).astype(np.float32)


# --- classical rules, with an estimated noise spectrum ------------------------------------------


def stft(samples: np.ndarray) -> np.ndarray:
    """The STFT in which the rules and the oracles work, `(frames, 257)`."""
    return audio.stft(samples, WIN_LENGTH, HOP_LENGTH)


def istft(S: np.ndarray, n_samples: int) -> np.ndarray:
    """The way back, float32 `(n_samples,)`."""
    return audio.istft(S, n_samples, HOP_LENGTH).astype(np.float32)


def noise_psd(power: np.ndarray) -> np.ndarray:
    """Noise power in every frame and bin, from noisy power `(frames, bins)`, causal.

    The tracker of T. Gerkmann and R. Hendriks, "Unbiased MMSE-based noise power estimation with
    low complexity and low tracking delay", TASLP 20(4), 2012: a frame is let in to the degree
    that speech is improbable there. The first five frames are taken as noise.
    """
    power = np.maximum(power, TINY)
    psd, likely, tracked = power[:5].mean(axis=0), 0.0, []
    snr = 10**1.5  # of speech where there is speech
    for frame in power:
        speech = 1 / (1 + (1 + snr) * np.exp(-frame / psd * snr / (1 + snr)))
        likely = 0.9 * likely + 0.1 * speech
        speech = np.where(likely > 0.99, np.minimum(speech, 0.99), speech)
        psd = 0.8 * psd + 0.2 * (speech * psd + (1 - speech) * frame)
        tracked.append(psd)
    return np.array(tracked)


def spectral_subtraction(noisy: np.ndarray, factor: float = 2.0, floor_db: float = -20.0):
    """Subtract `factor` times the noise power, keep at least `floor_db` of the noisy power.

    M. Berouti, R. Schwartz and J. Makhoul, ICASSP 1979.
    """
    Y = stft(noisy)
    power = np.abs(Y) ** 2
    left = 1 - factor * noise_psd(power) / np.maximum(power, TINY)
    gain = np.sqrt(np.maximum(left, 10 ** (floor_db / 10)))
    return istft(gain * Y, len(noisy))


def log_mmse(noisy: np.ndarray) -> np.ndarray:
    """The gain that minimises the expected squared error of the log magnitude.

    Y. Ephraim and D. Malah, TASSP 33(2), 1985, eq. 20.
    """
    Y = stft(noisy)
    power = np.abs(Y) ** 2

    def gain(prior, posterior):
        wiener = prior / (1 + prior)
        return wiener * np.exp(scipy.special.exp1(np.maximum(posterior * wiener, 1e-6)) / 2)

    return istft(decision_directed(power, noise_psd(power), gain) * Y, len(noisy))


def decision_directed(power: np.ndarray, psd: np.ndarray, gain) -> np.ndarray:
    """Gains 0..1 `(frames, bins)` of a rule `gain(prior SNR, posterior SNR)`, frame by frame.

    The prior SNR leans on the frame before (weight 0.98) and is -25 dB at least: Ephraim and
    Malah, TASSP 32(6), 1984, eq. 51. `power` of the noisy frames and `psd` of the noise.
    """
    kept, gains = 0.0, []
    for frame, noise in zip(power, np.maximum(psd, TINY), strict=True):
        posterior = np.minimum(frame / noise, 100)
        prior = 0.98 * kept / noise + 0.02 * np.maximum(posterior - 1, 0)
        gains.append(np.minimum(gain(np.maximum(prior, 10**-2.5), posterior), 1))
        kept = gains[-1] ** 2 * frame
    return np.array(gains)


# --- oracles ------------------------------------------------------------------------------------


def oracle_low_pass(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """The sharp low-pass with that cutoff of 1, 1.5, ..., 7.5 or 3.9 kHz which suits a clip best.

    Best in SI-SDR: a fair filter to beat whatever the band of the noise, never behind `low_pass`.
    """
    filtered = [low_pass(noisy, cutoff=f) for f in (CUTOFF, *np.arange(1_000.0, 8_000, 500))]
    return max(filtered, key=lambda x: np.dot(x, clean) ** 2 / max(np.dot(x, x), TINY))


def oracle_wiener(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Wiener filter whose noise spectrum is known: what the classical rules could do at best.

    The noise power of each bin is that of the true noise, averaged with a memory of 5 frames; the
    SNR is still estimated, decision-directed.
    """
    Y, N = stft(noisy), stft(noisy - clean)
    psd = scipy.signal.lfilter([0.2], [1, -0.8], np.abs(N) ** 2, axis=0)
    gain = decision_directed(np.abs(Y) ** 2, psd, lambda prior, _: prior / (1 + prior))
    return istft(gain * Y, len(noisy))


def oracle_irm(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Ideal ratio mask, the root of speech power over the sum of both (Wang et al., TASLP 2014)."""
    Y = stft(noisy)
    S, N = np.abs(stft(clean)) ** 2, np.abs(stft(noisy - clean)) ** 2
    mask = np.sqrt(S / np.maximum(S + N, TINY))
    return istft(mask * Y, len(noisy))


def oracle_psm(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """The best a real mask in 0..1 can do: float32 `(samples,)`.

    Phase-sensitive mask |S| / |Y| cos(phase difference) (Erdogan et al., ICASSP 2015).
    """
    S, Y = stft(clean), stft(noisy)
    mask = np.clip((S * Y.conj()).real / np.maximum(np.abs(Y) ** 2, TINY), 0, 1)
    return istft(mask * Y, len(noisy))


def oracle_complex(clean: np.ndarray, noisy: np.ndarray, bound: float = 2.0) -> np.ndarray:
    """Complex mask S / Y with each part within +-`bound` (Williamson et al., TASLP 2016)."""
    S, Y = stft(clean), stft(noisy)
    M = S * Y.conj() / np.maximum(np.abs(Y) ** 2, TINY)
    M = M.real.clip(-bound, bound) + 1j * M.imag.clip(-bound, bound)
    return istft(M * Y, len(noisy))
