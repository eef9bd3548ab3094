"""The networks: `dense` (chapter 03's first attempt), `waveform` and `spectrogram` (shipped), and a
peer's to compare with, `dtln`.

A shipped method is a module here with `build`, its frame sizes and CYCLES. Nothing is imported
before a network is asked for, so that the command line starts without TensorFlow.
"""

import hashlib
import importlib
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

from helpers import audio, store

METHODS = ("waveform", "spectrogram")  # those that ship; each is a module here
TRAINABLE = (*METHODS, "dtln")  # by `training`; each has CYCLES
FOLDER = store.ROOT / "data" / "models"


class WeightsError(RuntimeError):
    """Weights that are missing, damaged, or not those of their card or method; the message names
    the file and says what to do.
    """


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
        raise WeightsError(f"{path}: missing; {_remedy(method, folder)}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def beside(method: str, suffix: str, folder: Path | None = None) -> Path:
    """Where the card (".json") or the learning curve (".history.csv") of the weights lies.

    Named like the weights; where an export was stopped (`training.export`), by their SHA-256 too.
    Raises WeightsError where the weights are missing.
    """
    path = weights_path(method, folder)
    staged = staged_path(path, weights_sha256(method, folder), suffix)
    return staged if staged.exists() else path.with_suffix(suffix)


def staged_path(weights: Path, sha256: str, suffix: str) -> Path:
    """Where a file that belongs to weights waits until they are in place."""
    return weights.with_name(f"{weights.stem}.{sha256[:16]}{suffix}")


def card(method: str, folder: Path | None = None) -> dict:
    """What the card beside the weights says. Raises WeightsError where it is missing or damaged."""
    path = beside(method, ".json", folder)
    if not path.exists():
        raise WeightsError(f"{path}: missing; {_remedy(method, folder)}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "sha256" not in content:
        raise WeightsError(f"{path}: damaged, no card with a SHA-256; {_remedy(method, folder)}")
    return content


def load(method: str, folder: Path | None = None):
    """The trained `keras.Model` of frames of a method, its SHA-256 compared with its card.

    Raises WeightsError where weights or card are missing or damaged, do not belong together, or
    are those of another method.
    """
    path = weights_path(method, folder)
    if weights_sha256(method, folder) != card(method, folder)["sha256"]:
        raise WeightsError(
            f"{path}: not the weights that its card describes; {_remedy(method, folder)}"
        )
    from helpers.backend import keras

    layers = vars(module(method)).items()  # which other modules may have by the same name
    own = {f"denoiser>{name}": one for name, one in layers if isinstance(one, type)}
    keras.saving.get_custom_objects().update(own)
    try:
        model = keras.saving.load_model(path, compile=False)
        name, whole = model.name, _is_of_frames(model)
    except Exception as error:  # Keras has no error of its own for a damaged archive
        what = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise WeightsError(
            f"{path}: not a readable model ({what}); {_remedy(method, folder)}"
        ) from error
    if name != method or not whole:
        what = f"weights of {name!r}" if name != method else "no model of frames"
        raise WeightsError(f"{path}: {what}, not of {method!r}; {_remedy(method, folder)}")
    return model


def has_light_model(method: str, folder: Path | None = None) -> bool:
    """Whether the card of weights knows an export for LiteRT, and LiteRT is installed.

    Raises WeightsError where weights or card are missing, or the card is damaged.
    """
    return "exports" in card(method, folder) and bool(importlib.util.find_spec("ai_edge_litert"))


def light_model(method: str, folder: Path | None = None) -> tuple[Path, int]:
    """The `.tflite` beside the weights of a method, and its samples from frame to frame.

    Weights and file are compared with the card by SHA-256. Raises WeightsError where one is
    missing or another than the card says, or where the file was made from other weights.
    """
    weights, path = weights_path(method, folder), beside(method, ".tflite", folder)
    digest, content = weights_sha256(method, folder), card(method, folder)
    if digest != content["sha256"]:
        raise WeightsError(
            f"{weights}: not the weights that its card describes; {_remedy(method, folder)}"
        )
    again = "run `python -m experiments export`" + (f" --folder {folder}" if folder else "")
    try:
        exports = content["exports"]
        expected, hop_length = exports["files"][f"{method}.tflite"], int(exports["hop_length"])
        made_from = exports["weights"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{weights}: its card has no whole list of exports; {again}") from error
    if not path.exists():
        raise WeightsError(f"{path}: missing, though its card knows it; {again}")
    if made_from != digest or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise WeightsError(f"{path}: not the export of these weights; {again}")
    return path, hop_length


def _is_of_frames(model) -> bool:
    """Whether a model maps frames `(batch, frames, win_length)` and states to new ones alike."""
    before, after = ([one.shape[-1] for one in ends] for ends in (model.inputs, model.outputs))
    has_hop = any(hasattr(layer, "hop_length") for layer in model.layers)
    return len(model.inputs[0].shape) == 3 and before == after and has_hop


def _remedy(method: str, folder: Path | None) -> str:
    """What brings back the weights of a method, where they are not what they should be."""
    if method not in METHODS:
        return "run `make design`"
    if Path(folder or FOLDER).resolve() == FOLDER:
        return f"restore it from the repository or run `make train-{method}`"
    again = f"python -m experiments train {method} --out {folder}"
    return f"copy it there again from where it came, or train anew: `{again}`"


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
