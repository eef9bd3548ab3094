"""Speech that was noisy from the start: what recognisers and DNSMOS make of it, denoised or not.

There is no clean version, so nothing else can judge. The noisiest utterances of the *other*
speakers are taken as they are. A part is kept as in `experiments.recognise`. Read on the results
page.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import evaluate, recognise
from experiments.kept import facts_of_clips, kept_rows
from helpers import audio, store
from helpers.data import conditions
from helpers.denoise import systems
from helpers.denoise.systems import DEFAULT
from helpers.evaluation import metrics, word_errors
from helpers.quick import size

UTTERANCES = size(20, 2)  # the noisiest ones
SYSTEMS = ("noisy", "low-pass", "spectrogram", DEFAULT)
FRAME = 0.02  # s


def speech_over_floor(samples: np.ndarray) -> float:
    """Level of the loud frames over that of the quiet ones in dB: small where a clip is noisy.

    The 95th over the 10th percentile of the power of frames of FRAME; `samples`: `(samples,)` at 16
    kHz. Digital silence counts as a power of 1e-10.
    """
    length = int(FRAME * audio.SAMPLE_RATE)
    whole = np.float64(samples[: len(samples) // length * length]).reshape(-1, length)
    power = np.mean(whole**2, axis=1) + 1e-10
    return float(10 * np.log10(np.percentile(power, 95) / np.percentile(power, 10)))


def noisiest(table: pd.DataFrame, n_utterances: int = UTTERANCES) -> pd.DataFrame:
    """The utterances of the *other* speakers, with transcripts, that are noisiest as they are.

    Where a corpus has no *other* speakers its test speakers are taken.
    """
    split = "other" if (table.split == "other").any() else "test"
    spoken = word_errors.choose(table, (split,), len(table))
    noise = spoken.path.map(lambda path: speech_over_floor(audio.read(path)))
    return spoken.loc[noise.sort_values().index[:n_utterances]].reset_index(drop=True)


def judge_real(out: Path, table: pd.DataFrame, names: Iterable[str]) -> tuple[Path, Path]:
    """Fill `<out>_words.csv` and `<out>_opinions.csv`; gives their paths.

    `names`: of the recognisers. The first has rows of `word_errors.hear`, the second those of
    `opinions`.
    """
    utterances, entries = noisiest(table), evaluate.course_entries()
    words, graded = (out.with_name(f"{out.name}_{end}.csv") for end in ("words", "opinions"))
    parts = [
        recognise.Part(name, conditions.CLEAN, system, entries[system])
        for name in names
        for system in SYSTEMS
    ]
    recognise.hear_all(words, utterances, parts)
    for name in SYSTEMS:
        entry = entries[name]
        facts = {
            "clips": facts_of_clips(utterances),
            "system": [name, entry.version, entry.code],
            "metric": store.code(opinions, metrics.dnsmos, told=(audio.read,)),
        }
        kept_rows(
            graded,
            {"system": name},
            facts,
            lambda name=name, entry=entry: opinions(utterances, name, entry.system),
        )
    return words, graded


def opinions(utterances: pd.DataFrame, name: str, system: systems.System) -> pd.DataFrame:
    """DNSMOS of each utterance behind a system: utterance, speaker, split, system, `dnsmos_...`."""
    return pd.DataFrame(
        {"utterance": one.utterance, "speaker": one.speaker, "split": one.split, "system": name}
        | metrics.dnsmos(system(audio.read(one.path)))
        for one in utterances.itertuples()
    )
