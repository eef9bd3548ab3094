"""The page as a visitor uses it: a file, the microphone, before and after, in headless Chromium."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import soundfile as sf

from helpers import audio
from helpers.denoise import Denoiser
from helpers.store import ROOT

SAMPLE = ROOT / "data" / "sample" / "sample-clean"
SAME = 5e-4  # of full scale, from Python: weights are float16
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
HEARD = """n => {
    const {numbers} = document.getElementById('numbers').dataset;
    return numbers && JSON.parse(numbers).samples > n;
}"""
NO_16_KHZ = """
    const create = AudioContext.prototype.createMediaStreamSource;
    AudioContext.prototype.createMediaStreamSource = function (stream) {
        if (this.sampleRate === 16000) throw new DOMException('other rates', 'NotSupportedError');
        return create.call(this, stream);
    };
"""


def voice_in_noise(seconds: float, voice: str = "9001", seed: int = 0) -> np.ndarray:
    """A bundled voice in noise of 4 to 8 kHz, float32 `(samples,)`."""
    files = sorted((SAMPLE / voice / "1").glob("*.flac"))
    clean = np.concatenate([audio.read(file) for file in files])[: int(seconds * 16_000)]
    noise = np.random.default_rng(seed).normal(0, 0.05, len(clean)).astype(np.float32)
    return (clean + audio.band_limit(noise, 16_000, 4_000, 8_000)).astype(np.float32)


@pytest.fixture(scope="session")
def denoisers():
    """By method and whether by frequency, each made once."""
    made = {}

    def get(method, by_frequency):
        key = method, by_frequency
        made[key] = made.get(key) or Denoiser(method, by_frequency=by_frequency)
        return made[key]

    return get


@pytest.fixture(scope="session")
def address():
    """Where `denoiser page` serves the page."""
    command = [sys.executable, "-m", "helpers", "page"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        yield found[0]
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def microphone_file(tmp_path_factory):
    """What Chromium's fake microphone hears, again and again."""
    path = tmp_path_factory.mktemp("microphone") / "voice.wav"
    sf.write(path, voice_in_noise(30.0), 16_000)
    return path


@pytest.fixture(scope="session")
def browser(chromium, microphone_file):
    """A Chromium with a fake microphone."""
    path = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *CHROMIUM))))
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--disable-quic", "--no-first-run", "--disable-component-update"]
    flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={microphone_file}"]
    flags += ["--autoplay-policy=no-user-gesture-required"]
    browser = chromium.browser_type.launch(executable_path=path, args=flags)
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser, address):
    """A function that opens the page; afterwards no request may have left this machine."""
    asked, errors = [], []
    with contextlib.ExitStack() as at_end:

        def run(script="", **options):
            context = browser.new_context(viewport={"width": 1300, "height": 1000}, **options)
            at_end.callback(context.close)
            if script:
                context.add_init_script(script)
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            return page

        yield run
    assert not errors
    assert asked
    assert {re.match(r"blob:|" + re.escape(address), url) is not None for url in asked} == {True}


def wait_for_clip(page, words):
    page.wait_for_function(
        "words => !document.getElementById('play').disabled"
        " && document.getElementById('status').textContent.includes(words)",
        arg=words,
        timeout=120_000,
    )


def saved(page, which):
    """The samples of a saved WAV, float32 `(samples,)` or `(samples, channels)`."""
    with page.expect_download() as download:
        page.click(f"#save-{which}")
    samples, sr = sf.read(download.value.path(), dtype="float32")
    assert sr == 16_000
    return samples


@pytest.mark.parametrize(
    ("method", "whole"),
    [("spectrogram", False), ("spectrogram", True), ("waveform", False)],
)
def test_a_file_is_denoised_as_in_python(open_page, denoisers, tmp_path, method, whole):
    noisy = voice_in_noise(3.0)
    sf.write(tmp_path / "voice.wav", noisy, 16_000, subtype="FLOAT")
    page = open_page()
    page.select_option("#method", method)
    page.set_checked("#whole", whole)
    page.set_input_files("#file", tmp_path / "voice.wav")
    wait_for_clip(page, "voice.wav: 3.0 s")
    before, after = saved(page, "before"), saved(page, "after")
    np.testing.assert_array_equal(before, noisy)
    expected = denoisers(method, not whole)(noisy)
    difference = np.abs(after - expected).max()
    print(f"{method}, {'whole band' if whole else 'by frequency'}: {difference:.1e} from Python")
    assert difference < SAME
    assert np.abs(after - noisy).max() > 0.05  # something was done


