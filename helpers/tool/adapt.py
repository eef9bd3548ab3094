"""Adapt a trained model to a folder of noisy recordings of which no clean version exists.

The recipe stands in `helpers.models.remix`; training, checkpoints and export are those of
`helpers.models.training`. Taught in `07_without_clean_speech`.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, models, store
from helpers.audio import SAMPLE_RATE
from helpers.backend import BackendError, keras, tf
from helpers.data import conditions, corpus, dataset, noise, pool
from helpers.data.conditions import Condition
from helpers.data.noise_bank import NoiseBank
from helpers.denoise import systems
from helpers.evaluation import metrics
from helpers.models import remix, training, waveform
from helpers.models.blocks import WaveformWrapper, hop_length
from helpers.models.losses import DenoisingLoss
from helpers.models.remix import Recipe, Student
from helpers.quick import size
from helpers.tool.files import sounds_below

SHORTEST = 60.0  # s of noisy sound in all
QUIETEST_DB = -70.0  # dBFS RMS; a file below is taken for silence
HELD_OUT = 0.1  # share of the noisy sound that is only scored on, its end
EPOCH, TIMED = size(50, 2), size(12, 2)  # steps
RATE = 3e-4  # learning rate of the first step
BANK_CLIPS = size(400, 8)  # of known noise
OF_MINUTES = 0.8  # share that trains; the rest is for the start, the export and the scores
UTTERANCES, CLIP_SECONDS = size(16, 2), 5.0  # scored
GAIN_DB, LOSS_DB, CLEAN_LOSS_DB = 0.5, 0.5, 2.0  # of SI-SDR, in the rule
FOLDER_NOISE = "the folder's noise, 0 dB"
KNOWN = {  # what the adapted model must not forget
    "white 4-8 kHz, 0 dB": Condition("white", snr_db=0.0),
    "recorded 3-8 kHz, 0 dB": Condition("recorded", 3_000, 8_000, 0.0),
    "clean": Condition("none"),
}
RECIPE = Recipe(0.5, "clean")
RULE = (
    f"take the adapted weights if they gain {GAIN_DB:g} dB or more in the folder's noise and lose "
    f"no more than {LOSS_DB:g} dB in known noise and {CLEAN_LOSS_DB:g} dB on clean input"
)


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What decides adapted weights, beside corpus and known noise: what `training.export` asks for.

    `sounds`: name below the folder and bytes of each noisy file. `steps`: 0 for as many as
    `minutes` have room for, which `fixed` tells.
    """

    method: str
    start: str
    sounds: tuple[tuple[str, int], ...] = ()
    minutes: float = 30.0
    steps: int = 0
    recipe: Recipe = RECIPE
    batch_size: int = size(8, 2)
    seconds: float = size(2.0, 1.0)  # of audio, one example
    seed: int = 1

    @property
    def run_dir(self) -> Path:
        """The folder of its checkpoints, named by all that decides them."""
        facts = dataclasses.asdict(self)
        facts["start"] = models.weights_sha256(self.method, Path(self.start))
        if self.steps:
            del facts["minutes"]
        return store.RUNS / f"adapted-{store.key(facts)}"

    @property
    def epochs(self) -> int:
        """Checkpoints of the whole run; known once the steps are fixed."""
        return fixed_steps(self) // EPOCH

    @property
    def hours(self) -> float:
        """Hours of audio heard in the whole run."""
        return fixed_steps(self) * self.batch_size * self.seconds / 3600


def adapt(source: Path, out: Path, plan: Adaptation, begun: float) -> str:
    """Adapt, or go on with it, and write weights and card to `out`; gives the table of scores.

    `plan`: without its sounds, those of `source`; `begun`: `time.monotonic()` of the start, from
    which the minutes count. Raises AudioError and ValueError for a folder that is no good,
    WeightsError for a start that is not there, BackendError without TensorFlow.
    """
    if not tf:
        raise BackendError("adapt runs on TensorFlow alone; unset KERAS_BACKEND")
    paths = check_folder(source, out)
    sounds = tuple((str(path.relative_to(source)), path.stat().st_size) for path in paths)
    plan = dataclasses.replace(plan, sounds=sounds)
    check_start(plan, out)
    with store.alone(plan.run_dir):
        store.remove_leftovers(plan.run_dir)
        data = Data(plan, source, paths)
        model = train(plan, data, begun)
        about = {"adapted_to": store.shown(source), "steps": fixed_steps(plan), "rule": RULE}
        training.export(plan, model, out, about)
        scores = score(plan, data, out)
    return verdict(plan, scores, out)


