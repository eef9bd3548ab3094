"""Adversarial and perceptual training: what judges and other losses give back, and what it costs.

The shipped network goes on for a few hundred steps, each time with one more term in its loss
(TERMS), and once without: the control. All is scored on validation speakers; those of one weight,
CHOSEN, are scored once on test speakers, and heard by recognisers. The judges stand in
`helpers.models.adversarial`. Trainings go on after their last finished epoch, scores after the last
finished part. Read in `08_adversarial`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments import evaluate, recognise
from experiments import phonemes as phoneme_trials
from experiments.kept import facts_of_clips, facts_of_noisy, kept, kept_rows
from helpers import audio, models, store
from helpers.audio import SAMPLE_RATE
from helpers.backend import keras, layers, ops
from helpers.data import conditions, corpus, dataset, noise, noise_bank, pool
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.denoise.stream import Denoiser
from helpers.denoise.systems import Oracle, System
from helpers.evaluation import asr, metrics, phonemes, tables, word_errors
from helpers.models import adversarial, losses, spectrogram, training
from helpers.models.blocks import WaveformWrapper, hop_length
from helpers.quick import size

METHOD = "spectrogram"  # whose shipped weights are the start
SEED = 1
BATCH_SIZE, SECONDS = 8, 1.5  # of a training batch
EPOCHS, STEPS = size(12, 2), size(20, 3)  # STEPS an epoch; a sixth of all is a judge's ramp
LEARNING_RATE, JUDGE_RATE = 3e-4, 2e-3
BANK_CLIPS = size(1_200, 8)
TERMS = {  # what is added to the denoiser's own loss, and its weights
    "discriminator": size((0.3, 1.0, 3.0), (1.0,)),
    "log spectrum": size((0.3, 1.0, 3.0), (1.0,)),
    "loud spectrum": size((1.0, 3.0, 10.0), (1.0,)),  # the same, of what is loud
    "filter bank": size((0.3, 1.0, 3.0), (1.0,)),  # distance of what a recogniser hears
    "deep features": size((0.3, 1.0, 3.0), (1.0,)),  # ... and of what its layers make of it
}
CHOSEN = 1.0  # the weight of each that is trained from every seed, and scored on test speakers
SPLIT = "validation"  # the test is scored once, when all is chosen
CLIP_SECONDS = 4.0  # of an utterance that is scored
PINK = Condition("pink", 2_500, 7_000, 0.0)
INPUTS = {  # condition -> clips, and how many of them ViSQOL grades
    conditions.WHITE: (size(32, 2), size(16, 0)),  # what the judges are there for
    Condition("white", snr_db=10.0): (size(8, 2), 0),  # where they may do harm
    PINK: (size(8, 2), 0),
    conditions.CLEAN: (size(8, 2), 0),
}
SPOKEN_DB = -40.0  # re the loudest frame: fainter frames of the clean clip are pauses
FAINT_DB = -80.0  # re the clean clip's loudest bin: what is below counts as equal
TEST_INPUTS = {conditions.WHITE: (size(30, 2), size(16, 0))}  # and as many of *other* speakers
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
    weights: Callable[[], list] | None = None  # of the network, where one was trained

    @property
    def row(self) -> dict:
        """Its columns in a row of results."""
        return {"system": self.system, "weight": self.weight, "seed": self.seed}


def score_all(
    path: Path,
    table: pd.DataFrame,
    entries: list[Entry],
    inputs: Mapping = INPUTS,
    split: str = SPLIT,
) -> pd.DataFrame:
    """Score systems on a split's clips of every condition; gives all rows of `<path>.csv`.

    A row a clip, condition and system: utterance, speaker, split, the system's own (`Entry.row`),
    the condition's, and `measure`. Parts that the file has are not made again.
    """
    rows = pd.DataFrame()
    for entry in tqdm(entries, "systems", disable=None):
        made = functools.cache(entry.make)
        for condition, (n, n_visqol) in inputs.items():
            utterances = corpus.pick(table, split, n)

            def make(made=made, utterances=utterances, condition=condition, n_visqol=n_visqol):
                return score(made(), utterances, condition, n_visqol).assign(**entry.row)  # noqa: B023

            told = (audio.read, conditions.make_noisy)
            facts = {
                "clips": facts_of_clips(utterances),
                "noisy": facts_of_noisy(condition, conditions.SEED),
                "measure": [n_visqol, store.code(score, told=told)],
                "system": [entry.row, entry.version],
            }
            rows = kept_rows(
                store.with_ending(path, ".csv"), entry.row | condition.row, facts, make
            )
    return rows


def score(system, utterances: pd.DataFrame, condition: Condition, n_visqol: int) -> pd.DataFrame:
    """`measure` of a system on the first seconds of utterances, a row a clip."""
    rows, clips = [], noisy_clips(utterances, condition)
    for i, (one, (clean, _, noisy)) in enumerate(zip(utterances.itertuples(), clips, strict=True)):
        estimate = np.float32(systems.apply(system, clean, noisy))
        row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
        rows.append(row | condition.row | measure(clean, estimate, i < n_visqol))
    return pd.DataFrame(rows)


def noisy_clips(utterances: pd.DataFrame, condition: Condition):
    """`(clean, noise, noisy)` of the first seconds of each utterance."""
    for one in utterances.itertuples():
        speech = audio.read(one.path)[: int(CLIP_SECONDS * SAMPLE_RATE)]
        yield conditions.make_noisy(one.utterance, speech, condition, conditions.SEED)


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


@dataclasses.dataclass(frozen=True)
class Training:
    """The shipped network, trained on with `weight` times one of TERMS; weight 0 is the control."""

    term: str
    weight: float
    seed: int = SEED

    @property
    def row(self) -> dict:
        """Its columns in a row of results."""
        name = self.term if self.weight else "control"
        return {"system": name, "weight": self.weight, "seed": self.seed}

    def run_dir(self, facts: list) -> Path:
        """Where it keeps its checkpoints: named by the start, the settings, data and code."""
        settings = [self.row, EPOCHS, STEPS, SECONDS, models.weights_sha256(METHOD)]
        code = store.code(start_trainer, adversarial.AdversarialTrainer, told=(models.load,))
        name = self.row["system"].replace(" ", "-")
        key = store.key([settings, facts, code])
        return store.RUNS / f"adversarial-{name}-{self.weight:g}-{self.seed}-{key}"


def start_trainer(one: Training, term=None) -> adversarial.AdversarialTrainer:
    """The shipped model before the first step, with its judges; or with another `term` of the loss,
    a function (clean, denoised).
    """
    keras.utils.set_random_seed(one.seed)
    frame_model = models.load(METHOD)
    denoiser = WaveformWrapper(frame_model, hop_length(frame_model))
    own = losses.DenoisingLoss(linear_below=0.2, level_weight=0.015)  # as its last training
    judges = 0.0 if term else one.weight
    trainer = adversarial.AdversarialTrainer(denoiser, judges, ramp=STEPS * EPOCHS // 6)
    rate = training.WarmRestarts(LEARNING_RATE, [STEPS * EPOCHS])
    trainer.compile(
        training.make_optimizer("Adam", rate),
        keras.optimizers.Adam(JUDGE_RATE, beta_1=0.5),
        with_term(own, term, one.weight) if term else own,
    )
    trainer.build((BATCH_SIZE, int(SECONDS * SAMPLE_RATE)))
    return trainer


def with_term(own: Callable, term: Callable, weight: float) -> Callable:
    """A loss and a weight times another."""
    return lambda clean, denoised: own(clean, denoised) + weight * term(clean, denoised)


def train(one: Training, table: pd.DataFrame, files, term=None, facts=()) -> WaveformWrapper:
    """The denoiser that is left of a training, or of one that goes on where it was stopped.

    `facts`: what decides `term`.
    """
    folder = one.run_dir([*training_facts(table, files), *facts])
    finished, partial = (folder / f"{name}.weights.h5" for name in ("finished", "partial"))
    trainer = start_trainer(one, term)
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


def weights_of(make: Callable[[], WaveformWrapper]) -> list:
    """The weights of the model of frames that `make` gives."""
    return make().frame_model.get_weights()


def as_system(make: Callable[[], WaveformWrapper]) -> Callable[[], System]:
    """What makes a system of the model that `make` gives."""

    def system():
        model = make()
        return lambda noisy: model.predict_on_batch(noisy[None])[0]

    return system


# --- what a recogniser hears --------------------------------------------------------------------

RECOGNISER_EPOCHS = size(12, 1)


def recogniser_sets(table: pd.DataFrame) -> dict:
    """As `experiments.phonemes.phoneme_sets`, of clean speech alone and as it was spoken."""
    sets = {}
    for split, utterances in phoneme_trials.split_utterances(table).items():
        if split != "test":
            heard = [phonemes.log_mel(audio.read(path)) for path in utterances.path]
            facts = [facts_of_clips(utterances), store.code(phonemes.log_mel)]
            sets[split] = [{"clean": heard}], utterances, facts
    return sets


def log_mel(clean, samples) -> tuple:
    """`phonemes.log_mel` of two clips, `(batch, frames, 64)`, with a gradient.

    Both are scaled as the clean one is. Where that is silent, as if it spread by 1 neper.
    """
    n_fft, gain = phonemes.WIN_LENGTH, adversarial.unit_gain(clean)
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=n_fft, n_mels=phonemes.N_MELS)
    true, made = (
        adversarial.power(gain * x, n_fft, phonemes.HOP_LENGTH) @ filters.T
        for x in (clean, samples)
    )
    floor = 1e-6 * ops.max(true, axis=(1, 2), keepdims=True) + 1e-4
    true, made = (ops.log(ops.maximum(energy, floor)) for energy in (true, made))
    centre, spread = ops.mean(true, 1, keepdims=True), ops.std(true, 1, keepdims=True) + 0.1
    return tuple((x - centre) / ops.maximum(spread, 1.0) for x in (true, made))


def filter_bank_loss(clean, denoised):
    """Relative distance of what goes into the recogniser."""
    true, made = log_mel(clean, denoised)
    return adversarial.matching_loss([true], [made])


def deep_loss(recogniser: keras.Model) -> Callable:
    """Relative distance of what its convolutions and recurrent layers make of it (F. G. Germain,
    Q. Chen and V. Koltun, "Speech denoising with deep feature losses", Interspeech 2019).
    """
    kinds = (layers.ReLU, layers.Bidirectional)
    hidden = [one.output for one in recogniser.layers if isinstance(one, kinds)]
    listener = keras.Model(recogniser.input, hidden)
    listener.trainable = False

    def loss(clean, denoised):
        true, made = (listener(x, training=False) for x in log_mel(clean, denoised))
        return adversarial.matching_loss(true, made)

    return loss


def terms(table: pd.DataFrame) -> dict[str, tuple[Callable | None, list]]:
    """Name in TERMS -> the function, none for judges, and what decides it."""
    direct, loud = adversarial.log_spectrum_loss, adversarial.loud_spectrum_loss
    sets = recogniser_sets(table)
    folder = phoneme_trials.run_dir("clean", sets, RECOGNISER_EPOCHS)
    with store.alone(folder):
        recogniser = phoneme_trials.train_phonemes("clean", sets, RECOGNISER_EPOCHS)
    return {
        "discriminator": (None, []),
        "log spectrum": (direct, [store.code(direct)]),
        "loud spectrum": (loud, [store.code(loud)]),
        "filter bank": (filter_bank_loss, [store.code(filter_bank_loss)]),
        "deep features": (deep_loss(recogniser), [store.code(deep_loss), folder.name]),
    }


# --- a judge that learns PESQ -------------------------------------------------------------------

SMALL = {"filters": (8, 12, 16, 16), "units": 64}  # chapter 04's network
OWN_STEPS, OWN_RATE = size(400, 2), 3e-3  # on its own loss, before
METRIC_BATCH, METRIC_SECONDS = 6, 2.0
ALONE_EPOCHS, LEARNING_EPOCHS, STALE_EPOCHS = size(20, 1), size(8, 1), size(4, 1)
METRIC_STEPS = size(10, 1)  # an epoch
METRIC_RATE, METRIC_JUDGE_RATE, OWN_WEIGHT = 3e-4, 1e-3, 0.3
HELD_OUT = size(12, 2)  # validation clips on which the judge's guess is set beside the truth
STAGES = ("small network", "metric judge", "stale judge", "small control")
METRIC_INPUTS = {PINK: (size(24, 2), size(12, 0))}  # of the stages only, as chapter 04 has it


def share_of_pesq(clean: np.ndarray, samples: np.ndarray) -> float:
    """PESQ as 0 (1.04) to 1 (4.64), NaN where it finds no speech."""
    try:
        return (metrics.pesq(clean, samples) - 1.04) / 3.6
    except ValueError:
        return np.nan


def coloured_batches(table: pd.DataFrame, n_batches: int, batch_size: int, seed: int):
    """Batches of train speakers in coloured noise, which is made in seconds."""
    folder = corpus.find_corpus()
    speech = pool.Pool(folder, list(table.path[table.split == "train"]))
    path, n_clips = store.CACHE / "bank-coloured", size(120, 8)
    bank = noise_bank.NoiseBank.render(path, (), n_clips, seed=SEED, only="coloured")
    return dataset.make_dataset(speech, bank, METRIC_SECONDS, batch_size, n_batches, seed)


class Guesses(keras.callbacks.Callback):
    """After every epoch: what the judge says of held-out clips, and what PESQ says; `rows`."""

    def __init__(self, stage: str, pairs: list[tuple[np.ndarray, np.ndarray]], rows: list):
        super().__init__()
        self.stage, self.pairs, self.rows = stage, pairs, rows

    def on_epoch_end(self, epoch, logs=None):
        found = []
        for clean, noisy in self.pairs:
            estimate = self.model.predict_on_batch(noisy[None])[0]
            both = (keras.ops.convert_to_tensor(np.float32(x[None])) for x in (clean, estimate))
            guessed = float(self.model.guess(*both)[0])
            found.append([guessed, share_of_pesq(clean, estimate), metrics.si_sdr(clean, estimate)])
        guessed, true, si_sdr = np.transpose(found)
        row = {"system": self.stage, "epoch": epoch + 1} | (logs or {})
        row |= {"guessed": 1.04 + 3.6 * guessed.mean(), "pesq": 1.04 + 3.6 * true.mean()}
        row["error"] = 3.6 * np.mean(np.abs(guessed - true))
        row["correlation"] = np.corrcoef(guessed, true)[0, 1] if len(true) > 2 else np.nan
        self.rows.append(row | {"si_sdr": si_sdr.mean()})


def small_network(weights: list | None = None) -> WaveformWrapper:
    """Chapter 04's network, untrained or with these weights."""
    keras.utils.set_random_seed(SEED)
    frame_model = spectrogram.build(**SMALL)
    if weights:
        frame_model.set_weights(weights)
    return WaveformWrapper(frame_model, hop_length(frame_model))


