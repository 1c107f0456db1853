"""Keep-alive HTTP for small, urgent requests: one deadline for the whole exchange, connections reused."""

import contextlib
import email.message
import email.utils
import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from liveframe.errors import LateError, ModelError

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: HTTP status.
        body: the whole body.
        retry_after_s: what its Retry-After header asks for, in seconds; 1 without one.
        content_type: its Content-Type header; empty without one.
    """

    status: int
    body: bytes
    retry_after_s: float
    content_type: str = ""


class Transport:
    """Posts to one URL over connections that stay open. Thread-safe; each call takes a free connection.

    A kept connection that the server has closed meanwhile is replaced and the request sent
    once more: it must be idempotent. Proxies of the environment are not used.
    """

    def __init__(self, url: str, max_answer_bytes: int = 8 * 1024 * 1024, max_idle: int = 8) -> None:
        """Take a URL; nothing is connected yet.

        Args:
            url: http or https, without credentials.
            max_answer_bytes: a longer answer is refused.
            max_idle: connections kept open while unused.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(f"url must be http(s)://host[:port]/path without credentials, but got {_public(url)}.")
        self._host, self._port = parts.hostname, parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._max_answer_bytes = max_answer_bytes
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._is_closed = False
        self.name = f"{parts.scheme}://{parts.netloc}{parts.path}"

    def post(self, body: bytes, headers: Mapping[str, str], until_s: float) -> Answer:
        """Post and read the answer.

        Args:
            body: the request's body.
            headers: sent as they are.
            until_s: the deadline, time.monotonic() seconds.

        Raises:
            LateError: no whole answer by the deadline.
            ModelError: the server cannot be reached, or answers what is no HTTP.
        """
        connection, is_kept = self._take(until_s)
        try:
            try:
                return self._exchange(connection, body, headers, until_s)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not is_kept:
                    raise
            self._drop(connection)
            connection = self._open(until_s)
            return self._exchange(connection, body, headers, until_s)
        except TimeoutError as error:
            raise LateError(f"{self.name} gave no answer by the deadline. Is it overloaded?") from error
        except (OSError, http.client.HTTPException) as error:
            what = type(error).__name__
            raise ModelError(f"{self.name} cannot be reached ({what}: {error}). Check that it runs.") from error
        finally:
            self._drop(connection)

    def close(self) -> None:
        """Close every connection; calls under way fail."""
        with self._lock:
            self._is_closed = True
            connections = [*self._idle, *self._busy]
            self._idle.clear()
        for connection in connections:
            _hang_up(connection)

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str], until_s: float
    ) -> Answer:
        """Send, read, and keep the connection for the next if both sides agree."""
        _limit(connection, until_s)
        connection.request("POST", self._path, body, dict(headers))
        _limit(connection, until_s)
        response = connection.getresponse()
        content = self._read(connection, response, until_s)
        retry_after_s = parse_retry_after(response.getheader("Retry-After"))
        if not response.will_close:
            self._keep(connection)
        return Answer(response.status, content, retry_after_s, response.getheader("Content-Type") or "")

    def _read(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, until_s: float
    ) -> bytes:
        """Read a body in parts, so that a server that trickles cannot stretch the deadline."""
        parts: list[bytes] = []
        size = 0
        while response.length != 0 and not response.isclosed():
            _limit(connection, until_s)
            part = response.read1(_CHUNK)
            if not part:
                break
            size += len(part)
            if size > self._max_answer_bytes:
                raise http.client.HTTPException(f"an answer of more than {self._max_answer_bytes} bytes")
            parts.append(part)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        response.close()  # read whole: the connection is free for the next request
        return b"".join(parts)

    # ------------------------------------------------------------------ connections

    def _take(self, until_s: float) -> tuple[http.client.HTTPConnection, bool]:
        """Return a connection, and whether it was kept from an earlier call."""
        with self._lock:
            if self._is_closed:
                raise ModelError(f"The client of {self.name} is closed. Open another one.")
            if self._idle:
                connection = self._idle.pop()
                self._busy.add(connection)
                return connection, True
        return self._open(until_s), False

    def _open(self, until_s: float) -> http.client.HTTPConnection:
        left_s = max(1e-3, until_s - time.monotonic())
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=left_s, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=left_s)
        with self._lock:
            self._busy.add(connection)
        return connection

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if connection in self._busy and not self._is_closed and len(self._idle) < self._max_idle:
                self._busy.discard(connection)
                self._idle.append(connection)

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        """Close a connection, unless it was kept."""
        with self._lock:
            if connection not in self._busy:
                return
            self._busy.discard(connection)
        connection.close()


def parse_retry_after(text: str | None) -> float:
    """Read a Retry-After header: seconds, or an HTTP date; 1 s where there is none or it makes no sense."""
    if not text:
        return 1.0
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 1.0
    return max(0.0, seconds) if math.isfinite(seconds) else 1.0


def content_parameter(content_type: str, name: str) -> str:
    """Return a parameter of a Content-Type header, `type/sub; name=value`; "" where it is not there."""
    message = email.message.Message()
    message["content-type"] = content_type[:500].replace("\r", " ").replace("\n", " ")
    value = message.get_param(name, "")
    return value if isinstance(value, str) else ""


def _limit(connection: http.client.HTTPConnection, until_s: float) -> None:
    """Return the socket only the time that is left."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    connection.timeout = left_s
    if connection.sock is not None:
        connection.sock.settimeout(left_s)


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """End a connection that another thread may be reading from."""
    with contextlib.suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def _public(url: str) -> str:
    """A URL without what may be secret."""
    return url.rsplit("@", maxsplit=1)[-1].split("?", maxsplit=1)[0]
