"""`helpers.audio`: files in and out, rates, levels, frames with overlap-add, the STFT."""

import os
import stat

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from helpers import audio, store
from helpers.audio import AudioError
from helpers.store import FileError


def sine(sr, hz=1_000.0, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * sr)) / sr)


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sr", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_read_gives_mono_at_16_khz(tmp_path, sr):
    left, right = sine(sr, amplitude=0.2), sine(sr, amplitude=0.6)
    sf.write(tmp_path / "a.wav", np.stack([left, right], 1), sr, subtype="FLOAT")
    samples = audio.read(tmp_path / "a.wav")
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    middle = slice(1_000, -1_000)  # the converter rings at a cut tone's ends
    np.testing.assert_allclose(samples[middle], sine(16_000, amplitude=0.4)[middle], atol=1e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_read_knows_the_scale_of_each_subtype(tmp_path, subtype):
    sf.write(tmp_path / "a.wav", sine(16_000), 16_000, subtype=subtype)
    step = 2**-7 if subtype == "PCM_U8" else 2**-14
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav"), sine(16_000), atol=step)


def test_read_blocks_joined_are_the_file(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, (2_500, 3)).astype(np.float32)
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with audio.open_audio(tmp_path / "a.wav") as source:
        blocks = list(source.blocks(1_000))
    assert [len(block) for block in blocks] == [1_000, 1_000, 500]
    assert np.array_equal(np.concatenate(blocks), samples)


@pytest.mark.parametrize("length", [0x7FFFF000, 0xFFFFFFFF])  # SoX, FFmpeg
def test_wav_from_a_pipe_is_no_truncated_file(tmp_path, length):
    path = tmp_path / "a.wav"
    sf.write(path, sine(16_000), 16_000)
    header, _, data = path.read_bytes().partition(b"data")
    path.write_bytes(header + b"data" + length.to_bytes(4, "little") + data[4:])
    assert len(audio.read(path)) == 16_000


def test_bad_file_is_refused_in_one_line(bad_file):
    path, message = bad_file
    with pytest.raises(AudioError, match=message):
        audio.read(path)


def test_every_kind_of_sound_is_found(tmp_path):
    for name in ("a.WAV", "b.flac", "c.mp3", "d.opus", "e.aif", "f.raw", "g.txt", "h", "i.m4a"):
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    assert [p.name for p in audio.audio_files(tmp_path)] == [
        "a.WAV",
        "b.flac",
        "c.mp3",
        "d.opus",
        "e.aif",
        "i.m4a",
    ]


# --- writing ------------------------------------------------------------------------------------


def test_write_makes_flac_that_reads_back(tmp_path):
    samples = np.float32(1.5 * sine(22_050, amplitude=1))
    path = tmp_path / "new" / "folder" / "a.flac"
    audio.write(path, samples, sr=22_050)
    info = sf.info(path)
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_16", 22_050)
    np.testing.assert_allclose(sf.read(path)[0], np.clip(samples, -1, 1), atol=2**-14)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_write_keeps_channels(tmp_path):
    samples = np.stack([sine(16_000), -sine(16_000), 0 * sine(16_000)], axis=1)
    audio.write(tmp_path / "a.flac", samples)
    np.testing.assert_allclose(sf.read(tmp_path / "a.flac")[0], samples, atol=2**-14)


def test_write_refuses_an_existing_file_unless_told(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match=rf"\A{path}: exists already; .*--overwrite"):
        audio.write(path, sine(16_000))
    assert path.read_bytes() == b"mine"
    audio.write(path, sine(16_000), overwrite=True)
    assert sf.info(path).frames == 16_000


@pytest.mark.parametrize("existing", [False, True])
def test_failed_writing_leaves_everything_as_it_was(tmp_path, existing):
    path = tmp_path / "a.flac"
    if existing:
        path.write_bytes(b"mine")
    with pytest.raises(FileError, match=rf"\A{path}: cannot be written \(.*; choose another"):
        audio.write(path, np.zeros((100, 9)), overwrite=True)  # more channels than FLAC has
    with pytest.raises(FileError, match=rf"\A{path}: would hold NaN"):
        audio.write(path, np.array([0.1, np.nan]), overwrite=True)

    def stop_halfway():
        with store.atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert [p.name for p in tmp_path.iterdir()] == (["a.flac"] if existing else [])
    assert not existing or path.read_bytes() == b"mine"


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    folder = tmp_path / "file" / "folder"
    with pytest.raises(FileError, match=rf"\A{folder}: cannot be written .*; choose another"):
        audio.write(folder / "a.flac", sine(16_000))
    assert (tmp_path / "file").read_bytes() == b"mine"


# --- rates and levels ---------------------------------------------------------------------------


def test_resample_removes_what_the_lower_rate_cannot_hold():
    mixed = sine(48_000, 1_000) + sine(48_000, 12_000)
    middle = audio.resample(mixed, 48_000, 16_000)[1_000:-1_000]
    np.testing.assert_allclose(middle, sine(16_000, 1_000)[1_000:-1_000], atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "level"),
    [(sine(16_000, amplitude=1), -3.01), (np.full(10, 0.1), -20), (np.zeros(10), -120), ([], -120)],
)
def test_level(samples, level):
    assert audio.level_db(np.asarray(samples)) == pytest.approx(level, abs=0.01)


def test_set_level_reaches_it_and_leaves_silence():
    assert audio.level_db(audio.set_level(sine(16_000), -33.0)) == pytest.approx(-33, abs=1e-3)
    assert not audio.set_level(np.zeros(100), -33.0).any()


# --- frames and the STFT ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("win_length", "hop_length", "window"),
    [
        (512, 256, audio.hann(512)),
        (160, 80, audio.root_hann(160) ** 2),  # once before and once after the model
        (512, 128, audio.hann(512) / 2),  # four Hann windows a quarter apart sum to two
        (64, 16, audio.hann(64) ** 2 / 1.5),
        (64, 64, np.ones(64)),
    ],
)
@given(length=st.integers(1, 3_000))
def test_overlap_add_gives_the_input_back(win_length, hop_length, window, length):
    samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    frames = audio.frame(samples, win_length, hop_length)
    assert frames.shape[1] == win_length
    back = audio.overlap_add(frames * window, hop_length, length)
    np.testing.assert_allclose(back, samples, rtol=0, atol=1e-6)


@given(length=st.integers(0, 5_000))
def test_istft_gives_the_input_back(length):
    samples = np.random.default_rng(length).uniform(-1, 1, length)
    np.testing.assert_allclose(audio.istft(audio.stft(samples), length), samples, atol=1e-12)


def test_stft_finds_a_tone_in_its_bin():
    S = audio.stft(sine(16_000, hz=100 * 16_000 / 512))
    assert S.shape[1] == 257
    assert (np.abs(S[3:-3]).argmax(axis=1) == 100).all()


def test_power_db_is_relative_and_floored():
    power = np.array([4.0, 0.04, 0.0])
    np.testing.assert_allclose(audio.power_db(power, reference=4.0), [0, -20, -120], atol=1e-9)
