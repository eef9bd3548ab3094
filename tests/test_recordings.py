"""`helpers.data.recordings`: readers of recorded noise, on small trees in the real layouts."""

import json

import numpy as np
import pytest

from helpers import audio, reading
from helpers.data import corpus, noise, recordings


def sound(path, seed=0):
    """A short sound file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, np.random.default_rng(seed).uniform(-0.1, 0.1, 800).astype(np.float32))
    return path


URBANSOUND8K = """slice_file_name,fsID,start,end,salience,fold,classID,class
100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark
100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing
100263-2-0-121.wav,100263,60.5,64.5,1,5,2,children_playing
100648-1-0-0.wav,100648,4.823402,5.471927,2,10,1,car_horn
"""


@pytest.fixture
def urbansound8k(tmp_path):
    """UrbanSound8K's tree with three of its four listed files, inside a folder of noise."""
    root = tmp_path / "noise" / "UrbanSound8K"
    (root / "metadata").mkdir(parents=True)
    (root / "metadata" / "UrbanSound8K.csv").write_text(URBANSOUND8K)
    for name in ("fold5/100032-3-0-0", "fold5/100263-2-0-117", "fold5/100263-2-0-121"):
        sound(root / "audio" / f"{name}.wav")
    return root


def test_urbansound8k_gives_classes_and_sources(urbansound8k):
    table = recordings.read_recordings(urbansound8k.parent)
    assert list(table.category) == ["dog_bark", "children_playing", "children_playing"]
    assert list(table.source) == ["freesound-100032", "freesound-100263", "freesound-100263"]
    assert all(path.exists() for path in table.path)
    assert list(table.split) == [corpus.hash_split(source) for source in table.source]


def test_other_folders_stand_beside_it(urbansound8k):
    sound(urbansound8k.parent / "rain" / "roof.flac")
    table = recordings.read_recordings(urbansound8k.parent)
    assert set(table.category) == {"dog_bark", "children_playing", "rain"}
    assert list(table.path) == sorted(table.path)


def test_slices_of_one_recording_never_part(tmp_path):
    rows = [f"{i}-0-0-{k}.wav,{i},0,4,1,1,0,drilling" for i in range(40) for k in range(2)]
    (tmp_path / "metadata").mkdir()
    header = URBANSOUND8K.splitlines()[0]
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text("\n".join([header, *rows]))
    for row in rows:
        sound(tmp_path / "audio" / "fold1" / row.split(",")[0])
    table = recordings.read_recordings(tmp_path)
    assert len(table) == 80
    assert (table.groupby("source").split.nunique() == 1).all()
    assert set(table.split) == {"train", "validation", "test"}  # one class, three splits


