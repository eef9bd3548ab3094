"""A denoiser adapted to noise of which it has noisy clips only, against what should be beaten.

Two teachers: A, the shipped spectrogram model, and B, chapter 04's small network, which has heard
synthetic high-frequency noise alone. The target is a category of recordings that neither has heard,
some of its recordings to adapt to and others to test on. Half of the training speakers give clean
speech; the others exist as noisy clips only. The recipes stand in `helpers.models.remix`. What is
trained or scored is kept, so a run that was stopped goes on. Read in `07_without_clean_speech`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.kept import facts_of_clips, kept
from helpers import audio, models, store
from helpers.audio import SAMPLE_RATE
from helpers.backend import keras
from helpers.data import conditions, corpus, dataset, noise
from helpers.data.conditions import Condition
from helpers.data.noise_bank import NoiseBank, code_of_noise
from helpers.denoise import systems
from helpers.evaluation import metrics, tables
from helpers.models import remix, spectrogram
from helpers.models.blocks import WaveformWrapper
from helpers.models.losses import DenoisingLoss
from helpers.models.remix import Recipe, Student
from helpers.quick import size

BAND = (3_000.0, 8_000.0)  # Hz, of the target noise, as the protocol's recorded noise
NOISY_SNRS = (-5.0, 10.0)  # dB, of the noisy clips, uniform
NOISY_MINUTES = size(20.0, 1.0)  # of noisy clips to adapt to
BATCH_SIZE, SECONDS = 8, 2.0
SHAPE = BATCH_SIZE, int(SECONDS * SAMPLE_RATE)  # of a batch
TEACHER_STEPS, TEACHER_RATE = size(400, 4), 3e-3  # of teacher B
STEPS, EPOCHS = size(200, 4), size(5, 2)  # of every row, and when it is looked at
RATES = {"A": 3e-4, "B": 1e-3}  # learning rates of the students
SEEDS = {"A": (1,), "B": size((1, 2, 3), (1,))}
UTTERANCES, CLIP_SECONDS = size(16, 1), 5.0  # scored, of each split
WATCHED, GRADED = size(10, 2), size(4, 1)  # validation clips along the runs, and for DNSMOS


@dataclasses.dataclass(frozen=True)
class Domain:
    """A category of recordings, split by the projects that their names begin with."""

    category: str
    adapting: tuple[str, ...]
    testing: tuple[str, ...]

    def files(self, folder: Path, projects: tuple[str, ...]) -> tuple[Path, ...]:
        """The recordings of some projects, sorted."""
        return tuple(
            path
            for path in audio.audio_files(Path(folder) / self.category)
            if path.name.startswith(projects)
        )


RAIN = Domain(
    "rain", ("noisekun", "tumult", "ibm"), ("0ad", "ambientsounds", "blanket", "supertuxkart")
)
INSECTS = Domain("insects", ("0ad",), ("blanket", "noisekun"))  # to choose by
COLUMNS = (  # of the scores
    *("utterance", "speaker", "teacher", "system", "seed", "kind", "snr_db"),
    *("si_sdr", "pesq", "estoi", "level"),
)
INPUTS = {  # to score on
    "target, 0 dB": Condition("recorded", *BAND, 0.0),
    "white, 0 dB": Condition("white", snr_db=0.0),
    "clean": Condition("none"),
}
RECIPES = {  # row -> its recipe
    "control": Recipe(1.0),
    "upper bound": Recipe(1.0),
    "RemixIT, half supervised": Recipe(0.5),
    "teacher's noise on clean speech, half": Recipe(0.5, speech="clean"),
    "RemixIT, moving teacher": Recipe(0.0),
    "RemixIT, frozen teacher": Recipe(0.0, momentum=1.0),
}
MAIN_ROWS = tuple(RECIPES)[:4]  # of teacher A too


# --- data -----------------------------------------------------------------------------------------


def speakers(table: pd.DataFrame, clean: bool) -> pd.DataFrame:
    """The utterances of the half of the training speakers with clean speech, or of the others."""
    train = table[table.split == "train"]
    ids = sorted(train.speaker.unique())
    return train[train.speaker.isin(ids[0 if clean else 1 :: 2])]


def noisy_pool(utterances: pd.DataFrame, files: tuple[Path, ...]) -> np.ndarray:
    """Noisy clips end to end, int16 `(samples,)`: all that there is of these speakers."""
    clips, n_samples = [], 0
    for one in corpus.by_turns(utterances, "utterance").itertuples():
        rng = noise.rng_for(one.utterance, seed=7)
        clean = audio.read(one.path)
        added = noise.recorded(len(clean), SAMPLE_RATE, rng, *BAND, files)
        clips.append(np.int16(32767 * noise.mix(clean, added, rng.uniform(*NOISY_SNRS))[2]))
        n_samples += len(clean)
        if n_samples > NOISY_MINUTES * 60 * SAMPLE_RATE:
            break
    return np.concatenate(clips)


def target_bank(files: tuple[Path, ...], n_clips: int = size(200, 8)) -> NoiseBank:
    """The target noise itself, which only the upper bound hears."""
    made = (
        noise.recorded(10 * SAMPLE_RATE, SAMPLE_RATE, np.random.default_rng([8, i]), *BAND, files)
        for i in range(n_clips)
    )
    return NoiseBank(np.float16(np.stack(list(made))))


@dataclasses.dataclass
class Data:
    """What the trainings of a domain are made of: clean speech, noise, noisy clips."""

    table: pd.DataFrame
    folder: Path
    domain: Domain

    def __post_init__(self):
        self.adapting = self.domain.files(self.folder, self.domain.adapting)
        self.testing = self.domain.files(self.folder, self.domain.testing)
        self._made = {}

    def once(self, name: str, make: Callable):
        """What `make()` gives, made once."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def bank(self, which: str) -> NoiseBank:
        """The own noise of teacher A or B, or the noise of the target."""
        if which == "target":
            return self.once(which, lambda: target_bank(self.adapting))
        if which == "B":
            settings = {"n_clips": size(240, 20), "seed": 4, "only": "coloured"}
            return NoiseBank.render(store.CACHE / "bank-adapting", **settings)
        files = tuple(noise.recorded_files(self.folder, "train"))
        return NoiseBank.render(store.CACHE / "bank-adapting", files, size(400, 20), seed=4)

    def known(self, which: str, n_steps: int, seed: int):
        """Batches (noisy, clean) of clean speech with known noise."""
        paths = speakers(self.table, clean=True).path
        speech = self.once("speech", lambda: dataset.load_speech(paths, verbose=False))
        return dataset.make_dataset(speech, self.bank(which), SECONDS, BATCH_SIZE, n_steps, seed)

    def watched(self) -> tuple[np.ndarray, np.ndarray]:
        """Validation speakers in the noise that is adapted to: `(clean, noisy)`."""
        utterances = pick(self.table, "validation", WATCHED)
        condition = Condition("recorded", *BAND, 0.0)
        return self.once("watched", lambda: pairs_of(utterances, condition, 5, self.adapting))

    def found(self) -> np.ndarray:
        """The noisy clips that have no clean version."""
        speech = speakers(self.table, clean=False)
        return self.once("found", lambda: noisy_pool(speech, self.adapting))


