"""`helpers.tool.download` against a server on this machine: it never leaves 127.0.0.1."""

import contextlib
import gzip
import hashlib
import io
import re
import shutil
import tarfile
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from helpers.store import FileError
from helpers.tool.download import MD5, SIZES, DownloadError, download

SUBSET = "dev-clean"
NAME = f"{SUBSET}.tar.gz"
FLAC = f"{SUBSET}/84/121123/84-121123-0000.flac"
CONTENT = np.random.default_rng(0).bytes(300_000)  # does not compress: the archive is as large


def make_archive(members: dict[str, bytes]) -> bytes:
    """A tar.gz with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive(
    {
        f"LibriSpeech/{FLAC}": CONTENT,
        f"LibriSpeech/{SUBSET}/84/121123/84-121123.trans.txt": b"84-121123-0000 GO\n",
        "LibriSpeech/SPEAKERS.TXT": b"84 | F | dev-clean | 8.02 | A Reader\n",
        "LibriSpeech/LICENSE.TXT": b"CC BY 4.0\n",
    }
)


class Handler(BaseHTTPRequestHandler):
    """Sends `server.archive`, honouring Range, and hangs up after `server.cuts` bytes."""

    def do_GET(self):
        server, body = self.server, self.server.archive
        if server.answer:
            return server.answer(self)
        asked = self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        request = {"range": asked, "path": self.path, "sent": 0}
        server.requests.append(request)
        if server.status:
            return self.send_error(server.status)
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        piece = body[start:][: server.cuts.pop(0) if server.cuts else None]
        request["sent"] = len(piece)
        self.wfile.write(piece)
        self.close_connection = True

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def start_server():
    """A function that starts a server; its `requests` say what was asked and what was sent."""
    servers = []

    def start(archive=ARCHIVE, cuts=(), ranges=True, status=None, answer=None):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.answer = answer
        server.archive, server.cuts, server.ranges = archive, list(cuts), ranges
        server.status, server.requests = status, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}/resources/12/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, small sizes, and no proxy between the test and its server."""
    monkeypatch.setattr("helpers.tool.download.RETRY_WAITS", (0, 0.01))
    monkeypatch.setattr("helpers.tool.download.TIMEOUT", (2, 2))
    monkeypatch.setitem(SIZES, SUBSET, len(ARCHIVE))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def get(dest, *servers, archive=ARCHIVE, **options):
    """Download SUBSET from these servers, expecting the MD5 of `archive`."""
    md5 = {SUBSET: hashlib.md5(archive).hexdigest()}
    options = {"checksums": md5, "progress": False} | options
    sizes = {} if archive is ARCHIVE else {SUBSET: len(archive)}
    with mock.patch.dict(SIZES, sizes):
        return download(SUBSET, dest, mirrors=[server.url for server in servers], **options)


