"""How good is a denoised clip? One number each, and one row an utterance and system.

All take `clean` and `denoised`, float `(samples,)`, at the same rate and aligned. A metric that
says nothing about a clip is NaN, with the reason in the row. Taught in `05_evaluation`.
"""

import functools
import warnings
from pathlib import Path

import numpy as np
import pesq as pesq_package
import pystoi

from helpers import audio

METRICS = (
    *("si_sdr", "mse", "pesq", "estoi", "level"),
    *("snr", "segmental_snr", "si_sdr_above", "lsd_below", "lsd_above"),
)
OPINIONS = ("stoi", "visqol", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")  # slow: where asked for
SPLIT = 4_000.0  # Hz, of the metrics "above" and "below"
SHORTEST = 1.0  # s; PESQ, STOI and their like average over longer windows than a shorter clip has
LSD_WIN, LSD_HOP = 512, 256  # samples, the frames of the log-spectral distance
DNSMOS_SECONDS = 9.01  # s, the window of its network


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
    parts = [audio.band_limit(np.float64(x), sr, SPLIT, sr / 2) for x in (clean, denoised)]
    if any(audio.level_db(x) < -110 for x in parts):
        return np.nan
    return si_sdr(*parts)


def log_spectral_distance(clean: np.ndarray, denoised: np.ndarray, low: float, high: float):
    """RMS difference of levels over the bins from `low` to `high` Hz, mean over frames, in dB.

    Lower is better, 0 for an exact copy. Levels 80 dB below the clean clip's loudest bin count
    as equal. A. Gray and J. Markel, TASSP 24(5), 1976. It sees damage of silence like damage of
    speech. NaN for a silent clean clip.
    """
    powers = [np.abs(audio.stft(x, LSD_WIN, LSD_HOP)) ** 2 for x in (clean, denoised)]
    if not powers[0].any():
        return np.nan
    floor = 1e-8 * powers[0].max()
    levels = [audio.power_db(np.maximum(power, floor)) for power in powers]
    f = np.arange(powers[0].shape[1]) * audio.SAMPLE_RATE / LSD_WIN
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


def stoi(
    clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE, extended: bool = False
) -> float:
    """Short-time objective intelligibility, about 0 to 1, higher is better (Taal et al., 2011).

    By the `pystoi` package. It looks at 150-4300 Hz only, so the loss of /s/ hardly shows. Raises
    ValueError where too few frames of speech are left.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean, denoised, sr, extended))
        except RuntimeWarning as error:
            raise ValueError("too little speech for STOI") from error


def estoi(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> float:
    """Extended STOI (Jensen and Taal, TASLP 2016), which also sees noise that comes and goes."""
    return stoi(clean, denoised, sr, extended=True)


def dnsmos(denoised: np.ndarray) -> dict[str, float]:
    """What listeners would say without a reference, 1 to 5: speech (sig), background, overall.

    DNSMOS P.835, Reddy et al., ICASSP 2022, by the networks in `speechmos`; 16 kHz. A clip is
    repeated to 9.01 s, and only that first window is graded. It was trained on calls, prefers a
    silent background, and cannot know which words are missing.
    """
    graded = np.resize(np.clip(denoised, -1, 1), int(DNSMOS_SECONDS * audio.SAMPLE_RATE))
    graded = _dnsmos_network()(graded.astype(np.float32), audio.SAMPLE_RATE, False)
    return {f"dnsmos_{name}": float(graded[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")}


@functools.cache
def _dnsmos_network():
    import onnxruntime
    from speechmos import dnsmos

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # two processes score; more threads only wait for each other
    folder = Path(dnsmos.__file__).with_name("dnsmos_models")
    paths = [str(folder / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
    network = dnsmos.DNSMOS(*paths)
    network.onnx_sess, network.p808_onnx_sess = (
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for path in paths
    )
    return network


def visqol(clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE) -> float:
    """ViSQOL v3 in speech mode, 1 to 5, higher is better (Chinen et al., QoMEX 2020).

    By `visqol-python`, whose lattice network is asked for: without it scores come out too high.
    """
    graded = _visqol_api().measure_from_arrays(np.float64(clean), np.float64(denoised), sr)
    return float(graded.moslqo)


@functools.cache
def _visqol_api():
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    return api


def score(
    clean: np.ndarray, denoised: np.ndarray, sr: int = audio.SAMPLE_RATE, opinions: bool = False
) -> dict:
    """All METRICS of one clip at 16 kHz, and `reason`: why PESQ and ESTOI are NaN ("" if not).

    With `opinions` the slower OPINIONS too; NaN without.
    """
    row = {"si_sdr": si_sdr(clean, denoised), "mse": mse(clean, denoised)}
    row |= {"level": level(clean, denoised), "pesq": np.nan, "estoi": np.nan, "reason": ""}
    row |= {"snr": snr(clean, denoised), "segmental_snr": segmental_snr(clean, denoised, sr)}
    row["si_sdr_above"] = si_sdr_above(clean, denoised, sr)
    row["lsd_below"] = log_spectral_distance(clean, denoised, 0, SPLIT)
    row["lsd_above"] = log_spectral_distance(clean, denoised, SPLIT, sr / 2)
    row |= dict.fromkeys(OPINIONS, np.nan)
    if not np.any(clean) or not np.any(denoised):
        return row | {"reason": "silent"}
    if len(clean) < SHORTEST * sr:
        return row | {"reason": f"shorter than {SHORTEST:g} s"}
    try:
        row |= {"pesq": pesq(clean, denoised, sr), "estoi": estoi(clean, denoised, sr)}
        if opinions:
            row |= {"stoi": stoi(clean, denoised, sr), "visqol": visqol(clean, denoised, sr)}
            row |= dnsmos(denoised)
    except ValueError as error:
        row |= {"reason": str(error)}
    return row
