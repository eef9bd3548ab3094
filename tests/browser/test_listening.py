"""The listening test of appendix 05 as a listener uses it: play, answer, next; the CSV is there."""

import pandas as pd

RATE = """async (value) => {
    const test = document.querySelector('.listening-test');
    const title = () => test.querySelector('.widget-html').textContent;
    const player = test.querySelector('audio');
    await player.play();
    for (let i = 0; player.currentTime === 0; i++) {  // a busy machine starts the sound late
        if (i > 400) throw new Error('no sound: ' + title());
        await new Promise(done => setTimeout(done, 25));
    }
    await new Promise(done => setTimeout(done, 300));
    const played = player.currentTime;
    player.pause();
    const before = title();
    for (const question of test.querySelectorAll('.widget-toggle-buttons'))
        question.querySelectorAll('button')[value - 1].click();
    const next = [...test.querySelectorAll('button')].find(b => b.textContent === 'next');
    for (let i = 0; next.disabled && i < 200; i++)
        await new Promise(done => setTimeout(done, 25));
    next.click();
    for (let i = 0; title() === before; i++) {
        if (i > 400) throw new Error('the page stays: ' + before);
        await new Promise(done => setTimeout(done, 25));
    }
    return {played, title: title()};
}"""


def test_a_listener_plays_rates_and_leaves_a_csv(open_notebook, server_folder):
    page = open_notebook("appendix/05_listeners")
    page.wait_for_selector(".listening-test audio", timeout=120_000)
    assert "Clip 1 of 5" in page.text_content(".listening-test")
    ratings = [3, 1, 5, 2, 4]
    for position, value in enumerate(ratings, start=1):
        seen = page.evaluate(RATE, value)
        assert seen["played"] > 0
        assert ("Thank you" in seen["title"]) == (position == len(ratings))
    answers = pd.read_csv(server_folder / "output" / "listening_test.csv")
    assert list(answers.overall) == list(answers.signal) == ratings
    assert list(answers.position) == [1, 2, 3, 4, 5]
    assert {"hidden reference", "3.5 kHz anchor", "spectrogram"} < set(answers.system)
    assert (answers.seconds > 0.3).all()