def fit_on_own(weights: list | None, batches, rate, n_steps: int) -> list:
    """The weights of a small network after steps on its own loss alone."""
    model = small_network(weights)
    model.compile(keras.optimizers.Adam(rate, clipnorm=3.0), losses.DenoisingLoss())
    model.fit(batches, epochs=1, steps_per_epoch=n_steps, shuffle=False, verbose=2)
    return model.frame_model.get_weights()


def train_with_metric(table: pd.DataFrame) -> tuple[dict[str, list], pd.DataFrame]:
    """Stage of STAGES -> weights of the small network; and the curves, a row an epoch.

    First on its own loss. Then a judge learns PESQ, alone; then the network with a judge that
    learns on; then with one that learns no more. The control goes on from the first by its own loss
    for as many steps.
    """
    utterances = corpus.pick(table, SPLIT, HELD_OUT)
    pairs = [clip[::2] for clip in noisy_clips(utterances, PINK)]
    ends = np.cumsum([ALONE_EPOCHS, LEARNING_EPOCHS, STALE_EPOCHS]).tolist()
    rows, stages, n_steps = [], {}, ends[-1] * METRIC_STEPS
    cosine = keras.optimizers.schedules.CosineDecay(OWN_RATE, OWN_STEPS)
    batches = coloured_batches(table, OWN_STEPS, BATCH_SIZE, SEED)
    start = stages[STAGES[0]] = fit_on_own(None, batches, cosine, OWN_STEPS)

    denoiser = small_network(start)
    trainer = adversarial.MetricTrainer(
        denoiser, adversarial.Replay(share_of_pesq, SEED), own_weight=OWN_WEIGHT
    )
    batches = coloured_batches(table, n_steps, METRIC_BATCH, SEED + 1)
    for stage, rate, teaches, first, last in (
        ("judge alone", 0.0, True, 0, ends[0]),
        (STAGES[1], METRIC_RATE, True, ends[0], ends[1]),
        (STAGES[2], METRIC_RATE, False, ends[1], ends[2]),
    ):
        trainer.teaches = teaches
        trainer.compile(
            keras.optimizers.Adam(rate, clipnorm=3.0),
            keras.optimizers.Adam(METRIC_JUDGE_RATE),
            losses.DenoisingLoss(),
        )
        trainer.fit(
            batches.skip(first * METRIC_STEPS),
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=METRIC_STEPS,
            shuffle=False,
            callbacks=[Guesses(stage, pairs, rows)],
            verbose=2,
        )
        if rate:
            stages[stage] = denoiser.frame_model.get_weights()
    batches = batches.skip(ends[0] * METRIC_STEPS)
    stages[STAGES[3]] = fit_on_own(start, batches, METRIC_RATE, n_steps - ends[0] * METRIC_STEPS)
    return stages, pd.DataFrame(rows)