# --- trainings ------------------------------------------------------------------------------------


def small() -> keras.Model:
    """Chapter 04's small network, untrained."""
    return spectrogram.build(filters=(8, 12, 16, 16), units=64)


class Trainers:
    """Compiled models for each teacher and recipe, made once: to trace one takes seconds."""

    def __init__(self):
        self.made = {}

    def get(self, teacher: str, recipe: Recipe, start: list[np.ndarray]) -> WaveformWrapper:
        """A model that starts from weights, with an optimiser that has done nothing yet."""
        kind = teacher, recipe if recipe.supervised < 1 else None
        if kind not in self.made:
            network = models.load("spectrogram") if teacher == "A" else small()
            plain = WaveformWrapper(network, spectrogram.HOP_LENGTH)
            self.made[kind] = Student(network, recipe) if kind[1] else plain
            loss = DenoisingLoss(**(remix.SHIPPED_LOSS if teacher == "A" else {}))
            remix.compile_model(self.made[kind], RATES[teacher], STEPS, loss, SHAPE)
        remix.begin(self.made[kind], start)
        return self.made[kind]


def teacher_b(data: Data, seed: int) -> list[np.ndarray]:
    """The weights of a teacher B."""
    return kept("adapting/teacher", facts_of_teacher(data, seed), lambda: train_teacher(data, seed))


