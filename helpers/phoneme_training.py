"""Phoneme recognisers trained on clean, noisy and denoised speech, each tried on all three.

Trainings can be stopped and go on after their last finished epoch. Taught in `06_recognition`.
"""

import hashlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, corpus, noise, phonemes, protocol
from helpers.backend import keras
from helpers.denoise import Denoiser
from helpers.models import weights_path
from helpers.noise_bank import NoiseBank
from helpers.quick import size
from helpers.training import CACHE, Plan

RUNS = corpus.ROOT / "data" / "runs"
METHOD = "spectrogram"  # the denoiser of the matched-condition experiment
VERSIONS = size(3, 1)  # of the training speech
EPOCHS, BATCH_SIZE, LEARNING_RATE = size(36, 1), 8, 1e-3
WARM_UP = 300  # steps


def phoneme_sets(table: pd.DataFrame, noise_folder: Path | None) -> dict:
    """Features and classes of the train, validation and test speakers, rendered once.

    Split -> (versions, utterances), each version as of `phonemes.features`; the test has the
    *other* speakers too. Utterances with words that the dictionary lacks are left out of
    validation and test.
    """
    denoiser = Denoiser(METHOD)
    spoken = table[table.text.notna()]
    known = spoken[spoken.text.map(phonemes.is_known)]
    sets = {
        "train": spoken[spoken.split == "train"],
        "validation": known[known.split == "validation"],
        "test": known[known.split.isin(["test", "other"])],
    }
    files = tuple(noise.recorded_files(noise_folder, "train"))
    bank = NoiseBank.render(CACHE / "bank-train", files, Plan(METHOD).bank_clips, seed=1)
    result = {}
    for split, utterances in sets.items():
        files = tuple(noise.recorded_files(noise_folder, split))
        versions = []
        for version in range(VERSIONS if split == "train" else 1):
            if split == "train":
                pairs = phonemes.training_pairs(utterances, version, bank)
            else:
                pairs = phonemes.trial_pairs(utterances, files)
            path = CACHE / "phonemes" / f"{split}-{version}-{_digest(utterances, files)}.joblib"
            if not path.exists():
                progress = tqdm(pairs, path.stem, total=len(utterances), disable=None, leave=False)
                with audio.atomic_path(path) as temporary:
                    joblib.dump(phonemes.features(progress, denoiser), temporary)
            versions.append(joblib.load(path))
        result[split] = versions, utterances
    return result


def _digest(utterances: pd.DataFrame, files) -> str:
    """Of what decides the features: clips, noise, code, and the denoiser's weights."""
    parts = (audio, noise, phonemes.training_pairs, phonemes.trial_pairs, phonemes.log_mel)
    recipe = [protocol.code(part) for part in parts]
    recipe += [phonemes.SNR_RANGE, phonemes.SPEED_RANGE, phonemes.TEST_CONDITIONS]
    recipe += [_weights_sha256()]
    recipe += [(one.utterance, one.path.stat().st_size) for one in utterances.itertuples()]
    recipe += [(file.parent.name, file.name, file.stat().st_size) for file in files]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def _weights_sha256() -> str:
    return hashlib.sha256(weights_path(METHOD).read_bytes()).hexdigest()


def train_phonemes(kind: str, sets: dict, epochs: int = EPOCHS, seed: int = 1) -> keras.Model:
    """Train a phoneme recogniser on one kind of audio, or go on with it after its last epoch.

    The learning curve stands in `data/runs/phonemes-<kind>/history.csv`.
    """
    keras.utils.set_random_seed(seed)
    run_dir = RUNS / f"phonemes-{kind}"
    run_dir.mkdir(parents=True, exist_ok=True)
    history, finished = run_dir / "history.csv", run_dir / "finished.weights.h5"
    done = len(pd.read_csv(history)) if history.exists() else 0

    def data(split, epochs):
        versions, utterances = sets[split]
        labels = [phonemes.classes(phonemes.pronounce(text)) for text in utterances.text]
        versions = [version[kind] for version in versions]
        return phonemes.make_dataset(
            versions, labels, BATCH_SIZE, epochs, seed, mask=split == "train"
        )

    model = phonemes.build()
    if finished.exists():
        model.load_weights(finished)
        return model
    n_batches = int(np.ceil(len(sets["train"][1]) / BATCH_SIZE))
    warm_up = min(WARM_UP, epochs * n_batches // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * n_batches - warm_up, warmup_target=LEARNING_RATE, warmup_steps=warm_up
    )
    model.compile(keras.optimizers.Adam(rate, clipnorm=5.0), phonemes.CTC())
    model.fit(
        data("train", range(done, epochs)),
        validation_data=data("validation", [0]).cache(),
        epochs=epochs,
        steps_per_epoch=n_batches,
        shuffle=False,  # the batches come in random order already
        callbacks=[
            keras.callbacks.BackupAndRestore(run_dir / "backup", delete_checkpoint=False),
            keras.callbacks.CSVLogger(history, append=True),
        ],
        verbose=2,
    )
    model.save_weights(finished)
    return model


def try_phonemes(model: keras.Model, trained_on: str, sets: dict) -> pd.DataFrame:
    """Errors of a recogniser on the test speakers, in each kind of audio; a row an utterance."""
    (version,), utterances = sets["test"]
    references = [phonemes.pronounce(text) for text in utterances.text]
    about = utterances[["utterance", "speaker", "split"]].reset_index(drop=True)
    tables = []
    for kind in phonemes.KINDS:
        found = phonemes.errors(references, phonemes.recognise(model, version[kind]))
        tables.append(
            pd.concat([about, found], axis=1).assign(trained_on=trained_on, tried_on=kind)
        )
    return pd.concat(tables, ignore_index=True)


def run(table: pd.DataFrame, noise_folder: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and try a recogniser on each kind of audio: the errors, and the learning curves.

    Errors as of `try_phonemes`, with `version`, the beginning of the denoiser's SHA-256.
    Curves: a row an epoch with `trained_on`, `epoch`, `loss` and `val_loss`, nats an utterance.
    """
    sets = phoneme_sets(table, noise_folder)
    rows, curves = [], []
    for kind in phonemes.KINDS:
        rows.append(try_phonemes(train_phonemes(kind, sets), kind, sets))
        history = pd.read_csv(RUNS / f"phonemes-{kind}" / "history.csv")
        curves.append(history.assign(trained_on=kind, epoch=history.epoch + 1))
    errors = pd.concat(rows, ignore_index=True).assign(version=_weights_sha256()[:12])
    return errors, pd.concat(curves, ignore_index=True)
