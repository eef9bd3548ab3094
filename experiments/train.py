"""Trainings in steps, by a file of settings: `experiments/plans/<name>.toml`.

Each `[[step]]` is one training (`helpers.models.training.Plan`) and starts from the weights of the
one before. All go on where they were stopped; the last weights replace those of `out`, by default
the shipped ones.
"""

import dataclasses
import tomllib
from pathlib import Path

from helpers import store
from helpers.backend import tf
from helpers.evaluation import scoring
from helpers.models import training, weights_path, weights_sha256, workers
from helpers.models.training import LEARNING_RATES, Plan

PLANS = Path(__file__).parent / "plans"
FINISHED = "finished.sha256"  # in the folder of a run: of the weights that it gave


@dataclasses.dataclass(frozen=True)
class Step:
    """One training of a plan: its name, its settings, and the folder that its weights go to."""

    name: str
    plan: Plan
    out: Path

    @property
    def is_done(self) -> bool:
        """Whether its weights are there, made by this very training."""
        weights = weights_path(self.plan.method, self.out)
        finished = self.plan.run_dir / FINISHED
        if not (finished.exists() and weights.exists()):
            return False
        return finished.read_text() == weights_sha256(self.plan.method, self.out)

    def finish(self, about: str, verbose: int) -> None:
        """Train it, or go on with it, and write weights and card; of workers the first writes."""
        model = training.train(self.plan, verbose=verbose)
        if not workers.rank():
            training.export(self.plan, model, self.out, {"step": about})
            with store.atomic_path(self.plan.run_dir / FINISHED, overwrite=True) as temporary:
                temporary.write_text(weights_sha256(self.plan.method, self.out))
        workers.agree(len(about), "the step that they finished")  # waits for the file


def read_plan(name: str, out: Path | None = None) -> list[Step]:
    """The steps of `plans/<name>.toml`, or of the file of that path.

    `out` is for the last weights. Raises ValueError, naming the file, for a plan that is none.
    """
    path = Path(name) if Path(name).suffix == ".toml" else PLANS / f"{name}.toml"
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in PLANS.glob("*.toml")))
        raise ValueError(f"{path}: no such plan; choose {known}, or name a .toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        steps, start = [], content.get("start", "")
        for settings in content["step"]:
            step = make_step(content["method"], settings, start)
            steps.append(step)
            start = str(step.out)
        if not steps:
            raise ValueError("it has no step")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a training plan ({error}); see {PLANS}") from error
    last = out or store.ROOT / content.get("out", "data/models")
    return [*steps[:-1], dataclasses.replace(steps[-1], out=last)]


def make_step(method: str, settings: dict, start: str) -> Step:
    """A step from its settings and the folder that it starts from; its weights stay in its run."""
    settings = dict(settings)
    name, optimizer = settings.pop("name"), settings.get("optimizer", Plan.optimizer)
    settings["cycles"] = tuple(settings["cycles"])
    settings.setdefault("learning_rate", LEARNING_RATES[optimizer])
    if start and not Path(start).is_absolute():
        start = str(store.ROOT / start)
    plan = Plan(method, start=start, **settings)
    training.check(plan)
    return Step(name, plan, plan.run_dir)


def describe(steps: list[Step]) -> list[str]:
    """One line a step: the hours of audio that it hears, and where it would go on."""
    lines, hours = [], sum(step.plan.hours for step in steps)
    for step in steps:
        done, epochs = training.epochs_done(step.plan.run_dir), step.plan.epochs
        state = "done" if step.is_done else f"from epoch {done}" if done else "not begun"
        settings = f"{epochs} epochs of {step.plan.batches} x {step.plan.batch_size}"
        lines.append(f"{step.name}: {settings}, {step.plan.hours:.0f} h of audio, {state}")
    last = store.shown(weights_path(steps[-1].plan.method, steps[-1].out))
    return [*lines, f"{hours:.0f} h of audio in all; the last weights replace {last}"]


def run_plan(name: str, out: Path | None = None, verbose: int = 2) -> Path:
    """Run the steps of a plan, or go on with them; gives the path of the last weights."""
    steps = read_plan(name, out)
    for step in steps:
        if step.is_done:
            training.check_data(step.plan)
        else:
            step.finish(f"{step.name} of {name}", 0 if workers.rank() else verbose)
    last = steps[-1]
    if tf:
        scoring.add_scores(last.plan.method, last.out)
    return weights_path(last.plan.method, last.out)
