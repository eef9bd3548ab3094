"""How good is a denoised clip? One number each, and one row an utterance and system.

All take `clean` and `denoised`, float `(samples,)`, at the same rate and aligned. A metric that
says nothing about a clip is NaN, with the reason in the row. Taught in `05_evaluation`.
"""

import warnings

import numpy as np
import pandas as pd
import pesq as pesq_package
import pystoi

from helpers import audio, noise

METRICS = (
    *("si_sdr", "mse", "pesq", "estoi", "level"),
    *("snr", "segmental_snr", "si_sdr_above", "lsd_below", "lsd_above"),
)
SPLIT = 4_000.0  # Hz, of the metrics "above" and "below"
SHORTEST = 1.0  # s; PESQ and ESTOI average over longer windows than a shorter clip has


def si_sdr(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, higher is better, unbounded.

    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, without removing means.
    Infinite for an exact copy, NaN for a silent clip. A level error does not show: see `level`.
    """
    clean, denoised = np.float64(clean), np.float64(denoised)
    if not clean.any() or not denoised.any():
        return np.nan
    target = (denoised @ clean) / (clean @ clean) * clean
    error = np.sum((denoised - target) ** 2)
    return float(10 * np.log10(np.sum(target**2) / error)) if error > 0 else np.inf


def mse(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Mean squared error in full-scale units, lower is better; a quiet clip's is small."""
    return float(np.mean((np.float64(clean) - np.float64(denoised)) ** 2))


def level(clean: np.ndarray, denoised: np.ndarray) -> float:
    """RMS level of the output relative to clean in dB; 0 is right. NaN for a silent clean clip."""
    return audio.level_db(denoised) - audio.level_db(clean) if np.any(clean) else np.nan


def snr(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, all differences being noise; a wrong level counts as one.

    Higher is better. Infinite for an exact copy, NaN for a silent clean clip.
    """
    power, error = np.mean(np.float64(clean) ** 2), mse(clean, denoised)
    if power == 0:
        return np.nan
    return float(10 * np.log10(power / error)) if error > 0 else np.inf


def segmental_snr(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> float:
    """Mean of the SNR of 30 ms frames, each held within -10..35 dB, higher is better.

    J. Hansen and B. Pellom, ICSLP 1998. Frames 40 dB below the loudest are pauses and left out.
    Weak syllables count like strong ones, as they do not in `snr`. NaN for a silent clean clip.
    """
    length = int(0.03 * sr)
    frames = [
        np.float64(x[: len(x) // length * length]).reshape(-1, length)
        for x in (clean, clean - denoised)
    ]
    power, error = (np.sum(x**2, axis=1) for x in frames)
    spoken = power > 1e-4 * power.max(initial=0)
    if not spoken.any():
        return np.nan
    ratio = 10 * np.log10(power[spoken] / np.maximum(error[spoken], 1e-20))
    return float(np.clip(ratio, -10, 35).mean())


def si_sdr_above(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> float:
    """SI-SDR of what lies above 4 kHz alone, where the course's noise is; NaN without any."""
    parts = [noise.band_limit(np.float64(x), sr, SPLIT, sr / 2) for x in (clean, denoised)]
    if any(audio.level_db(x) < -110 for x in parts):
        return np.nan
    return si_sdr(*parts)


def log_spectral_distance(clean: np.ndarray, denoised: np.ndarray, low: float, high: float):
    """RMS difference of levels over the bins from `low` to `high` Hz, mean over frames, in dB.

    Lower is better, 0 for an exact copy. Levels 80 dB below the clean clip's loudest bin count
    as equal. A. Gray and J. Markel, TASSP 24(5), 1976. It sees damage of silence like damage of
    speech. NaN for a silent clean clip.
    """
    powers = [np.abs(audio.stft(x)) ** 2 for x in (clean, denoised)]
    if not powers[0].any():
        return np.nan
    floor = 1e-8 * powers[0].max()
    levels = [audio.power_db(np.maximum(power, floor)) for power in powers]
    f = np.arange(powers[0].shape[1]) * audio.SAMPLE_RATE / audio.WIN_LENGTH
    band = (f >= low) & (f <= high)
    squares = (levels[0] - levels[1])[:, band] ** 2
    return float(np.sqrt(squares.mean(axis=1)).mean())


def pesq(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> float:
    """Wide-band PESQ, 1.04 (bad) to 4.64 (identical): ITU-T P.862.2 by the `pesq` package.

    It predicts telephone listeners' opinions. Raises ValueError where it finds no utterance.
    """
    try:
        return float(pesq_package.pesq(sr, clean, denoised, "wb"))
    except pesq_package.PesqError as error:
        raise ValueError("PESQ found no speech") from error


def estoi(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> float:
    """Extended short-time objective intelligibility, about 0 to 1 (Jensen and Taal, 2016).

    It looks at 150-4300 Hz only, so the loss of /s/ hardly shows. Raises ValueError where too
    few frames of speech are left.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean, denoised, sr, extended=True))
        except RuntimeWarning as error:
            raise ValueError("too little speech for ESTOI") from error


def score(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> dict:
    """All metrics of one clip at 16 kHz, and `reason`: why PESQ and ESTOI are NaN ("" if not)."""
    row = {"si_sdr": si_sdr(clean, denoised), "mse": mse(clean, denoised)}
    row |= {"level": level(clean, denoised), "pesq": np.nan, "estoi": np.nan, "reason": ""}
    row |= {"snr": snr(clean, denoised), "segmental_snr": segmental_snr(clean, denoised, sr)}
    row["si_sdr_above"] = si_sdr_above(clean, denoised, sr)
    row["lsd_below"] = log_spectral_distance(clean, denoised, 0, SPLIT)
    row["lsd_above"] = log_spectral_distance(clean, denoised, SPLIT, sr / 2)
    if not np.any(clean) or not np.any(denoised):
        return row | {"reason": "silent"}
    if len(clean) < SHORTEST * sr:
        return row | {"reason": f"shorter than {SHORTEST:g} s"}
    try:
        return row | {"pesq": pesq(clean, denoised, sr), "estoi": estoi(clean, denoised, sr)}
    except ValueError as error:
        return row | {"reason": str(error)}


def bootstrap(values: np.ndarray, n_draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over utterances (Efron and Tibshirani, 1993).

    NaN values are left out; (NaN, NaN) when fewer than two are left, or one is infinite.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if len(values) < 2 or np.isinf(values).any():
        return np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(values), size=(n_draws, len(values)))
    return tuple(np.percentile(values[draws].mean(axis=1), [2.5, 97.5]))


def summarise(rows: pd.DataFrame, by: list[str], metrics=METRICS) -> pd.DataFrame:
    """Mean and interval of each metric for each group, in the order of first appearance.

    Columns: `by`, n, then `<metric>`, `<metric>_low`, `<metric>_high`, and `left_out`, the
    number of clips with a reason.
    """
    summary = []
    for key, group in rows.groupby(by, sort=False, dropna=False):
        line = dict(zip(by, key, strict=True)) | {"n": len(group)}
        for metric in metrics:
            low, high = bootstrap(group[metric])
            line |= {metric: group[metric].mean(), f"{metric}_low": low, f"{metric}_high": high}
        summary.append(line | {"left_out": int((group.reason != "").sum())})
    return pd.DataFrame(summary)