SEGMENTS = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=20550, num_segs=20550, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/07pb8fc,/t/dd00088"
Y-xYTID12_4, 50.000, 60.000, "/m/07pb8fc,/m/05zppz"
-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"
0abcdefghij, 0.000, 10.000, "/m/0k4j"
"""
ONTOLOGY = [
    {"id": "/m/09l8g", "name": "Human voice", "child_ids": ["/m/09x0r"]},
    {"id": "/m/09x0r", "name": "Speech", "child_ids": ["/m/05zppz"]},
    {"id": "/m/05zppz", "name": "Male speech, man speaking", "child_ids": []},
    {"id": "/m/07pb8fc", "name": "Crackle", "child_ids": []},
    {"id": "/m/03v3yw", "name": "Keys jangling", "child_ids": []},
]


def test_a_linked_data_set_keeps_its_metadata(tmp_path, urbansound8k):
    (tmp_path / "AudioSet" / "clips").mkdir(parents=True)
    (tmp_path / "AudioSet" / "eval_segments.csv").write_text(
        SEGMENTS.replace("/m/05zppz", "/m/09x0r")
    )
    for name in ("--PJHxphWEs", "Y-xYTID12_4"):  # the second with a voice
        sound(tmp_path / "AudioSet" / "clips" / f"{name}.wav")
    linked = tmp_path / "linked"
    linked.mkdir()
    for place in (urbansound8k, tmp_path / "AudioSet"):
        (linked / place.name).symlink_to(place)
    table = recordings.read_recordings(linked)
    assert set(table.category) == {"dog_bark", "children_playing", "/m/07pb8fc"}


def test_audioset_names_labels_and_leaves_voices_out(tmp_path):
    (tmp_path / "balanced_train_segments.csv").write_text(SEGMENTS)
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    for name in ("--PJHxphWEs", "Y-xYTID12_4", "Y-0RWZT-miFs_420.000_430.000", "0abcdefghij_0"):
        sound(tmp_path / "clips" / f"{name}.wav")
    table = recordings.read_recordings(tmp_path).set_index("source")
    assert dict(table.category) == {
        "--PJHxphWEs": "Crackle",
        "-0RWZT-miFs": "Keys jangling",
        "0abcdefghij": "/m/0k4j",  # a label that the ontology here does not name
    }


def test_audioset_without_ontology_still_knows_speech(tmp_path):
    text = SEGMENTS.replace("/m/05zppz", "/m/09x0r")
    (tmp_path / "eval_segments.csv").write_text(text)
    for name in ("--PJHxphWEs", "Y-xYTID12_4"):
        sound(tmp_path / f"{name}.wav")
    assert list(recordings.read_recordings(tmp_path).category) == ["/m/07pb8fc"]


@pytest.mark.parametrize("text", ["<html>not here</html>", "", "slice_file_name,fsID\na.wav,1\n"])
def test_metadata_that_is_something_else(tmp_path, text):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text(text)
    with pytest.raises(corpus.CorpusError, match=r"UrbanSound8K\.csv.*fetch it again"):
        recordings.read_recordings(tmp_path)


def test_truncated_segments(tmp_path):
    (tmp_path / "eval_segments.csv").write_text(SEGMENTS + "0abcdefghik, 0.000")
    with pytest.raises(corpus.CorpusError, match=r"eval_segments\.csv"):
        recordings.read_recordings(tmp_path)


def test_any_folder_splits_by_category(tmp_path):
    for name in ("rain/a.flac", "rain/b.wav", "saw/c.flac"):
        sound(tmp_path / name)
    (tmp_path / "rain" / "readme.txt").write_text("no sound")
    table = recordings.read_recordings(tmp_path)
    assert list(table.category) == ["rain", "rain", "saw"]
    assert (table.source == table.category).all()


def test_noise_is_made_of_what_was_read(urbansound8k):
    files = noise.recorded_files(urbansound8k.parent)
    made = noise.make("recorded", 4_000, 16_000, np.random.default_rng(0), 0, 8_000, files)
    assert made.shape == (4_000,)
    assert abs(np.sqrt(np.mean(made**2)) - 1) < 1e-3


def test_empty_folder(tmp_path):
    assert recordings.read_recordings(tmp_path).empty
    assert noise.recorded_files(tmp_path) == []
    with pytest.raises(ValueError, match=rf"\A{tmp_path}: no sounds below .*; fill it or unset"):
        noise.recorded_files(tmp_path, "train")


def test_a_folder_of_which_training_would_use_nothing(tmp_path):
    source = next(name for name in "abcdefgh" if corpus.hash_split(name) != "train")
    sound(tmp_path / source / "a.flac")
    assert len(noise.recorded_files(tmp_path)) == 1
    message = rf"\A{tmp_path}: no recordings for train among its 1; .* spread them over ten or more"
    with pytest.raises(ValueError, match=message):
        noise.recorded_files(tmp_path, "train")


def test_a_recording_that_cannot_be_read_is_named_when_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "av", None)
    path = tmp_path / "rain" / "memo.m4a"
    path.parent.mkdir()
    path.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(1_000))
    files = noise.recorded_files(tmp_path)
    assert files == [path]
    with pytest.raises(audio.AudioError, match=rf"\A{path}: not readable without PyAV .*; `pip"):
        noise.make("recorded", 4_000, 16_000, np.random.default_rng(0), 0, 8_000, files)
