"""The built site on loopback, and a headless Chromium that opens it."""

import contextlib
import functools
import http.server
import json
import threading
from pathlib import Path

import pytest

from helpers.store import ROOT
from tests.browser.conftest import chromium  # noqa: F401  a fixture

SITE = ROOT / "output" / "site"
HTML = SITE / "html"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not write a line for each."""

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a page that is left asks no further
            super().handle()


@pytest.fixture(scope="session")
def address():
    """Where the site is served."""
    assert (HTML / "index.html").exists(), "no site; run `make site`"
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=HTML)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def rows() -> list[list[dict]]:
    """Every row of players: title, file, seconds and RMS as the notebook made them."""
    return json.loads((SITE / "rows.json").read_text())


@pytest.fixture(scope="session")
def pages() -> list[str]:
    """Every page, from the site's top; the page of web/ has tests of its own."""
    found = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    return sorted(str(path) for path in found if path.parts[0] not in ("try", "_static"))


@pytest.fixture
def open_page(chromium, address):  # noqa: F811
    """A function (page, width, theme) -> the page, opened; all it asks for must come from here."""
    contexts = []

    def open_it(page: str, width: int = 1300, theme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.asked, opened.failed = [], []
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.on("pageerror", lambda error: opened.failed.append(str(error)))
        opened.on(
            "response",
            lambda answer: answer.status >= 400 and opened.failed.append(answer.url),
        )
        opened.goto(address + page)
        return opened

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The code of axe-core, out of a package of the site's environment."""
    (path,) = (ROOT / ".venv-site").glob("lib/*/site-packages/axe_playwright_python/axe.min.js")
    return Path(path).read_text("utf-8")
