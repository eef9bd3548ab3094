"""The page: what is served and what is not, and that it stands alone inside a notebook."""

import contextlib
import html
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from conftest import heed_signals

from helpers import __main__ as command_line
from helpers import models
from helpers.display import live
from helpers.store import ROOT
from helpers.tool import page


@pytest.fixture(scope="module")
def ask():
    """A function path -> (status, type, body) of a server of the page."""
    with page.make_server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def get(path, method="GET"):
            with contextlib.closing(
                http.client.HTTPConnection(page.HOST, server.server_port, timeout=20)
            ) as connection:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()

        yield get
        server.shutdown()
        thread.join()


def test_the_page_and_what_it_asks_for_are_served(ask):
    status, headers, _ = ask("/")
    assert (status, headers["Location"]) == (302, "/web/")
    _, headers, body = ask("/web/")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    text = body.decode()
    asked = re.findall(r'(?:src|href|data-example|data-engine)="([^"]+)"', text)
    assert {"denoiser.js", "page.js", "style.css"} < set(asked)
    for name in asked:
        status, headers, body = ask(f"/web/{name}".replace("/web/..", ""))
        assert status == 200
        assert len(body) > 100
    assert ask("/web/page.js")[1]["Content-Type"] == "text/javascript; charset=utf-8"
    for method in models.METHODS:
        index = json.loads(ask(f"/data/models/web/{method}.json")[2])
        status, headers, body = ask(f"/data/models/web/{method}.bin")
        assert len(body) == int(headers["Content-Length"]) == index["bytes"]
        assert ask(f"/data/models/web/{method}.bin", "HEAD")[2] == b""


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/README.md",
            "/web/../README.md",
            "/web/%2e%2e/README.md",
            "/data/models/waveform.keras",
        ),
        *("/data/sample/", "/data/models/web/", "/web/%00", "/nothing", "//etc/passwd", "/../x"),
    ],
)
def test_nothing_else_is_served(ask, path):
    status, _, body = ask(path)
    assert status == 404
    assert b"denoiser" not in body.lower()


def test_a_link_out_of_the_folders_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "inside.txt").write_text("x")
    (tmp_path / "outside.txt").write_text("x")
    (tmp_path / "web" / "link.txt").symlink_to(tmp_path / "outside.txt")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    assert page.is_shown(str(tmp_path / "web" / "inside.txt"))
    assert not page.is_shown(str(tmp_path / "web" / "link.txt"))


def test_the_command_says_where_and_ends_by_ctrl_c(monkeypatch, capsys):
    command = [sys.executable, "-m", "helpers", "page"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=heed_signals,
    )
    line = process.stdout.readline()
    found = re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)
    assert found, line
    assert command_line.main(["page", "--port", found[1]]) == 1  # taken
    assert re.fullmatch(r"error: port \d+: [^\n]+--port\n", capsys.readouterr().err)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr.read().strip() == ""
    monkeypatch.setattr(models, "FOLDER", ROOT / "nowhere")
    with pytest.raises(models.WeightsError, match="experiments export"):
        page.make_server()


def test_the_page_names_no_other_host():
    for file in (ROOT / "web").iterdir():
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert file.suffix == ".md" or not re.search(r"https?://|//[a-z]+\.", text), file
    assert "default-src 'none'" in (ROOT / "web" / "index.html").read_text("utf-8")


def test_the_page_names_its_limit_and_plays_without_talk():
    text, script = ((ROOT / "web" / name).read_text("utf-8") for name in ("index.html", "page.js"))
    seconds = int(re.search(r"LONGEST_RECORDING = (\d+)", script)[1])
    assert f"A recording ends after {seconds // 60} minutes." in text
    assert re.search(r'id="time"[^>]* aria-live="off"', text)  # it changes with each frame


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
def test_an_engine_that_fails_ends_the_recording_and_keeps_it():
    command = ["node", "tests/failing_engine.js"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {
        "status": "The engine stopped; start the microphone again.",
        "record": "Start the microphone",
        "recorded": 16_000,
        "track": "ended",
    }


def test_the_output_of_a_cell_needs_no_other_file(monkeypatch):
    shown = live.live(("waveform",)).data
    text = html.unescape(re.search(r'srcdoc="([^"]*)"', shown)[1])
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=", text)
    weights = json.loads(re.search(r'id="weights">(.*?)</script>', text)[1])
    assert list(weights) == ["waveform"]
    assert weights["waveform"] == live.weights_of("waveform")
    assert text.count("</script>") == 3
    assert "registerProcessor" in text
    assert len(shown) < 1.5e6
    monkeypatch.setattr(models, "FOLDER", ROOT / "nowhere")
    with pytest.raises(models.WeightsError, match="experiments export"):
        live.live()