def everything(folder: Path) -> list[str]:
    """Every file and folder under `folder`, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def files(folder: Path) -> list[str]:
    """Every file under `folder`, relative to it."""
    return [name for name in everything(folder) if (folder / name).is_file()]


def test_full_download_leaves_the_subset_and_nothing_else(tmp_path, start_server, capsys):
    server = start_server()
    dest = tmp_path / "data" / "LibriSpeech"
    assert get(dest, server, progress=True) == dest / SUBSET
    assert (dest / FLAC).read_bytes() == CONTENT
    folder = f"{SUBSET}/84/121123"
    assert files(tmp_path / "data") == [
        "LibriSpeech/LICENSE.TXT",
        "LibriSpeech/SPEAKERS.TXT",
        f"LibriSpeech/{folder}/84-121123-0000.flac",
        f"LibriSpeech/{folder}/84-121123.trans.txt",
    ]
    assert everything(tmp_path / "data")[0] == "LibriSpeech"  # no work folder is left
    assert server.requests == [
        {"range": None, "path": f"/resources/12/{NAME}", "sent": len(ARCHIVE)}
    ]
    assert NAME in capsys.readouterr().err  # the progress bar


def test_second_call_leaves_the_subset_alone_and_says_so(tmp_path, start_server, capsys):
    server = start_server()
    get(tmp_path / "LibriSpeech", server)
    (tmp_path / "LibriSpeech" / FLAC).write_bytes(b"mine")
    assert get(tmp_path / "LibriSpeech", server) == tmp_path / "LibriSpeech" / SUBSET
    assert not capsys.readouterr().out  # nor was anything said by the first
    again = get(tmp_path / "LibriSpeech", server, progress=True)
    assert again == tmp_path / "LibriSpeech" / SUBSET
    assert len(server.requests) == 1
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == b"mine"
    assert "left alone" in capsys.readouterr().out


def test_merges_into_a_corpus_that_is_there(tmp_path, start_server):
    (tmp_path / "test-clean").mkdir()
    (tmp_path / "test-clean" / "a.flac").write_bytes(b"a")
    (tmp_path / "SPEAKERS.TXT").write_bytes(b"mine")
    get(tmp_path, start_server())
    assert (tmp_path / "test-clean" / "a.flac").read_bytes() == b"a"
    assert (tmp_path / "SPEAKERS.TXT").read_bytes() == b"mine"
    assert (tmp_path / "LICENSE.TXT").exists()
    assert (tmp_path / FLAC).exists()


def test_broken_transfer_resumes_in_the_same_call(tmp_path, start_server):
    server = start_server(cuts=[200_000])
    get(tmp_path / "LibriSpeech", server)
    first, second = server.requests
    start = int(re.fullmatch(r"bytes=(\d+)-", second["range"])[1])
    assert 0 < start <= first["sent"] == 200_000
    assert second["sent"] == len(ARCHIVE) - start < len(ARCHIVE)
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


def test_broken_transfer_resumes_in_the_next_call_and_elsewhere(tmp_path, start_server):
    dest = tmp_path / "LibriSpeech"
    with pytest.raises(DownloadError, match=r"go on from 0\.[12] MB"):
        get(dest, start_server(cuts=[150_000, 70_000]))
    assert not dest.exists()
    other = start_server()
    get(dest, other)
    assert [request["range"] is not None for request in other.requests] == [True]
    assert 0 < other.requests[0]["sent"] < len(ARCHIVE) - 150_000
    assert (dest / FLAC).read_bytes() == CONTENT


def test_whole_part_is_not_sent_again(tmp_path, start_server):
    part = tmp_path / ".LibriSpeech.partial" / f"{NAME}.part"
    part.parent.mkdir()
    part.write_bytes(ARCHIVE)  # killed between the last byte and the renaming
    server = start_server()
    get(tmp_path / "LibriSpeech", server)
    assert server.requests == []
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


def test_server_without_range_sends_all_again(tmp_path, start_server):
    server = start_server(cuts=[200_000], ranges=False)
    get(tmp_path / "LibriSpeech", server)
    assert [request["sent"] for request in server.requests] == [200_000, len(ARCHIVE)]
    assert server.requests[1]["range"]
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_nothing_left(tmp_path, start_server):
    with pytest.raises(DownloadError) as caught:
        get(tmp_path / "LibriSpeech", start_server(), checksums=MD5)
    message = str(caught.value)
    assert "\n" not in message
    for part in (NAME, MD5[SUBSET], hashlib.md5(ARCHIVE).hexdigest(), "run the download again"):
        assert part in message
    assert everything(tmp_path) == []


def test_stale_part_is_found_out_and_replaced(tmp_path, start_server):
    part = tmp_path / ".LibriSpeech.partial" / f"{NAME}.part"
    part.parent.mkdir()
    part.write_bytes(b"not the beginning of it")
    server = start_server()
    get(tmp_path / "LibriSpeech", server)
    assert [request["range"] for request in server.requests] == ["bytes=23-", None]
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["../../../evil.txt", "LibriSpeech/../../../evil.txt"])
def test_member_that_climbs_out_is_refused(tmp_path, start_server, name):
    archive = make_archive({f"LibriSpeech/{FLAC}": b"x", name: b"evil"})
    dest = tmp_path / "data" / "deep" / "LibriSpeech"
    with pytest.raises(DownloadError, match=r"not unpacked \(.*evil\.txt") as caught:
        get(dest, start_server(archive), archive=archive)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []
    assert not dest.exists()


def test_a_link_is_refused(tmp_path, start_server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo(f"LibriSpeech/{FLAC}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    archive = buffer.getvalue()
    with pytest.raises(DownloadError, match="may land outside"):
        get(tmp_path / "LibriSpeech", start_server(archive), archive=archive)
    assert everything(tmp_path) == []


def test_archive_of_something_else_is_refused(tmp_path, start_server):
    for archive in (make_archive({"LibriSpeech/test-clean/a.flac": b"a"}), b"<html>no</html>"):
        with pytest.raises(DownloadError, match="not unpacked"):
            get(tmp_path / "LibriSpeech", start_server(archive), archive=archive)
        assert everything(tmp_path) == []


def test_subset_appears_only_when_complete(tmp_path, start_server, monkeypatch):
    """An error half-way through the archive leaves no subset, and keeps what was transferred."""
    dest, server = tmp_path / "LibriSpeech", start_server()
    seen = []

    def full_disk(self, member, *args, **kwargs):
        seen.append(dest.exists())
        if len(seen) > 1:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "makefile", full_disk)
        with pytest.raises(DownloadError, match="No space left on device"):
            get(dest, server)
    assert seen == [False, False]
    assert everything(tmp_path) == [".LibriSpeech.partial", f".LibriSpeech.partial/{NAME}"]
    get(dest, server)
    assert len(server.requests) == 1
    assert (dest / FLAC).read_bytes() == CONTENT


def test_too_little_disk_is_said_before_the_transfer(tmp_path, start_server, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9, 9, 5 * 10**9))
    monkeypatch.setitem(SIZES, SUBSET, 10 * 10**9)
    server = start_server()
    with pytest.raises(DownloadError, match=r"21\.0 GB needed .* 5\.0 GB free"):
        get(tmp_path / "new" / "LibriSpeech", server)
    assert server.requests == []
    assert everything(tmp_path) == []


def test_dead_mirror_hands_over_to_the_next(tmp_path, start_server):
    closed = start_server()
    closed.shutdown()
    closed.server_close()
    missing, alive = start_server(status=404), start_server()
    get(tmp_path / "LibriSpeech", closed, missing, alive)
    assert (len(missing.requests), len(alive.requests)) == (1, 1)
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


def test_all_mirrors_dead_is_one_clear_error(tmp_path, start_server):
    server = start_server(status=503)
    with pytest.raises(
        DownloadError, match=rf"{NAME}: no mirror .*503.* run the download again"
    ) as caught:
        get(tmp_path / "LibriSpeech", server)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 2  # one in each round of RETRY_WAITS
    assert everything(tmp_path) == []


# --- mirrors that answer wrongly ----------------------------------------------------------------

PAGE = b"<html><title>Please log in</title></html>" * 40
SIZE, HAVE = (
    len(ARCHIVE),
    120_000,
)  # bytes of the archive, and of a good part that lies there already


def reply(handler, status, body, **headers):
    """Send an answer with these headers (`_` for `-`), whatever was asked."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(OSError):  # the client may have had enough
        handler.wfile.write(body)
    handler.close_connection = True