def train_teacher(data: Data, seed: int) -> list[np.ndarray]:
    """As chapter 04 does it, from synthetic noise and the speakers with clean speech."""
    keras.utils.set_random_seed(seed)
    model = WaveformWrapper(small(), spectrogram.HOP_LENGTH)
    rate = keras.optimizers.schedules.CosineDecay(TEACHER_RATE, TEACHER_STEPS)
    model.compile(keras.optimizers.Adam(rate, clipnorm=3.0), DenoisingLoss())
    known = data.known("B", TEACHER_STEPS, seed)
    model.fit(known, epochs=1, steps_per_epoch=TEACHER_STEPS, shuffle=False, verbose=0)
    return model.frame_model.get_weights()


def train_row(
    data: Data, trainers: Trainers, teacher: str, own: str, recipe: Recipe, seed: int, start
) -> dict:
    """Train a row of the table from the weights `start`; its weights, curve and outputs.

    `own`: the noise of the supervised part, as of `Data.bank`.
    """
    model = trainers.get(teacher, recipe, start)
    batches = data.known(own, STEPS, seed=100 + seed)
    if recipe.supervised < 1:
        batches = remix.with_found(batches, data.found(), seed)
    watch = Watch(data.watched(), in_noise_of_pauses(data, model))
    steps = {"epochs": EPOCHS, "steps_per_epoch": STEPS // EPOCHS}
    model.fit(batches, **steps, shuffle=False, callbacks=[watch], verbose=0)
    weights = model.frame_model.get_weights()
    return {"weights": weights, "curve": watch.curve, "outputs": np.stack(watch.outputs)}


class Watch(keras.callbacks.Callback):
    """Along a training: the true SI-SDR, and what one could see without clean speech.

    `true`, `made`: `(clean, noisy)`, float32 `(clips, samples)` each, with the true noise and with
    noise of pauses. `curve`: a line a look; `outputs`: float16 `(clips, samples)` a look.
    """

    def __init__(self, true: tuple, made: tuple):
        super().__init__()
        self.true, self.made = true, made
        self.curve, self.outputs = [], []

    def on_train_begin(self, logs=None):
        self.look(0, np.nan)

    def on_epoch_end(self, epoch, logs=None):
        self.look((epoch + 1) * self.params["steps"], logs["loss"])

    def look(self, step: int, loss: float) -> None:
        """Add a line to the curve, and keep what the model makes of the clips."""
        outputs, others = (self.model.predict_on_batch(pair[1]) for pair in (self.true, self.made))
        line = {"step": step, "si_sdr_true": mean_si_sdr(self.true[0], outputs), "loss": loss}
        line |= {"si_sdr_pauses": mean_si_sdr(self.made[0], others)}
        graded = [metrics.dnsmos(one)["dnsmos_ovrl"] for one in outputs[:GRADED]]
        self.curve.append(line | {"dnsmos": np.mean(graded)})
        self.outputs.append(np.float16(outputs))


def mean_si_sdr(clean: np.ndarray, outputs: np.ndarray) -> float:
    """Over clips, `(clips, samples)` each."""
    return float(np.mean([metrics.si_sdr(*pair) for pair in zip(clean, outputs, strict=True)]))


def in_noise_of_pauses(data: Data, model: WaveformWrapper) -> tuple[np.ndarray, np.ndarray]:
    """Validation speech with noise from the pauses of noisy clips: `(clean, noisy)`."""
    clean = data.watched()[0]
    found = remix.cuts(data.found(), clean.shape, seed=6, step=0)
    pairs = zip(clean, remix.noise_of(model, found), strict=True)
    mixed = [noise.mix(*pair, 0.0)[::2] for pair in pairs]
    return tuple(np.stack(part) for part in zip(*mixed, strict=True))


# --- scores ---------------------------------------------------------------------------------------


def pick(table: pd.DataFrame, split: str, n: int) -> pd.DataFrame:
    """Utterances that fill a clip, speakers by turns."""
    return corpus.pick(table[table.seconds > CLIP_SECONDS], split, n)


def pairs_of(utterances: pd.DataFrame, condition: Condition, seed: int, files) -> tuple:
    """`(clean, noisy)`, float32 `(clips, samples)` each."""
    n_samples, pairs = int(CLIP_SECONDS * SAMPLE_RATE), []
    for one in utterances.itertuples():
        speech = audio.read(one.path)[:n_samples]
        pairs.append(conditions.make_noisy(one.utterance, speech, condition, seed, files)[::2])
    return tuple(np.stack(part) for part in zip(*pairs, strict=True))


def score(utterances: pd.DataFrame, clean: np.ndarray, outputs: np.ndarray) -> pd.DataFrame:
    """A row a clip."""
    rows = []
    for one, reference, output in zip(utterances.itertuples(), clean, outputs, strict=True):
        row = {"utterance": one.utterance, "speaker": one.speaker}
        row |= {"si_sdr": metrics.si_sdr(reference, output)}
        row |= {"pesq": metrics.pesq(reference, output), "estoi": metrics.estoi(reference, output)}
        rows.append(row | {"level": metrics.level(reference, output)})
    return pd.DataFrame(rows)


class Scorer:
    """Scores on all INPUTS, of test speakers: of systems, and of weights."""

    def __init__(self, data: Data, split: str = "test+other"):
        self.utterances = pick(data.table, split, UTTERANCES)
        self.pairs = {
            name: pairs_of(self.utterances, one, conditions.SEED, data.testing)
            for name, one in INPUTS.items()
        }

    def score(self, denoise: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> pd.DataFrame:
        """`denoise(clean, noisy) -> outputs`, all float32 `(clips, samples)`."""
        parts = []
        for name, (clean, noisy) in self.pairs.items():
            rows = score(self.utterances, clean, denoise(clean, noisy))
            parts.append(rows.assign(kind=name.split(",")[0], snr_db=INPUTS[name].snr_db))
        return pd.concat(parts, ignore_index=True)

    def system(self, name: str) -> pd.DataFrame:
        """A system of the course's tables."""
        system = systems.make(name)[name]

        def denoise(clean, noisy):
            pairs = zip(clean, noisy, strict=True)
            return np.float32([systems.apply(system, *pair) for pair in pairs])

        return self.score(denoise).assign(teacher="", system=name, seed=0)

    def weights(self, model: WaveformWrapper, weights: list[np.ndarray]) -> pd.DataFrame:
        """A network with these weights."""
        model.frame_model.set_weights(weights)
        return self.score(lambda clean, noisy: model.predict_on_batch(noisy))


# --- all of it ------------------------------------------------------------------------------------


def adapt_domains(out: Path, table: pd.DataFrame, folder: Path | None, domain: Domain = RAIN):
    """Train and score what is not kept; writes `<out>.csv` and `<out>_curves.csv` after each row.

    `<out>.csv` has a row a clip, system, seed and input; `<out>_curves.csv` a row a look. Raises
    ValueError where the category has no recordings.
    """
    if not (folder and domain.files(folder, domain.adapting)):
        raise ValueError(f"{folder}: no recordings of {domain.category} here; see DENOISER_NOISE")
    data, trainers, scored, runs = Data(table, folder, domain), Trainers(), [], {}
    scorer = Scorer(data)
    for name in ("noisy", "low-pass", "oracle PSM"):
        facts = facts_of_scores(data, scorer) | {"system": name}
        scored.append(kept("adapting/score", facts, functools.partial(scorer.system, name)))
    for teacher, seed, row in tqdm(order(), "rows", disable=None):
        start = ends = teacher_weights(data, teacher, seed)
        if row != "teacher":
            facts = facts_of_run(data, teacher, row, seed)
            own = "target" if row == "upper bound" else teacher
            make = functools.partial(
                train_row, data, trainers, teacher, own, RECIPES[row], seed, start
            )
            run = runs[teacher, row, seed] = kept("adapting/run", facts, make)
            ends = run["weights"]
        model = trainers.get(teacher, Recipe(1.0), start)
        facts = facts_of_scores(data, scorer) | {"weights": digest(ends)}
        rows = kept("adapting/score", facts, functools.partial(scorer.weights, model, ends))
        scored.append(rows.assign(teacher=teacher, system=row, seed=seed))
        tables.save_rows(pd.concat(scored, ignore_index=True)[list(COLUMNS)], out)
        tables.save_rows(curves(runs), out.with_name(f"{out.name}_curves"))


def order() -> list[tuple[str, int, str]]:
    """Teacher, seed and row of all that is trained: what decides first, for all seeds."""
    tasks = [(teacher, seed) for teacher, seeds in SEEDS.items() for seed in seeds]
    tasks = sorted(tasks, key=lambda task: (task[1], task[0] == "A"))  # the small network first
    parts = ("teacher", *MAIN_ROWS), [row for row in RECIPES if row not in MAIN_ROWS]
    found = [(*task, row) for part in parts for task in tasks for row in part]
    return [one for one in found if one[0] == "B" or one[2] in parts[0]]


def teacher_weights(data: Data, teacher: str, seed: int) -> list[np.ndarray]:
    """Those that all rows of a teacher start from."""
    return teacher_b(data, seed) if teacher == "B" else models.load("spectrogram").get_weights()


def curves(runs: dict) -> pd.DataFrame:
    """All looks; `agreement` is the SI-SDR of a student's outputs against those of another seed."""
    parts = []
    for (teacher, row, seed), run in runs.items():
        others = [key for key in runs if key[:2] == (teacher, row) and key[2] != seed]
        part = pd.DataFrame(run["curve"]).assign(teacher=teacher, system=row, seed=seed)
        part["agreement"] = np.nan
        if others:
            pairs = zip(runs[others[0]]["outputs"], run["outputs"], strict=True)
            part["agreement"] = [mean_si_sdr(*np.float32(pair)) for pair in pairs]
        parts.append(part)
    columns = ["teacher", "system", "seed", "step", "si_sdr_true", "loss", "dnsmos", "agreement"]
    rows = pd.concat(parts) if parts else pd.DataFrame(columns=[*columns, "si_sdr_pauses"])
    return rows[[*columns, "si_sdr_pauses"]]


# --- what is told apart ---------------------------------------------------------------------------


def by_clip(rows: pd.DataFrame, teacher: str, kind: str, metric: str, *names: str) -> pd.DataFrame:
    """A row a clip, a column a system: the mean over the seeds that all these systems have."""
    rows = rows[(rows.teacher == teacher) & (rows.kind == kind) & rows.system.isin(names)]
    seeds = rows.groupby("seed").system.nunique()
    rows = rows[rows.seed.isin(seeds.index[seeds == len(names)])]
    return rows.pivot_table(metric, ["utterance", "speaker"], "system")[list(names)]


def gain(rows: pd.DataFrame, teacher: str, kind: str, system: str, other: str, metric="si_sdr"):
    """Mean of system minus other on a kind of input, and its interval, which draws speakers."""
    wide = by_clip(rows, teacher, kind, metric, system, other)
    values = (wide[system] - wide[other]).to_numpy()
    return float(values.mean()), *tables.bootstrap(values, wide.index.get_level_values("speaker"))


def way(rows: pd.DataFrame, teacher: str, system: str) -> tuple[float, float, float]:
    """How far a system comes from the control to the upper bound in the target's SI-SDR: 1 is all.

    With its interval, which draws speakers.
    """
    wide = by_clip(rows, teacher, "target", "si_sdr", system, "control", "upper bound")
    parts = wide[system] - wide.control, wide["upper bound"] - wide.control
    return tables.bootstrap_ratio(*parts, wide.index.get_level_values("speaker"))


# --- what decides what is kept --------------------------------------------------------------------


def digest(weights: list[np.ndarray]) -> str:
    """A name for weights."""
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(one).tobytes() for one in weights)
    ).hexdigest()


