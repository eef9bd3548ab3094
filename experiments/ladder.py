"""Every rung of training without clean speech, with several seeds, on speakers never heard.

Networks and training pairs stand in `helpers.models.ladder`. Trained rungs are kept, so a run that
was stopped goes on. Read in `07_without_clean_speech`.
"""

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.kept import facts_of_clips, facts_of_noisy, kept
from helpers import audio, store
from helpers.audio import SAMPLE_RATE
from helpers.data import conditions, corpus, noise
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.evaluation import metrics
from helpers.models import ladder
from helpers.quick import size

SPLIT, UTTERANCES, CLIP_SECONDS = "test+other", size(20, 1), 4.0  # utterances of each of both
CONDITIONS = tuple(Condition("white", snr_db=snr_db) for snr_db in (0.0, 10.0))
SEEDS = size((1, 2, 3), (1,))
SPEECH_FILES = size(200, 8)  # to train on
MEASURES = ("si_sdr", "pesq", "estoi", "level")


def training_files(table: pd.DataFrame) -> pd.DataFrame:
    """The utterances of train speakers that every rung is trained on, in their order."""
    train = table[table.split == "train"]
    return train.sample(frac=1, random_state=0).head(SPEECH_FILES)


def make_pool(table: pd.DataFrame) -> np.ndarray:
    """These utterances at unit RMS, end to end, float32 `(samples,)`."""
    paths = training_files(table).path
    return np.concatenate([noise.unit_rms(audio.read(path)) for path in paths])


def train(rung: str, pool: np.ndarray, seed: int, steps: int = ladder.STEPS):
    """The small network, trained on the pairs of a rung: a `WaveformWrapper`."""
    trainer = ladder.build(seed, steps)
    data = ladder.batches(rung, pool, seed)
    trainer.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    return trainer


def systems_of(rung: str, trainer) -> dict:
    """What a trained rung gives: name -> system; of "noisier" the corrected one too."""

    def denoise(noisy):
        return trainer.predict_on_batch(noisy[None])[0]

    found = {rung: denoise}
    if rung == "noisier":
        found["noisier, corrected"] = lambda noisy: ladder.corrected(denoise(noisy), noisy)
    return found


def score(systems_: dict, utterances: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics.score`, one a clip, condition and system; see `climb` for the columns."""
    rows = []
    for one in utterances.itertuples():
        speech = audio.read(one.path)[: int(CLIP_SECONDS * SAMPLE_RATE)]
        for condition in CONDITIONS:
            noisy_pair = conditions.make_noisy(one.utterance, speech, condition, conditions.SEED)
            clean, _, noisy = noisy_pair
            about = {"utterance": one.utterance, "speaker": one.speaker, "snr_db": condition.snr_db}
            for name, system in systems_.items():
                estimate = np.float32(systems.apply(system, clean, noisy))
                found = metrics.score(clean, estimate)
                rows.append(about | {"system": name} | {m: found[m] for m in MEASURES})
    return pd.DataFrame(rows)


def climb(table: pd.DataFrame) -> pd.DataFrame:
    """Train and score every rung and seed that is not kept; a row a clip, SNR, system and seed.

    Columns: utterance, speaker, those of `conditions.COLUMNS`, system, seed (empty where nothing
    is trained), si_sdr (dB), pesq, estoi, level (dB re clean). The first rows are those of the
    noisy input and of the low-pass, the last those of an oracle.
    """
    utterances = corpus.pick(table, SPLIT, UTTERANCES)
    pool, parts = None, []
    work = [(rung, seed) for seed in SEEDS for rung in ladder.RUNGS]
    for rung, seed in tqdm(work, "rungs", disable=None):

        def make(rung=rung, seed=seed):
            nonlocal pool
            pool = make_pool(table) if pool is None else pool
            found = systems_of(rung, train(rung, pool, seed))
            return score(found, utterances).assign(seed=seed)

        parts.append(kept("ladder/rung", facts_of_rung(rung, seed, utterances, table), make))
    floor, ceiling = (
        score(systems.make(*names), utterances)
        for names in (("noisy", "low-pass"), ("oracle PSM",))
    )
    rows = pd.concat([floor, *parts, ceiling], ignore_index=True).astype({"seed": "Int64"})
    by_snr = {one.snr_db: one.row for one in CONDITIONS}
    return rows.assign(**pd.DataFrame([by_snr[snr_db] for snr_db in rows.snr_db]))


def facts_of_rung(rung: str, seed: int, utterances: pd.DataFrame, table: pd.DataFrame) -> dict:
    """What decides the rows of a rung: its name and seed, the budget, data and code."""
    makers = (train, systems_of, score, make_pool)
    told = (audio.read, conditions.make_noisy)
    return {
        "rung": [rung, seed, ladder.STEPS],
        "code": store.code(*makers, told=told),
        "clips": facts_of_clips(utterances),
        "noisy": [facts_of_noisy(one, conditions.SEED) for one in CONDITIONS],
        "speech": facts_of_clips(training_files(table)),
    }
