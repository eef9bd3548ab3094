"""Recorded noise that people bring: UrbanSound8K, AudioSet, or any folder of sounds.

One table, whatever the layout, so that noise can be split by source. `soundata` reads
UrbanSound8K too; it is not used because it has to fetch an index from the net before it reads.
Taught in `02_noise`.
"""

import json
import re
from pathlib import Path

import pandas as pd

from helpers import audio
from helpers.data import corpus

HUMAN_VOICE = "/m/09l8g"  # AudioSet's node above speech, shouts and singing
YOUTUBE_ID = re.compile(r"Y?([\w-]{11})(?:_\d+(?:\.\d+)?){0,2}")  # [Y]<id>[_start[_end]]
SHORTEST = 0.02  # s; of less nothing is left at the lowest rate
COLUMNS = ["path", "category", "source", "split"]


def read_recordings(folder: Path) -> pd.DataFrame:
    """One row a sound file below `folder`, sorted: path, category, source, split.

    Files of one source never part: `split` is `corpus.hash_split` of it. The source is the field
    recording for UrbanSound8K, the video for AudioSet, and otherwise the category, which is the
    name of the file's folder (several files there may be cuts of one recording). AudioSet clips
    with a human voice in them are left out: no noise. So is what is shorter than SHORTEST. Raises
    corpus.CorpusError for a metadata file that is not what its name says.
    """
    paths = audio.audio_files(folder)
    found = {path: (path.parent.name, path.parent.name) for path in paths}
    for metadata in audio.files_below(folder, lambda path: path.name == "UrbanSound8K.csv"):
        found |= urbansound8k(metadata)
    for segments in audio.files_below(folder, lambda path: path.name.endswith("_segments.csv")):
        labels = audioset(segments)
        for path in paths:
            match = YOUTUBE_ID.fullmatch(path.stem)
            if match and match[1] in labels:
                found[path] = (labels[match[1]], match[1])
    rows = [
        (path, category, source, corpus.hash_split(source))
        for path, (category, source) in found.items()
        if category and path.exists() and not is_too_short(path)
    ]
    return pd.DataFrame(sorted(rows), columns=COLUMNS)


def is_too_short(path: Path) -> bool:
    """Whether a file says that it has next to nothing; one that cannot be read is told later."""
    try:
        with audio.open_audio(path) as reader:
            frames, sr = reader.frames, reader.samplerate
    except (audio.AudioError, OSError):
        return False
    return frames is not None and frames < SHORTEST * sr


def urbansound8k(metadata: Path) -> dict[Path, tuple[str, str]]:
    """File -> (class, Freesound recording) from `metadata/UrbanSound8K.csv`.

    J. Salamon, C. Jacoby and J. Bello, "A dataset and taxonomy for urban sound research", ACM
    Multimedia 2014; the sounds lie in `audio/fold<1-10>/`. CC BY-NC: not for commerce.
    """
    table = read_csv(metadata, ["slice_file_name", "fsID", "fold", "class"])
    sounds = metadata.parents[1] / "audio"
    return {
        sounds / f"fold{row.fold}" / row.slice_file_name: (row["class"], f"freesound-{row.fsID}")
        for _, row in table.iterrows()
    }


def audioset(segments: Path) -> dict[str, str]:
    """YouTube id -> its first label, by name where `ontology.json` lies beside the list.

    The list is AudioSet's `*_segments.csv` (Gemmeke et al., "Audio Set: an ontology and
    human-labeled dataset for audio events", ICASSP 2017). A clip with a human voice has the
    label "". AudioSet gives no sound: the clips are those that the user has, named by their id.
    """
    names = ["YTID", "start_seconds", "end_seconds", "positive_labels"]
    table = read_csv(segments, names, comment="#", header=None, names=names, skipinitialspace=True)
    ontology_path = segments.with_name("ontology.json")
    nodes = json.loads(ontology_path.read_text()) if ontology_path.exists() else []
    ontology = {node["id"]: node for node in nodes}
    voices, waiting = {HUMAN_VOICE, "/m/09x0r"}, [HUMAN_VOICE]  # at least voice and speech
    while waiting:
        below = ontology.get(waiting.pop(), {}).get("child_ids", [])
        waiting += below
        voices |= set(below)
    labels = {}
    for row in table.itertuples():
        ids = row.positive_labels.split(",")
        name = ontology.get(ids[0], {}).get("name", ids[0])
        labels[row.YTID] = "" if voices & set(ids) else name
    return labels


def read_csv(path: Path, columns: list[str], **options) -> pd.DataFrame:
    """A metadata table with these columns. Raises CorpusError, naming the file, if it is not."""
    try:
        table = pd.read_csv(path, **options)
    except (ValueError, OSError) as error:
        raise corpus.CorpusError(f"{path}: not a table ({error}); fetch it again") from error
    if missing := [name for name in columns if name not in table]:
        raise corpus.CorpusError(f"{path}: no column {', '.join(missing)}; fetch it again")
    if table[columns].isna().any(axis=None):
        raise corpus.CorpusError(f"{path}: rows with too few columns; fetch it again")
    return table
