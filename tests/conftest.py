"""What several test modules share: quiet TensorFlow on the CPU, a clip, models, bad files.

DENOISER_NO_SKIPS makes a skipped test fail: for targets that install all that their tests need.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.pop("DENOISER_CORPUS", None)  # the reader's own choices do not reach the tests
os.environ.pop("DENOISER_NOISE", None)
os.environ.pop("DENOISER_DEBUG", None)

import contextlib
import hashlib
import json
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import settings

from helpers import audio, reading
from helpers.store import ROOT

SAMPLE = ROOT / "data" / "sample"

settings.register_profile("course", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("course")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("DENOISER_NO_SKIPS"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr[2]}"
    return report


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


@pytest.fixture(scope="session")
def noisy(speech):
    """3 s of a bundled voice in white noise above 4 kHz at 5 dB, float32 (48000,)."""
    noise = np.random.default_rng(0).normal(0, 1, len(speech))
    noise = audio.band_limit(noise, 16_000, 4_000, 8_000)
    return np.float32(speech + noise * np.std(speech) / np.std(noise) * 10 ** (-5 / 20))


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


# --- processes and signals -----------------------------------------------------------------------


def heed_signals():
    """In a process that begins: what runs the tests may ignore signals, as `nohup` and `&` do."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def heeds_ctrl_c():
    """This process heeds Ctrl-C, also where what runs the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def processes_of(session: int) -> list[int]:
    """The living processes of a session, by the sixth field of /proc/PID/stat."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
            if int(number) == session and state != "Z":
                found.append(int(path.parent.name))
    return found


def assert_all_end(session: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(session):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


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


# --- files of which other programs lose sound, or which they refuse ------------------------------


def loud_end(seconds=2.0, sr=16_000):
    """Noise at -40 dBFS, and for the last half at -20 dBFS, float32 `(samples,)`."""
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * sr)).astype(np.float32)
    noise[: len(noise) // 2] *= 0.1
    return noise


def mp3(path, samples, sr=16_000, xing=True, **options):
    """The bytes of an MP3, without its Xing header if told so."""
    sf.write(path, samples, sr, format="MP3", **options)
    data = path.read_bytes()
    return data if xing else data[reading.MpegFrame.at(data, 0).length :]


def riff(path, size=None, riff_size=0, behind=b"", **options):
    """A WAV of `loud_end` whose header says another size in bytes of the sound."""
    sf.write(path, loud_end(), 16_000, format="WAV", **options)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    if size is not None:
        data[place : place + 4] = struct.pack("<I", size % 2**32)
        data[4:8] = struct.pack("<I", riff_size)
    path.write_bytes(data + behind)


def mp3_in_wav(path):
    frames = mp3(path, loud_end(), xing=False)
    header = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16_000, 4_000, 1, 0, 12, 1, 2, 144, 1, 0)
    chunks = [
        b"fmt ",
        struct.pack("<I", len(header)),
        header,
        b"data",
        struct.pack("<I", len(frames)),
    ]
    body = b"WAVE" + b"".join(chunks) + frames
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def joined(path, n=2, tag=b"", **options):
    """The same sound `n` times, as `cat` joins files."""
    sf.write(path, loud_end(), 16_000, **options)
    path.write_bytes((tag + path.read_bytes()) * n)


def quiet_vbr(path):
    """An MP3 without a Xing header that begins in silence: its first frames are small."""
    samples = loud_end(6.0)
    samples[:48_000] = 0
    path.write_bytes(mp3(path, samples, xing=False, bitrate_mode="VARIABLE"))


ID3 = b"ID3\x04\x00\x00\x00\x00\x10\x00" + bytes(2_048)
OPUS = {"format": "OGG", "subtype": "OPUS"}
ODD_FILES = {  # name: (how to make it, seconds of it)
    "no-xing.mp3": (lambda p: p.write_bytes(mp3(p, loud_end(), xing=False)), 2),
    "no-xing-44100.mp3": (
        lambda p: p.write_bytes(mp3(p, loud_end(2.0, 44_100), 44_100, xing=False)),
        2,
    ),
    "vbr-no-xing.mp3": (quiet_vbr, 6),
    "junk-before.mp3": (
        lambda p: p.write_bytes(bytes(700) + mp3(p, loud_end(), xing=False)),
        2,
    ),
    "joined.mp3": (joined, 4),
    "joined-tags.mp3": (lambda p: joined(p, 3, tag=ID3), 6),
    "joined-no-xing.mp3": (lambda p: p.write_bytes(mp3(p, loud_end(), xing=False) * 2), 4),
    "mp3.wav": (mp3_in_wav, 2),
    "chained.ogg": (joined, 4),
    "chained.opus": (lambda p: joined(p, 3, **OPUS), 6),
    "crashed.wav": (lambda p: riff(p, 0), 2),
    "crashed-36.wav": (lambda p: riff(p, 0, 36), 2),
    "crashed-early.wav": (lambda p: riff(p, 1_000, 1_036), 2),
    "crashed-24.wav": (lambda p: riff(p, 0, subtype="PCM_24"), 2),
    "crashed-gsm.wav": (lambda p: riff(p, 0, subtype="GSM610"), 2),
    "too-long.wav": (lambda p: riff(p, 64_000 + 3_200), 2),
    "piped.wav": (lambda p: riff(p, -1, 2**32 - 1), 2),
    "tag-behind.wav": (lambda p: riff(p, behind=b"TAG" + bytes(125)), 2),
    "gsm.wav": (lambda p: riff(p, subtype="GSM610"), 2),
    "g721.wav": (lambda p: riff(p, subtype="G721_32"), 2),
    "g723.au": (lambda p: sf.write(p, loud_end(), 16_000, subtype="G723_24"), 2),
    "nms.wav": (lambda p: riff(p, subtype="NMS_ADPCM_16"), 2),
    "a.vox": (
        lambda p: sf.write(p, loud_end(2, 8_000), 8_000, format="RAW", subtype="VOX_ADPCM"),
        2,
    ),
    "a.gsm": (
        lambda p: sf.write(p, loud_end(2, 8_000), 8_000, format="RAW", subtype="GSM610"),
        2,
    ),
}


@pytest.fixture(params=ODD_FILES)
def odd_file(request, tmp_path):
    """A path of a sound whose end is ten times as loud as its start, and its seconds."""
    make, seconds = ODD_FILES[request.param]
    path = tmp_path / "speaker" / request.param
    path.parent.mkdir()
    make(path)
    return path, seconds


def has_all_of(samples, sr, seconds):
    """Whether a sound of `loud_end`, read again, has all its seconds and its loud end."""
    frame = 1_200 * 2  # samples by which an MP3 without its header is longer
    n = round(seconds * sr)
    ends_loud = audio.level_db(samples[n - sr // 4 : n - sr // 8]) > -26
    return ends_loud and -sr * 0.03 <= len(samples) - n <= 3 * frame
