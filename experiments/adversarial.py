"""Adversarial training: what a discriminator gives back, and what it costs.

The shipped network goes on for a few hundred steps with judges of the band from 4 to 8 kHz, once
for each weight that they may have, and once without them: the control. Everything is scored on
validation speakers. The judges stand in `helpers.models.adversarial`. Trainings go on after their
last finished epoch, scores after the last finished part. Read in `08_adversarial`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.kept import facts_of_clips, facts_of_noisy, kept_rows
from helpers import audio, models, store
from helpers.audio import SAMPLE_RATE
from helpers.backend import keras
from helpers.data import conditions, corpus, dataset, noise, noise_bank, pool
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.denoise.systems import Oracle, System
from helpers.evaluation import metrics, tables
from helpers.models import adversarial, losses, training
from helpers.models.blocks import WaveformWrapper, hop_length
from helpers.quick import size

METHOD = "spectrogram"  # whose shipped weights are the start
SEED = 1
BATCH_SIZE, SECONDS = 8, 1.5  # of a training batch
EPOCHS, STEPS = size(12, 2), size(20, 2)  # STEPS an epoch
LEARNING_RATE, JUDGE_RATE = 3e-4, 2e-3
BANK_CLIPS = size(1_200, 8)
WEIGHTS = size((0.1, 0.3, 1.0, 3.0), (0.1,))  # of the judges, beside the control's 0
SPLIT = "validation"  # the test is scored once, when all is chosen
UTTERANCES, CLIP_SECONDS = size(32, 2), 4.0
OTHER_UTTERANCES = size(8, 2)  # under the conditions beside the first
WITH_VISQOL = size(16, 0)  # of the first condition
INPUTS = (  # the first is what the judges are there for; in the others they may do harm
    conditions.WHITE,
    Condition("white", snr_db=10.0),
    Condition("pink", 2_500, 7_000, 0.0),
    conditions.CLEAN,
)
SPOKEN_DB = -40.0  # re the loudest frame: fainter frames of the clean clip are pauses
FAINT_DB = -80.0  # re the clean clip's loudest bin: what is below counts as equal
RAISED_DB = (2.5, 5.0)  # dB, of 4-8 kHz behind the shipped model: what a filter would do


# --- scores -------------------------------------------------------------------------------------


def band_powers(samples: np.ndarray) -> np.ndarray:
    """Power in each bin of the band whose level is looked at, `(frames, bins)`."""
    S = audio.stft(samples, metrics.LSD_WIN, metrics.LSD_HOP)
    low, high = (round(f * metrics.LSD_WIN / SAMPLE_RATE) for f in adversarial.LEVEL_BAND)
    return np.abs(S[:, low:high]) ** 2


def spoken(clean: np.ndarray) -> np.ndarray:
    """In which frames of a clean clip someone speaks, bool `(frames,)`."""
    power = np.sum(np.abs(audio.stft(clean, metrics.LSD_WIN, metrics.LSD_HOP)) ** 2, axis=1)
    return power > 10 ** (SPOKEN_DB / 10) * power.max()


def level_high(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Level at 4-7 kHz where someone speaks, re clean, in dB: 0 is right, below it too weak."""
    here = spoken(clean)
    made, true = (np.sum(band_powers(x)[here]) for x in (denoised, clean))
    return float(10 * np.log10(max(made, 1e-20) / true))


