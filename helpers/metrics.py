"""How good is a denoised clip? One number each, and one row an utterance and system.

All take `clean` and `denoised`, float `(samples,)`, at the same rate and aligned. A metric that
says nothing about a clip is NaN, with the reason in the row. Taught in `05_evaluation`.
"""

import warnings

import numpy as np
import pandas as pd
import pesq as pesq_package
import pystoi

from helpers import audio

METRICS = ("si_sdr", "mse", "pesq", "estoi", "level")
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
    """All metrics of one clip, and `reason`: why some are NaN ("" if none is)."""
    row = {"si_sdr": si_sdr(clean, denoised), "mse": mse(clean, denoised)}
    row |= {"level": level(clean, denoised), "pesq": np.nan, "estoi": np.nan, "reason": ""}
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
