"""Phoneme recognisers trained on clean, noisy and denoised speech, each tried on all three.

The recogniser stands in `helpers.evaluation.phonemes`. Features are rendered once and kept;
trainings go on after their last finished epoch. Read in `06_recognition`.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.kept import facts_of_clips, facts_of_noisy, kept
from helpers import audio, models, store
from helpers.backend import keras
from helpers.data import conditions, noise
from helpers.data.noise_bank import BANK_CLIPS, NoiseBank, code_of_noise
from helpers.denoise.stream import Denoiser
from helpers.evaluation import phonemes, word_errors
from helpers.models import training
from helpers.quick import size

METHOD = "spectrogram"  # the denoiser of the matched-condition experiment
VERSIONS = size(3, 1)  # of the training speech
EPOCHS, BATCH_SIZE, LEARNING_RATE = size(36, 1), 8, 1e-3
WARM_UP = 300  # steps
SNR_RANGE = (-5.0, 20.0)  # dB, of the noisy training versions
SPEED_RANGE = (0.9, 1.1)  # of the training versions but the first
TEST_CONDITIONS = tuple(conditions.NOISES.values())  # by turns, one an utterance


# --- features -----------------------------------------------------------------------------------


def training_pairs(utterances: pd.DataFrame, version: int, bank: NoiseBank):
    """`(clean, noisy)` of each utterance: another speed, noise and SNR in each version."""
    for one in utterances.itertuples():
        rng = noise.rng_for(f"{one.utterance}/{version}", seed=0)
        clean = audio.read(one.path)
        if version:
            clean = audio.resample(clean, len(clean), len(clean) / rng.uniform(*SPEED_RANGE))
        added = np.zeros(1)
        while not added.any():  # a burst may be over before the cut begins
            added = bank.draw(rng, len(clean))
        clean, _, noisy = noise.mix(clean, added, rng.uniform(*SNR_RANGE))
        yield clean, noisy


def trial_pairs(utterances: pd.DataFrame, files):
    """`(clean, noisy)` of each utterance, the conditions of the test protocol by turns."""
    inputs = conditions.possible(TEST_CONDITIONS, files)
    for i, one in enumerate(utterances.itertuples()):
        condition = inputs[i % len(inputs)]
        clean = audio.read(one.path)
        clean, _, noisy = conditions.make_noisy(one.utterance, clean, condition, 0, files)
        yield clean, noisy


def features(pairs, denoiser) -> dict[str, list[np.ndarray]]:
    """Kind of audio -> `log_mel` of each pair, `denoiser` being a function of the noisy one."""
    result = {kind: [] for kind in phonemes.KINDS}
    for clean, noisy in pairs:
        for kind, samples in zip(phonemes.KINDS, (clean, noisy, denoiser(noisy)), strict=True):
            result[kind].append(phonemes.log_mel(samples))
    return result


def split_utterances(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The utterances with transcripts of train, validation and test speakers.

    The test has the *other* speakers too. Utterances with words that the dictionary lacks are left
    out of validation and test.
    """
    spoken = table[table.text.notna()]
    known = spoken[spoken.text.map(phonemes.is_known)]
    return {
        "train": spoken[spoken.split == "train"],
        "validation": known[known.split == "validation"],
        "test": known[known.split.isin(["test", "other"])],
    }


def phoneme_sets(table: pd.DataFrame, noise_folder: Path | None) -> dict:
    """Split -> (versions, utterances, facts): features as of `features`, and what decides them."""

    @functools.cache
    def denoiser():
        return Denoiser(METHOD)

    @functools.cache
    def bank():
        files = tuple(noise.recorded_files(noise_folder, "train"))
        return NoiseBank.render(store.CACHE / "bank-train", files, BANK_CLIPS, seed=1)

    sets = {}
    for split, utterances in split_utterances(table).items():
        files, versions = tuple(noise.recorded_files(noise_folder, split)), []
        facts = facts_of_features(split, utterances, files)
        for version in range(VERSIONS if split == "train" else 1):

            def make(split=split, utterances=utterances, files=files, version=version):
                in_training = split == "train"
                pairs = (
                    training_pairs(utterances, version, bank())
                    if in_training
                    else trial_pairs(utterances, files)
                )
                name = f"{split} {version}"
                bar = tqdm(pairs, name, total=len(utterances), disable=None, leave=False)
                return features(bar, denoiser())

            versions.append(kept(f"phonemes/{split}-{version}", facts, make))
        sets[split] = versions, utterances, facts
    return sets


