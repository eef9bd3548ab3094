"""Which utterances exist, where they lie, who speaks, and which split they belong to.

Reads the LibriSpeech layout `<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac`
(Panayotov et al., ICASSP 2015), VoxPopuli's lists, and any folders of sounds, one for each speaker.
Taught in `01_dataset`.
"""

import csv
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import audio
from helpers.data import lengths
from helpers.store import ROOT, shown

SPLIT_SEED = 0
SPLITS = ("train", "validation", "test", "other")
OFFICIAL_SPEAKERS = 20  # an official subset with fewer speakers is only a slice of it
ENOUGH_SPEAKERS = 20  # of which `hash_split` leaves each split some, in 98 of 100 corpora
OFFICIAL = {"train-clean": "train", "dev-clean": "validation", "test-clean": "test"}
OWN = "own"  # the subset of a corpus that is none of the known ones
SUBSETS = {  # hours and speakers of the whole corpus, Panayotov et al., table 1
    "dev-clean": (5.4, 40),
    "test-clean": (5.4, 40),
    "dev-other": (5.3, 33),
    "test-other": (5.1, 33),
    "train-clean-100": (100.6, 251),
    "train-clean-360": (363.6, 921),
    "train-other-500": (496.7, 1166),
}


class CorpusError(RuntimeError):
    """No usable corpus; the message names the place and the remedy in one line."""


def find_data(name: str) -> Path | None:
    """The one place where data is looked for: `name` is "LibriSpeech" or "noise".

    In order: the environment variable (DENOISER_CORPUS, DENOISER_NOISE), `data/<name>`,
    `../shared/<name>`. None when there is none; CorpusError when the variable names no folder.
    """
    variable = {"LibriSpeech": "DENOISER_CORPUS", "noise": "DENOISER_NOISE"}[name]
    if chosen := os.environ.get(variable):
        folder = Path(chosen).expanduser()
        folder = folder if folder.is_absolute() else ROOT / folder
        if not folder.is_dir():
            raise CorpusError(f"{variable}={chosen}: no such folder; correct or unset {variable}")
        return folder
    for folder in (ROOT / "data" / name, ROOT.parent / "shared" / name):
        if folder.is_dir():
            return folder
    return None


def find_corpus(verbose: bool = False) -> Path:
    """The speech corpus to use, falling back to the bundled sample; `verbose` prints the choice."""
    folder = find_data("LibriSpeech") or ROOT / "data" / "sample"
    if verbose:
        note = " (the bundled sample of synthetic voices)" if is_sample(folder) else ""
        print(f"Corpus: {shown(folder)}{note}")
    return folder


def find_noise(verbose: bool = False) -> Path | None:
    """The folder of recorded noise, None where there is none; `verbose` prints the choice."""
    folder = find_data("noise")
    if verbose:
        print(f"Recorded noise: {shown(folder) if folder else 'none found, synthetic noise only'}")
    return folder


def is_sample(folder: Path) -> bool:
    """Whether this corpus is the bundled sample of synthetic voices."""
    return Path(folder).resolve() == (ROOT / "data" / "sample").resolve()


def read_corpus(folder: Path, subsets: list[str] | None = None) -> pd.DataFrame:
    """One row an utterance, sorted by its id, with its split.

    Columns: utterance, subset, speaker, chapter, sex ("F", "M" or None), seconds, text (None
    without a transcript), path, split (see `add_splits`). A folder with VoxPopuli's lists is
    read by `read_voxpopuli`, one of other layout than LibriSpeech's by `read_own`. Raises
    CorpusError for a folder without sounds, or with one that cannot be read.
    """
    folder = Path(folder)
    if listings := [p for deep in ("", "*/", "*/*/") for p in folder.glob(f"{deep}asr_*.tsv")]:
        return read_voxpopuli(sorted(listings))
    sounds = audio.audio_files(folder)
    files = [path for path in sounds if is_librispeech(path.relative_to(folder))]
    if sounds and not files and subsets is None:
        return read_own(folder, sounds)
    if not any(subsets is None or path.parts[-4] in subsets for path in files):
        raise CorpusError(
            f"{folder}: no {'|'.join(subsets or ['<subset>'])}/<speaker>/<chapter>/*.flac here; "
            "run `python -m helpers download dev-clean` or set DENOISER_CORPUS"
        )
    if n_left := len(sounds) - len(files):
        audio.note(folder, f"{n_left} sounds outside <subset>/<speaker>/<chapter>/ are left out")
    table = read_librispeech(folder, files)
    return table if subsets is None else table[table.subset.isin(subsets)].reset_index(drop=True)


