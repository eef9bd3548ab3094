"""The bench of notebook 02 as a reader uses it: move a slider, see and hear the noise change."""

import statistics

MOVE = """async ({label, key}) => {
    const control = [...document.querySelectorAll('.widget-slider')]
        .find(slider => slider.textContent.includes(label));
    const bench = control.closest('.widget-vbox');
    const state = () => [bench.querySelector('img').src, bench.querySelector('audio').innerHTML];
    const before = state();
    const handle = control.querySelector('.noUi-handle');
    const start = performance.now();
    handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    while (state().some((part, i) => part === before[i])) {
        if (performance.now() - start > 20000) throw new Error(label + ': nothing changed');
        await new Promise(requestAnimationFrame);
    }
    await bench.querySelector('img').decode();
    return performance.now() - start;
}"""
LISTEN = """async () => {
    const player = document.querySelector('.widget-vbox audio');
    const source = player.src || player.querySelector('source').src;
    const data = await (await fetch(source)).arrayBuffer();
    const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(data);
    const samples = sound.getChannelData(0);
    const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
    return {seconds: sound.duration, rms: Math.sqrt(power), peak: samples.reduce(
        (most, x) => Math.max(most, Math.abs(x)), 0)};
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


def test_sliders_change_figure_and_sound(open_notebook):
    page = open_notebook("02_noise")
    page.wait_for_selector(".widget-vbox img", state="attached")
    assert page.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0
    page.locator(".widget-vbox img").scroll_into_view_if_needed()
    first = page.evaluate(LOOK)
    sound = page.evaluate(LISTEN)
    assert abs(sound["seconds"] - 4) < 0.01
    assert sound["rms"] > 0.01
    assert 0.85 < sound["peak"] < 0.95

    moves = [("SNR (dB)", "ArrowRight"), ("low (Hz)", "ArrowRight"), ("seed", "ArrowRight")]
    moves += [("dB/octave", "ArrowLeft"), ("SNR (dB)", "ArrowRight"), ("low (Hz)", "ArrowLeft")]
    waits = [page.evaluate(MOVE, {"label": label, "key": key}) for label, key in moves]
    print("from key to figure and sound:", ", ".join(f"{wait:.0f} ms" for wait in waits))
    changed = page.evaluate(LOOK)
    assert sum(a != b for a, b in zip(first, changed, strict=True)) > 1_000
    assert page.evaluate(LISTEN)["rms"] > 0.01
    assert statistics.median(waits) < LIMIT_MS
