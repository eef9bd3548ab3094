"""PEAQ, basic version: model output variables, distortion index, objective difference grade.

ITU-R BS.1387-1 (2001), section numbers below are those of its annex 2. Made for wide-band audio
at 48 kHz; the appendix of chapter 05 shows what that means for 16 kHz speech.
"""

import numpy as np
import scipy.signal

from helpers import audio
from helpers.evaluation.peaq import ear

DELAY = int(np.ceil(0.5 * ear.FRAME_RATE))  # frames at the start that averages leave out
MOVS = (
    *("BandwidthRef", "BandwidthTest", "TotalNMR", "WinModDiff1", "ADB", "EHS"),
    *("AvgModDiff1", "AvgModDiff2", "RmsNoiseLoud", "MFPD", "RelDistFrames"),
)

# --- the network that grades (6) ----------------------------------------------------------------

LOWEST = [393.916656, 361.965332, -24.045116, 1.110661, -0.206623, 0.074318]
LOWEST += [1.113683, 0.950345, 0.029985, 0.000101, 0.0]
HIGHEST = [921.0, 881.131226, 16.212030, 107.137772, 2.886017, 13.933351]
HIGHEST += [63.257874, 1145.018555, 14.819740, 1.0, 1.0]
HIDDEN = np.array(
    [
        [-0.502657, 0.436333, 1.219602],
        [4.307481, 3.246017, 1.123743],
        [4.984241, -2.211189, -0.192096],
        [0.051056, -1.762424, 4.331315],
        [2.321580, 1.789971, -0.754560],
        [-5.303901, -3.452257, -10.814982],
        [2.730991, -6.111805, 1.519223],
        [0.624950, -1.331523, -5.955151],
        [3.102889, 0.871260, -5.922878],
        [-1.051468, -0.939882, -0.142913],
        [-1.804679, -0.503610, -0.620456],
    ]
)
HIDDEN_BIAS = [-2.518254, 0.654841, -2.207228]
OUTPUT, OUTPUT_BIAS = [-3.817048, 4.107138, 4.629582], -0.307594
BEST, WORST = 0.22, -3.98  # ends of the grade


def grade(movs: dict[str, float]) -> tuple[float, float]:
    """Distortion index and ODG (0.2 imperceptible ... -4 very annoying) of the variables."""
    x = np.array([movs[name] for name in MOVS])
    x = (x - LOWEST) / np.subtract(HIGHEST, LOWEST)
    hidden = 1 / (1 + np.exp(-(x @ HIDDEN + HIDDEN_BIAS)))
    index = float(hidden @ OUTPUT + OUTPUT_BIAS)
    return index, float(WORST + (BEST - WORST) / (1 + np.exp(-index)))


# --- model output variables (4) -------------------------------------------------------------------