def test_a_loud_file_is_bounded_as_in_python(open_page, denoisers, tmp_path):
    """A glitch is far beyond the second that it ends, however loud the file is elsewhere."""
    noisy = voice_in_noise(3.0)
    noisy[:16_000] *= 20
    noisy[[12_000, 40_000, 40_001]] = [500, -30, 1e6]
    sf.write(tmp_path / "loud.wav", noisy, 16_000, subtype="FLOAT")
    page = open_page()
    page.set_input_files("#file", tmp_path / "loud.wav")
    wait_for_clip(page, "loud.wav")
    after, expected = saved(page, "after"), denoisers("spectrogram", True)(noisy)
    assert np.abs(expected[:16_000]).max() > 5
    assert np.abs(expected[30_000:]).max() < 2
    assert np.abs(after - expected).max() < SAME * np.abs(expected).max()
    np.testing.assert_array_equal(saved(page, "before"), noisy)


def test_all_channels_of_a_film_are_kept(open_page, denoisers, tmp_path):
    """In 5.1 the third channel speaks."""
    noisy = voice_in_noise(1.5)[:, None] * np.float32([0.1, 0.2, 1, 0.3, 0.4, 0.5])
    sf.write(tmp_path / "film.wav", noisy, 16_000, subtype="FLOAT")
    page = open_page()
    page.set_input_files("#file", tmp_path / "film.wav")
    wait_for_clip(page, "film.wav: 1.5 s")
    np.testing.assert_array_equal(saved(page, "before"), noisy)
    expected = denoisers("spectrogram", True)(noisy)
    assert np.abs(saved(page, "after") - expected).max() < SAME
    played = "() => { play(); return playing.sources.map(one => one.buffer.numberOfChannels); }"
    assert page.evaluate(played) == [6, 6]


def test_seeking_copies_no_sound_and_new_settings_do(open_page, tmp_path):
    sf.write(tmp_path / "voice.wav", voice_in_noise(1.5), 16_000)
    page = open_page()
    page.set_input_files("#file", tmp_path / "voice.wav")
    wait_for_clip(page, "voice.wav: 1.5 s")
    again = """() => {
        const buffers = () => playing.sources.map(source => source.buffer);
        play();
        const first = buffers();
        seek(0.5);
        return buffers().every((one, i) => one === first[i]);
    }"""
    assert page.evaluate(again)
    page.check("#whole")
    wait_for_clip(page, "voice.wav: 1.5 s")
    newest = """() => {
        play();
        const heard = playing.sources[1].buffer.getChannelData(0);
        return heard.every((x, i) => x === clipShown.after[0][i]);
    }"""
    assert page.evaluate(newest)


def record(page, seconds):
    """Press, speak for some seconds, press again; gives what the page says of it."""
    page.click("#record")
    page.wait_for_function(
        HEARD,
        arg=seconds * 16_000,
        timeout=120_000,
    )
    numbers = json.loads(page.get_attribute("#numbers", "data-numbers"))
    page.click("#record")
    wait_for_clip(page, "Recording")
    return numbers


def recording_without_underrun(page, seconds=10):
    """Record until nothing was lost, three times at most; gives what the page says of the last.

    A machine that does other work may hold up any sound: where all three failed, a source of
    silence, which costs nothing, must have underruns too.
    """
    for _ in range(3):
        numbers = record(page, seconds)
        print(
            f"{numbers['ms'] / numbers['quanta']:.2f} ms of work for 8 ms of sound, "
            f"{numbers['late']} late, {numbers['underruns']} underruns"
        )
        if numbers["underruns"] == 0:
            return numbers
    without = page.evaluate(SILENCE)
    print(f"silence without any model: {without} underruns in 10 s")
    assert without > 0
    return numbers


def compare_with_python(page, denoiser):
    before, after = saved(page, "before"), saved(page, "after")
    assert len(before) == len(after)
    assert audio.level_db(before) > -35
    difference = np.abs(after - denoiser(before)).max()
    print(f"{len(before) / 16_000:.1f} s from the microphone: {difference:.1e} from Python")
    assert difference < SAME
    assert audio.level_db(before - after) > -35  # something was done
    return before


