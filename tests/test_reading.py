"""`helpers.reading`: all of the sound of whatever people bring, or one clear line."""

import hashlib
import os
import re
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import soundfile as sf
from conftest import ID3, OPUS, SAMPLE, has_all_of, joined, loud_end, mp3, riff

from helpers import audio, reading
from helpers.audio import AudioError, AudioWarning
from helpers.data import noise
from helpers.tool.add_noise import add_noise_to_files
from helpers.tool.files import denoise_file

ignores_notes = pytest.mark.filterwarnings("ignore::helpers.audio.AudioWarning")


def samples_of(path):
    """All samples, float32 `(n, channels)`, and their rate."""
    with audio.open_audio(path) as reader:
        samples = np.concatenate(list(reader.blocks(5_000)))
        assert reader.frames == len(samples)
        return samples, reader.samplerate


# --- never less than there is -------------------------------------------------------------------


@ignores_notes
def test_all_of_the_sound_is_read(odd_file):
    path, seconds = odd_file
    with audio.open_audio(path) as reader:
        said = reader.frames
    samples, sr = samples_of(path)
    assert has_all_of(samples[:, 0], sr, seconds)
    assert said == len(samples)
    assert has_all_of(audio.read(path), 16_000, seconds)


@ignores_notes
def test_all_of_the_sound_is_denoised(pass_through, odd_file, tmp_path):
    path, seconds = odd_file
    samples, sr = samples_of(path)
    report = denoise_file(pass_through, path, tmp_path / "b.wav")
    denoised = sf.read(tmp_path / "b.wav")[0]
    assert report["seconds"] == len(samples) / sr == len(denoised) / sr
    assert has_all_of(denoised, sr, seconds)


@ignores_notes
def test_all_of_the_sound_gets_noise(odd_file, tmp_path):
    path, seconds = odd_file
    samples, sr = samples_of(path)
    report = add_noise_to_files(path, tmp_path / "b.flac", band=(1_000, sr / 2), snr_db=40)
    assert not report["failed"]
    noisy = sf.read(tmp_path / "b.flac")[0]
    assert len(noisy) == len(samples)
    assert has_all_of(noisy, sr, seconds)


@ignores_notes
def test_all_of_the_sound_is_noise(odd_file):
    path, seconds = odd_file
    (found,) = noise.recorded_files(path.parent)
    assert has_all_of(noise._read_recording(found), 16_000, seconds)


@pytest.mark.parametrize(("name", "options"), [("a.mp3", {}), ("a.ogg", {}), ("a.opus", OPUS)])
def test_joined_files_are_their_parts_to_the_bit(tmp_path, name, options):
    joined(tmp_path / name, 1, **options)
    one, sr = samples_of(tmp_path / name)
    joined(tmp_path / name, 3, **options)
    three, sr_of_three = samples_of(tmp_path / name)
    assert sr == sr_of_three
    assert np.array_equal(three, np.concatenate([one, one, one]))


def test_an_mp3_with_a_xing_header_then_one_without(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(path, loud_end()) + ID3 + mp3(path, loud_end(), xing=False))
    assert has_all_of(audio.read(path), 16_000, 4)


def test_parts_of_other_rates_are_refused(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(path, loud_end()) + mp3(path, loud_end(), 44_100))
    message = rf"\A{path}: changes after 2\.0 s from 16000 Hz .* to 44100 .*; cut it in two there"
    with pytest.raises(AudioError, match=message):
        audio.read(path)


@ignores_notes
@pytest.mark.parametrize("seed", range(4))
def test_damage_is_one_line_or_all_that_can_be_read(odd_file, seed):
    path, _ = odd_file
    rng, data = np.random.default_rng(seed), bytearray(odd_file[0].read_bytes())
    for place in rng.integers(0, (60, 300, 2_000, len(data))[seed], 30):
        data[place] = rng.integers(256)
    path.write_bytes(data[: len(data) if seed % 2 else int(0.7 * len(data))])
    outcome = "read"
    try:
        assert np.isfinite(audio.read(path)).all()
    except AudioError as error:
        outcome = str(error)
    assert re.fullmatch(rf"read|{path}: [^\n]*; [^\n]*", outcome)