# --- what may be wrong --------------------------------------------------------------------------


def check_folder(source: Path, out: Path) -> list[Path]:
    """The sounds to adapt to, sorted; silent and unreadable ones are left out, which is said."""
    if not source.is_dir():
        what = "is a file" if source.exists() else "no such folder"
        raise ValueError(f"{source}: {what}; name a folder of noisy recordings")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: lies in {source}; choose another folder for --out")
    store.check_place(out / "any")
    good, seconds = [], 0.0
    sounds = sounds_below(source, out)
    for path in tqdm(sounds, "reading", unit="file", delay=2, disable=None, leave=False):
        try:
            length, level_db = measure(path)
        except (audio.AudioError, OSError) as error:
            audio.note(path, f"left out: {error}")
            continue
        if level_db < QUIETEST_DB:
            audio.note(path, f"left out: silence ({level_db:.0f} dBFS)")
            continue
        good.append(path)
        seconds += length
    if not good:
        raise ValueError(f"{source}: nothing but silence or damage; record it again")
    if seconds < SHORTEST:
        raise ValueError(
            f"{source}: {seconds:.0f} s of noisy sound; adapting needs {SHORTEST:.0f} s or more"
        )
    return good


def measure(path: Path) -> tuple[float, float]:
    """Seconds and RMS level in dBFS of a file. Raises AudioError for one that cannot be read."""
    power, n_samples = 0.0, 0
    with audio.open_audio(path) as reader:
        for block in reader.blocks(1 << 20):
            power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
            n_samples += len(block)
        sr = reader.samplerate
    return n_samples / sr, 10 * np.log10(max(power / max(n_samples, 1), 1e-12))


def check_start(plan: Adaptation, out: Path) -> None:
    """Raise WeightsError without weights to start from, ValueError where they lie in OUT."""
    models.load(plan.method, Path(plan.start))
    if out.resolve() == Path(plan.start).resolve():
        raise ValueError(f"{out}: holds the weights to start from; choose another folder for --out")


# --- training -----------------------------------------------------------------------------------