def test_the_microphone_is_denoised_without_underruns(open_page, denoisers, microphone_file):
    page = open_page(permissions=["microphone"])
    numbers = recording_without_underrun(page)
    assert numbers["missing"] == 0
    assert numbers["latency"] == denoisers("spectrogram", True).latency_ms / 1000
    assert numbers["ms"] / numbers["quanta"] < 8
    before = compare_with_python(page, denoisers("spectrogram", True))

    # nothing of the file is lost or said twice: where each half second lies in it
    heard = np.tile(sf.read(microphone_file, dtype="float32")[0], 2)
    places = []
    for start in range(16_000, len(before) - 24_000, 16_000):
        piece = before[start : start + 8_000]
        match = np.fft.irfft(np.fft.rfft(heard) * np.fft.rfft(piece, len(heard)).conj(), len(heard))
        places.append((int(np.argmax(match)) - start) % (len(heard) // 2))
    assert np.ptp(places) <= 1, places


def test_settings_can_change_while_the_microphone_is_on(open_page, denoisers):
    page = open_page(permissions=["microphone"])
    page.click("#record")
    for n, change in enumerate([("#whole", None), ("#method", "waveform")], start=1):
        page.wait_for_function(
            HEARD,
            arg=n * 16_000,
        )
        page.select_option(*change) if change[1] else page.check(change[0])
    record_from = json.loads(page.get_attribute("#numbers", "data-numbers"))["samples"]
    page.wait_for_function(
        HEARD,
        arg=record_from + 16_000,
    )
    page.click("#record")
    wait_for_clip(page, "Recording")
    before, after = saved(page, "before"), saved(page, "after")
    assert len(before) == len(after) > 3 * 16_000
    page.select_option("#method", "spectrogram")  # now the recording is a clip
    wait_for_clip(page, "Recording: ")
    assert np.abs(saved(page, "before") - before).max() == 0
    expected = denoisers("spectrogram", False)(before)
    assert np.abs(saved(page, "after") - expected).max() < SAME


def test_a_browser_that_cannot_record_at_16_khz_is_resampled(open_page, denoisers):
    page = open_page(NO_16_KHZ, permissions=["microphone"])
    numbers = record(page, 3)
    assert page.evaluate("() => context.sampleRate") != 16_000
    assert numbers["missing"] == 0
    compare_with_python(page, denoisers("spectrogram", True))


def test_before_and_after_have_one_gain_and_the_dial_mixes_them(open_page, denoisers, tmp_path):
    noisy = np.stack([voice_in_noise(3.0), voice_in_noise(3.0, "9003", seed=1)], axis=1)
    sf.write(tmp_path / "two.wav", noisy, 16_000, subtype="FLOAT")
    page = open_page()
    page.set_input_files("#file", tmp_path / "two.wav")
    wait_for_clip(page, "two.wav")
    gains = "() => [gains.before, gains.after, gains.both].map(node => node.gain.value)"
    page.click("#play")
    assert page.text_content("#play") == "Pause"
    assert page.evaluate(gains) == [0, 1, 1]
    page.check("[name=listen][value=before]", force=True)
    page.wait_for_function(f"() => ({gains})().every((x, i) => Math.abs(x - [1, 0, 1][i]) < 0.01)")
    page.check("[name=listen][value=after]", force=True)
    page.locator("#strength").fill("30")
    page.wait_for_function(
        f"() => ({gains})().every((x, i) => Math.abs(x - [0.7, 0.3, 1][i]) < 0.01)"
    )
    page.wait_for_function("() => document.getElementById('play').textContent === 'Play'")
    assert page.text_content("#time") == "3.0 s"
    expected = 0.7 * noisy + 0.3 * denoisers("spectrogram", True)(noisy)
    assert np.abs(saved(page, "after") - expected).max() < SAME


def test_the_pictures_show_the_noise_before_and_not_after(open_page):
    page = open_page()
    page.click("#example")
    wait_for_clip(page, "Example")
    bright = """id => {
        const canvas = document.getElementById(id), {width} = canvas;
        const {data} = canvas.getContext('2d').getImageData(0, 0, width, 100);  // above 5 kHz
        return data.reduce((sum, x, i) => sum + (i % 4 === 3 ? 0 : x), 0) / (3 * width * 100);
    }"""
    before, after = (page.evaluate(bright, which) for which in ("before", "after"))
    assert before > 60
    assert after < 15


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1300])
def test_all_is_named_legible_and_within_the_window(open_page, scheme, width):
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    names = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas')].map(
            one => one.ariaLabel || one.textContent.trim() || one.labels?.[0]?.textContent)"""
    )
    assert all(names), names
    contrasts = page.evaluate(CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts
    seen = []
    for _ in range(12):  # by keyboard alone
        page.keyboard.press("Tab")
        seen.append(page.evaluate("() => document.activeElement.id || document.activeElement.name"))
    for name in ("file", "example", "record", "monitor", "listen", "strength", "method", "whole"):
        assert name in seen


SILENCE = """async () => {
    const context = new AudioContext({sampleRate: 16000, latencyHint: 'interactive'});
    const source = new ConstantSourceNode(context, {offset: 0});
    source.connect(context.destination);
    source.start();
    await new Promise(done => setTimeout(done, 10000));
    const {underrunEvents} = context.playbackStats;
    context.close();
    return underrunEvents;
}"""
CONTRASTS = """() => {
    const parts = text => text.match(/[\\d.]+/g).map(Number);
    const luminance = colour => parts(colour).slice(0, 3).map(x => x / 255)
        .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = one => {
        const colour = getComputedStyle(one).backgroundColor;
        return (parts(colour)[3] ?? 1) || !one.parentElement ? colour : behind(one.parentElement);
    };
    const found = {};
    const all = 'h1, p, span, small, b, button, label, output, select';
    for (const one of document.querySelectorAll(all)) {
        if (!one.textContent.trim() || one.disabled || !one.offsetParent) continue;
        const [a, b] = [getComputedStyle(one).color, behind(one)].map(luminance);
        found[one.textContent.trim().slice(0, 20)] =
            (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }
    return found;
}"""


def test_what_is_no_sound_or_missing_is_told(open_page, tmp_path):
    (tmp_path / "text.wav").write_text("Dear diary")
    page = open_page()
    page.set_input_files("#file", tmp_path / "text.wav")
    page.wait_for_function(
        "() => document.getElementById('status').textContent.includes('cannot read it as sound')"
    )
    assert page.is_disabled("#play")


def test_what_is_too_long_is_not_decoded(open_page, tmp_path):
    sf.write(tmp_path / "long.wav", np.zeros(31 * 60 * 8_000), 8_000, subtype="PCM_U8")
    page = open_page(
        "OfflineAudioContext.prototype.decodeAudioData = async () => { throw Error('decoded'); };"
    )
    page.set_input_files("#file", tmp_path / "long.wav")
    page.wait_for_function(
        "() => document.getElementById('status').textContent.includes('ommand line')"
    )
    assert page.text_content("#status").startswith("Longer than 30 minutes; the command line")
    refused = "n => { try { refuseLong(700, n); } catch (error) { return error.message; } }"
    assert page.evaluate(refused, 2) is None
    assert page.evaluate(refused, 6).startswith("Longer than 10 minutes in 6 channels; ")


def test_a_page_from_disk_says_how_to_open_it(browser, tmp_path):
    sf.write(tmp_path / "voice.wav", voice_in_noise(1.0), 16_000)
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto((ROOT / "web" / "index.html").as_uri())
        page.evaluate("say('')")
        page.set_input_files("#file", tmp_path / "voice.wav")
        page.wait_for_function(
            "() => document.getElementById('status').textContent.includes('denoiser page')",
            timeout=20_000,
        )
        assert page.is_hidden("#progress")
        page.reload()
        assert "denoiser page" in page.text_content("#status")


def test_the_file_that_was_chosen_last_is_shown(open_page, tmp_path):
    """However long the one before it takes to be read."""
    for name, seconds in (("first", 3.0), ("second", 1.0)):
        sf.write(tmp_path / f"{name}.wav", voice_in_noise(seconds), 16_000)
    page = open_page(
        """const read = OfflineAudioContext.prototype.decodeAudioData;
        let waits = 2000;
        OfflineAudioContext.prototype.decodeAudioData = async function (bytes) {
            const [sound, ms] = [await read.call(this, bytes), waits];
            waits = 0;
            await new Promise(done => setTimeout(done, ms));
            return sound;
        };"""
    )
    page.set_input_files("#file", tmp_path / "first.wav")
    page.set_input_files("#file", tmp_path / "second.wav")
    wait_for_clip(page, "second.wav")
    page.wait_for_timeout(3_000)
    assert page.text_content("#status").startswith("second.wav: 1.0 s")
    assert len(saved(page, "before")) == 16_000


def test_a_clip_stays_where_the_microphone_fails(open_page, tmp_path):
    sf.write(tmp_path / "clip.wav", voice_in_noise(1.0), 16_000)
    page = open_page("AudioWorklet.prototype.addModule = async () => { throw new Error('gone'); };")
    page.set_input_files("#file", tmp_path / "clip.wav")
    wait_for_clip(page, "clip.wav")
    page.click("#record")
    page.wait_for_function("() => document.getElementById('status').textContent === 'gone'")
    page.click("#play")
    assert page.text_content("#play") == "Pause"
    assert page.evaluate("gains.both.gain.value") == 1
    assert len(saved(page, "after")) == 16_000


GIVEN = """
    const ask = MediaDevices.prototype.getUserMedia;
    MediaDevices.prototype.getUserMedia = async function (wish) {
        return window.given = await ask.call(this, wish);
    };
"""
NO_WEIGHTS = """
    window.AudioWorkletNode = class extends AudioWorkletNode {
        constructor(context, name, options) {
            options.processorOptions.buffer = new ArrayBuffer(0);
            super(context, name, options);
        }
    };
"""
NO_REST = """
    const post = MessagePort.prototype.postMessage;
    MessagePort.prototype.postMessage = function (...what) {
        if (what[0] !== 'stop') post.apply(this, what);
    };
"""
CLOSED = """() => document.getElementById('record').textContent === 'Start the microphone'
    && !document.getElementById('record').disabled
    && given.getTracks().every(track => track.readyState === 'ended')"""


@pytest.fixture
def failing_page(browser, address):
    """A function script -> page with a microphone; what its console says is not judged."""
    with contextlib.ExitStack() as at_end:

        def run(script=""):
            context = browser.new_context(permissions=["microphone"])
            at_end.callback(context.close)
            context.add_init_script(GIVEN + script)
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.goto(address)
            return page

        yield run


def test_an_engine_that_does_not_start_blocks_nothing(failing_page, tmp_path):
    sf.write(tmp_path / "voice.wav", voice_in_noise(1.0), 16_000)
    page = failing_page(NO_WEIGHTS)
    page.click("#record")
    page.wait_for_function(
        "() => document.getElementById('status').textContent.startsWith('The engine stopped')"
    )
    page.wait_for_function(CLOSED)
    page.wait_for_timeout(2_500)
    assert page.text_content("#status").startswith("The engine stopped")
    page.set_input_files("#file", tmp_path / "voice.wav")
    page.wait_for_function("() => !document.getElementById('play').disabled")
    assert len(saved(page, "after")) == 16_000


def test_what_was_recorded_is_kept_where_the_engine_sends_no_rest(failing_page):
    page = failing_page(NO_REST)
    page.click("#record")
    page.wait_for_function(HEARD, arg=16_000)
    labels = "() => ['before', 'after'].map(id => document.getElementById(id).ariaLabel)"
    live, pressed = page.evaluate(labels), page.get_attribute("#record", "aria-pressed")
    page.click("#record")
    page.wait_for_function(CLOSED)
    wait_for_clip(page, "Recording: ")
    for which in ("before", "after"):
        assert len(saved(page, which)) >= 16_000

    # and a screen reader is told what is shown
    assert pressed is None  # the words of the button say it
    assert live == [f"Spectrogram {which}, the microphone now" for which in ("before", "after")]
    assert page.evaluate(labels) == [
        f"Spectrogram {which}, Recording" for which in ("before", "after")
    ]


# --- the same in a notebook ---------------------------------------------------------------------

RUN_ALL = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
}"""


def test_a_reader_of_a_notebook_hears_herself_denoised(browser, server, server_folder, denoisers):
    cell = nbformat.v4.new_code_cell("from helpers.display.live import live\nlive()")
    kernel = {"name": "python3", "display_name": "Python 3"}  # or JupyterLab asks for one
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, server_folder / "notebooks" / "live_cell.ipynb")
    context = browser.new_context(permissions=["microphone"])
    try:
        page = context.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(120_000)
        page.goto(f"{server}/workspaces/live/tree/notebooks/live_cell.ipynb")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady")
        page.evaluate(RUN_ALL)
        page.wait_for_selector(".denoiser-live iframe")
        frame = next(f for f in page.frames if f.url == "about:srcdoc")
        numbers = record(Inside(frame, page), 5)
        assert numbers["missing"] == 0
        compare_with_python(Inside(frame, page), denoisers("spectrogram", True))
        hosts = {re.match(r"(?:blob:|wss?://|https?://)([^/:]*)|data:|about:", u)[1] for u in asked}
        assert hosts <= {"127.0.0.1", "http", None}
    finally:
        context.close()


class Inside:
    """A frame that can be used as the page is."""

    def __init__(self, frame, page):
        self.frame, self.expect_download = frame, page.expect_download

    def __getattr__(self, name):
        return getattr(self.frame, name)