def bandwidths(reference: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Mean bandwidths in bins over frames whose reference passes 8.1 kHz, NaN without any (4.4)."""
    ends = []
    for ref, other in zip(reference**2, test**2, strict=True):
        floor = other[921:1024].max()
        above = np.flatnonzero(ref[:921] > 10 * floor)
        if len(above) and above[-1] + 1 > 346:
            below = np.flatnonzero(other[: above[-1] + 1] > 10**0.5 * floor)
            ends.append((above[-1] + 1, below[-1] + 1 if len(below) else 0))
    return tuple(np.mean(ends, axis=0)) if ends else (np.nan, np.nan)


def modulation_differences(ref, test, mean) -> dict[str, float]:
    """WinModDiff1, AvgModDiff1 and AvgModDiff2 (4.2)."""
    weight = (mean / (mean + 100 * ear.internal_noise() ** 0.3)).sum(axis=1)[DELAY:]
    difference = np.abs(test - ref)
    first = 100 * (difference / (1 + ref)).mean(axis=1)[DELAY:]
    less = np.where(test < ref, 0.1, 1.0)
    second = 100 * (less * difference / (0.01 + ref)).mean(axis=1)[DELAY:]
    windows = np.lib.stride_tricks.sliding_window_view(np.sqrt(first), 4).mean(axis=1)
    return {
        "WinModDiff1": np.sqrt(np.mean(windows**4)),
        "AvgModDiff1": np.sum(weight * first) / weight.sum(),
        "AvgModDiff2": np.sum(weight * second) / weight.sum(),
    }


def noise_loudness(reference, test, mod_reference, mod_test) -> np.ndarray:
    """Partial loudness of what the test adds, `(frames,)`, of adapted patterns (4.3)."""
    s_ref, s_test = (0.15 * m + 0.5 for m in (mod_reference, mod_test))
    masking = np.exp(-1.5 * (test - reference) / reference)
    noise = ear.internal_noise()
    added = np.maximum(s_test * test - s_ref * reference, 0)
    partial = (noise / s_test) ** 0.23 * (
        (1 + added / (noise + s_ref * reference * masking)) ** 0.23 - 1
    )
    return 24 / ear.N_BANDS * np.maximum(partial, 0).sum(axis=1)


def noise_to_mask(noise_power: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Ratio of noise to masking threshold, `(frames, bands)` (4.5)."""
    bark = ear.BARK * np.arange(ear.N_BANDS)
    offset_db = np.where(bark <= 12, 3.0, 0.25 * bark)
    return np.maximum(noise_power @ ear.bands()[1], 1e-12) / (reference * 10 ** (-offset_db / 10))


def detection(reference: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability that a frame's difference is heard, and its steps above threshold (4.7)."""
    ref_db, test_db = (10 * np.log10(pattern) for pattern in (reference, test))
    level = 0.3 * np.maximum(ref_db, test_db) + 0.7 * test_db
    loud = np.maximum(level, 1e-6)
    step = 5.95072 * (6.39468 / loud) ** 1.71332 + 9.01033e-11 * loud**4 + 5.05622e-6 * loud**3
    step += -0.00102438 * loud**2 + 0.0550197 * loud - 0.198719
    step = np.where(level > 0, step, 1e30)
    difference = ref_db - test_db
    slope = np.where(difference > 0, 4.0, 6.0)
    missed = 0.5 ** np.minimum((np.abs(difference) / step) ** slope, 1e3)
    steps = np.abs(np.trunc(difference)) / step
    return 1 - missed.prod(axis=1), steps.sum(axis=1)


def harmonic_structure(reference: np.ndarray, test: np.ndarray, heard: np.ndarray) -> float:
    """Strength of harmonics in the error, times 1000, over the frames `heard` (4.8)."""
    lags = 256
    tiny = 1e-12
    log_ratio = np.log((test**2 + tiny) / (reference**2 + tiny))[heard, : 2 * lags]
    if not len(log_ratio):
        return 0.0
    fixed = log_ratio[:, :lags]
    windows = np.lib.stride_tricks.sliding_window_view(log_ratio, lags, axis=1)[:, :lags]
    products = np.einsum("fk,flk->fl", fixed, windows)
    norms = np.sqrt((fixed**2).sum(axis=1)[:, None] * (windows**2).sum(axis=2))
    correlation = products / np.maximum(norms, tiny)
    correlation -= correlation.mean(axis=1, keepdims=True)
    window = np.sqrt(8 / 3) * scipy.signal.windows.hann(lags) / lags
    power = np.abs(np.fft.rfft(correlation * window)) ** 2
    rising = np.diff(power, axis=1) > 0
    return 1000 * float(np.where(rising, power[:, 1:], 0).max(axis=1).mean())


def variables(reference: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """The eleven model output variables of two signals `(samples,)` at 48 kHz, in -1..1."""
    weight = ear.ear_weight()
    raw = [ear.spectra(x) for x in (reference, test)]
    weighted = [weight * x for x in raw]
    unsmeared, smeared = zip(*(ear.excitation(x**2) for x in weighted), strict=True)
    (mod_ref, mean_ref), (mod_test, _) = map(ear.modulation, unsmeared)
    ratio = noise_to_mask((weighted[0] - weighted[1]) ** 2, smeared[0])
    chance, steps = detection(*smeared)
    added = noise_loudness(*ear.adapt(*smeared), mod_ref, mod_test)
    loud = np.flatnonzero((ear.loudness(smeared[0]) > 0.1) & (ear.loudness(smeared[1]) > 0.1))
    start = max(DELAY, loud[0] + int(0.05 * ear.FRAME_RATE) if len(loud) else len(added))
    heard = chance > 0.5
    movs = dict(zip(MOVS[:2], bandwidths(*raw), strict=True))
    movs["TotalNMR"] = 10 * np.log10(ratio.mean())
    movs |= modulation_differences(mod_ref, mod_test, mean_ref)
    movs["ADB"] = adb(steps[heard].sum(), heard.sum())
    movs["EHS"] = harmonic_structure(*weighted, energetic(reference, test, len(chance)))
    movs["RmsNoiseLoud"] = np.sqrt(np.mean(added[start:] ** 2)) if start < len(added) else 0.0
    movs["MFPD"] = ear.smooth(chance, 0.9).max()
    movs["RelDistFrames"] = np.mean(ratio.max(axis=1) > 10**0.15)
    return {name: float(movs[name]) for name in MOVS}


def adb(steps: float, n_frames: int) -> float:
    """Average distorted block: steps above threshold in the frames that are heard, log (4.7.2)."""
    if n_frames == 0:
        return 0.0
    return float(np.log10(steps / n_frames)) if steps > 0 else -0.5


def energetic(reference: np.ndarray, test: np.ndarray, n_frames: int) -> np.ndarray:
    """Frames whose second half is not silent in both signals (4.8.2), bool `(frames,)`."""
    energies = []
    for samples in (reference, test):
        padded = np.pad(samples, (0, max(0, (n_frames + 1) * ear.HOP - len(samples))))
        halves = padded[ear.HOP : (n_frames + 1) * ear.HOP].reshape(n_frames, ear.HOP)
        energies.append((np.square(32768 * halves)).sum(axis=1))
    return np.maximum(*energies) > 8_000


def peaq(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> dict[str, float]:
    """MOVS, "DI" and "ODG" of two signals `(samples,)` in -1..1 at any rate (resampled to 48 kHz).

    ODG: 0.2 (no difference is heard) to about -4 (very annoying), higher is better. Where no frame
    of the clean signal passes 8.1 kHz, the bandwidths are not defined: they are NaN and count as 0
    in the grade. For speech resampled from 16 kHz they measure what the resampler left there.
    Silence at the ends is not cut off, as the recommendation would (5.2.4.4): the implementations
    that this was compared with keep it.
    Raises ValueError for signals of different length or shorter than a second.
    """
    if len(clean) != len(denoised):
        raise ValueError(f"{len(clean)} and {len(denoised)} samples: PEAQ compares equal lengths")
    if len(clean) < sr:
        raise ValueError(f"{len(clean) / sr:.2f} s: PEAQ needs a second of sound or more")
    movs = variables(*(audio.resample(np.float64(x), sr, ear.SR) for x in (clean, denoised)))
    index, odg = grade({name: np.nan_to_num(value) for name, value in movs.items()})
    return movs | {"DI": index, "ODG": odg}