def lsd_high(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Log-spectral distance at 4-7 kHz where someone speaks, dB, lower is better.

    RMS over bins, mean over frames. Noise of the right level in the place of an /s/, as good as a
    stranger's, has 8 dB: the power of a bin of noise is exponential, its level spreads by 5.6 dB,
    and two such levels by the root of two more.
    """
    here = spoken(clean)
    true, made = (band_powers(x)[here] for x in (clean, denoised))
    floor = 10 ** (FAINT_DB / 10) * np.abs(audio.stft(clean)).max() ** 2
    differences = [audio.power_db(np.maximum(power, floor)) for power in (made, true)]
    return float(np.sqrt(np.mean((differences[0] - differences[1]) ** 2, axis=1)).mean())


def measure(clean: np.ndarray, denoised: np.ndarray, with_visqol: bool = False) -> dict:
    """The scores of a clip: SI-SDR, PESQ, ESTOI, `level_high`, `lsd_high`, and ViSQOL if asked."""
    return {
        "si_sdr": metrics.si_sdr(clean, denoised),
        "pesq": metrics.pesq(clean, denoised),
        "estoi": metrics.estoi(clean, denoised),
        "level_high": level_high(clean, denoised),
        "lsd_high": lsd_high(clean, denoised),
        "visqol": metrics.visqol(clean, denoised) if with_visqol else np.nan,
    }


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of the tables: its name, weight and seed, what decides it, and `make() -> system`."""

    system: str
    make: Callable[[], System | Oracle]
    version: str = ""
    weight: float = np.nan
    seed: int = 0

    @property
    def row(self) -> dict:
        """Its columns in a row of results."""
        return {"system": self.system, "weight": self.weight, "seed": self.seed}


def score_all(path: Path, table: pd.DataFrame, entries: list[Entry]) -> pd.DataFrame:
    """Score systems on the validation clips of every condition; gives all rows of `<path>.csv`.

    A row a clip, condition and system: utterance, speaker, split, the system's own (`Entry.row`),
    the condition's, and `measure`. Parts that the file has are not made again.
    """
    rows = pd.DataFrame()
    for entry in tqdm(entries, "systems", disable=None):
        made = functools.cache(entry.make)
        for condition in INPUTS:
            main = condition == INPUTS[0]
            n, n_visqol = (UTTERANCES, WITH_VISQOL) if main else (OTHER_UTTERANCES, 0)
            utterances = corpus.pick(table, SPLIT, n)

            def make(made=made, utterances=utterances, condition=condition, n_visqol=n_visqol):
                return score(made(), utterances, condition, n_visqol).assign(**entry.row)  # noqa: B023

            told = (audio.read, conditions.make_noisy)
            facts = {
                "clips": facts_of_clips(utterances),
                "noisy": facts_of_noisy(condition, conditions.SEED),
                "measure": [n_visqol, store.code(score, told=told)],
                "system": [entry.row, entry.version],
            }
            rows = kept_rows(path.with_suffix(".csv"), entry.row | condition.row, facts, make)
    return rows


def score(system, utterances: pd.DataFrame, condition: Condition, n_visqol: int) -> pd.DataFrame:
    """`measure` of a system on the first seconds of utterances, a row a clip."""
    rows = []
    for i, one in enumerate(utterances.itertuples()):
        speech = audio.read(one.path)[: int(CLIP_SECONDS * SAMPLE_RATE)]
        noisy_clip = conditions.make_noisy(one.utterance, speech, condition, conditions.SEED)
        clean, noisy = noisy_clip[::2]
        estimate = np.float32(systems.apply(system, clean, noisy))
        row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
        rows.append(row | condition.row | measure(clean, estimate, i < n_visqol))
    return pd.DataFrame(rows)


def yardsticks() -> list[Entry]:
    """What the trained ones are set beside: input, filter, shipped model, that raised, oracle."""
    digest = models.weights_sha256(METHOD)[:12]

    def raised(gain_db):
        model = systems.make(METHOD)[METHOD]
        return lambda noisy: raise_band(model(noisy), gain_db)

    names = {"noisy": "", "low-pass": "", METHOD: digest, "oracle PSM": ""}
    result = [
        Entry(name, functools.partial(lambda name: systems.make(name)[name], name), version)
        for name, version in names.items()
    ]
    return result + [
        Entry(f"raised by {gain_db:g} dB", functools.partial(raised, gain_db), digest)
        for gain_db in RAISED_DB
    ]


def raise_band(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Raise all above 4 kHz: what takes the lost level back without knowing anything."""
    high = audio.band_limit(samples, SAMPLE_RATE, 4_000, 8_000)
    return np.float32(samples + (10 ** (gain_db / 20) - 1) * high)


# --- training -----------------------------------------------------------------------------------


def training_facts(table: pd.DataFrame, files) -> list:
    """What decides the batches of a training."""
    train = table[table.split == "train"]
    noises = [BANK_CLIPS, store.sizes(files), noise_bank.code_of_noise()]
    return [facts_of_clips(train), noises, store.code(make_batches, told=(noise_bank.NoiseBank,))]


def make_batches(table: pd.DataFrame, files, first_epoch: int, epochs: int):
    """Batches of train speakers and train noise, from an epoch on to the last."""
    folder = corpus.find_corpus()
    speech = pool.Pool(folder, list(table.path[table.split == "train"]))
    bank = noise_bank.NoiseBank.render(
        store.CACHE / "bank-adversarial", files, BANK_CLIPS, seed=SEED
    )
    first, last = (n * STEPS for n in (first_epoch, epochs))
    return dataset.make_dataset(speech, bank, SECONDS, BATCH_SIZE, last, SEED, first)


def start_trainer(weight: float, seed: int) -> adversarial.AdversarialTrainer:
    """The shipped model and its judges, before the first step."""
    keras.utils.set_random_seed(seed)
    frame_model = models.load(METHOD)
    denoiser = WaveformWrapper(frame_model, hop_length(frame_model))
    trainer = adversarial.AdversarialTrainer(denoiser, weight, ramp=STEPS * EPOCHS // 6)
    rate = training.WarmRestarts(LEARNING_RATE, [STEPS * EPOCHS])
    trainer.compile(
        training.make_optimizer("Adam", rate),
        keras.optimizers.Adam(JUDGE_RATE, beta_1=0.5),
        losses.DenoisingLoss(linear_below=0.2, level_weight=0.015),  # as its last training
    )
    return trainer


def run_dir(weight: float, seed: int, facts: list) -> Path:
    """Where a training keeps its checkpoints: named by the start, the settings, data and code."""
    settings = [weight, seed, EPOCHS, STEPS, SECONDS, models.weights_sha256(METHOD)]
    code = store.code(start_trainer, adversarial.AdversarialTrainer, told=(models.load,))
    return store.RUNS / f"adversarial-{weight:g}-{seed}-{store.key([settings, facts, code])}"


def train(weight: float, seed: int, table: pd.DataFrame, files) -> WaveformWrapper:
    """The denoiser that is left of a training, or of one that goes on where it was stopped."""
    folder = run_dir(weight, seed, training_facts(table, files))
    finished, partial = (folder / f"{name}.weights.h5" for name in ("finished", "partial"))
    trainer = start_trainer(weight, seed)
    if finished.exists():
        trainer.denoiser.frame_model.load_weights(finished)
        return trainer.denoiser
    with store.alone(folder):
        folder.mkdir(parents=True, exist_ok=True)
        done = training.resume(trainer, folder)
        trainer.fit(
            make_batches(table, files, done, EPOCHS),
            initial_epoch=done,
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            shuffle=False,
            callbacks=[training.Checkpoint(folder), Curve(folder)],
            verbose=2,
        )
        trainer.optimizer.finalize_variable_values(trainer.denoiser.trainable_variables)
        trainer.denoiser.frame_model.save_weights(partial)
        partial.replace(finished)
    return trainer.denoiser


class Curve(keras.callbacks.Callback):
    """The means of every epoch, `curve.csv`: `epoch` from 1, and `adversarial.CURVE`."""

    def __init__(self, folder: Path):
        super().__init__()
        self.path = folder / "curve"

    def on_epoch_end(self, epoch, logs=None):
        new = pd.DataFrame([{"epoch": epoch + 1} | (logs or {})])
        path = self.path.with_suffix(".csv")
        if path.exists():  # an epoch may come twice, where its checkpoint was not finished
            old = pd.read_csv(path)
            new = pd.concat([old[old.epoch <= epoch], new])
        tables.save_rows(new, self.path)


def as_system(make: Callable[[], WaveformWrapper]) -> Callable[[], System]:
    """What makes a system of the model that `make` gives."""

    def system():
        model = make()
        return lambda noisy: np.asarray(model(noisy[None]))[0]

    return system


# --- all of it ----------------------------------------------------------------------------------


def compare_weights(
    path: Path, table: pd.DataFrame, noise_folder: Path | None, seeds=(SEED,)
) -> None:
    """Train the control and every weight, or go on; write `<path>.csv` and `<path>_curves.csv`.

    Raises store.FileError where another process is at the same training.
    """
    files = tuple(noise.recorded_files(noise_folder, "train"))
    facts, entries, curves = training_facts(table, files), yardsticks(), []
    for seed, weight in itertools.product(seeds, (0.0, *WEIGHTS)):
        make = functools.partial(train, weight, seed, table, files)
        make()
        folder, name = run_dir(weight, seed, facts), "discriminator" if weight else "control"
        about = {"system": name, "weight": weight, "seed": seed}
        curves.append(pd.read_csv(folder / "curve.csv").assign(**about))
        tables.save_rows(pd.concat(curves), path.with_name(f"{path.name}_curves"))
        entries.append(Entry(version=folder.name, make=as_system(make), **about))
    score_all(path, table, entries)