def facts_of_features(split: str, utterances: pd.DataFrame, files) -> dict:
    """What decides the features of a split: clips, noise, code, and the denoiser's weights."""
    if split == "train":
        noises = [BANK_CLIPS, store.sizes(files), code_of_noise()]
        pairs = store.code(training_pairs, told=(audio.read,))
    else:
        inputs = conditions.possible(TEST_CONDITIONS, files)
        noises = [facts_of_noisy(one, 0, files) for one in inputs]
        pairs = store.code(trial_pairs, told=(audio.read, conditions.make_noisy))
    code = store.code(Denoiser, models.module(METHOD).build, told=(models.load,))  # by the SHA-256
    denoiser = [code, models.weights_sha256(METHOD)]
    return {
        "clips": facts_of_clips(utterances),
        "noise": noises,
        "code": [pairs, store.code(features)],
        "denoiser": denoiser,
    }


# --- training and trial -------------------------------------------------------------------------


def run_dir(kind: str, sets: dict, epochs: int = EPOCHS, seed: int = 1) -> Path:
    """Where a training keeps its checkpoints: named by its features, code and settings."""
    facts = [sets[split][2] for split in ("train", "validation")]
    told = (training.bookkeeping, training.resume)  # they change no weight
    key = store.key([kind, epochs, seed, store.code(train_phonemes, told=told), *facts])
    return store.RUNS / f"phonemes-{kind}-{key}"


def train_phonemes(kind: str, sets: dict, epochs: int = EPOCHS, seed: int = 1) -> keras.Model:
    """Train on one kind of audio, or go on after the last epoch; the curve is in its `run_dir`."""
    keras.utils.set_random_seed(seed)
    folder = run_dir(kind, sets, epochs, seed)
    folder.mkdir(parents=True, exist_ok=True)
    finished, partial = (folder / f"{name}.weights.h5" for name in ("finished", "partial"))

    def data(split, epochs):
        versions, utterances, _ = sets[split]
        labels = [phonemes.classes(phonemes.pronounce(text)) for text in utterances.text]
        chosen, mask = [version[kind] for version in versions], split == "train"
        return phonemes.make_dataset(chosen, labels, BATCH_SIZE, epochs, seed, mask)

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
    model.optimizer.build(model.trainable_variables)
    done = training.resume(model, folder)
    model.fit(
        data("train", range(done, epochs)),
        validation_data=data("validation", [0]).cache(),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=n_batches,
        shuffle=False,  # the batches come in random order already
        callbacks=training.bookkeeping(folder),
        verbose=2,
    )
    model.save_weights(partial)
    partial.replace(finished)
    return model


def errors(references: list[list[str]], texts: list[str]) -> pd.DataFrame:
    """`word_errors.count_errors` in phonemes, a row an utterance."""
    pairs = zip(references, texts, strict=True)
    counts = [word_errors.count_errors(" ".join(reference), text) for reference, text in pairs]
    return pd.DataFrame(counts)


def try_phonemes(model: keras.Model, trained_on: str, sets: dict) -> pd.DataFrame:
    """Errors of a recogniser on the test speakers, in each kind of audio; a row an utterance."""
    (version,), utterances, _ = sets["test"]
    references = [phonemes.pronounce(text) for text in utterances.text]
    about = utterances[["utterance", "speaker", "split"]].reset_index(drop=True)
    tables = []
    for kind in phonemes.KINDS:
        found = errors(references, phonemes.recognise(model, version[kind]))
        tables.append(
            pd.concat([about, found], axis=1).assign(trained_on=trained_on, tried_on=kind)
        )
    return pd.concat(tables, ignore_index=True)


def compare_phonemes(
    table: pd.DataFrame, noise_folder: Path | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and try a recogniser on each kind of audio: the errors, and the learning curves.

    Errors as of `try_phonemes`, with `version`, the beginning of the SHA-256 of the denoiser that
    made the features. Curves: a row an epoch with `trained_on`, `epoch`, `loss` and `val_loss`,
    nats an utterance. Raises store.FileError where another process trains the same recogniser.
    """
    sets = phoneme_sets(table, noise_folder)
    rows, curves = [], []
    for kind in phonemes.KINDS:
        with store.alone(run_dir(kind, sets)):
            model = train_phonemes(kind, sets)
        rows.append(try_phonemes(model, kind, sets))
        history = pd.read_csv(run_dir(kind, sets) / "history.csv")
        history = history.drop(columns="seconds")
        curves.append(history.assign(trained_on=kind, epoch=history.epoch + 1))
    version = sets["test"][2]["denoiser"][-1][:12]
    found = pd.concat(rows, ignore_index=True).assign(version=version)
    return found, pd.concat(curves, ignore_index=True)
