"""The page of `web/` on this machine's own address, for this machine alone.

Any server of files can do the same for everyone: `web/README.md`.
"""

import http.server
import sys
from http import HTTPStatus
from pathlib import Path

from helpers import models
from helpers.store import ROOT

HOST = "127.0.0.1"
# of the project; nothing else is served
SHOWN = ("web/", "data/models/web/", "data/sample/sample-clean/")
TYPES = {  # not those of the machine: a browser refuses scripts of another type
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".flac": "audio/flac",
    "": "application/octet-stream",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of SHOWN, 404 for all else; `/` leads to the page."""

    extensions_map = TYPES

    def __init__(self, *args, **kwargs):
        super().__init__(*args, directory=str(ROOT), **kwargs)

    def send_head(self):
        """The header of an answer, and the file that follows, or None where none does."""
        if self.path == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", "/web/")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not is_shown(self.translate_path(self.path)):
            return self.send_error(HTTPStatus.NOT_FOUND)
        return super().send_head()

    def end_headers(self):
        self.send_header("Cache-Control", "no-cache")  # an export is seen at the next look
        super().end_headers()

    def log_message(self, *_):
        """Nothing: the terminal is for the address and for errors."""


def is_shown(path: str) -> bool:
    """Whether a path, links followed, is a file of SHOWN, or a folder there with its index.html."""
    if "\0" in path:
        return False
    place = Path(path).resolve()
    inside = place.is_relative_to(ROOT) and f"{place.relative_to(ROOT).as_posix()}/"
    whole = place.is_file() or (place / "index.html").is_file()  # no listings
    return bool(inside) and inside.startswith(SHOWN) and whole


def make_server(port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of the page on HOST, at a free port if `port` is 0.

    Raises OSError for a port that is taken or not allowed, models.WeightsError where the weights of
    the browser are missing.
    """
    for method in models.METHODS:
        weights = models.weights_path(method).parent / "web" / f"{method}.bin"
        if not weights.exists():
            raise models.WeightsError(f"{weights}: missing; run `python -m experiments export`")
    try:
        server = http.server.ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise OSError(f"port {port}: {error.strerror}; choose another --port") from error
    server.daemon_threads = True
    return server


def serve(port: int = 0) -> None:
    """Serve until Ctrl-C. Prints the address first; raises as `make_server`."""
    with make_server(port) as server:
        try:
            print(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)  # behind the ^C
