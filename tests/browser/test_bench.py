"""The bench of notebook 02 as a reader uses it: move a slider, see and hear the noise change."""

import re
import statistics

import pytest

CHANGE = """async ({label, key, choice}) => {
    const control = [...document.querySelectorAll('.widget-inline-hbox')]
        .find(one => one.textContent.includes(label));
    const bench = control.closest('.widget-vbox');
    const state = () => [bench.querySelector('img').src, bench.querySelector('table').innerHTML];
    const before = state();
    const start = performance.now();
    if (choice) {
        const menu = control.querySelector('select');
        menu.value = choice;
        menu.dispatchEvent(new Event('change', {bubbles: true}));
    } else control.querySelector('.noUi-handle').dispatchEvent(
        new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    while (state().some((part, i) => part === before[i])) {
        if (performance.now() - start > 60000) throw new Error(label + ': nothing changed');
        await new Promise(requestAnimationFrame);
    }
    await bench.querySelector('img').decode();
    return performance.now() - start;
}"""
LISTEN = """async () => {
    const heard = [];
    for (const cell of document.querySelectorAll('.widget-vbox td')) {
        const player = cell.querySelector('audio');
        const source = player.src || player.querySelector('source').src;
        const data = await (await fetch(source)).arrayBuffer();
        const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(data);
        const samples = sound.getChannelData(0);
        const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
        const rms = Math.sqrt(power);
        heard.push({title: cell.querySelector('b').textContent, seconds: sound.duration, rms});
    }
    return heard;
}"""
LOOK = """() => {
    const picture = document.querySelector('.widget-vbox img');
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(picture, 0, 0);
    return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""
LIMIT_MS = 300
SPEECH_DB = -30  # of the speech, whatever the sliders say


@pytest.fixture(scope="module")
def page(open_notebook):
    """Notebook 02 with the bench in view, every cell run."""
    page = open_notebook("02_noise")
    page.wait_for_selector(".widget-vbox img", state="attached")
    assert page.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0
    page.locator(".widget-vbox img").scroll_into_view_if_needed()
    return page


def change(page, label, key=None, choice=None):
    """Press a key on a slider, or choose from a menu; ms until picture and sound follow."""
    return page.evaluate(CHANGE, {"label": label, "key": key, "choice": choice})


def si_sdr(heard):
    """The SI-SDR in the titles of the noisy and of the denoised player, in dB."""
    return [float(re.search(r"SI-SDR (-?[\d.]+) dB", one["title"])[1]) for one in heard[1:]]


def test_sliders_change_figure_and_sound(page):
    change(page, "denoiser", choice="none")
    first = page.evaluate(LOOK)
    moves = [("SNR (dB)", "ArrowRight"), ("low (Hz)", "ArrowRight"), ("seed", "ArrowRight")]
    moves += [("high (Hz)", "ArrowLeft"), ("SNR (dB)", "ArrowRight"), ("low (Hz)", "ArrowLeft")]
    waits = [change(page, label, key) for label, key in moves]
    print("from key to figure and sound:", ", ".join(f"{wait:.0f} ms" for wait in waits))
    changed = page.evaluate(LOOK)
    assert sum(a != b for a, b in zip(first, changed, strict=True)) > 1_000
    assert statistics.median(waits) < LIMIT_MS


def test_the_gain_stays_whatever_the_snr(page):
    change(page, "denoiser", choice="low-pass")
    loudest = change_to_end(page, "Home")  # of the SNR: -10 dB
    softest = change_to_end(page, "End")
    for heard in (loudest, softest):
        assert [abs(one["seconds"] - 4) < 0.01 for one in heard] == [True] * 3
        assert heard[0]["rms"] == pytest.approx(10 ** (SPEECH_DB / 20), rel=0.001)
    assert loudest[1]["rms"] > 3 * loudest[0]["rms"]
    assert softest[1]["rms"] == pytest.approx(softest[0]["rms"], rel=0.01)


def change_to_end(page, key):
    """Move the SNR to one of its ends; what the players have then."""
    change(page, "SNR (dB)", key)
    return page.evaluate(LISTEN)


def test_every_denoiser_is_heard_and_measured(page):
    change(page, "SNR (dB)", "Home")
    scores = {}
    for name in ("none", "low-pass", "waveform", "spectrogram"):
        change(page, "denoiser", choice=name)
        heard = page.evaluate(LISTEN)
        assert heard[2]["title"].startswith(f"denoiser {name},")
        noisy, scores[name] = si_sdr(heard)
        assert noisy == pytest.approx(-10, abs=0.2)
        assert heard[2]["rms"] > 0.3 * heard[0]["rms"]
    assert scores["none"] == pytest.approx(-10, abs=0.2)
    assert all(score > 5 for name, score in scores.items() if name != "none")
