"""The site as a visitor uses it, in headless Chromium."""

import html.parser
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from helpers.store import ROOT
from tests.browser_site.conftest import HTML

CHAPTER = "notebooks/02_noise.html"
KINDS = ("index.html", CHAPTER, "notebooks/solutions/02_noise.html", "glossary.html", "try.html")
KINDS += ("for_teachers.html", "data/results/README.html", "README.html", "search.html?q=phase")
LISTEN = """async files => {
    const heard = {};
    for (const file of files) {
        const data = await (await fetch('media/' + file)).arrayBuffer();
        const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(data);
        const samples = sound.getChannelData(0);
        const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
        heard[file] = {seconds: sound.duration, rms: Math.sqrt(power)};
    }
    return heard;
}"""
PLAY = """async player => {
    await player.play();
    for (let i = 0; player.currentTime < 0.2; i++) {  // a busy machine starts late
        if (i > 400) throw new Error('no sound');
        await new Promise(done => setTimeout(done, 25));
    }
    player.pause();
    return [player.duration, player.currentTime];
}"""
SERIOUS = """async () => {
    const {violations} = await axe.run(document, {iframes: false});
    return violations.filter(one => ['serious', 'critical'].includes(one.impact)).map(one =>
        one.id + ': ' + one.nodes.slice(0, 3).map(node => node.html.slice(0, 160)).join(' | '));
}"""
SLIDES = """() => {
    const found = [];
    for (const {h, v} of Reveal.getSlides().map(slide => Reveal.getIndices(slide))) {
        Reveal.slide(h, v, 99);  // with all that comes at a click
        const slide = Reveal.getCurrentSlide();
        found.push({text: slide.textContent.trim().length, high: slide.scrollHeight,
            room: slide.clientHeight, wide: slide.scrollWidth > slide.clientWidth + 1});
    }
    return found;
}"""
ON_ONE_SLIDE = 0.9  # of the slides; the rest can be scrolled


