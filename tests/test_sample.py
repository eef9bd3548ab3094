"""The bundled sample of synthetic voices: complete, well formed, and split as its card says."""

import collections
import hashlib
import json
import re
from pathlib import Path

import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"
SOURCE = ROOT.parent / "shared" / "sample" / "flac"  # the clips as they were made, where present
FILES = sorted(SAMPLE.glob("sample-clean/*/*/*.flac"))


def split_of(speaker: str) -> str:
    """The course's split, written out again so that a change of either shows."""
    digest = hashlib.sha256(f"0:{speaker}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.6 else "validation" if share < 0.8 else "test"


@pytest.fixture(scope="module")
def speakers() -> dict[str, tuple[str, str]]:
    """Speaker id -> (sex, voice), from SPEAKERS.TXT."""
    lines = (SAMPLE / "SPEAKERS.TXT").read_text(encoding="utf-8").splitlines()
    rows = [[f.strip() for f in line.split("|")] for line in lines if not line.startswith(";")]
    assert {row[2] for row in rows} == {"sample-clean"}
    assert all(row[4].endswith(" (synthetic)") for row in rows)
    return {row[0]: (row[1], row[4].removesuffix(" (synthetic)")) for row in rows}


@pytest.fixture(scope="module")
def transcripts() -> dict[str, str]:
    """Utterance id -> text; no id may stand twice."""
    lines = [
        line.split(" ", 1)
        for path in SAMPLE.glob("sample-clean/*/*/*.trans.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(dict(lines)) == len(lines)
    return dict(lines)


def test_every_file_decodes_at_16_khz_mono():
    seconds = 0.0
    for path in FILES:
        samples, sr = sf.read(path, dtype="float32")
        assert (sr, samples.ndim) == (16_000, 1), path
        assert 0.1 < abs(samples).max() <= 0.951, path
        seconds += len(samples) / sr
    assert 230 <= seconds <= 260


def test_48_utterances_of_8_speakers_named_as_librispeech_does(speakers):
    assert len(FILES) == 48
    for path in FILES:
        speaker, chapter = path.parts[-3:-1]
        assert re.fullmatch(rf"{speaker}-{chapter}-\d{{4}}", path.stem)
    counts = collections.Counter(path.parts[-3] for path in FILES)
    assert counts == dict.fromkeys(speakers, 6)
    assert len(speakers) == 8
    assert collections.Counter(sex for sex, _ in speakers.values()) == {"F": 4, "M": 4}


def test_small_enough_to_ship():
    total = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert total <= 10_000_000


def test_every_utterance_has_its_transcript(transcripts, speakers):
    assert sorted(transcripts) == [path.stem for path in FILES]
    assert all(re.fullmatch(r"[A-Z']+( [A-Z']+)+", text) for text in transcripts.values())
    sentences = json.loads((SAMPLE / "sentences.json").read_text(encoding="utf-8"))
    written = {row["file"]: re.findall(r"[A-Z']+", row["text"].upper()) for row in sentences}
    for utterance, text in transcripts.items():
        assert text.split() == written[clip_name(utterance, speakers)], utterance


def test_every_split_has_both_sexes(speakers):
    found = collections.Counter((split_of(s), sex) for s, (sex, _) in speakers.items())
    assert found == {
        ("train", "F"): 2,
        ("train", "M"): 2,
        ("validation", "F"): 1,
        ("validation", "M"): 1,
        ("test", "F"): 1,
        ("test", "M"): 1,
    }


def test_card_agrees_with_the_files(speakers):
    card = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert "SYNTHETIC VOICES" in card.splitlines()[0]
    rows = re.findall(r"^\| (9\d+) \| (\w+) \| ([FM]) \| \w+ \| (\w+) \|$", card, re.MULTILINE)
    assert rows == [(s, voice, sex, split_of(s)) for s, (sex, voice) in speakers.items()]


@pytest.mark.skipif(not SOURCE.is_dir(), reason="../shared/sample is not here")
def test_bytes_are_those_of_the_source(speakers):
    for path in FILES:
        assert path.read_bytes() == (SOURCE / clip_name(path.stem, speakers)).read_bytes(), path


def clip_name(utterance: str, speakers: dict[str, tuple[str, str]]) -> str:
    """`9001-1-0000` -> `af_sarah_1.flac`."""
    speaker, _, number = utterance.split("-")
    return f"{speakers[speaker][1]}_{int(number) + 1}.flac"
