"""The steps from a picture to a mask, trained on one budget and scored on validation speakers.

The networks and losses stand in `helpers.models.ablation`. Trained steps are kept, so a run that
was stopped goes on. Read in `04_spectrogram_autoencoder`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.kept import facts_of_clips, facts_of_noisy, kept
from helpers import audio, store
from helpers.audio import SAMPLE_RATE
from helpers.data import conditions, corpus, dataset, noise, noise_bank
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.evaluation import metrics
from helpers.models import ablation, picture
from helpers.models.ablation import BATCH_SIZE, SECONDS, SEED, STEPS
from helpers.quick import size

UTTERANCES, CLIP_SECONDS = size(24, 2), 4.0
CONDITION = Condition("white", snr_db=0.0)
SPEECH_FILES, BANK_CLIPS = size(400, 8), size(400, 8)  # to train on


def training_files(table: pd.DataFrame) -> pd.DataFrame:
    """The utterances of train speakers that every step is trained on, in their order."""
    train = table[table.split == "train"]
    return train.sample(frac=1, random_state=SEED).head(SPEECH_FILES)


def make_training(table: pd.DataFrame, files):
    """The batches that every step is trained on, from train speakers and train noise."""
    speech = dataset.load_speech(training_files(table).path)
    path = store.CACHE / "bank-ablation"
    bank = noise_bank.NoiseBank.render(path, files, BANK_CLIPS, seed=SEED)
    return dataset.make_dataset(speech, bank, SECONDS, BATCH_SIZE, STEPS, SEED)


def noisy_clips(utterances: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Utterance -> (clean, noisy), the validation clips on which every step is scored."""
    result = {}
    for one in utterances.itertuples():
        speech = audio.read(one.path)[: int(CLIP_SECONDS * SAMPLE_RATE)]
        result[one.utterance] = conditions.make_noisy(one.utterance, speech, CONDITION, SEED)[::2]
    return result


def score(system, pairs: dict) -> pd.DataFrame:
    """`metrics.score` of a system, a row a clip."""
    rows = []
    for utterance, (clean, noisy) in pairs.items():
        estimate = np.float32(systems.apply(system, clean, noisy))
        rows.append({"utterance": utterance} | metrics.score(clean, estimate))
    return pd.DataFrame(rows)


def ablate_all(table: pd.DataFrame, noise_folder: Path | None) -> pd.DataFrame:
    """Train and score every step that is not kept; a row an utterance and step.

    Columns beside those of `metrics.score`: `step`, `loss` and `parameters`, the last two of
    trained steps only. The first rows are those of the noisy input and both low-pass filters, the
    last those of an oracle.
    """
    utterances = corpus.pick(table, "validation", UTTERANCES)
    files = tuple(noise.recorded_files(noise_folder, "train"))
    pairs, training, trained, parts = noisy_clips(utterances), None, {}, []
    for step, (settings, loss) in tqdm(ablation.steps().items(), "steps", disable=None):

        def make(step=step, settings=settings, loss=loss):
            nonlocal training, trained
            training = training or make_training(table, files)
            if (name := repr((settings, loss))) not in trained:  # the first two share a network
                trained = {name: ablation.train(settings, loss, training)}
            rows = score(ablation.system(step, trained[name]), pairs)
            return rows.assign(step=step, loss=loss, parameters=trained[name].count_params())

        facts = facts_of_step(step, settings, loss, utterances, table, files)
        parts.append(kept("ablation/step", facts, make))
    floor, ceiling = (
        [score(one, pairs).assign(step=name) for name, one in systems.make(*names).items()]
        for names in (systems.names("floor"), systems.names("ceiling"))
    )
    rows = pd.concat([*floor, *parts, *ceiling], ignore_index=True)
    return rows.astype({"parameters": "Int64"})


def facts_of_step(step: str, settings: dict, loss: str, utterances, table, files) -> dict:
    """What decides a step's rows: its settings, its loss, the budget, data and code."""
    makers = (ablation.train, ablation.system, make_training, noisy_clips, score, picture.build)
    return {
        "step": [step, settings, loss, store.code(ablation.LOSSES[loss])],
        "code": [store.code(*makers, told=(audio.read, conditions.make_noisy))],
        "clips": facts_of_clips(utterances),
        "noisy": facts_of_noisy(CONDITION, SEED),
        "speech": facts_of_clips(training_files(table)),
        "noise": [store.sizes(files), noise_bank.code_of_noise()],
    }
