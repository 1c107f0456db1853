"""A real model server in a process, behind a front on loopback that can be told to misbehave."""

import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np

from liveframe.remote.wire import MEDIA_TYPE

Misbehave = Callable[["Handler"], None]
_KEPT_HEADERS = ("Content-Type", "Retry-After")


class Front(http.server.ThreadingHTTPServer):
    """Hands requests to the server behind it, unless `misbehave` is set: then that handles them."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}/predict"
        self.over = threading.Event()
        self.misbehaved = 0
        self._misbehave: Misbehave | None = None

    @contextmanager
    def failing(self, how: Misbehave) -> Iterator[None]:
        """Misbehave in this way for a while; what hangs is let go at the end."""
        self.over, self._misbehave = threading.Event(), how
        try:
            yield
        finally:
            self._misbehave = None
            self.over.set()

    def handled(self, handler: "Handler") -> bool:
        """Whether the front itself has dealt with a request."""
        misbehave = self._misbehave
        if misbehave is None:
            return False
        self.misbehaved += 1
        misbehave(handler)
        return True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the front, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Front

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.handled(self):
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            upstream.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        self.answer(answer.status, content, {key: answer.getheader(key, "") for key in _KEPT_HEADERS})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send an answer with the given headers, empty ones left out."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def front_of(upstream: str) -> Iterator[Front]:
    """Run a front before a server at a base URL."""
    with Front(upstream) as front:
        thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield front
        finally:
            front.over.set()
            front.shutdown()
            thread.join()


def refuses(status: int, retry_after: str) -> Misbehave:
    """Answer 429 or 503, and say when to come back."""
    return lambda handler: handler.answer(status, b"busy", {"Retry-After": retry_after})


def garbage(handler: Handler) -> None:
    """Answer 200 with what is no batch."""
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    handler.answer(200, noise, {"Content-Type": MEDIA_TYPE})


def hangs(handler: Handler) -> None:
    """Take the request and say nothing until the fault is over, then hang up."""
    handler.server.over.wait(30)
    handler.close_connection = True


def resets(handler: Handler) -> None:
    """Tear the connection down (RST)."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
