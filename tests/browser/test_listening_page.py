"""The exported listening test as a listener uses it, from disk: name, answers, the file."""

import shutil

import numpy as np
import pytest

from helpers import audio
from helpers.display import listening_test
from helpers.store import ROOT

FILES = sorted((ROOT / "data" / "sample" / "sample-clean" / "9001" / "1").glob("*.flac"))[:2]
PLAYED = """async () => {
    const player = document.querySelector('audio');
    await player.play();
    for (let i = 0; player.currentTime === 0; i++) {  // a busy machine starts the sound late
        if (i > 400) throw new Error('no sound');
        await new Promise(done => setTimeout(done, 25));
    }
    player.pause();
    return player.duration;
}"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The page's path; two utterances, each in three versions."""
    clips = {}
    for file in FILES:
        clean = audio.read(file)
        noise = np.random.default_rng(0).normal(0, 0.02, len(clean))
        clips[file.stem] = {"clean": clean, "noisy": np.float32(clean + noise)}
    return listening_test.export_page(tmp_path_factory.mktemp("page"), clips)


@pytest.fixture
def open_page(chromium, exported):
    """A function size, scheme -> page; afterwards nothing but the folder may have been asked."""
    asked, errors, contexts = [], [], []

    def run(width=1300, scheme="light"):
        contexts.append(
            chromium.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
            )
        )
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(exported.as_uri())
        return page

    yield run
    for context in contexts:
        context.close()
    assert not errors
    folder = exported.parent.as_uri()
    assert {url.startswith((f"{folder}/", "blob:", "data:")) for url in asked} == {True}


def begin(page, name):
    page.fill("#listener", name)
    page.press("#listener", "Enter")
    page.wait_for_selector("#trial:not([hidden])")


def answer(page, grades):
    assert page.is_disabled("#next")
    for scale, grade in zip(listening_test.SCALES, grades, strict=True):
        page.check(f"input[name={scale}][value='{grade}']")
    page.click("#next")


def download(page, path):
    with page.expect_download() as event:
        page.click("#download")
    event.value.save_as(path / event.value.suggested_filename)


def answer_all(page, name, grades, path):
    begin(page, name)
    for i, three in enumerate(grades, start=1):
        assert page.text_content("#title") == f"Clip {i} of 6: listen, then answer"
        for question in listening_test.QUESTIONS.values():
            assert page.is_visible(f"legend:has-text('{question}')")
        assert not any(s in page.inner_text("main") for s in ("noisy", "reference", "anchor"))
        answer(page, three)
    assert "Thank you. 6 answers" in page.text_content("#title")
    download(page, path)


def test_listeners_answer_all_and_their_files_are_read(open_page, tmp_path):
    page = open_page()
    grades = np.random.default_rng(0).integers(1, 6, (6, 3)).tolist()
    answer_all(page, 'Ann, "the first"', grades, tmp_path)
    answer_all(open_page(), "Jürgen", grades[::-1], tmp_path)
    answers = listening_test.read_answers(tmp_path)
    assert tuple(answers.columns) == listening_test.ListeningTest.COLUMNS
    orders = []
    for name, expected in (('Ann, "the first"', grades), ("Jürgen", grades[::-1])):
        own = answers[answers.listener == name]
        assert own[list(listening_test.SCALES)].to_numpy().tolist() == expected
        assert own.position.tolist() == [1, 2, 3, 4, 5, 6]
        assert (own.seconds >= 0).all()
        pairs = list(zip(own.utterance, own.system, strict=True))
        versions = (listening_test.REFERENCE, listening_test.ANCHOR, "noisy")
        assert sorted(pairs) == sorted((f.stem, v) for f in FILES for v in versions)
        orders.append(pairs)
    assert orders[0] != orders[1]
    assert answers.test.nunique() == 1
    assert answers.test[0] in open_page().text_content("#test")


def test_sound_plays_and_a_reload_goes_on(open_page, tmp_path):
    page = open_page()
    begin(page, "ben")
    lengths = [len(audio.read(file)) / audio.SAMPLE_RATE for file in FILES]
    played = page.evaluate(PLAYED)
    assert min(abs(played - one) for one in lengths) < 0.05
    answer(page, (1, 2, 3))
    page.reload()
    begin(page, "ben")
    assert page.text_content("#title") == "Clip 2 of 6: listen, then answer"
    for _ in range(5):
        answer(page, (4, 4, 4))
    download(page, tmp_path)
    answers = listening_test.read_answers(tmp_path)
    assert answers.overall.tolist() == [3, 4, 4, 4, 4, 4]
    assert not answers.duplicated(["utterance", "system"]).any()


def test_a_clip_that_does_not_load_cannot_be_graded(chromium, exported, tmp_path):
    folder = shutil.copytree(exported.parent, tmp_path / "page")
    page = chromium.new_page()
    page.goto((folder / "index.html").as_uri())
    for clip in folder.glob("*.flac"):
        clip.rename(clip.with_suffix(".away"))
    begin(page, "eve")
    page.wait_for_selector("#failed:not([hidden])")
    for scale in listening_test.SCALES:
        page.check(f"input[name={scale}][value='3']")
    assert page.is_disabled("#next")
    for clip in folder.glob("*.away"):
        clip.rename(clip.with_suffix(".flac"))
    page.reload()
    begin(page, "eve")
    answer(page, (3, 3, 3))
    assert page.text_content("#title") == "Clip 2 of 6: listen, then answer"
    assert page.is_hidden("#failed")
    page.close()


@pytest.mark.parametrize("width", [1300, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(open_page, width, scheme):
    page = open_page(width, scheme)
    begin(page, "eve")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bright = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128"
    )
    assert bright == (scheme == "light")