def facts_of_data(data: Data) -> dict:
    """What decides speech, noise and noisy clips."""
    return {
        "domain": [data.domain.category, *map(store.sizes, (data.adapting, data.testing))],
        "numbers": [BAND, NOISY_SNRS, NOISY_MINUTES, BATCH_SIZE, SECONDS, CLIP_SECONDS],
        "speech": [facts_of_clips(speakers(data.table, clean)) for clean in (True, False)],
    }


def facts_of_teacher(data: Data, seed: int) -> dict:
    """What decides a teacher B."""
    return {
        "teacher": [seed, TEACHER_STEPS, TEACHER_RATE, BATCH_SIZE, SECONDS],
        "speech": facts_of_clips(speakers(data.table, clean=True)),
        "noise": code_of_noise("coloured"),
        "code": store.code(train_teacher, Data.known, told=(audio.read, noise.recorded)),
    }


def facts_of_run(data: Data, teacher: str, row: str, seed: int) -> dict:
    """What decides a trained row."""
    start = models.weights_sha256("spectrogram") if teacher == "A" else facts_of_teacher(data, seed)
    return facts_of_data(data) | {
        "row": [teacher, row, RECIPES[row], seed, STEPS, EPOCHS, RATES[teacher]],
        "start": start,
        "watched": [WATCHED, GRADED],
        "noise": code_of_noise(),
        "code": store.code(
            train_row, Data, Trainers, told=(audio.read, noise.recorded, metrics.dnsmos)
        ),
    }


def facts_of_scores(data: Data, scorer: Scorer) -> dict:
    """What decides the clips and how they are scored."""
    return {
        "clips": facts_of_clips(scorer.utterances),
        "inputs": [list(one.row.values()) for one in INPUTS.values()],
        "noise": store.sizes(data.testing),
        "code": store.code(Scorer, told=(audio.read,)),
    }
