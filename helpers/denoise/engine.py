"""What puts frames through a trained model, one interface for two: LiteRT, and Keras.

The light engine runs the file that `helpers.models.export` wrote beside the weights. It needs no
TensorFlow, starts in a tenth of a second and takes a fifth of a millisecond for a frame. Keras runs
weights without such a file. Both give the same to 1e-6.
"""

from pathlib import Path

import numpy as np

from helpers import models
from helpers.backend import BackendError, no_stderr

State = list  # what an engine remembers of a signal; its own business


class LightEngine:
    """A model on LiteRT, one thread. Frames go through it in blocks, the rest one by one.

    `win_length` and `hop_length` in samples. Raises models.WeightsError where the file, or the
    weights that it was made from, are not those of the card.
    """

    def __init__(self, method: str, folder: Path | None = None):
        from ai_edge_litert.interpreter import Interpreter

        path, self.hop_length = models.light_model(method, folder)
        with no_stderr():  # it says there, at the first run, which delegate it made
            self.interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
            self.runs = {}  # frames at a time -> the run that takes them, most first
            for name in ("block", "hop"):
                run = self.interpreter.get_signature_runner(name)
                inputs = run.get_input_details()
                run(**{name: np.zeros(one["shape"], np.float32) for name, one in inputs.items()})
                self.runs[int(inputs["frames"]["shape"][1])] = run
        self.win_length = int(inputs["frames"]["shape"][2])
        self.shapes = {x: one["shape"] for x, one in inputs.items() if x != "frames"}

    def zero_states(self, n_channels: int) -> State:
        """What is remembered before the first frame, for each channel."""
        return [
            {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
            for _ in range(n_channels)
        ]

    def step(self, frames: np.ndarray, states: State) -> tuple[np.ndarray, State]:
        """Denoised frames `(channels, n, win_length)`, float32, and the new states."""
        pairs = [self._step(*one) for one in zip(frames, states, strict=True)]
        return np.stack([out for out, _ in pairs]), [state for _, state in pairs]

    def _step(self, frames: np.ndarray, state: dict) -> tuple[np.ndarray, dict]:
        """The frames `(n, win_length)` of one channel."""
        out, done = np.empty_like(frames), 0
        for n, run in self.runs.items():
            while len(frames) - done >= n:
                new = run(frames=frames[None, done : done + n], **state)
                out[done : done + n] = new["denoised"][0]
                state = {name: new[f"new_{name}"] for name in state}
                done += n
        return out, state


class KerasEngine:
    """The Keras model itself, compiled for any number of channels and frames.

    Attributes as those of LightEngine, and `model`. Raises models.WeightsError where weights are
    missing or wrong, BackendError where Keras runs on something else than TensorFlow.
    """

    def __init__(self, method: str, folder: Path | None = None):
        from helpers.backend import tf

        if tf is None:
            raise BackendError("denoising needs TensorFlow; unset KERAS_BACKEND")
        from helpers.models import blocks

        self.model = models.load(method, folder)
        self.win_length = self.model.inputs[0].shape[-1]
        self.hop_length = blocks.hop_length(self.model)
        self.shapes = [state.shape[1:] for state in self.model.inputs[1:]]
        self.compiled = tf.function(  # built once
            lambda frames, states: self.model([frames, *states]),
            input_signature=[
                tf.TensorSpec((None, None, self.win_length)),
                [tf.TensorSpec((None, *shape)) for shape in self.shapes],
            ],
        )

    def zero_states(self, n_channels: int) -> State:
        """As that of LightEngine."""
        return [np.zeros((n_channels, *shape), np.float32) for shape in self.shapes]

    def step(self, frames: np.ndarray, states: State) -> tuple[np.ndarray, State]:
        """As that of LightEngine."""
        denoised, *states = self.compiled(frames, states)
        return denoised.numpy(), states


def engine(method: str, folder: Path | None = None) -> LightEngine | KerasEngine:
    """The light engine where weights have an export, else the one of Keras.

    Raises what the engine raises.
    """
    return (LightEngine if models.has_light_model(method, folder) else KerasEngine)(method, folder)
