"""Training that can be stopped and goes on where it was: data, callbacks, checkpoints, export.

`keras.Model.fit` does the training; this module prepares it. Taught in
`04_spectrogram_autoencoder`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers import audio, store
from helpers.backend import keras, ops
from helpers.data import corpus, dataset, noise, noise_bank, pool
from helpers.models import (
    TRAINABLE,
    WeightsError,
    build,
    card,
    load,
    losses,
    module,
    staged_path,
    waveform,
    weights_path,
    weights_sha256,
    workers,
)
from helpers.models import export as exporting
from helpers.models.blocks import WaveformWrapper, hop_length, register

LEARNING_RATES = {"Adam": 1e-3, "Muon": 3e-3}
CURVE = ("epoch", "loss", "seconds", "val_loss")  # the columns of a learning curve
BESIDE = (".json", ".history.csv", ".tflite")  # of the files that belong to weights
GATES = {"GRU": 3, "LSTM": 4}  # whose weights lie side by side in the last axis


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides what a training gives, beside the data."""

    method: str
    cycles: tuple[int, ...] = (24, 6)  # epochs; the rate restarts, halved, with each cycle
    batches: int = 200  # an epoch
    batch_size: int = 16
    seconds: float = 3.0  # of audio, one example
    optimizer: str = "Adam"  # or "Muon"
    learning_rate: float = 1e-3  # of the first cycle; with a `start` that begins at half of it
    si_sdr_weight: float = 0.1  # of SI-SDR in the loss, in units of 10 dB
    level_weight: float = 0.0  # of the output's level error, in dB, in the loss
    start: str = ""  # folder of trained weights to go on from, as in one more cycle
    start_share: float = 0.0  # of those weights in the mean with the trained ones that is kept
    noise: str = ""  # the one kind of noise for a specialist; all of the bank's by default
    units: int = 0  # of the network's core, where it is to be of another size than the shipped one
    seed: int = 1
    validation_batches: int = 10
    bank_clips: int = noise_bank.BANK_CLIPS

    @property
    def run_dir(self) -> Path:
        """The folder of its checkpoints, named by all that decides them.

        Weights to start from count by their folder where that is such a one, else by SHA-256.
        """
        facts, folder = dataclasses.asdict(self), Path(self.start)
        if not self.units:  # as it was before there was a choice
            del facts["units"]
        if self.start:
            named = re.fullmatch(rf"{self.method}-[0-9a-f]{{16}}", folder.name)
            facts["start"] = folder.name if named else weights_sha256(self.method, folder)
        return store.RUNS / f"{self.method}-{store.key(facts)}"

    @property
    def goes_on(self) -> bool:
        """Whether it starts from trained weights, as one more cycle of their training."""
        return bool(self.start)

    @property
    def epochs(self) -> int:
        """Epochs of all cycles."""
        return sum(self.cycles)

    @property
    def hours(self) -> float:
        """Hours of audio heard in the whole run."""
        return self.epochs * self.batches * self.batch_size * self.seconds / 3600


