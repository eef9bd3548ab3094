"""`helpers.denoise.stream` and `helpers.tool.files`: arrays, streams, files of every kind, folders.

Most tests use a model that passes everything, so that the right answer is the input.
"""

import copy

import numpy as np
import pytest
import soundfile as sf
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import audio
from helpers.audio import AudioError
from helpers.denoise import Denoiser, Stream
from helpers.models.blocks import WaveformWrapper
from helpers.store import FileError
from helpers.tool import files
from helpers.tool.files import denoise_file

SR = 16_000


def random_clip(*shape):
    return np.random.default_rng(shape).uniform(-0.5, 0.5, shape).astype(np.float32)


def low_clip(sr, n_samples, n_channels):
    """Another chord in each channel, below 3 kHz and faded, so that every rate can hold it."""
    t = np.arange(n_samples)[:, None] / sr
    notes = np.linspace(200, 3_000, 5)[:, None] - 17 * np.arange(n_channels)
    chords = sum(np.sin(2 * np.pi * note * t) for note in notes) / 10
    return chords * np.hanning(n_samples)[:, None]


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- arrays and streams -------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 2, 159, 160, 16_000, 70_001])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_call_keeps_shape_and_channels_apart(perturbed, n_samples, channels):
    noisy = random_clip(n_samples, *channels)
    denoised = perturbed(noisy)
    assert denoised.shape == noisy.shape
    assert denoised.dtype == np.float32
    if channels:
        np.testing.assert_allclose(denoised[:, 1], perturbed(noisy[:, 1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_samples", [1, 161, 70_001])
def test_pass_through_gives_the_input_back(pass_through, n_samples):
    noisy = random_clip(n_samples)
    np.testing.assert_allclose(pass_through(noisy), noisy, rtol=0, atol=1e-6)


def test_blocks_do_not_show(perturbed):
    noisy = random_clip(130_000)  # three blocks; the wrapper takes it in one piece
    whole = tf.function(WaveformWrapper(perturbed.model, perturbed.hop_length))(noisy[None])[0]
    assert not np.allclose(whole, noisy, atol=0.1)
    np.testing.assert_allclose(perturbed(noisy), whole, rtol=0, atol=1e-5)


@settings(max_examples=6)
@given(sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=6))
def test_stream_does_not_depend_on_how_it_is_fed(perturbed, sizes):
    noisy = random_clip(sum(sizes), 2)
    stream = Stream(perturbed, 2)
    parts = [stream.process(block) for block in np.split(noisy, np.cumsum(sizes)[:-1])]
    denoised = np.concatenate([*parts, stream.finish()])
    assert denoised.shape == noisy.shape
    np.testing.assert_allclose(denoised, perturbed(noisy), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gated", [False, True])
def test_a_sample_waits_for_the_latency_at_most_and_one_does(perturbed, gated):
    denoiser, n = with_settings(perturbed, by_frequency=gated), 5_200  # all phases of both frames
    stream, came = Stream(denoiser, 1), []  # came[i]: after how many samples sample i was there
    for i, sample in enumerate(random_clip(n, 1), start=1):
        came += [i] * len(stream.process(sample[None]))
    waited = np.array(came) - np.arange(len(came))
    assert waited.max() == denoiser.latency_ms * SR / 1000


def test_the_first_sound_of_a_stream_comes_with_the_last_sample_of_its_frame(perturbed):
    stream, hop = Stream(perturbed, 1), perturbed.hop_length
    out = [len(stream.process(random_clip(hop, 1))) for _ in range(6)]
    waits = perturbed.win_length // hop - 1
    assert out == [0] * waits + [hop] * (6 - waits)


@pytest.mark.parametrize("n_samples", [1, 8_000, 64_000, 70_001])
def test_work_is_proportional_to_length(pass_through, n_samples):
    """A clip of half a second must not pay for a block of four."""
    frames, counted = [], copy.copy(pass_through.engine)

    def counting(windows, states):
        frames.append(windows.shape[1])
        return pass_through.engine.step(windows, states)

    counted.step = counting
    with_settings(pass_through, engine=counted)(random_clip(n_samples))
    overlap, hop = pass_through.win_length - pass_through.hop_length, pass_through.hop_length
    assert sum(frames) == -(-(n_samples + overlap) // hop)


def test_a_model_is_built_once_for_all_lengths_and_channels(pass_through):
    for shape in [(100,), (8_000,), (9_000, 2), (70_001,), (70_001, 3)]:
        pass_through(random_clip(*shape))
    assert pass_through.engine.compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("size", [10_000.0, -1e20])
@pytest.mark.parametrize("sr", [16_000, 44_100])
def test_one_sample_far_too_loud_is_not_heard_after_it(tmp_path, speech, sr, size):
    denoiser = Denoiser("spectrogram")  # the shipped weights, which hear how loud the input is
    noisy = np.tile(speech, 3) + 0.02 * random_clip(3 * len(speech))
    outputs = []
    for sample in (noisy[sr], size):
        noisy[sr] = sample
        sf.write(tmp_path / "a.wav", noisy, sr, subtype="FLOAT")
        report = denoise_file(denoiser, tmp_path / "a.wav", tmp_path / "b.flac", overwrite=True)
        assert report["clipped"] == 0
        outputs.append(sf.read(tmp_path / "b.flac")[0])
    without, with_glitch = (x[sr + sr // 10 :] for x in outputs)
    assert np.std(with_glitch - without) < 0.04 * np.std(without)


@given(loud=st.floats(0.01, 1.0), at=st.integers(0, 9_999))
def test_a_glitch_is_what_is_beyond_full_scale_and_beyond_the_rest(loud, at):
    samples = loud * np.random.default_rng(at).uniform(-1, 1, (2, 10_000)).astype(np.float32)
    assert np.array_equal(audio.without_glitches(samples), samples)
    assert np.array_equal(audio.without_glitches(20 * samples), 20 * samples)  # loud all along
    spoilt = samples.copy()
    spoilt[1, at] = -500
    mended = audio.without_glitches(spoilt)
    assert -4 <= mended[1, at] <= -1
    mended[1, at] = samples[1, at]
    assert np.array_equal(mended, samples)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sr", "n_samples", "channels", "subtype", "subtype_out"),
    [
        ("a.wav", 8_000, 20_001, 1, "PCM_16", "PCM_16"),
        ("a.wav", 16_000, 40_001, 1, "PCM_U8", "PCM_16"),
        ("a.wav", 16_000, 40_000, 2, "PCM_24", "PCM_24"),
        ("a.wav", 16_000, 40_000, 6, "PCM_16", "PCM_16"),
        ("a.wav", 22_050, 50_000, 1, "FLOAT", "PCM_24"),
        ("a.flac", 44_100, 500_001, 2, "PCM_16", "PCM_16"),  # several blocks
        ("a.aiff", 48_000, 100_003, 1, "PCM_24", "PCM_24"),
        ("a.wav", 96_000, 100_003, 1, "PCM_32", "PCM_24"),
        ("a.ogg", 16_000, 40_000, 1, "VORBIS", "PCM_16"),
        ("a.mp3", 44_100, 50_000, 2, "MPEG_LAYER_III", "PCM_16"),
    ],
)
def test_file_comes_back_aligned(
    pass_through, tmp_path, name, sr, n_samples, channels, subtype, subtype_out
):
    source, target = tmp_path / name, tmp_path / "out" / "b.flac"
    sf.write(source, low_clip(sr, n_samples, channels), sr, subtype=subtype)
    clip = sf.read(source, always_2d=True)[0]
    report = denoise_file(pass_through, source, target)
    assert report.pop("words") == "no noise found above 1.5 kHz"  # nothing is removed
    assert report == {"seconds": len(clip) / sr, "sr": sr, "clipped": 0, "left": False}
    info = sf.info(target)
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", subtype_out, sr)
    denoised = sf.read(target, always_2d=True)[0]
    assert denoised.shape == clip.shape
    error, noise_floor = np.std(denoised - clip, axis=0), 2**-15  # a shift by one sample gives 0.01
    assert (error < 0.005 * np.std(clip, axis=0) + noise_floor).all()
    middle = slice(n_samples // 2, n_samples // 2 + 4_000)
    around = slice(middle.start - 20, middle.stop + 20)
    assert np.correlate(denoised[around, 0], clip[middle, 0], mode="valid").argmax() == 20


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("samples", [[0.25], [0.25, -0.25], [0.0], [0.0] * 30_000])
def test_shortest_and_silent_files(pass_through, tmp_path, sr, samples):
    sf.write(tmp_path / "a.wav", np.array(samples), sr)
    denoise_file(pass_through, tmp_path / "a.wav", tmp_path / "b.flac")
    denoised = sf.read(tmp_path / "b.flac")[0]
    assert len(denoised) == len(samples)
    assert np.abs(denoised).max() <= 4 * np.abs(samples).max()
    assert sr != SR or np.allclose(denoised, samples, atol=2**-14)


def test_samples_beyond_full_scale_are_clipped_and_counted(pass_through, tmp_path):
    sf.write(tmp_path / "a.wav", 4 * low_clip(SR, 20_000, 1), SR, subtype="FLOAT")
    report = denoise_file(pass_through, tmp_path / "a.wav", tmp_path / "b.flac")
    loud = sf.read(tmp_path / "a.wav")[0]
    assert report["clipped"] == pytest.approx(np.sum(np.abs(loud) > 1), abs=2)
    denoised = sf.read(tmp_path / "b.flac")[0]
    np.testing.assert_allclose(denoised, np.clip(loud, -1, 1), atol=1e-5)


@pytest.mark.parametrize(("subtype", "level"), [("FLOAT", 4), ("DOUBLE", 4), ("FLOAT", 0.5)])
@pytest.mark.parametrize("gated", [False, True])
def test_float_stays_float_in_a_wav(pass_through, tmp_path, subtype, level, gated):
    sf.write(tmp_path / "a.wav", level * low_clip(SR, 20_000, 2), SR, subtype=subtype)
    denoiser = with_settings(pass_through, by_frequency=gated)
    report = denoise_file(denoiser, tmp_path / "a.wav", tmp_path / "b.wav")
    assert report["clipped"] == 0
    assert sf.info(tmp_path / "b.wav").subtype == "FLOAT"
    loud, denoised = (sf.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert (np.abs(loud).max() > 1) == (level > 1)
    np.testing.assert_allclose(denoised, loud, atol=1e-5)


@pytest.mark.parametrize(("subtype", "out"), [("PCM_16", "PCM_16"), ("PCM_24", "PCM_24")])
def test_integers_stay_integers_in_a_wav(pass_through, tmp_path, subtype, out):
    sf.write(tmp_path / "a.wav", low_clip(SR, 20_000, 1), SR, subtype=subtype)
    denoise_file(pass_through, tmp_path / "a.wav", tmp_path / "b.wav")
    assert sf.info(tmp_path / "b.wav").subtype == out


@pytest.mark.parametrize("ending", [".flac", ".FLAC", ".wav"])
def test_ending_chooses_the_format(pass_through, tmp_path, ending):
    sf.write(tmp_path / "a.wav", low_clip(SR, 1_000, 1), SR)
    denoise_file(pass_through, tmp_path / "a.wav", tmp_path / f"b{ending}")
    assert sf.info(tmp_path / f"b{ending}").format == ending[1:].upper()


def test_existing_output_is_refused_unless_told(pass_through, tmp_path):
    source, target = tmp_path / "a.wav", tmp_path / "out" / "a.flac"
    sf.write(source, low_clip(SR, 1_000, 1), SR)
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(FileError, match=rf"\A{target}: exists already; .*--overwrite"):
        denoise_file(pass_through, source, target)
    assert target.read_bytes() == b"mine"
    denoise_file(pass_through, source, target, overwrite=True)
    assert sf.info(target).frames == 1_000
    assert everything(target.parent) == ["a.flac"]


def test_bad_file_leaves_nothing_behind(pass_through, tmp_path, bad_file):
    path, message = bad_file
    with pytest.raises(AudioError, match=message):
        denoise_file(pass_through, path, tmp_path / "out" / "b.flac")
    assert not (tmp_path / "out").exists() or everything(tmp_path / "out") == []


def test_bad_file_leaves_the_earlier_output(pass_through, tmp_path):
    sf.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), SR, subtype="FLOAT")
    (tmp_path / "b.flac").write_bytes(b"mine")
    with pytest.raises(AudioError):
        denoise_file(pass_through, tmp_path / "nan.wav", tmp_path / "b.flac", overwrite=True)
    assert (tmp_path / "b.flac").read_bytes() == b"mine"


def test_output_folder_that_cannot_be_written(pass_through, tmp_path):
    sf.write(tmp_path / "a.wav", low_clip(SR, 1_000, 1), SR)
    folder = tmp_path / "a.wav" / "folder"  # below a file: not even root can make it
    with pytest.raises(FileError, match=rf"\A{folder}: cannot be written .*; choose another"):
        denoise_file(pass_through, tmp_path / "a.wav", folder / "b.flac")
    assert everything(tmp_path) == ["a.wav"]


def test_more_channels_than_flac_holds(pass_through, tmp_path):
    source = tmp_path / "a.wav"
    sf.write(source, low_clip(SR, 1_000, 9), SR)
    with pytest.raises(AudioError, match=rf"\A{source}: 9 channels, FLAC holds 8; .*\.wav"):
        denoise_file(pass_through, source, tmp_path / "b.flac")
    assert everything(tmp_path) == ["a.wav"]
    denoise_file(pass_through, source, tmp_path / "b.wav")  # as the message says
    assert sf.info(tmp_path / "b.wav").channels == 9


def test_output_of_another_format(pass_through, tmp_path):
    sf.write(tmp_path / "a.wav", low_clip(SR, 1_000, 1), SR)
    with pytest.raises(AudioError, match="the output is FLAC or WAV; end its name"):
        denoise_file(pass_through, tmp_path / "a.wav", tmp_path / "b.mp3")
    assert everything(tmp_path) == ["a.wav"]


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Good files in a tree, two bad ones among them, and one of another kind."""
    source = tmp_path / "in"
    for name in ("a.wav", "b.ogg", "deep/er/c.flac", "same/d.ogg", "same/d.wav", "f.g.wav"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(source / name, low_clip(SR, 4_000, 1), SR)
    (source / "deep/bad.wav").write_text("Dear diary")
    (source / "b2.flac").touch()
    (source / "notes.txt").write_text("Not a sound")
    return source


def test_folder_is_mirrored_and_survives_bad_files(pass_through, tmp_path, folder):
    out = tmp_path / "out"
    report = files.for_each_file(
        files.plan_outputs(folder, out), lambda a, b: denoise_file(pass_through, a, b)
    )
    assert [
        (str(f.relative_to(folder)), str(o.relative_to(out))) for f, o, _ in report["done"]
    ] == [
        ("a.wav", "a.flac"),
        ("b.ogg", "b.flac"),
        ("deep/er/c.flac", "deep/er/c.flac"),
        ("f.g.wav", "f.g.flac"),
        ("same/d.ogg", "same/d.flac"),
    ]
    assert report["done"][0][2]["seconds"] == 0.25
    messages = {str(file.relative_to(folder)): message for file, message in report["failed"]}
    assert set(messages) == {"b2.flac", "deep/bad.wav", "same/d.wav"}
    assert "is empty" in messages["b2.flac"]
    assert "not readable as audio" in messages["deep/bad.wav"]
    assert "d.ogg has the same output; rename one" in messages["same/d.wav"]
    assert all(str(f) in m and "\n" not in m for f, m in report["failed"])
    written = [name for name in everything(out) if (out / name).is_file()]
    assert written == sorted(str(o.relative_to(out)) for _, o, _ in report["done"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("too odd"), "too odd"),
        (OSError("broken"), "broken"),
        (MemoryError(), "needs more memory than there is; cut it into parts"),
        (ZeroDivisionError("by\nzero"), "ZeroDivisionError: by zero; DENOISER_DEBUG=1 "),
    ],
)
def test_error_without_a_name_gets_it(tmp_path, folder, error, says):
    def work(file, output):
        raise error

    report = files.for_each_file(files.plan_outputs(folder / "a.wav", tmp_path / "out"), work)
    [(file, message)] = report["failed"]
    assert file == folder / "a.wav"
    assert message.startswith(f"{file}: {says}")
    assert "\n" not in message
    assert not report["done"]


@pytest.mark.parametrize(
    ("target", "output"), [("out", "out/a.flac"), ("in", "in/a.flac"), ("x.flac", "x.flac")]
)
def test_output_of_one_file(tmp_path, folder, target, output):
    planned = files.plan_outputs(folder / "a.wav", tmp_path / target)
    assert planned == [(folder / "a.wav", tmp_path / output)]


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(AudioError, match=rf"\A{tmp_path}: no audio files .*; check the path\Z"):
        files.plan_outputs(tmp_path, tmp_path / "out")
    with pytest.raises(AudioError, match="no such file; check the path"):
        files.plan_outputs(tmp_path / "missing.wav", tmp_path / "out")


# --- mixing and the gate ------------------------------------------------------------------------


def with_settings(denoiser, **settings):
    """A copy of a denoiser with another mix or gate."""
    changed = copy.copy(denoiser)
    vars(changed).update(settings)
    return changed


def test_mix_puts_the_input_back(perturbed, speech):
    denoised = perturbed(speech)
    for mix in (0.0, 0.25, 1.0):
        mixed = with_settings(perturbed, mix=mix)(speech)
        assert mixed.dtype == np.float32
        np.testing.assert_allclose(mixed, mix * denoised + (1 - mix) * speech, atol=1e-6)


@pytest.mark.parametrize("mix", [-0.1, 1.1, np.nan])
def test_mix_outside_its_range_is_refused(mix):
    with pytest.raises(ValueError, match="share from 0"):
        Denoiser("spectrogram", mix=mix)


@pytest.mark.parametrize(("subtype", "sr"), [("PCM_16", 16_000), ("PCM_24", 48_000)])
def test_a_file_without_noise_is_left_to_the_bit(pass_through, tmp_path, subtype, sr):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (sr, 2))
    sf.write(tmp_path / "a.wav", samples, sr, subtype=subtype)
    gated = with_settings(pass_through, by_frequency=True)
    report = denoise_file(gated, tmp_path / "a.wav", tmp_path / "b.flac")
    assert report["words"] == "no noise found above 1.5 kHz, left as it is"
    assert report["left"]
    before, after = (sf.read(tmp_path / name, dtype="int32")[0] for name in ("a.wav", "b.flac"))
    assert np.array_equal(before, after)  # what is above 8 kHz too


# --- by frequency -------------------------------------------------------------------------------


def by_frequency(denoiser, mix=1.0):
    return with_settings(denoiser, by_frequency=True, mix=mix)


def test_an_input_of_which_nothing_is_removed_comes_back_exactly(pass_through, speech):
    clean = pass_through(speech)  # the model removes nothing but rounding
    gated = by_frequency(pass_through)(speech)
    assert gated.shape == speech.shape
    assert np.abs(gated - speech).max() <= np.abs(clean - speech).max()


def test_by_frequency_is_a_filter_of_what_the_model_removes(perturbed, speech):
    removed = speech - perturbed(speech)
    gone = speech - by_frequency(perturbed)(speech)
    low, high = ([audio.band_limit(x, 16_000, *band) for x in (removed, gone)] for band in BANDS)
    assert np.std(low[0]) > 1e-3  # there is something to let through
    assert np.std(low[1]) < 0.1 * np.std(low[0])
    assert np.std(high[1]) == pytest.approx(np.std(high[0]), rel=0.2)


BANDS = (100, 1_100), (3_000, 7_000)  # Hz, below and above the edge


@pytest.mark.parametrize("cut", [1, 160, 777, 20_000])
def test_by_frequency_does_not_depend_on_the_blocks(perturbed, speech, cut):
    columns = np.stack([speech, speech[::-1]], axis=1)[:24_000]
    gated = by_frequency(perturbed)
    if cut == 1:
        columns = columns[:300]
    stream = gated.stream(2)
    parts = [stream.process(columns[i : i + cut]) for i in range(0, len(columns), cut)]
    streamed = np.concatenate([*parts, stream.finish()])
    np.testing.assert_allclose(streamed, gated(columns), atol=1e-6)


def test_a_mix_by_frequency_removes_that_share(perturbed, speech):
    whole, half = (by_frequency(perturbed, mix)(speech) for mix in (1.0, 0.5))
    np.testing.assert_allclose(speech - half, 0.5 * (speech - whole), atol=1e-6)
