"""The page as a visitor uses it: a file, the microphone, before and after, in headless Chromium."""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf

from helpers import audio
from helpers.denoise import Denoiser
from helpers.store import ROOT

SAMPLE = ROOT / "data" / "sample" / "sample-clean"
SAME = 5e-4  # of full scale, from Python: float16 weights, and 16 bits in what is saved
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
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
    assert np.abs(before - noisy).max() < 2**-15
    expected = denoisers(method, not whole)(noisy)
    difference = np.abs(after - expected).max()
    print(f"{method}, {'whole band' if whole else 'by frequency'}: {difference:.1e} from Python")
    assert difference < SAME
    assert np.abs(after - noisy).max() > 0.05  # something was done