class Data:
    """Noisy sound, and known pairs of the corpus and noise that are found."""

    def __init__(self, plan: Adaptation, source: Path, paths: list[Path]):
        self.plan = plan
        self.found = pool.Pool(source, paths, verbose=True)
        self.folder, self.recordings = corpus.find_corpus(True), corpus.find_noise(True)
        table = corpus.check_speakers(corpus.read_corpus(self.folder), self.folder)
        self.spoken = {name: table[table.split == name] for name in ("train", "validation")}

    def known(self, split: str, n_batches: int, seed: int, first: int = 0):
        """Batches `(noisy, clean)` of known pairs."""
        speech = pool.Pool(self.folder, list(self.spoken[split].path))
        files = tuple(noise.recorded_files(self.recordings, split))
        n_clips = BANK_CLIPS if split == "train" else max(BANK_CLIPS // 8, 8)
        bank = NoiseBank.render(store.CACHE / f"bank-adapt-{split}", files, n_clips, seed=3)
        sizes = self.plan.seconds, self.plan.batch_size, n_batches
        return dataset.make_dataset(speech, bank, *sizes, seed, first)

    def batches(self, n_batches: int, first: int = 0):
        """Batches for a Student from number `first` on."""
        known = self.known("train", n_batches, self.plan.seed, first)
        return remix.with_found(known, self.found, self.plan.seed, first, (0.0, 1 - HELD_OUT))

    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Known pairs of validation speakers, whose loss is watched."""
        return next(iter(self.known("validation", 1, seed=0).as_numpy_iterator()))

    def held_out(self, shape: tuple[int, int]) -> np.ndarray:
        """Noisy clips that no training hears, float32 `(clips, samples)`."""
        return remix.cuts(self.found, shape, seed=1, step=0, share=(1 - HELD_OUT, 1.0))


def fixed_steps(plan: Adaptation) -> int:
    """The steps of a run, which its first start has fixed. Raises FileNotFoundError before that."""
    return json.loads((plan.run_dir / "plan.json").read_text())["fixed_steps"]


def fix_steps(plan: Adaptation, model: Student, data: Data, begun: float) -> None:
    """Decide on the steps, once for all runs that go on with this one."""
    if (plan.run_dir / "plan.json").exists():
        return
    steps = plan.steps or steps_in(plan, model, data, begun)
    steps = EPOCH * max(1, round(steps / EPOCH))
    content = dataclasses.asdict(plan) | {"fixed_steps": steps}
    with store.atomic_path(plan.run_dir / "plan.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def steps_in(plan: Adaptation, model: Student, data: Data, begun: float) -> float:
    """How many steps fit into the minutes that are left, by a few that are timed and undone."""
    compile_student(plan, model, 1)
    before = model.frame_model.get_weights()
    once = {"steps_per_epoch": TIMED, "shuffle": False, "verbose": 0}
    model.fit(data.batches(TIMED), **once)  # the first step is compiled
    start = time.monotonic()
    model.fit(data.batches(TIMED), **once)
    seconds = (time.monotonic() - start) / TIMED
    remix.begin(model, before)
    left = 60 * plan.minutes * OF_MINUTES - (time.monotonic() - begun)
    return left / seconds


def train(plan: Adaptation, data: Data, begun: float) -> keras.Model:
    """Run an adaptation, or go on with it; gives the adapted model of frames."""
    keras.utils.set_random_seed(plan.seed)
    model = Student(models.load(plan.method, Path(plan.start)), plan.recipe)
    fix_steps(plan, model, data, begun)
    n_steps = fixed_steps(plan)
    compile_student(plan, model, n_steps)
    done = training.resume(model, plan.run_dir)
    print(f"{n_steps} steps of {plan.batch_size} x {plan.seconds:g} s, {done * EPOCH} done")
    if done < plan.epochs:
        model.fit(
            data.batches(n_steps, done * EPOCH),
            validation_data=data.validation(),
            validation_batch_size=plan.batch_size,
            initial_epoch=done,
            epochs=plan.epochs,
            steps_per_epoch=EPOCH,
            shuffle=False,
            callbacks=[Bar(n_steps), *training.bookkeeping(plan.run_dir)],
            verbose=0 if sys.stderr.isatty() else 2,
        )
    if plan.method == "waveform":  # its level drifts
        waveform.scale_output(model.frame_model, training.clean_gain(model))
    return model.frame_model


def compile_student(plan: Adaptation, model: Student, steps: int) -> None:
    """Make it ready to train."""
    shape = plan.batch_size, int(plan.seconds * SAMPLE_RATE)
    remix.compile_model(model, RATE, steps, DenoisingLoss(**remix.SHIPPED_LOSS), shape)


class Bar(keras.callbacks.Callback):
    """Steps done and time left, on a terminal."""

    def __init__(self, n_steps: int):
        super().__init__()
        self.n_steps, self.bar = n_steps, None

    def on_epoch_begin(self, epoch, logs=None):
        if self.bar is None:
            settings = {"initial": epoch * EPOCH, "total": self.n_steps, "unit": "step"}
            self.bar = tqdm(desc="adapting", disable=None, **settings)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_train_end(self, logs=None):
        self.bar.close()


# --- scores -------------------------------------------------------------------------------------


def score(plan: Adaptation, data: Data, out: Path) -> pd.DataFrame:
    """Mean SI-SDR and PESQ of start and adapted weights on known noise and on the folder's own.

    The last is noise of the pauses of held-out noisy clips, on clean speech of validation speakers.
    The scores are written into the card too. Columns: input, system, si_sdr, pesq.
    """
    table, rows = data.spoken["validation"], []
    long = table[table.seconds > CLIP_SECONDS]
    utterances = corpus.pick(long if len(long) else table, "validation", UTTERANCES)
    folders = {"start": Path(plan.start), "adapted": out}
    heard = {name: systems.neural(plan.method, folder) for name, folder in folders.items()}
    heard = {"noisy": systems.untouched} | heard
    files = tuple(noise.recorded_files(data.recordings, "validation"))
    for name, pairs in inputs(plan, data, utterances, files).items():
        for system, denoise in heard.items():
            values = [scores_of(clean, denoise(noisy)) for clean, noisy in pairs]
            rows.append({"input": name, "system": system} | dict(pd.DataFrame(values).mean()))
    rows = pd.DataFrame(rows)
    add_to_card(plan.method, out, rows)
    return rows


def inputs(plan: Adaptation, data: Data, utterances: pd.DataFrame, files) -> dict[str, list]:
    """Name -> pairs `(clean, noisy)`, float32 `(samples,)`: the folder's noise, and known noise."""
    n_samples = int(CLIP_SECONDS * SAMPLE_RATE)
    spoken = {one.utterance: audio.read(one.path)[:n_samples] for one in utterances.itertuples()}
    network = models.load(plan.method, Path(plan.start))
    model = WaveformWrapper(network, hop_length(network))
    found = remix.noise_of(model, data.held_out((len(spoken), n_samples)))
    made = [(x, n[: len(x)]) for x, n in zip(spoken.values(), found, strict=True)]
    result = {FOLDER_NOISE: [noise.mix(*pair, 0.0)[::2] for pair in made if pair[1].any()]}
    for name, one in KNOWN.items():
        if conditions.possible([one], files):
            pairs = [conditions.make_noisy(*pair, one, 0, files) for pair in spoken.items()]
            result[name] = [pair[::2] for pair in pairs]
    return {name: pairs for name, pairs in result.items() if pairs}


def scores_of(clean: np.ndarray, denoised: np.ndarray) -> dict[str, float]:
    """SI-SDR, at most 100 dB, and PESQ, NaN where it finds no speech."""
    try:
        grade = metrics.pesq(clean, denoised)
    except ValueError:
        grade = np.nan
    return {"si_sdr": min(metrics.si_sdr(clean, denoised), 100.0), "pesq": grade}


def add_to_card(method: str, out: Path, rows: pd.DataFrame) -> None:
    """Write the scores, and what to take by the rule, into the card."""
    columns = ["input", "system", "si_sdr", "pesq"]
    scores = [
        dict(zip(columns, line, strict=True)) for line in rows[columns].round(3).values.tolist()
    ]
    content = models.card(method, out) | {"scores": scores, "take": what_to_take(rows)}
    with store.atomic_path(models.beside(method, ".json", out), overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def changes(rows: pd.DataFrame) -> pd.Series:
    """SI-SDR of adapted minus start, by input."""
    wide = rows.pivot(index="input", columns="system", values="si_sdr")
    return wide.adapted - wide.start


def what_to_take(rows: pd.DataFrame) -> str:
    """ "adapted" or "start", by RULE."""
    change = changes(rows)
    gains = change.get(FOLDER_NOISE, 0.0) >= GAIN_DB
    keeps = all(
        value >= -(CLEAN_LOSS_DB if name == "clean" else LOSS_DB) for name, value in change.items()
    )
    return "adapted" if gains and keeps else "start"


def verdict(plan: Adaptation, rows: pd.DataFrame, out: Path) -> str:
    """The table of scores and what to take, as text."""
    wide = rows.pivot(index="input", columns="system", values="si_sdr").loc[rows.input.unique()]
    wide = wide[["noisy", "start", "adapted"]].assign(change=changes(rows))
    folder = out if what_to_take(rows) == "adapted" else plan.start
    lines = ["SI-SDR in dB, validation speakers:", wide.round(1).to_string(), f"rule: {RULE}"]
    return "\n".join([*lines, f"so take: --weights {folder}"])
