"""The networks: `dense` (chapter 03's first attempt), `waveform` and `spectrogram` (shipped)."""

import hashlib
import json
from pathlib import Path

from helpers import corpus
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
    remedy = f"restore it from the repository or run `python -m helpers train {method}`"
    for needed in (path, path.with_suffix(".json")):
        if not needed.exists():
            raise WeightsError(f"{needed}: missing; {remedy}")
    expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise WeightsError(f"{path}: not the weights that its card describes; {remedy}")
    return keras.saving.load_model(path, compile=False)


__all__ = ["METHODS", "WeightsError", "blocks", "build", "load", "weights_path"]
