"""The networks: `dense` (chapter 03's first attempt), `waveform` and `spectrogram` (shipped)."""

import hashlib
import json
import math
from pathlib import Path

from helpers import audio, corpus
from helpers.backend import keras
from helpers.models import blocks, spectrogram, waveform

METHODS = {"waveform": waveform, "spectrogram": spectrogram}
FOLDER = corpus.ROOT / "data" / "models"


class WeightsError(RuntimeError):
    """Weights that are missing or not those of their card; the message says what to do."""


def build(method: str) -> keras.Model:
    """The untrained model of frames of a method. Raises KeyError for an unknown one."""
    return METHODS[method].build()


def weights_path(method: str, folder: Path | None = None) -> Path:
    """Where the shipped weights of a method lie, or those in another folder."""
    return Path(folder or FOLDER) / f"{method}.keras"


def load(method: str, folder: Path | None = None) -> keras.Model:
    """The trained model of frames of a method, its SHA-256 compared with its card.

    Raises WeightsError where weights or card are missing or do not belong together.
    """
    path = weights_path(method, folder)
    remedy = f"restore it from the repository or run `make train-{method}`"
    for needed in (path, path.with_suffix(".json")):
        if not needed.exists():
            raise WeightsError(f"{needed}: missing; {remedy}")
    expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise WeightsError(f"{path}: not the weights that its card describes; {remedy}")
    return keras.saving.load_model(path, compile=False)


__all__ = ["METHODS", "WeightsError", "blocks", "build", "load", "weights_path"]


def macs_per_second(model: keras.Model, hop_length: int) -> float:
    """Multiply-accumulates of the layers with weights in a second of 16 kHz audio.

    A kernel is used once a frame, one of a convolution once a frame and bin of its output (of its
    input, where it is transposed). Transforms, running means, biases, activations and the products
    of attention are not counted.
    """
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