def read_librispeech(folder: Path, files: list[Path]) -> pd.DataFrame:
    """The table of `read_corpus` from sounds of `is_librispeech`."""
    sexes, texts = read_sexes(folder), read_transcripts(folder)
    durations = seconds(folder, files)
    rows = [
        {
            "utterance": path.stem,
            "subset": path.parts[-4],
            "speaker": path.parts[-3],
            "chapter": path.parts[-2],
            "sex": sexes.get(path.parts[-3]),
            "seconds": duration,
            "text": texts.get(path.stem),
            "path": path,
        }
        for path, duration in zip(files, durations, strict=True)
    ]
    return add_splits(pd.DataFrame(rows).sort_values("utterance", ignore_index=True))


def is_librispeech(path: Path) -> bool:
    """Whether `<subset>/<speaker>/<chapter>/<name>` is LibriSpeech's: its subset is one of
    SUBSETS or its name begins with the speaker. The sound may be of any kind."""
    return len(path.parts) == 4 and (
        path.parts[0] in SUBSETS or path.name.startswith(path.parts[1])
    )


def read_own(folder: Path, sounds: list[Path]) -> pd.DataFrame:
    """The table of `read_corpus` from sounds in any folders: those of one folder are one speaker.

    The folder is the first below `folder`, or below what all sounds lie in. Sounds outside of
    folders each count as a speaker of their own, which is said (AudioWarning): one voice may then
    stand in training and in the test. Raises CorpusError for two sounds of one name.
    """
    top = Path(os.path.commonpath([path.parent for path in sounds]))
    rows = []
    for path, duration in zip(sounds, seconds(folder, sounds), strict=True):
        inner = path.relative_to(top).with_suffix("").parts
        rows.append(
            {
                "utterance": "-".join(inner),
                "subset": OWN,
                "speaker": inner[0],
                "chapter": inner[-2] if len(inner) > 1 else inner[0],
                "sex": None,
                "seconds": duration,
                "text": None,
                "path": path,
            }
        )
    table = pd.DataFrame(rows).sort_values("utterance", ignore_index=True)
    if not (twice := table[table.utterance.duplicated(keep=False)]).empty:
        one, other = twice.path.iloc[:2]
        raise CorpusError(f"{one}: named as {other.relative_to(folder)} is; rename one")
    if flat := sum(path.parent == top for path in sounds):
        audio.note(
            top,
            f"{flat} sounds lie in no folder of a speaker and each count as one, so a voice may "
            "stand in training and in the test, which flatters the scores; make a folder for each",
        )
    return check_speakers(add_splits(table), folder)