def metric_entries(table: pd.DataFrame) -> tuple[list[Entry], pd.DataFrame]:
    """The stages as systems, and their curves; trained once and kept."""
    makers = (train_with_metric, adversarial.MetricTrainer, spectrogram.build)
    told = (audio.read, conditions.make_noisy, metrics.pesq, noise_bank.NoiseBank)
    facts = {
        "code": store.code(*makers, told=told),
        "speech": facts_of_clips(table[table.split == "train"]),
        "noise": noise_bank.code_of_noise("coloured"),
        "held out": facts_of_clips(corpus.pick(table, SPLIT, HELD_OUT)),
    }
    stages, curves = kept("adversarial/metric", facts, lambda: train_with_metric(table))
    entries = [
        Entry(
            name,
            as_system(functools.partial(small_network, weights)),
            store.key(facts),
            seed=SEED,
        )
        for name, weights in stages.items()
    ]
    return entries, curves.assign(seed=SEED)


# --- what PESQ can be made to say ---------------------------------------------------------------

KNOTS = (125.0, 250.0, 500.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0, 6_000.0, 8_000.0)  # Hz
GAIN_STEPS = (6.0, 3.0)  # dB, of the search, coarse first
SEARCH_CLIPS = size(8, 2)  # validation clips behind those that are scored


