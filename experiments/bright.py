"""Recordings that are mostly high, as they come, of categories that training or choices heard.

No recording of the test split has most of its energy above 4 kHz. So here new speakers speak in
known kinds of noise: what it shows is no test. Read in `appendix/05_noise_as_it_is`.
"""

from pathlib import Path

import pandas as pd

from experiments import evaluate
from helpers.data import conditions, noise, recordings

SPLITS = ("train", "validation")  # of the recordings


def score_bright(path: Path, table: pd.DataFrame, noise_folder: Path | None) -> pd.DataFrame:
    """The main systems on `conditions.BRIGHT_RECORDINGS`, by `evaluate.score_all`.

    Its rows, and of each category `heard_in`, the split that it belongs to, and `share`, the mean
    share of energy above 4 kHz of its recordings. Raises ValueError where none is bright.
    """
    inputs = conditions.BRIGHT_RECORDINGS.values()
    bright = bright_recordings(noise_folder)
    if bright.empty:
        raise ValueError("no recording with much above 4 kHz; set DENOISER_NOISE (data/README.md)")
    entries = evaluate.course_entries()
    those = {name: entries[name] for name in evaluate.ON_RECORDINGS}
    wanted = dict.fromkeys(inputs, those)
    rows = evaluate.score_all(path, table, noise_folder, wanted, SPLITS)
    about = bright.groupby("category").agg(heard_in=("split", "first"), share=("share", "mean"))
    return rows.drop(columns=about.columns, errors="ignore").join(about, on="source")


def bright_recordings(noise_folder: Path | None) -> pd.DataFrame:
    """Of `recordings.read_recordings` those of SPLITS that BRIGHT takes, with their `share`."""
    if noise_folder is None:
        return pd.DataFrame()
    found = recordings.read_recordings(noise_folder)
    found = found[found.split.isin(SPLITS)]
    found = found.assign(share=found.path.map(noise.share_above))
    return found[found.share >= conditions.BRIGHT_SHARE]
