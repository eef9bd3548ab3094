"""Trained models as files that run without Keras: on LiteRT, and in a browser.

**For LiteRT**, `<method>.tflite`, float32: one file with two signatures that share their weights,
"hop" for one frame and "block" for BLOCK_FRAMES. Each maps `frames` `(1, n, win_length)` and the
states by their names to `denoised` and the new states, `new_<name>`.

**For a browser**, `web/<method>.bin` holds all weights as float16, little-endian, one tensor after
the other without gaps, each in row-major order (C order) as Keras shapes it. `web/<method>.json`
says where they lie and what else it takes to run them:

| key | what it holds |
|---|---|
| `method` | "waveform" or "spectrogram" |
| `weights_sha256` | of the `.keras` file that this was made from |
| `dtype`, `bytes` | "float16", and the length of the `.bin` |
| `sample_rate`, `win_length`, `hop_length` | Hz, and samples: a frame, and the step to the next |
| `n_fft` | samples of the windowed DFT, 0 where the model learned its basis |
| `constants` | decays a hop of the running level and means, and the numbers of the formulas |
| `states` | names and shapes, without the batch, in the order of the model; zeros at the start |
| `layers` | in order, those with weights: name, kind, strides, padding, activation |
| `tensors` | in order: name (`layer/weight`), shape, offset in bytes |

A frame is `win_length` samples; the model gives a frame of the same length for each, and these are
added up `hop_length` apart (no window is left to apply). The spectrogram model's frame holds
`n_fft` samples to denoise and, behind them, the `win_length - n_fft` that it hears ahead. Taught in
`04_spectrogram_autoencoder`.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from helpers import audio, models, store
from helpers.backend import BackendError, keras, no_stderr, tf
from helpers.models import blocks, waveform
from helpers.models.static import fixed_length

BLOCK_FRAMES = 8  # in a run for long inputs; more take longer, for a frame, and more memory


def write(method: str, folder: Path | None = None) -> list[Path]:
    """Write all exports of weights beside them, and what they are into the card; their paths.

    Raises models.WeightsError as `models.load` does.
    """
    weights, content = models.weights_path(method, folder), models.card(method, folder)
    model = models.load(method, folder)
    binary, index = web_weights(model, content["sha256"])
    files = {
        f"{method}.tflite": litert(model),
        f"web/{method}.bin": binary,
        f"web/{method}.json": index.encode(),
    }
    with store.alone(weights, wait=True):
        for name, data in files.items():
            write_bytes(weights.parent / name, data)
        content["exports"] = card_entry(model, content["sha256"], files)
        write_bytes(weights.with_suffix(".json"), card_text(content).encode())
    return [weights.parent / name for name in files]


def card_entry(model: keras.Model, weights_sha256: str, files: dict[str, bytes]) -> dict:
    """What a card says of exports: the weights that they were made from, and each file."""
    return {
        "weights": weights_sha256,
        "hop_length": blocks.hop_length(model),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }


def card_text(content: dict) -> str:
    """A card as it is written."""
    return json.dumps(content, indent=1) + "\n"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, over the one that is there."""
    with store.atomic_path(path, overwrite=True) as temporary:
        temporary.write_bytes(data)


def litert(model: keras.Model) -> bytes:
    """The `.tflite` of a trained model of frames. Raises BackendError without TensorFlow."""
    if tf is None:
        raise BackendError("the conversion needs TensorFlow; unset KERAS_BACKEND")
    archive = keras.export.ExportArchive()
    archive.track(model)
    signatures = {"hop": 1, "block": BLOCK_FRAMES}
    for name, n_frames in signatures.items():
        add_signature(archive, name, fixed_length(model, n_frames))
    with tempfile.TemporaryDirectory(prefix="denoiser-") as folder, no_stderr():
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        return converter.convert()


def add_signature(archive: keras.export.ExportArchive, name: str, model: keras.Model) -> None:
    """Add a model of fixed length to an archive, its inputs and outputs by their names."""
    names = [x.name for x in model.inputs]
    specs = [tf.TensorSpec(x.shape, name=x.name) for x in model.inputs]
    outputs = ["denoised", *(f"new_{one}" for one in names[1:])]

    def step(*inputs):
        return dict(zip(outputs, model(list(inputs)), strict=True))

    archive.add_endpoint(name, step, input_signature=specs)


def web_weights(model: keras.Model, weights_sha256: str) -> tuple[bytes, str]:
    """The two files of a browser, `.bin` and `.json`, of a trained model of frames.

    Raises ValueError for weights that float16 cannot hold.
    """
    weights = [
        (f"{layer.name}/{w.name}", w.numpy()) for layer in model.layers for w in layer.weights
    ]
    tensors, parts, offset = [], [], 0
    for name, array in weights:
        with np.errstate(over="ignore"):
            part = array.astype("<f2")
        if not np.isfinite(part).all():
            raise ValueError(f"{model.name}: weights of {name!r} are beyond the range of float16")
        tensors.append({"name": name, "shape": list(array.shape), "offset": offset})
        parts.append(part.tobytes())
        offset += part.nbytes
    facts = {
        "method": model.name,
        "weights_sha256": weights_sha256,
        "dtype": "float16",
        "bytes": offset,
        **web_facts(model),
        "tensors": tensors,
    }
    return b"".join(parts), index_text(facts)


def index_text(facts: dict) -> str:
    """JSON with one key a line, and one line for each entry of a list of objects."""
    lines = []
    for key, value in facts.items():
        text = json.dumps(value)
        if isinstance(value, list):
            entries = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            text = f"[\n{entries}\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def web_facts(model: keras.Model) -> dict:
    """What a program in another language must know of a model beside its weights."""
    win_length = model.inputs[0].shape[-1]
    bins = [layer.output.shape[2] for layer in model.layers if layer.name == "spectrum"]
    decays = {
        f"{layer.name}_decay": layer.decay
        for layer in model.layers
        if isinstance(layer, blocks.RunningMean)
    }
    settings = ("strides", "padding", "activation", "use_bias")
    return {
        "sample_rate": audio.SAMPLE_RATE,
        "win_length": win_length,
        "hop_length": blocks.hop_length(model),
        "n_fft": 2 * (bins[0] - 1) if bins else 0,
        "constants": {
            **decays,
            "silent_power": blocks.SILENT_POWER,
            "compression": audio.COMPRESSION,
            "mask_bound": blocks.MASK_BOUND,
            "gain": 1.0 if bins else waveform.GAIN,
        },
        "states": [{"name": x.name, "shape": list(x.shape[1:])} for x in model.inputs[1:]],
        "layers": [
            {"name": layer.name, "kind": type(layer).__name__}
            | {key: value for key, value in layer.get_config().items() if key in settings}
            for layer in model.layers
            if layer.weights
        ],
    }
