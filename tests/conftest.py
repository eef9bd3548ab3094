"""What several test modules share: quiet TensorFlow on the CPU, a clip, models, bad files."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import hashlib
import json

import numpy as np
import pytest
import soundfile as sf
from hypothesis import settings

from helpers import audio
from helpers.store import ROOT

SAMPLE = ROOT / "data" / "sample"

settings.register_profile("course", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("course")


@pytest.fixture(autouse=True)
def no_chosen_corpus(monkeypatch):
    """The reader's own choice of data does not reach the tests."""
    monkeypatch.delenv("DENOISER_CORPUS", raising=False)
    monkeypatch.delenv("DENOISER_NOISE", raising=False)


@pytest.fixture(scope="session")
def speech_files():
    """Files of three of the bundled voices, sorted."""
    return sorted(SAMPLE.glob("*/*/*/*-0000.flac"))[:3]


@pytest.fixture(scope="session")
def speech(speech_files):
    """3 s of a bundled voice, float32 (48000,), read-only: no function may change its input."""
    clip = audio.read(speech_files[0])[:48_000]
    clip.flags.writeable = False
    return clip


# --- models whose answer is known, so that no test of the machinery needs trained weights --------


def save_model(method, folder, change):
    """Build an untrained model, change it, and save it with its card; returns a Denoiser."""
    from helpers import models
    from helpers.backend import keras
    from helpers.denoise import Denoiser

    keras.utils.set_random_seed(0)
    model = models.build(method)
    change(model)
    path = models.weights_path(method, folder)
    model.save(path)
    card = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))
    return Denoiser(method, folder)


def keep(model):
    """Close the gate: the mask is one and everything passes."""
    model.get_layer("mask_logits").bias.assign([-30.0, 0.0, 0.0])  # its kernel is zero


def perturb(model):
    """Give the mask random weights, so that the output depends on the recurrent states."""
    layer, rng = model.get_layer("mask_logits"), np.random.default_rng(0)
    layer.set_weights([rng.normal(0, 2, w.shape) for w in layer.get_weights()])


@pytest.fixture(scope="session", params=["waveform", "spectrogram"])
def method(request):
    return request.param


@pytest.fixture(scope="session")
def pass_through(tmp_path_factory):
    """A Denoiser that gives its input back."""
    return save_model("waveform", tmp_path_factory.mktemp("pass_through"), keep)


@pytest.fixture(scope="session")
def perturbed(tmp_path_factory, method):
    """A Denoiser, of each method, that changes its input at random, but the same each time."""
    return save_model(method, tmp_path_factory.mktemp(f"perturbed-{method}"), perturb)


# --- files that must be refused -----------------------------------------------------------------


def cut(path, share=0.5, **options):
    """A good file of 2 s of noise that ends too early."""
    sf.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000, **options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def float_wav(path, samples):
    sf.write(path, np.asarray(samples, np.float32), 16_000, subtype="FLOAT")


BAD_FILES = {  # name: (how to make it, what the message must say)
    "missing.wav": (lambda path: None, "no such file"),
    "folder.wav": (lambda path: path.mkdir(), "is a folder"),
    "empty.wav": (lambda path: path.touch(), "is empty"),
    "text.wav": (lambda path: path.write_text("Dear diary"), "not readable as audio"),
    "junk.flac": (lambda path: path.write_bytes(bytes(range(256)) * 40), "not readable as audio"),
    "half.flac": (cut, "damaged|truncated"),
    "last-frame.flac": (lambda path: cut(path, 0.99), "damaged|truncated"),
    "half.wav": (cut, "truncated"),
    "half.aiff": (cut, "truncated"),
    "half.au": (cut, "truncated"),
    "nan.wav": (lambda path: float_wav(path, [0, np.nan, 0.1]), "NaN or infinite"),
    "infinite.wav": (lambda path: float_wav(path, [0.1] * 20_000 + [-np.inf]), "NaN or infinite"),
    "no-samples.wav": (lambda path: float_wav(path, []), "holds no samples"),
}


@pytest.fixture(params=BAD_FILES)
def bad_file(request, tmp_path):
    """A path that cannot be read, and the regular expression that the error must match.

    The message is one line: the path, what is wrong, a semicolon, what to do about it.
    """
    make, reason = BAD_FILES[request.param]
    path = tmp_path / "in" / request.param
    path.parent.mkdir()
    make(path)
    return path, rf"\A{path}: [^;\n]*({reason})[^;\n]*; [a-z][^\n]+\Z"