def rest(first=HAVE, size=SIZE) -> dict:
    """The headers of an answer that sends the rest of an archive."""
    return {"Content_Range": f"bytes {first}-{size - 1}/{size}", "Content_Length": size - first}


NOISE = np.random.default_rng(1).bytes(len(ARCHIVE))
WRONG_ANSWERS = {
    "a page with 200": lambda h: reply(h, 200, PAGE, Content_Length=len(PAGE)),
    "a page with 200 of no length": lambda h: reply(h, 200, PAGE),
    "a page with 206": lambda h: reply(h, 206, PAGE, **rest() | {"Content_Length": len(PAGE)}),
    "a page with 206 of no range": lambda h: reply(h, 206, PAGE),
    "a page that calls itself the rest": lambda h: reply(
        h, 206, (PAGE * 300)[: len(ARCHIVE) - HAVE], Content_Type="text/html", **rest()
    ),
    "a short length": lambda h: reply(h, 206, ARCHIVE[HAVE:][:9], **rest() | {"Content_Length": 9}),
    "a short body of no length": lambda h: reply(
        h, 206, NOISE[:5000], Content_Range=rest()["Content_Range"]
    ),
    "416": lambda h: reply(h, 416, b"", Content_Range="bytes */100"),
    "a range from elsewhere": lambda h: reply(h, 206, ARCHIVE[9 + HAVE :], **rest(HAVE + 9)),
    "the range of another archive": lambda h: reply(
        h, 206, NOISE[HAVE:], **rest(size=len(ARCHIVE) + 9)
    ),
    "gzip": lambda h: reply(
        h, 206, gzip.compress(ARCHIVE[HAVE:]), Content_Encoding="gzip", **rest()
    ),
    "gzip of no length": lambda h: reply(
        h, 200, gzip.compress(ARCHIVE), Content_Encoding="gzip", Transfer_Encoding="identity"
    ),
    "another archive": lambda h: reply(h, 206, NOISE[HAVE:], **rest()),
    "an endless body": lambda h: reply(h, 200, NOISE * 3),
    "an endless rest": lambda h: reply(h, 206, NOISE * 3, Content_Range=rest()["Content_Range"]),
}
TOLD_BY_MD5 = ("another archive", "an endless body", "an endless rest")