def test_half_an_mp3_is_refused(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(path, loud_end(4.0))[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=rf"\A{path}: truncated, .*; copy it again"):
        audio.read(path)


def test_an_mp3_that_ends_a_frame_early_is_read_with_a_note(tmp_path):
    path = tmp_path / "a.mp3"
    data = mp3(path, loud_end())
    path.write_bytes(data[:-10])
    with pytest.warns(AudioWarning, match=rf"\A{path}: ends 0\.\d+ s before its header says"):
        assert has_all_of(audio.read(path), 16_000, 2)


def test_a_window_shows_what_libsndfile_shall_see(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    with reading.Window(path, reading.Part(10, 20, b"head")) as window:
        assert window.read() == b"head" + bytes(range(10, 20))
        assert window.seek(-3, os.SEEK_END) == 11
        assert window.read(10) == bytes(range(17, 20))
        assert window.seek(2) == window.tell() == 2
        assert window.read(2) == b"ad"
        assert window.read(2) == bytes((10, 11))
        assert window.seek(0, os.SEEK_END) == 14
    with reading.Window(path, reading.Part(10, 20, hide=True)) as window:
        assert window.seek(0, os.SEEK_END) == reading.UNKNOWN
        assert window.read(1) == b""


def test_the_samples_of_an_ordinary_file_stay_the_same():
    """The keys of kept results leave `audio.read` out, so it must not change in silence."""
    path = SAMPLE / "sample-clean" / "9001" / "1" / "9001-1-0000.flac"
    digest = hashlib.sha256(audio.read(path).tobytes()).hexdigest()
    assert digest == "37d03801725160413552be07173c07eea844934c46f31171e5f2a793e59aa05c"


# --- headers of recorders -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1_000])
def test_a_crashed_recorder_loses_nothing_and_it_is_said(tmp_path, size):
    path = tmp_path / "a.wav"
    riff(path)
    whole = audio.read(path)
    riff(path, size)
    note = rf"\A{path}: its header says {size} bytes of sound, 64000 are there and read\Z"
    with pytest.warns(AudioWarning, match=note):
        assert np.array_equal(audio.read(path), whole)


def test_crashed_rf64(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, loud_end(), 16_000, format="RF64")
    data = bytearray(path.read_bytes())
    place = data.index(b"ds64") + 8
    data[place : place + 24] = bytes(24)
    path.write_bytes(data)
    with pytest.warns(AudioWarning, match="64000 are there"):
        assert has_all_of(audio.read(path), 16_000, 2)


@pytest.mark.parametrize("missing", [2, 3_200])
def test_a_size_a_little_too_long_is_taken_with_a_note(tmp_path, missing):
    path = tmp_path / "a.wav"
    riff(path, 64_000 + missing)
    with pytest.warns(AudioWarning, match=rf"\A{path}: ends 0\.\d+ s before its header says"):
        assert len(audio.read(path)) == 32_000


def test_more_than_that_is_missing_sound(tmp_path):
    path = tmp_path / "a.wav"
    riff(path, 64_000 + 4_000)
    with pytest.raises(
        AudioError, match=r"truncated.*; copy it again .*`sox --ignore-length a\.wav"
    ):
        audio.read(path)


@pytest.mark.parametrize(
    "behind",
    [
        b"TAG" + bytes(125),
        b"LIST" + struct.pack("<I", 4) + b"INFO",
        bytes(500),
        b"\0",
        b"id3 \0\0\0\0",
    ],
)
def test_what_stands_behind_the_sound_is_not_read(tmp_path, behind):
    riff(tmp_path / "a.wav", behind=behind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(audio.read(tmp_path / "a.wav")) == 32_000


def test_a_wav_with_a_list_and_no_sound(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, np.zeros(0), 16_000)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(AudioError, match=rf"\A{path}: holds no samples; "):
        audio.read(path)


def test_more_sound_than_a_wav_can_say(tmp_path):
    path = tmp_path / "a.wav"
    riff(path, 1_000)
    with open(path, "ab") as file:
        file.truncate(2**32 + 100_000)  # a hole: it takes no room
    with pytest.raises(AudioError, match=rf"\A{path}: over 4 GiB, .*; write it again with `sox"):
        audio.read(path)


def test_headerless_samples_are_one_line_with_a_command(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(16_000))
    line = r"samples without a header [^;\n]*; [^\n]*`sox -t raw -r 8000 .* a\.raw a\.wav`\Z"
    with pytest.raises(AudioError, match=rf"\A{path}: {line}"):
        audio.open_audio(path)


def test_vox_says_what_was_assumed(tmp_path):
    path = tmp_path / "a.vox"
    sf.write(path, loud_end(2, 8_000), 8_000, format="RAW", subtype="VOX_ADPCM")
    with pytest.warns(AudioWarning, match=rf"\A{path}: has no header; read as 8000 Hz, mono"):
        audio.open_audio(path)


# --- FFmpeg -------------------------------------------------------------------------------------

needs_av = pytest.mark.skipif(reading.av is None, reason="requirements-formats.txt not installed")
KINDS = {  # ending: codec, container, rate
    ".m4a": ("aac", "ipod", 44_100),
    ".mp4": ("aac", "mp4", 48_000),
    ".mov": ("aac", "mov", 16_000),
    ".aac": ("aac", "adts", 16_000),
    ".webm": ("libopus", "webm", 48_000),
    ".mkv": ("flac", "matroska", 16_000),
    ".wma": ("wmav2", "asf", 44_100),
    ".wv": ("wavpack", "wv", 16_000),
    ".amr": ("libopencore_amrnb", "amr", 8_000),
    ".3gp": ("libopencore_amrnb", "3gp", 8_000),
    ".mp2": ("mp2", "mp2", 44_100),
    ".ogg": ("flac", "ogg", 16_000),
}


def encode(path, samples, codec, container, sr, **options):
    """Write `(samples, channels)` by FFmpeg."""
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with reading.av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=sr, layout=layout)
        stream.bit_rate = 12_200 if "amr" in codec else 128_000
        stream.options = options
        convert = reading.av.AudioResampler(stream.codec_context.format.name, layout, sr)
        planes = np.ascontiguousarray(samples.T)
        frame = reading.av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = sr, 0
        for piece in [*convert.resample(frame), None]:
            file.mux(stream.encode(piece))


@pytest.fixture(params=KINDS)
def foreign(request, tmp_path):
    """A path of 2 s of `loud_end` that FFmpeg wrote."""
    codec, container, sr = KINDS[request.param]
    path = tmp_path / "speaker" / f"a{request.param}"
    path.parent.mkdir()
    encode(path, loud_end(2.0, sr)[:, None], codec, container, sr)
    return path


@needs_av
def test_what_phones_record_is_read(pass_through, foreign, tmp_path):
    samples, sr = samples_of(foreign)
    assert sr == KINDS[foreign.suffix][-1]
    assert has_all_of(samples[:, 0], sr, 2)
    assert has_all_of(audio.read(foreign), 16_000, 2)
    assert audio.audio_files(tmp_path) == [foreign]
    denoise_file(pass_through, foreign, tmp_path / "b.flac")
    assert len(sf.read(tmp_path / "b.flac")[0]) == len(samples)
    add_noise_to_files(foreign, tmp_path / "c.flac", band=(1_000, sr / 2), snr_db=40)
    assert has_all_of(sf.read(tmp_path / "c.flac")[0], sr, 2)


@needs_av
@pytest.mark.parametrize(("sample_format", "subtype"), [("s16p", "PCM_16"), ("s32p", "PCM_24")])
def test_lossless_by_ffmpeg_is_exact(tmp_path, sample_format, subtype):
    samples = np.stack([loud_end(), -loud_end()], axis=1)
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype=subtype)
    exact = sf.read(tmp_path / "a.wav", dtype="float32")[0]
    layout, path = "stereo", tmp_path / "a.wv"
    with reading.av.open(str(path), "w", format="wv") as file:
        stream = file.add_stream("wavpack", rate=16_000, layout=layout, format=sample_format)
        whole = np.ascontiguousarray(sf.read(tmp_path / "a.wav", dtype="int32")[0].T)
        whole = np.int16(whole >> 16) if sample_format == "s16p" else whole
        frame = reading.av.AudioFrame.from_ndarray(whole, format=sample_format, layout=layout)
        frame.sample_rate, frame.pts = 16_000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with audio.open_audio(path) as reader:
        assert (reader.subtype, reader.channels) == (subtype, 2)
        assert np.array_equal(np.concatenate(list(reader.blocks(5_000))), exact)


@needs_av
def test_flac_from_a_pipe_is_read_by_ffmpeg(tmp_path):
    path = tmp_path / "a.flac"
    sf.write(path, loud_end(), 16_000)
    exact = audio.read(path)
    forget_length(path)
    assert np.array_equal(audio.read(path), exact)


def forget_length(path):
    """Make a FLAC as a program writes it to a pipe."""
    header = bytearray(path.read_bytes())
    header[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples (RFC 9639)
    header[22:26] = bytes(4)
    path.write_bytes(header)


@needs_av
@pytest.mark.parametrize("ending", [".mkv", ".wv"])
def test_half_a_file_is_refused(tmp_path, ending):
    codec, container, sr = KINDS[ending]
    path = tmp_path / f"a{ending}"
    encode(path, loud_end(20.0, sr)[:, None], codec, container, sr)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        AudioError, match=rf"\A{path}: [^;\n]*(truncated|damaged)[^;\n]*; copy it again"
    ):
        audio.read(path)


@needs_av
def test_a_film_with_two_tracks_and_one_with_none(tmp_path):
    path = tmp_path / "a.mkv"
    with reading.av.open(str(path), "w") as file:
        streams = [file.add_stream("flac", rate=16_000, layout="mono") for _ in range(2)]
        for stream in streams:
            pcm = np.int16(loud_end() * 32_767)[None]
            frame = reading.av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    with pytest.warns(AudioWarning, match=rf"\A{path}: holds 2 tracks of sound; the first is read"):
        assert has_all_of(audio.read(path), 16_000, 2)
    with reading.av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = reading.av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")
        file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    with pytest.raises(AudioError, match=rf"\A{path}: holds no sound; leave it out"):
        audio.read(path)


@needs_av
def test_a_title_in_another_alphabet_does_no_harm(tmp_path):
    path = tmp_path / "a.mkv"
    with reading.av.open(str(path), "w") as file:
        file.metadata["title"] = "TITLE"
        stream = file.add_stream("flac", rate=16_000, layout="mono")
        pcm = np.int16(loud_end() * 32_767)[None]
        frame = reading.av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xfc\xe4\xf6\xdf\xe9"))
    assert has_all_of(audio.read(path), 16_000, 2)


@needs_av
def test_memory_does_not_grow_with_a_foreign_file(tmp_path):
    peaks = []
    for minutes in (1, 3):
        path = tmp_path / f"{minutes}.m4a"
        encode(path, np.resize(loud_end(), (minutes * 960_000, 1)), "aac", "ipod", 16_000)
        tracemalloc.start()
        with audio.open_audio(path) as reader:
            assert sum(map(len, reader.blocks(64_000))) >= minutes * 960_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1e6


STARTS = {  # what the files of KINDS begin with; enough to name the remedy
    "a.m4a": b"\0\0\0\x1cftypM4A ",
    "renamed.mp3": b"\0\0\0\x1cftypM4A ",
    "a.webm": b"\x1aE\xdf\xa3\x9fB",
    "renamed.wav": b"\x1aE\xdf\xa3\x9fB",
    "a.wma": b"0&\xb2u\x8ef\xcf\x11",
    "a.amr": b"#!AMR\n",
    "a.aac": b"\xff\xf1P\x80",
    "a.3gp": b"\0\0\0\x1cftyp3gp4",
    "a.wv": b"wvpk",
}


@pytest.mark.parametrize("name", STARTS)
def test_without_pyav_each_file_is_named_with_the_remedy(tmp_path, monkeypatch, name):
    monkeypatch.setattr(reading, "av", None)
    path = tmp_path / name
    path.write_bytes(STARTS[name] + bytes(5_000))
    remedy = r"`pip install -r requirements-formats\.txt`, or convert it to WAV or FLAC"
    with pytest.raises(
        AudioError, match=rf"\A{path}: not readable without PyAV [^;\n]*; {remedy}\Z"
    ):
        audio.open_audio(path)
    assert audio.audio_files(tmp_path) == [path]


def test_without_pyav_a_flac_from_a_pipe_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "av", None)
    path = tmp_path / "a.flac"
    sf.write(path, loud_end(), 16_000)
    forget_length(path)
    message = r"not readable without PyAV \(its header gives no length\); `pip install"
    with pytest.raises(AudioError, match=rf"\A{path}: {message}"):
        audio.read(path)


def test_bad_files_are_refused_without_pyav_too(bad_file, monkeypatch):
    monkeypatch.setattr(reading, "av", None)
    path, message = bad_file
    with pytest.raises(AudioError, match=message):
        audio.read(path)