class Reader(html.parser.HTMLParser):
    """What a page links to, what can be linked to in it, and its pictures."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.ids, self.images = [], set(), []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "img":
            self.images.append(found)


# --- sound ---------------------------------------------------------------------------------------


def test_every_player_plays_what_the_notebook_made_with_one_gain_a_row(open_page, rows):
    page = open_page("index.html")
    files = sorted({one["file"] for row in rows for one in row})
    heard = page.evaluate(LISTEN, files)
    assert len(files) > 50
    for row in rows:
        gains = [heard[one["file"]]["rms"] / one["rms"] for one in row]
        assert max(gains) == pytest.approx(min(gains), rel=1e-3), row
        for one in row:
            assert heard[one["file"]]["seconds"] == pytest.approx(one["seconds"], abs=0.01), one
            assert heard[one["file"]]["rms"] > 1e-5, one
    print(f"{len(files)} sounds in {len(rows)} rows")


def test_pages_show_the_players_that_were_made_and_no_others(rows, pages):
    made = {one["file"] for row in rows for one in row}
    text = "".join((HTML / page).read_text("utf-8") for page in pages)
    assert set(re.findall(r"media/(\w+\.flac)", text)) == made
    assert {path.name for path in (HTML / "media").glob("*.flac")} == made
    assert "run this cell to" not in text
    assert "data:audio" not in text


def test_a_click_plays(open_page):
    page = open_page(CHAPTER)
    player = page.locator(".players audio").first
    player.scroll_into_view_if_needed()
    seconds, played = player.evaluate(PLAY)
    assert seconds == pytest.approx(4, abs=0.1)
    assert played > 0.1


def test_menus_of_the_bench_change_picture_and_sound(open_page):
    page = open_page(CHAPTER)
    bench = page.locator(".bench")
    bench.scroll_into_view_if_needed()
    seen = set()
    for name in ("spectrogram", "low-pass", "none"):
        bench.get_by_role("combobox", name="denoiser").select_option(name)
        title = bench.locator("figcaption").last.text_content()
        assert title.startswith(f"denoiser {name}")
        bench.locator("img").scroll_into_view_if_needed()  # it is loaded when it is seen
        bench.locator("img").evaluate("image => image.decode()")
        seen.add((bench.locator("img").get_attribute("src"), title))
    assert len(seen) == 3
    bench.get_by_role("combobox", name="SNR").select_option("-10")
    bench.get_by_role("combobox", name=re.compile("^noise")).select_option("inverter")
    assert "inverter at -10 dB" in bench.locator("figcaption").nth(1).text_content()
    bench.locator("audio").last.evaluate(PLAY)


# --- finding and reading -------------------------------------------------------------------------


def test_search_finds_phase(open_page):
    page = open_page("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("phase")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    titles = page.locator("#search-results li > a").all_text_contents()
    assert any(title.startswith("01. ") for title in titles), titles
    assert any("Glossary" in title for title in titles), titles


def test_one_click_opens_a_solution(open_page):
    page = open_page(CHAPTER)
    solution = page.locator("details.solution").first
    code = solution.locator("pre")
    assert not code.is_visible()
    solution.locator("summary").click()
    assert "snr_db = -share_db" in code.text_content()
    assert code.is_visible()


def test_answers_terms_and_theme_by_the_keyboard(open_page):
    page = open_page(CHAPTER)
    page.keyboard.press("Tab")
    assert "Skip" in page.evaluate("document.activeElement.textContent")
    answer = page.locator("details > summary").first
    answer.focus()
    page.keyboard.press("Enter")
    assert answer.evaluate("one => one.parentElement.open")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "AUDIO"} <= reached
    page.locator("a[href*='glossary.html#term-']").first.press("Enter")
    page.wait_for_url("**/glossary.html#term-*")
    assert page.locator("html").get_attribute("data-theme") == "light"
    page.locator(".theme-switch-button").press("Enter")
    page.locator("[data-mode=dark].theme-change-button").press("Enter")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")


def test_links_hold_and_pictures_have_words(pages):
    read = {page: Reader(HTML / page) for page in pages}
    missing, silent = [], []
    for page, reader in read.items():
        for link in reader.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (HTML / page).parent / unquote(parts.path) if parts.path else HTML / page
            target = target.resolve()
            if not target.is_file() or not target.is_relative_to(HTML):
                missing.append(f"{page}: {link}")
            elif parts.fragment and target.suffix == ".html" and "slides/" not in page:
                inside = read.get(str(target.relative_to(HTML))) or Reader(target)
                if unquote(parts.fragment) not in inside.ids:
                    missing.append(f"{page}: {link}")
        if page.startswith("notebooks/"):
            words = [image.get("alt", "") for image in reader.images]
            silent += [f"{page}: {one!r}" for one in words if len(one) < 8]
    assert not missing
    assert not silent


@pytest.mark.parametrize("width", [1300, 400])
def test_no_page_asks_another_host_or_fails_or_is_wider_than_the_screen(
    open_page, address, pages, width
):
    page = open_page("index.html", width)
    for name in pages:
        page.goto(address + name)
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} px wide"
    assert {urlsplit(url).netloc for url in page.asked} - {urlsplit(address).netloc} <= {""}
    assert not page.failed


def test_formulas_are_set(open_page):
    page = open_page(CHAPTER)
    page.wait_for_selector("mjx-container mjx-math")
    assert page.locator("mjx-merror").count() == 0


# --- for everybody -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_no_serious_barrier_light_or_dark_wide_or_narrow(open_page, axe, name):
    page = open_page(name)
    page.wait_for_load_state("networkidle")
    page.evaluate(
        "document.querySelectorAll('.bd-article details').forEach(one => { one.open = true; })"
    )
    page.evaluate(axe)
    found = {}
    for width in (1300, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(1_000)  # the theme then lets the keyboard reach what scrolls
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
            found |= {(width, theme, barrier): name for barrier in page.evaluate(SERIOUS)}
    assert not found


# --- slides, size, citation ----------------------------------------------------------------------


def test_slides_open_and_fit(open_page, axe, pages):
    decks = [page for page in pages if page.startswith("slides/")]
    assert len(decks) == len(list((HTML / "notebooks").glob("*.html")))
    for name in decks:
        page = open_page(name)
        page.wait_for_function("window.Reveal?.isReady() && window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        slides = page.evaluate(SLIDES)
        fit = sum(one["high"] <= one["room"] + 1 for one in slides) / len(slides)
        print(f"{name}: {len(slides)} slides, {fit:.0%} fit the screen")
        assert 20 <= len(slides) <= 120
        assert fit >= ON_ONE_SLIDE
        assert all(one["text"] for one in slides)
        assert not any(one["wide"] for one in slides)
        assert not page.failed
        page.evaluate(axe)
        assert page.evaluate(SERIOUS) == []


def test_a_prediction_hides_its_answer_until_the_next_step(open_page):
    page = open_page("slides/02_noise.slides.html")
    page.wait_for_function("window.Reveal?.isReady()")
    answer = page.locator("section .fragment", has_text="Pink: the next octave").first
    index = answer.evaluate("one => Reveal.getIndices(one.closest('section'))")
    page.evaluate("({h, v}) => Reveal.slide(h, v, -1)", index)
    assert answer.evaluate("one => getComputedStyle(one).visibility") == "hidden"
    page.keyboard.press("ArrowRight")
    shown = "one => getComputedStyle(one).visibility === 'visible'"
    page.wait_for_function(shown, arg=answer.element_handle())  # slides fade; a timeout fails


def test_the_site_is_small():
    megabytes = sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) / 1e6
    print(f"{megabytes:.0f} MB")
    assert megabytes <= 60


def test_citation_is_valid():
    command = [ROOT / ".venv-site" / "bin" / "cffconvert", "--validate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