def equalise(samples: np.ndarray, gains_db) -> np.ndarray:
    """Samples through gains at KNOTS, straight between them in dB; float32."""
    f = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    gains = 10 ** (np.interp(f, KNOTS, gains_db) / 20)
    return np.fft.irfft(np.fft.rfft(samples) * gains, len(samples)).astype(np.float32)


def find_gains(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Gains in dB at KNOTS that raise the mean PESQ of `(clean, denoised)` pairs most.

    One gain at a time goes up or down by a step for as long as that helps, twice round for each
    step size. Nothing is trained, and nothing of the noise is known.
    """

    def mean_pesq(gains):
        return np.mean([metrics.pesq(clean, equalise(x, gains)) for clean, x in pairs])

    gains = [0.0] * len(KNOTS)
    best = mean_pesq(gains)
    for step, i in itertools.product(np.repeat(GAIN_STEPS, 2), range(len(KNOTS))):
        for change in (step, -step):
            while (found := mean_pesq(tried := with_change(gains, i, change))) > best + 1e-3:
                gains, best = tried, found
    return [float(gain) for gain in gains]


def with_change(gains: list[float], i: int, change: float) -> list[float]:
    """Gains of which number `i` is changed, within 24 dB either way."""
    return [float(np.clip(g + change * (k == i), -24, 24)) for k, g in enumerate(gains)]


def equaliser_entry(table: pd.DataFrame) -> tuple[Entry, pd.DataFrame]:
    """The shipped model with an equaliser behind it that was chosen by PESQ alone, and its gains:
    `f` (Hz) and `gain_db`.
    """
    n = max(n for n, _ in INPUTS.values())
    utterances = corpus.pick(table, SPLIT, n + SEARCH_CLIPS).tail(SEARCH_CLIPS)
    digest = models.weights_sha256(METHOD)[:12]

    def search():
        model = systems.make(METHOD)[METHOD]
        clips = noisy_clips(utterances, conditions.WHITE)
        return find_gains([(clean, model(noisy)) for clean, _, noisy in clips])

    facts = [digest, facts_of_clips(utterances), store.code(find_gains, told=(metrics.pesq,))]
    gains = kept("adversarial/equaliser", facts, search)

    def system():
        model = systems.make(METHOD)[METHOD]
        return lambda noisy: equalise(model(noisy), gains)

    found = pd.DataFrame({"f": KNOTS, "gain_db": gains})
    return Entry("equaliser", system, store.key([*facts, gains])), found


# --- all of it ----------------------------------------------------------------------------------


def compare_all(
    path: Path, table: pd.DataFrame, noise_folder: Path | None, parts, seeds=(SEED,)
) -> None:
    """Train what is not trained yet, score all; `<path>.csv`, and beside it, with their parts in
    the name, `_gains`, `_curves`, `_test` and `_words`.

    `seeds`: of the trainings with TERMS. Raises store.FileError where another process is at
    the same training.
    """
    curves_path = path.with_name(f"{path.name}_curves")
    if "yardsticks" in parts:
        score_all(path, table, yardsticks())
    if "equaliser" in parts:
        entry, gains = equaliser_entry(table)
        tables.save_rows(gains, path.with_name(f"{path.name}_gains"))
        score_all(path, table, [entry])
    if {"terms", "test", "words"} & set(parts):
        files = tuple(noise.recorded_files(noise_folder, "train"))
        entries = trained_entries(table, files, seeds, curves_path)
        chosen = [one for one in entries if one.weight in (0.0, CHOSEN)]
    if "terms" in parts:
        score_all(path, table, entries)
    if "test" in parts:
        test_path = path.with_name(f"{path.name}_test")
        score_all(test_path, table, yardsticks() + chosen, TEST_INPUTS, "test+other")
    if "words" in parts:
        hear(path.with_name(f"{path.name}_words.csv"), table, chosen, seeds[0])
    if "metric" in parts:
        entries, curves = metric_entries(table)
        add_curves(curves_path, curves)
        score_all(path, table, entries, METRIC_INPUTS)


def trained_entries(table: pd.DataFrame, files, seeds, curves_path: Path) -> list[Entry]:
    """The models after all trainings, the control first; their curves go to a file.

    The first seed has every weight, the others CHOSEN and the control.
    """
    entries, functions = [], terms(table)
    wanted = [("discriminator", 0.0), *((t, w) for t, weights in TERMS.items() for w in weights)]
    for seed, (name, weight) in itertools.product(seeds, wanted):
        if seed != seeds[0] and weight not in (0.0, CHOSEN):
            continue
        one, (term, facts) = Training(name, weight, seed), functions[name]
        make = functools.partial(train, one, table, files, term, facts)
        make()
        folder = one.run_dir([*training_facts(table, files), *facts])
        add_curves(curves_path, pd.read_csv(folder / "curve.csv").assign(**one.row))
        weights = functools.partial(weights_of, make)
        entries.append(Entry(version=folder.name, make=as_system(make), weights=weights, **one.row))
    return entries


def hear(path: Path, table: pd.DataFrame, entries: list[Entry], seed: int) -> pd.DataFrame:
    """What recognisers hear of test speakers after the trained ones of a seed, behind the gate."""
    utterances = word_errors.choose(table, ("test", "other"), recognise.UTTERANCES)
    code = store.code(gated, Denoiser, told=(Entry, models.load))
    heard = {
        one.system: evaluate.Entry(gated(one), code, one.version)
        for one in entries
        if one.seed == seed
    }
    names = asr.installed(besides=asr.OF_PHONEMES)[0]
    parts = [
        recognise.Part(name, conditions.WHITE, *named)
        for name, named in itertools.product(names, heard.items())
    ]
    return recognise.hear_all(path, utterances, parts)


def gated(entry: Entry) -> System:
    """A trained network as the command line uses one: where no noise is, nothing is changed."""
    denoiser = Denoiser(METHOD, by_frequency=True)
    denoiser.model.set_weights(entry.weights())
    return denoiser


def add_curves(path: Path, new: pd.DataFrame) -> None:
    """Put learning curves into `<path>.csv`, in the place of those of the same training."""
    names = ["system", "weight", "seed"]
    new = new.reindex(columns=[*names, *new.columns.drop(names, errors="ignore")])
    with store.alone(path, wait=True):
        if (csv := store.with_ending(path, ".csv")).exists():
            old = pd.read_csv(csv)
            again = old.set_index(names).index.isin(new.set_index(names).index)
            new = pd.concat([old[~again], new])
        tables.save_rows(new, path)