@pytest.fixture
def part(tmp_path):
    """The beginning of the archive, as a broken transfer leaves it."""
    path = tmp_path / ".LibriSpeech.partial" / f"{NAME}.part"
    path.parent.mkdir()
    path.write_bytes(ARCHIVE[:HAVE])
    return path


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_a_bad_mirror_spoils_nothing_and_the_next_goes_on(tmp_path, start_server, part, answer):
    bad, good = start_server(answer=WRONG_ANSWERS[answer]), start_server()
    get(tmp_path / "LibriSpeech", bad, good)
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT
    assert [request["range"] for request in good.requests] == [f"bytes={HAVE}-"]
    assert everything(tmp_path)[0] == "LibriSpeech"


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_bad_mirrors_alone_are_one_line_and_keep_the_part(tmp_path, start_server, part, answer):
    with pytest.raises(DownloadError, match=rf"{NAME}: no mirror .* run the download again") as one:
        get(tmp_path / "LibriSpeech", start_server(answer=WRONG_ANSWERS[answer]))
    assert "\n" not in str(one.value)
    if answer not in TOLD_BY_MD5:  # which puts the part in doubt
        assert part.read_bytes() == ARCHIVE[:HAVE]
    assert not (tmp_path / "LibriSpeech").exists()


def test_a_mirror_that_lies_while_the_others_are_down_costs_no_part(tmp_path, start_server, part):
    liar = start_server(answer=WRONG_ANSWERS["another archive"])
    with pytest.raises(DownloadError, match=rf"go on from 0\.1 MB, or remove {part} first"):
        get(tmp_path / "LibriSpeech", liar, start_server(status=503))
    assert part.read_bytes() == ARCHIVE[:HAVE]
    get(tmp_path / "LibriSpeech", liar, start_server())
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


def test_an_endless_body_is_left_at_the_size_of_the_archive(tmp_path, start_server):
    sent = []

    def endless(handler):
        reply(handler, 200, b"")
        with contextlib.suppress(OSError):
            while len(sent) < 1000:
                handler.wfile.write(NOISE)
                sent.append(len(NOISE))

    get(tmp_path / "LibriSpeech", start_server(answer=endless), start_server())
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT
    assert len(sent) < 100  # what fits into the buffers on the way


def test_a_second_download_of_a_subset_is_refused_while_one_is_at_work(tmp_path, start_server):
    dest, server, waits = tmp_path / "LibriSpeech", start_server(), threading.Event()

    def slow(handler):
        begun.set()
        waits.wait(10)
        reply(handler, 200, ARCHIVE, Content_Length=len(ARCHIVE))

    begun, first = threading.Event(), start_server(answer=slow)
    thread = threading.Thread(target=get, args=(dest, first))
    thread.start()
    assert begun.wait(10)
    try:
        with pytest.raises(FileError) as caught:
            get(dest, server)
    finally:
        waits.set()
        thread.join()
    place = tmp_path / ".LibriSpeech.partial" / SUBSET
    assert str(caught.value) == f"{place}: another process is at work on it; wait for its end"
    assert server.requests == []
    assert (dest / FLAC).read_bytes() == CONTENT
    assert everything(tmp_path)[0] == "LibriSpeech"  # neither work folder nor lock is left


def test_an_archive_that_went_bad_on_disk_is_fetched_anew(tmp_path, start_server, part):
    archive = part.with_name(NAME)
    archive.write_bytes(NOISE)
    get(tmp_path / "LibriSpeech", start_server())
    assert (tmp_path / "LibriSpeech" / FLAC).read_bytes() == CONTENT


def test_unknown_subset_lists_the_known(tmp_path):
    with pytest.raises(DownloadError) as caught:
        download("dev-cleen", tmp_path)
    assert len(MD5) == 7 + 1  # UrbanSound8K
    assert MD5.keys() == SIZES.keys()
    for name in MD5:
        assert name in str(caught.value)


def test_urbansound8k_goes_where_noise_is_looked_for(tmp_path, start_server, monkeypatch, capsys):
    files = {
        "UrbanSound8K/metadata/UrbanSound8K.csv": b"slice_file_name,fsID,fold,class\n",
        "UrbanSound8K/audio/fold1/a.wav": CONTENT,
    }
    archive = make_archive(files)
    monkeypatch.setitem(SIZES, "UrbanSound8K", len(archive))
    md5 = {"UrbanSound8K": hashlib.md5(archive).hexdigest()}
    server = start_server(archive)
    options = {"mirrors": [server.url], "checksums": md5}
    target = download("UrbanSound8K", tmp_path / "noise", **options)
    assert (target / "audio" / "fold1" / "a.wav").read_bytes() == CONTENT
    assert "non-commercial" in capsys.readouterr().out
    assert everything(tmp_path)[0] == "noise"


def test_licence_is_said_before_anything_is_sent(tmp_path, capsys):
    with pytest.raises(DownloadError, match="no mirror to ask"):
        get(tmp_path / "LibriSpeech", progress=True)
    assert "CC BY 4.0" in capsys.readouterr().out