def check_speakers(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The table itself, if training and the test find speakers in it. Raises CorpusError."""
    if empty := [name for name in SPLITS[:3] if not (table.split == name).any()]:
        none, there = " and ".join(empty), speakers_by_split(table)
        raise CorpusError(
            f"{folder}: too few speakers, none for {none} ({there}); add speakers, each in a "
            f"folder of its own, {ENOUGH_SPEAKERS} or more in all"
        )
    return table


def speakers_by_split(table: pd.DataFrame) -> str:
    """How many speakers each split has, as text."""
    counts = table.groupby("split").speaker.nunique()
    return ", ".join(f"{counts.get(name, 0)} in {name}" for name in SPLITS)


def read_voxpopuli(listings: list[Path]) -> pd.DataFrame:
    """The table of `read_corpus` from VoxPopuli's `<language>/asr_{train,dev,test}.tsv`.

    C. Wang et al., "VoxPopuli: a large-scale multilingual speech corpus", ACL 2021; the sound of
    `<id>` lies in `<language>/<year>/<id>.ogg`, and rows without it are left out. The subset is
    the language, the chapter the session. Splits are by speaker here too, not those of the
    lists. Raises CorpusError for a list of other columns, or when no sound is there.
    """
    rows = []
    for listing in listings:
        table = pd.read_csv(listing, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, na_filter=False)
        needed = ("id", "normalized_text", "speaker_id", "gender")
        if missing := [name for name in needed if name not in table]:
            raise CorpusError(f"{listing}: no column {', '.join(missing)}; fetch it again")
        for row in table.itertuples():
            path = listing.parent / row.id[:4] / f"{row.id}.ogg"
            session = re.split(r"[-_]\d{8}-\d\d:", row.id)[0]  # cut at the time of day
            if path.exists():
                rows.append(
                    {
                        "utterance": row.id,
                        "subset": listing.parent.name,
                        "speaker": session if row.speaker_id == "None" else row.speaker_id,
                        "chapter": session,
                        "sex": {"female": "F", "male": "M"}.get(row.gender),
                        "text": row.normalized_text.upper(),
                        "path": path,
                    }
                )
    if not rows:
        raise CorpusError(
            f"{listings[0]}: no <year>/<id>.ogg of this list is here; cut the sounds first "
            "(python -m voxpopuli.get_asr_data)"
        )
    folder = Path(os.path.commonpath([listing.parent for listing in listings]))
    durations = seconds(folder, [row["path"] for row in rows])
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("text"), "seconds", durations)
    return add_splits(table.sort_values("utterance", ignore_index=True))


def seconds(folder: Path, paths: list[Path]) -> np.ndarray:
    """Seconds of each sound below `folder`, float64 `(paths,)`, from its header where that says it.

    Raises CorpusError naming a file that cannot be read.
    """
    try:
        headers = lengths.headers(folder, paths)
    except audio.AudioError as error:
        raise CorpusError(str(error)) from error
    return headers["frames"] / headers["sr"]


def read_sexes(folder: Path) -> dict[str, str]:
    """Speaker id -> "F" or "M" from SPEAKERS.TXT, empty where there is none."""
    listing = Path(folder) / "SPEAKERS.TXT"
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    fields = (line.split("|") for line in lines if "|" in line and not line.startswith(";"))
    return {field[0].strip(): field[1].strip() for field in fields}


def read_transcripts(folder: Path) -> dict[str, str]:
    """Utterance id -> its text in capitals, from every `*.trans.txt`."""
    texts = {}
    for listing in Path(folder).glob("*/*/*/*.trans.txt"):
        for line in listing.read_text(encoding="utf-8").splitlines():
            utterance, _, text = line.strip().partition(" ")
            texts[utterance] = text
    return texts


def hash_split(key: str, seed: int = SPLIT_SEED) -> str:
    """60 % train, 20 % validation, 20 % test by the SHA-256 of a key.

    The answer for one key never depends on which others exist, so a split is stable when files
    are added. The keys are speakers for speech and categories for recorded noise.
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.6 else "validation" if share < 0.8 else "test"


def add_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `split`: a speaker stands in one split only.

    The official roles are used where all three are there (train-clean-* train, dev-clean
    validation, test-clean test; each with at least OFFICIAL_SPEAKERS speakers). Otherwise every
    speaker of the clean subsets is put by `hash_split`. The *other* subsets are for
    generalisation only: split "other".
    """
    role = table.subset.map(lambda s: next((r for p, r in OFFICIAL.items() if s.startswith(p)), ""))
    speakers = table.groupby(role).speaker.nunique()
    official = all(speakers.get(r, 0) >= OFFICIAL_SPEAKERS for r in OFFICIAL.values())
    split = role.where(role != "", "train") if official else table.speaker.map(hash_split)
    table["split"] = split.where(~table.subset.str.contains("other"), "other")
    return table


# --- choosing utterances ------------------------------------------------------------------------


def pick(table: pd.DataFrame, split: str, n_utterances: int) -> pd.DataFrame:
    """At most `n_utterances` of a split (0: all), or of each of several, as "test+other".

    Its speakers are taken in turn, so that many are heard. Raises ValueError for a split without
    utterances, as a corpus of few speakers has.
    """
    parts = []
    for name in split.split("+"):
        chosen = by_turns(table[table.split == name], "utterance")
        parts.append(chosen.head(n_utterances or len(chosen)))
    utterances = pd.concat(parts, ignore_index=True)
    if utterances.empty:
        if unknown := [name for name in split.split("+") if name not in SPLITS]:
            raise ValueError(f"no split is named {unknown[0]!r}; choose from {', '.join(SPLITS)}")
        raise ValueError(
            f"no utterance of split {split!r} here (speakers: {speakers_by_split(table)}); add "
            f"speakers, {ENOUGH_SPEAKERS} or more in all, or choose another split"
        )
    return utterances


def by_turns(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows with the speakers taking turns, each turn sorted by a column."""
    turn = table.groupby("speaker").cumcount()
    return table.assign(turn=turn).sort_values(["turn", column]).drop(columns="turn")
