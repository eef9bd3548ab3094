"""The networks: `dense` (chapter 03's first attempt), `waveform` and `spectrogram` (shipped).

A shipped method is a module here with `build`, its frame sizes and CYCLES. Nothing is imported
before a network is asked for, so that the command line starts without TensorFlow.
"""

import hashlib
import importlib
import json
import math
from pathlib import Path
from types import ModuleType

from helpers import audio, store

METHODS = ("waveform", "spectrogram")  # those that ship; each is a module here
FOLDER = store.ROOT / "data" / "models"


class WeightsError(RuntimeError):
    """Weights that are missing or not those of their card; the message says what to do."""


def module(method: str) -> ModuleType:
    """The module of a method. Raises ModuleNotFoundError for an unknown one."""
    return importlib.import_module(f"{__name__}.{method}")


def build(method: str):
    """The untrained `keras.Model` of frames of a method."""
    return module(method).build()


def weights_path(method: str, folder: Path | None = None) -> Path:
    """Where the shipped weights of a method lie, or those in another folder."""
    return Path(folder or FOLDER) / f"{method}.keras"


def weights_sha256(method: str, folder: Path | None = None) -> str:
    """SHA-256 of the weights of a method. Raises WeightsError where they are missing."""
    path = weights_path(method, folder)
    if not path.exists():
        raise WeightsError(f"{path}: missing; {_remedy(method)}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card(method: str, folder: Path | None = None) -> dict:
    """What the card beside the weights says. Raises WeightsError where it is missing."""
    path = weights_path(method, folder).with_suffix(".json")
    if not path.exists():
        raise WeightsError(f"{path}: missing; {_remedy(method)}")
    return json.loads(path.read_text())


def load(method: str, folder: Path | None = None):
    """The trained `keras.Model` of frames of a method, its SHA-256 compared with its card.

    Raises WeightsError where weights or card are missing or do not belong together.
    """
    path = weights_path(method, folder)
    if weights_sha256(method, folder) != card(method, folder)["sha256"]:
        raise WeightsError(f"{path}: not the weights that its card describes; {_remedy(method)}")
    from helpers.backend import keras

    module(method)  # its layers are registered now
    return keras.saving.load_model(path, compile=False)


def _remedy(method: str) -> str:
    return f"restore it from the repository or run `make train-{method}`"


def macs_per_second(model, hop_length: int) -> float:
    """Multiply-accumulates of the layers with weights in a second of 16 kHz audio.

    A kernel is used once a frame, one of a convolution once a frame and bin of its output (of its
    input, where it is transposed). Transforms, running means, biases, activations and the products
    of attention are not counted.
    """
    from helpers.backend import keras

    total = 0
    for layer in model.layers:
        kernels = [w.shape for w in layer.trainable_weights if w.name != "bias"]
        places = 1
        if isinstance(layer, keras.layers.Conv2DTranspose):
            places = layer.input.shape[2]
        elif isinstance(layer, keras.layers.Conv2D):
            places = layer.output.shape[2]
        total += places * sum(math.prod(shape) for shape in kernels)
    return total * audio.SAMPLE_RATE / hop_length
