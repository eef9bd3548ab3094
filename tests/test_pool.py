"""`helpers.data.pool` and `lengths`: speech cut from files is that of the array in memory."""

import os

import numpy as np
import pytest
import soundfile as sf

from helpers import audio, store
from helpers.data import corpus, dataset, lengths, noise_bank, pool

SAMPLE = store.ROOT / "data" / "sample"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def mixed_folder(tmp_path, speech_files):
    """FLAC as LibriSpeech has it, and what must be made FLAC first: kinds, rates, channels."""
    folder, rng = tmp_path / "speech", np.random.default_rng(0)
    folder.mkdir()
    (folder / "a.flac").write_bytes(speech_files[0].read_bytes())
    loud = rng.uniform(-1.2, 1.2, 9_000)
    sf.write(folder / "b.wav", loud, 16_000, subtype="FLOAT")
    sf.write(folder / "c.flac", loud / 2, 16_000, subtype="PCM_24")
    sf.write(folder / "d.flac", loud / 2, 22_050)
    sf.write(folder / "e.flac", np.stack([loud, loud[::-1]], 1) / 2, 16_000)
    sf.write(folder / "f.mp3", loud / 2, 16_000)
    (folder / "g.flac").write_bytes((folder / "b.wav").read_bytes())  # its name is wrong
    (folder / "h.flac").write_bytes(speech_files[1].read_bytes())
    return folder


def test_slices_are_those_of_the_array(mixed_folder):
    paths = audio.audio_files(mixed_folder)
    array, from_files = dataset.load_speech(paths, verbose=False), pool.Pool(mixed_folder, paths)
    assert len(from_files) == len(array)
    assert from_files.as_it_is.tolist() == [True, False, True, False, True, False, False, True]
    rng = np.random.default_rng(1)
    cuts = [slice(*sorted(rng.integers(0, len(array), 2))) for _ in range(50)]
    cuts += [slice(i, i + 1_000) for i in from_files.ends - 500] + [slice(None), slice(7, 7)]
    for cut in cuts:
        found = from_files[cut]
        assert found.dtype == np.int16
        assert np.array_equal(found, array[cut]), cut
    with pytest.raises(ValueError, match="a step of 2"):
        from_files[::2]


def test_training_pairs_are_those_of_the_array(tmp_path):
    paths = sorted(SAMPLE.glob("*/*/*/*.flac"))
    bank = noise_bank.NoiseBank.render(tmp_path / "bank", n_clips=4, seconds=2, verbose=False)
    one, other = dataset.load_speech(paths, verbose=False), pool.Pool(SAMPLE, paths)
    for item in range(60):
        pairs = [dataset.example(item, speech, bank, 16_000, seed=3) for speech in (one, other)]
        assert np.array_equal(*pairs)


def test_what_is_no_flac_is_decoded_once(mixed_folder, monkeypatch):
    paths = audio.audio_files(mixed_folder)
    first = pool.Pool(mixed_folder, paths)[:]
    monkeypatch.setattr(audio, "read", lambda path: pytest.fail(f"{path}: decoded again"))
    assert np.array_equal(pool.Pool(mixed_folder, paths)[:], first)


def test_a_file_that_is_cut_off_or_gone_is_named(mixed_folder):
    paths = audio.audio_files(mixed_folder)
    speech = pool.Pool(mixed_folder, paths)
    data = paths[0].read_bytes()
    for rest in (data[: len(data) // 2], b""):
        paths[0].write_bytes(rest)
        with pytest.raises(audio.AudioError, match=f"^{paths[0]}: .*; copy it again"):
            speech[: speech.ends[0]]
    paths[-1].unlink()
    with pytest.raises(audio.AudioError, match=f"^{paths[-1]}: .*; copy it again"):
        speech[-10:]


# --- the index of lengths -----------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose headers were read; the index is kept of any number of files."""
    names, read = [], lengths.read_header
    monkeypatch.setattr(lengths, "WORTH_KEEPING", 1)
    monkeypatch.setattr(lengths, "read_header", lambda path: names.append(path.name) or read(path))
    return names


def test_headers_are_read_once_and_again_where_a_file_changed(mixed_folder, opened):
    paths = audio.audio_files(mixed_folder)
    first = lengths.headers(mixed_folder, paths)
    assert opened == [path.name for path in paths]
    opened.clear()
    assert np.array_equal(lengths.headers(mixed_folder, paths), first)
    assert opened == []
    sf.write(paths[1], np.zeros(5_000), 16_000)  # another length
    os.utime(paths[2], ns=(0, 0))  # another time alone
    sf.write(mixed_folder / "new.wav", np.zeros(80), 8_000)
    again = lengths.headers(mixed_folder, audio.audio_files(mixed_folder))
    assert opened == [paths[1].name, paths[2].name, "new.wav"]
    assert again["frames"][1] == 5_000
    assert (again["frames"][-1], again["sr"][-1]) == (80, 8_000)


def test_a_damaged_index_is_made_anew(mixed_folder, opened):
    paths = audio.audio_files(mixed_folder)
    first = lengths.headers(mixed_folder, paths)
    index = lengths.index_path(mixed_folder)
    for content in (b"", b"PK\x03\x04 no archive", index.read_bytes()[:300]):
        index.write_bytes(content)
        assert np.array_equal(lengths.headers(mixed_folder, paths), first)
    assert len(opened) == 4 * len(paths)


def test_a_corpus_reads_the_same_with_its_index(opened):
    first = corpus.read_corpus(SAMPLE)
    opened.clear()
    assert corpus.read_corpus(SAMPLE).equals(first)
    assert opened == []
