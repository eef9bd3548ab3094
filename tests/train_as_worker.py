"""What `tests/test_workers.py` runs in processes of its own: two small trainings, alone or shared.

`python -m tests.train_as_worker OUT` trains alone, on JAX; with `HOST:PORT RANK WORLD` as a worker,
with `auto` as SLURM says. OUT gets the runs, and for each optimiser the weights, the model, and
what it makes of a clip. With KILL="RANK STEP" that worker kills itself after so many steps.
"""

import functools
import os
import signal
import sys
from pathlib import Path

OPTIMIZERS = ("Adam", "Muon")


def small_trainings(out: Path) -> None:
    """Train both and write what is left of them."""
    import numpy as np

    from helpers import store
    from helpers.data import corpus
    from helpers.models import training, workers

    store.CACHE, store.RUNS = out / "cache", out / "runs"
    corpus.find_noise = lambda verbose=False: None
    training.build = one_layer
    training.Stopwatch = killer(training.Stopwatch, workers.rank())
    sizes = {"batches": 4, "batch_size": 8, "seconds": 0.5, "validation_batches": 2}
    clip = np.random.default_rng(0).normal(0, 0.1, (1, 8_000)).astype("float32")
    for optimizer in OPTIMIZERS:
        plan = training.Plan(
            "spectrogram", cycles=(2, 1), bank_clips=16, optimizer=optimizer, **sizes
        )
        model = training.train(plan)
        if not workers.rank():
            training.export(plan, model, out / optimizer)
            np.savez(out / f"{optimizer}.npz", *model.get_weights())
            wrapper = training.WaveformWrapper(model, 160)
            np.save(out / f"{optimizer}.npy", np.asarray(wrapper(clip)))


def one_layer(method: str):
    """A frame model of one layer, which hears the level, quickly compiled."""
    from helpers.backend import keras
    from helpers.models import blocks

    frames, state = keras.Input((None, 320)), keras.Input((2,))
    level, new_state = blocks.RunningLevel(160)(frames, state)
    outputs = [keras.layers.Dense(320)(frames) * (1 + level), new_state]
    return keras.Model([frames, state], outputs, name=method)


def killer(base, rank: int):
    """A callback that kills this process where KILL says, as nothing but `kill -9` does."""
    chosen, last = map(int, os.environ.get("KILL", "-1 -1").split())

    class Killer(base):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            Killer.steps += 1
            if (rank, Killer.steps) == (chosen, last):
                os.kill(os.getpid(), signal.SIGKILL)

    return Killer


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    from helpers import store

    work = functools.partial(small_trainings, Path(sys.argv[1]))
    store.RUNS = Path(sys.argv[1]) / "runs"
    if len(sys.argv) == 2:
        work()
    else:
        from helpers.models import workers

        told = [int(number) for number in sys.argv[3:]] or [None, None]
        sys.exit(workers.run(work, sys.argv[2], *told))