def make_data(plan: Plan, verbose: bool = False):
    """A function (first epoch) -> training batches, and the validation pairs, of a plan.

    From the corpus and noise that are found; where several workers train together, this one's
    share. Speakers and recorded noise categories of the two are disjoint. Raises ValueError where
    noise is to be recorded only and a split has none, corpus.CorpusError for a corpus of too few
    speakers, and store.FileError as `check_data` does.
    """
    folder, recordings = corpus.find_corpus(verbose), corpus.find_noise(verbose)
    paths, sets = paths_by_split(folder), {}
    check_data(plan, paths)  # before minutes of rendering
    banks = {"train": (plan.bank_clips, 1), "validation": (max(plan.bank_clips // 8, 8), 2)}
    for split, (clips, bank_seed) in banks.items():
        speech = pool.Pool(folder, paths[split], verbose)
        files = tuple(noise.recorded_files(recordings, split))
        if plan.noise == "recorded" and recordings and not files:
            raise ValueError(
                f"{recordings}: no recordings for {split}; a sub-folder goes whole to one split, "
                "so spread them over ten or more"
            )
        bank = noise_bank.NoiseBank.render(
            store.CACHE / f"bank-{split}", files, clips, seed=bank_seed, only=plan.noise
        )
        sets[split] = (speech, bank, plan.seconds, plan.batch_size)

    def training(first_epoch: int):
        n_batches, first = plan.epochs * plan.batches, first_epoch * plan.batches
        return batches(*sets["train"], n_batches, plan.seed, first)

    validation = batches(*sets["validation"], plan.validation_batches, seed=0)
    return training, tuple(np.concatenate(part) for part in zip(*validation, strict=True))


def check_data(plan: Plan, paths: dict[str, list[Path]] | None = None) -> None:
    """Note in the folder of a run, before its first epoch, of which speech and noise it is made.

    `paths`: `paths_by_split`. Raises store.FileError where epochs are done with others than are
    found now.
    """
    folder, recordings = corpus.find_corpus(), corpus.find_noise()
    paths = paths or paths_by_split(folder)
    files = [store.sizes(noise.recorded_files(recordings, split)) for split in paths]
    made_of = {
        "speech": store.key([store.sizes(part) for part in paths.values()]),
        "noise": store.key([files, noise_bank.code_of_noise(plan.noise)]),
    }
    path = plan.run_dir / "data.json"
    before = json.loads(path.read_text()) if path.exists() else made_of
    if epochs_done(plan.run_dir) and before != made_of:
        what = " and ".join(name for name in made_of if before.get(name) != made_of[name])
        raise store.FileError(
            f"{plan.run_dir}: this training was begun with other {what}; bring that back "
            "(DENOISER_CORPUS, DENOISER_NOISE), or remove the folder to begin anew"
        )
    if plan.run_dir.exists() and not workers.rank():
        with store.atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(made_of) + "\n")


def batches(*args, **options):
    """As `dataset.make_dataset`; on JAX this worker's share of each batch."""
    if keras.backend.backend() == "jax":
        share = (workers.rank(), workers.world())
        return dataset.shared_batches(*args, **options, share=share)
    return dataset.make_dataset(*args, **options)


def paths_by_split(folder: Path) -> dict[str, list[Path]]:
    """The sounds of a corpus for training and for validation; the table of all is not kept."""
    table = corpus.check_speakers(corpus.read_corpus(folder), folder)
    return {split: list(table.path[table.split == split]) for split in ("train", "validation")}


def compile_model(plan: Plan) -> WaveformWrapper:
    """The model of a plan before its first step, with the loss of its first cycle.

    Raises models.WeightsError where the weights to start from are missing or not of their card.
    """
    keras.utils.set_random_seed(plan.seed)
    frame_model = network(plan)
    model = WaveformWrapper(frame_model, hop_length(frame_model))
    steps = [epochs * plan.batches for epochs in plan.cycles]
    rate = WarmRestarts(plan.learning_rate * 0.5**plan.goes_on, steps)
    optimizer = make_optimizer(plan.optimizer, rate)
    model.compile(optimizer, cycle_loss(plan, 0))
    model.build((plan.batch_size, int(plan.seconds * audio.SAMPLE_RATE)))
    if plan.start:
        frame_model.set_weights(starting_weights(plan, frame_model))
    optimizer.build(model.trainable_variables)
    return model


def network(plan: Plan) -> keras.Model:
    """The untrained model of frames of a plan."""
    return module(plan.method).build(units=plan.units) if plan.units else build(plan.method)


def starting_weights(plan: Plan, frame_model: keras.Model) -> list[np.ndarray]:
    """Those that a plan goes on from. Raises models.WeightsError where they are missing."""
    return grown(load(plan.method, Path(plan.start)), frame_model)


def grown(trained: keras.Model, larger: keras.Model) -> list[np.ndarray]:
    """Weights of a trained model for one of the same or a larger shape.

    What reads something new reads it with zeros, so at the start the larger model gives what the
    trained one does (T. Chen, I. Goodfellow and J. Shlens, "Net2Net", ICLR 2016). Raises ValueError
    where the trained model is the larger one, or one of other layers.
    """
    layers = [layer for layer in larger.layers for _ in layer.weights]
    triples = list(zip(trained.get_weights(), larger.get_weights(), layers, strict=True))
    if any(np.any(np.less(new.shape, old.shape)) for old, new, _ in triples):
        raise ValueError("the weights to start from are of a larger model than this one")
    return [widened(*triple) for triple in triples]


def widened(old: np.ndarray, new: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    """A weight of a layer with zeros behind it in each axis, in the shape of `new`.

    In the last axis recurrent layers keep one gate after the other, so each is widened by itself.
    New units of recurrent and dense layers take from `new` how they listen: with zeros on both
    sides no gradient would ever reach them.
    """
    gates = GATES.get(type(layer).__name__, 1)
    old, new = (one.reshape(*one.shape[:-1], gates, -1) for one in (old, new))
    wide = np.pad(old, [(0, n - o) for o, n in zip(old.shape, new.shape, strict=True)])
    if isinstance(layer, keras.layers.Dense | keras.layers.GRU | keras.layers.LSTM):
        wide[..., old.shape[-1] :] = new[..., old.shape[-1] :]
    return wide.reshape(*new.shape[:-2], -1)


def make_optimizer(name: str, rate) -> keras.optimizers.Optimizer:
    """Adam or Muon, with clipped gradients and an exponential mean of the weights.

    Muon (K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) makes
    the steps of each matrix nearly orthogonal, so that all its directions learn at one pace. Adam
    keeps what is no matrix, and the bases of the waveform model, which start as an exact basis.
    (Keras stores the two biases of a GRU as a matrix, so they are Muon's.) Raises ValueError for
    another name.
    """
    shared = {"clipnorm": 3.0, "use_ema": True, "ema_momentum": 0.99}
    if name == "Adam":
        return keras.optimizers.Adam(rate, **shared)
    if name == "Muon":
        no_decay = {"weight_decay": 0.0, "adam_weight_decay": 0.0}
        bases = ["encoder/kernel", "decoder/kernel"]
        return keras.optimizers.Muon(
            rate, adam_lr_ratio=2 / 3, exclude_layers=bases, **no_decay, **shared
        )
    raise ValueError(f"optimizer {name!r}: choose Adam or Muon")


@register
class WarmRestarts(keras.optimizers.schedules.LearningRateSchedule):
    """Cycles of linear warm-up and cosine decay to 1 %, each with half the rate of the one before.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    `steps`: the length of each cycle.
    """

    def __init__(self, learning_rate: float, steps: list[int]):
        self.learning_rate, self.steps = learning_rate, list(steps)

    def __call__(self, step):
        rate, start = 0.0, 0
        for i, n in enumerate(self.steps):
            x = ops.cast(step, "float32") - start
            warm_up = min(300, n // 10)
            decay = (1 + ops.cos(np.pi * ops.clip((x - warm_up) / (n - warm_up), 0, 1))) / 2
            shape = ops.where(x < warm_up, 0.01 + 0.99 * x / warm_up, 0.01 + 0.99 * decay)
            rate = ops.where(x >= 0, self.learning_rate * 0.5**i * shape, rate)
            start += n
        return rate

    def get_config(self):
        return {"learning_rate": self.learning_rate, "steps": self.steps}


class Checkpoint(keras.callbacks.Callback):
    """Weights, optimiser and moving averages after every epoch; the newest two are kept.

    Of several workers the first keeps them; all must save, for they gather what they have in parts.
    Raises store.FileError where the disk is full. HDF5 may crash there, so room is made first.
    """

    def __init__(self, run_dir: Path):
        super().__init__()
        self.run_dir = run_dir

    def on_epoch_end(self, epoch, logs=None):
        if workers.rank():
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_weights(Path(folder) / "left.weights.h5")
            return
        path = self.run_dir / f"epoch-{epoch + 1:04d}.weights.h5"
        partial = path.with_name("partial.weights.h5")
        try:
            partial.write_bytes(bytes(self.room()))
            self.model.save_weights(partial, overwrite=True)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            why = getattr(error, "strerror", None) or error
            raise store.FileError(
                f"{path}: not written ({why}); make room and run it again, it goes on from "
                f"epoch {epochs_done(self.run_dir)}"
            ) from error
        for old in checkpoints(self.run_dir)[:-2]:
            old.unlink()

    def room(self) -> int:
        """Bytes that a checkpoint needs, or a few more."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        n_values = sum(int(np.prod(variable.shape)) for variable in variables)
        return 4 * n_values + 4096 * len(variables)


def checkpoints(run_dir: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(run_dir.glob("epoch-*.weights.h5"))


def epochs_done(run_dir: Path) -> int:
    """Epochs that the newest checkpoint of a run has behind it, 0 without one."""
    found = checkpoints(run_dir)
    return int(re.search(r"epoch-(\d+)", found[-1].name)[1]) if found else 0


def resume(model: keras.Model, run_dir: Path) -> int:
    """Load the newest checkpoint, if any, and return how many epochs are done."""
    if done := epochs_done(run_dir):
        model.load_weights(checkpoints(run_dir)[-1])
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):  # whose draws no checkpoint counts
                state = np.array(layer.seed_generator.state)  # its seed, and how often it drew
                state[1] = int(model.optimizer.iterations)
                layer.seed_generator.state.assign(state)
    return done


class History(keras.callbacks.Callback):
    """The learning curve of a run, `history.csv`: columns CURVE, whole after every epoch."""

    def __init__(self, run_dir: Path):
        super().__init__()
        self.run_dir = run_dir

    def on_epoch_end(self, epoch, logs=None):
        values = {"epoch": epoch} | (logs or {})
        lines = read_history(self.run_dir, before=epoch)
        lines.append(",".join(str(values[name]) for name in CURVE) + "\n")
        with store.atomic_path(self.run_dir / "history.csv", overwrite=True) as temporary:
            temporary.write_text("".join(lines))


def bookkeeping(run_dir: Path) -> list[keras.callbacks.Callback]:
    """What every training does after an epoch, so that it can be stopped.

    The checkpoint comes last: what is stopped before it is run again, and its line of the curve
    replaced; a line that came after it would be lost.
    """
    curve = [] if workers.rank() else [History(run_dir)]
    return [Stopwatch(), *curve, Checkpoint(run_dir)]


def read_history(run_dir: Path, before: float = np.inf) -> list[str]:
    """The lines of a learning curve, its header first, of the epochs before one.

    Lines that are not whole, as a stop may leave them, are left out.
    """
    path = run_dir / "history.csv"
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if re.fullmatch(r"\d+(,[^,\s]+){3}\n", line)]
    header = ",".join(CURVE) + "\n"
    return [header, *(line for line in whole if int(line.partition(",")[0]) < before)]


def check(plan: Plan) -> None:
    """Raise ValueError for a plan that cannot be run."""
    if plan.method not in TRAINABLE:
        raise ValueError(f"unknown method {plan.method!r}; choose {', '.join(TRAINABLE)}")
    if not plan.cycles or min(plan.cycles) < 1:
        raise ValueError(f"cycles {' '.join(map(str, plan.cycles))}: give each an epoch or more")
    if plan.start_share and not plan.start:
        raise ValueError("a share of the weights to start from, but none of these: add --start")
    if plan.units < 0:
        raise ValueError(f"units {plan.units}: give how many, or 0 for the method's own")
    if plan.noise:
        noise_bank.check_kind(plan.noise)


def train(plan: Plan, stop_after: int | None = None, verbose: int = 0) -> keras.Model | None:
    """Run a plan, or go on with it, and return the trained model of frames.

    Checkpoints, `plan.json` and `history.csv` stand in `plan.run_dir`. `stop_after`: leave after
    so many epochs in all (None is returned). `verbose`: as for `keras.Model.fit`. Raises ValueError
    as `check` does, before anything is written, and as `make_data` does; store.FileError where
    another process runs the same plan, its epochs were made of other data, or a checkpoint finds
    no room; models.WeightsError as `compile_model` does; and workers.WorkersError where several
    processes cannot run it together.
    """
    check(plan)
    with contextlib.nullcontext() if workers.rank() else store.alone(plan.run_dir):
        return _train(plan, stop_after, verbose)


def _train(plan: Plan, stop_after: int | None, verbose: int) -> keras.Model | None:
    """As `train`, for the one process that runs the plan, or for each of those that do together."""
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    workers.share_out(plan.batch_size)
    model = compile_model(plan)
    workers.sum_once(model)
    if not workers.rank():
        with store.atomic_path(plan.run_dir / "plan.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
    workers.agree(epochs_done(plan.run_dir), "the epochs that are done")
    done = resume(model, plan.run_dir)
    training, validation = make_data(plan, bool(verbose))
    last = min(plan.epochs, stop_after or plan.epochs)
    if verbose:
        print(f"{plan.method}: epoch {done} of {plan.epochs}, {plan.hours:.0f} h of audio in all")
    callbacks = [keras.callbacks.SwapEMAWeights(), *bookkeeping(plan.run_dir)]
    ends = np.cumsum(plan.cycles)
    for cycle, end in enumerate(ends):
        if done < min(end, last):
            if cycle and done == ends[cycle - 1]:  # a cycle starts from the averaged weights
                take_means(model)
            model.compile(model.optimizer, cycle_loss(plan, cycle))
            model.fit(
                training(done),
                validation_data=validation,
                validation_batch_size=plan.batch_size // workers.world(),
                initial_epoch=done,
                epochs=int(min(end, last)),
                steps_per_epoch=plan.batches,
                shuffle=False,
                callbacks=callbacks,
                verbose=verbose,
            )
            done = int(min(end, last))
    return finished(plan, model) if last == plan.epochs else None


def finished(plan: Plan, model: WaveformWrapper) -> keras.Model:
    """The model of frames that is left of a training after its last epoch."""
    take_means(model)
    model = own_copy(plan, model)
    if plan.start_share:
        model.frame_model.set_weights(between(plan, model.frame_model))
    if plan.method == "waveform":
        waveform.scale_output(model.frame_model, clean_gain(model))
    return model.frame_model


def take_means(model: WaveformWrapper) -> None:
    """Give a model the exponential means of its weights."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if keras.backend.backend() == "jax":  # where both would be one array, given away twice by `fit`
        model.set_weights(model.get_weights())


def own_copy(plan: Plan, model: WaveformWrapper) -> WaveformWrapper:
    """A trained model whose weights lie on one device of this process alone."""
    if not workers.is_shared():
        return model
    weights = model.frame_model.get_weights()  # of all workers: each must ask
    workers.come_home()
    frame_model = network(plan)
    frame_model.set_weights(weights)
    return WaveformWrapper(frame_model, model.hop_length)


def between(plan: Plan, frame_model: keras.Model) -> list[np.ndarray]:
    """The mean of the weights that a plan starts from, by its `start_share`, and of trained ones.

    It can keep what either is better at (M. Wortsman et al., "Robust fine-tuning of zero-shot
    models", CVPR 2022).
    """
    share, old = plan.start_share, starting_weights(plan, frame_model)
    pairs = zip(old, frame_model.get_weights(), strict=True)
    return [share * before + (1 - share) * after for before, after in pairs]


def clean_gain(model: WaveformWrapper, n_clips: int = 20) -> float:
    """What brings clean validation speech, after a model, back to its level.

    Neither SI-SDR nor compressed spectra hold the level, so learned bases drift.
    """
    table = corpus.read_corpus(corpus.find_corpus())
    clips = [audio.read(path) for path in table.path[table.split == "validation"][:n_clips]]
    denoised = [ops.convert_to_numpy(model(clip[None]))[0] for clip in clips]
    level = [np.sqrt(np.mean(np.concatenate(part) ** 2)) for part in (clips, denoised)]
    return float(level[0] / level[1])


def cycle_loss(plan: Plan, cycle: int) -> losses.DenoisingLoss:
    """Squared errors in the first cycle of all; in those that follow, small ones count more."""
    linear_below = 0.2 if plan.goes_on or cycle else 0.0
    return losses.DenoisingLoss(
        linear_below=linear_below,
        si_sdr_weight=plan.si_sdr_weight,
        level_weight=plan.level_weight,
    )


class Stopwatch(keras.callbacks.Callback):
    """Add the seconds of each epoch to its log."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["seconds"] = time.perf_counter() - self.start


def export(
    plan: Plan, frame_model: keras.Model, folder: Path | None = None, about: dict | None = None
) -> Path:
    """Save the trained model, its card `<method>.json` (SHA-256, plan, data, minutes, the card
    that it started from, and `about`), its learning curve `<method>.history.csv` (CURVE) and, where
    TensorFlow can make it, what runs without it, `<method>.tflite`.

    All are written before any is replaced: those beside the weights under names with the SHA-256 of
    the weights, where `models.beside` finds them once the weights have taken their place. So a stop
    leaves the old ones or the new ones. Raises WeightsError for weights that are not finite.
    """
    path = weights_path(plan.method, folder)
    for layer in frame_model.layers:
        if not all(np.isfinite(one).all() for one in layer.get_weights()):
            raise WeightsError(
                f"{path}: not replaced, the trained weights of {layer.name!r} are not finite; "
                f"remove {plan.run_dir} and train with a lower rate"
            )
    content = describe(plan, frame_model) | (about or {})
    light = litert_of(frame_model)
    with store.alone(path, wait=True):
        with store.atomic_path(path, overwrite=True) as temporary:
            frame_model.save(temporary)
            sha256 = hashlib.sha256(temporary.read_bytes()).hexdigest()
            content = {"sha256": sha256} | content
            if light:
                files = {path.with_suffix(".tflite").name: light}
                content["exports"] = exporting.card_entry(frame_model, sha256, files)
            curve = "".join(read_history(plan.run_dir))
            parts = exporting.card_text(content).encode(), curve.encode(), light
            for suffix, data in zip(BESIDE, parts, strict=True):
                if data:
                    exporting.write_bytes(staged_path(path, sha256, suffix), data)
        for suffix, data in zip(BESIDE, parts, strict=True):
            if data:
                staged_path(path, sha256, suffix).replace(path.with_suffix(suffix))
            else:
                path.with_suffix(suffix).unlink(missing_ok=True)  # of the weights before
            for left in path.parent.glob(f"{path.stem}.{'[0-9a-f]' * 16}{suffix}"):
                left.unlink()  # of an export that was stopped
    return path


def litert_of(frame_model: keras.Model) -> bytes:
    """The export for LiteRT, empty where there can be none."""
    return exporting.litert(frame_model) if exporting.can_export(frame_model) else b""


def describe(plan: Plan, frame_model: keras.Model) -> dict:
    """What a card says about a training, but for the SHA-256 of the weights."""
    content = {
        "parameters": frame_model.count_params(),
        "plan": dataclasses.asdict(plan) | {"start": store.shown(plan.start) if plan.start else ""},
        "hours_heard": round(plan.hours, 1),
        "minutes": round(training_minutes(plan), 1),
        "backend": keras.backend.backend(),
        "corpus": store.shown(corpus.find_corpus()),
        "recorded_noise": corpus.find_noise() is not None,
        "commit": git_commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if plan.start:
        content["start"] = card(plan.method, Path(plan.start))
        content["start"].pop("exports", None)  # files that this one's take the place of
    return content


def training_minutes(plan: Plan) -> float:
    """Wall minutes of all epochs of a run, from its history."""
    seconds = CURVE.index("seconds")
    return sum(float(line.split(",")[seconds]) for line in read_history(plan.run_dir)[1:]) / 60


def git_commit() -> str:
    """The commit of the code that runs, with "+" where files differ from it; "" without git."""
    command = ["git", "-C", str(store.ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # it is not installed: no reason to lose a training
        return ""
