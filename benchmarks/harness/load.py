"""Load on an HTTP predict route: closed loops that find the peak, open loops that pass it. asyncio, no library."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        status: HTTP status; 0 when the connection broke.
        wait_s: from sending, when its deadline begins to run, to the end of its answer, in seconds.
        lag_s: how much later than it was due it was sent: the generator's own lateness, in seconds.
    """

    status: int
    wait_s: float
    lag_s: float


class Connection:
    """One keep-alive connection: a request, then its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def post(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request and read its answer; returns status and body."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        lengths = [line.split(":", 1)[1] for line in lines if line.lower().startswith("content-length:")]
        return int(lines[0].split()[1]), await self._reader.readexactly(int(lengths[0]))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Pool:
    """Connections, opened as they are needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[Connection] = []

    async def ask(self, request: bytes, due_s: float) -> Outcome:
        """Post one request that was due at `due_s` (time.perf_counter())."""
        connection = self._idle.pop() if self._idle else await Connection.open(self._url)
        sent_s = time.perf_counter()
        try:
            status, _ = await connection.post(request)
        except (OSError, asyncio.IncompleteReadError):
            connection.close()
            return Outcome(0, time.perf_counter() - sent_s, sent_s - due_s)
        self._idle.append(connection)
        return Outcome(status, time.perf_counter() - sent_s, sent_s - due_s)

    def close(self) -> None:
        """Hang up all."""
        for connection in self._idle:
            connection.close()


def http_request(url: str, body: bytes, content_type: str) -> bytes:
    """Return the bytes of a POST."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def closed_loop(url: str, request: bytes, callers: int, seconds: float) -> list[Outcome]:
    """Keep `callers` requests in flight for some seconds."""
    until_s = time.perf_counter() + seconds

    async def call(pool: Pool) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while (now_s := time.perf_counter()) < until_s:
            outcomes.append(await pool.ask(request, now_s))
        return outcomes

    return await _pooled(url, lambda pool: _gathered([call(pool) for _ in range(callers)]))


async def open_loop(url: str, request: bytes, rate_hz: float, seconds: float, seed: int = 0) -> list[Outcome]:
    """Send requests at random (Poisson) moments that no answer holds up."""
    gaps = np.random.default_rng(seed).exponential(1 / rate_hz, max(1, int(rate_hz * seconds)))
    start_s = time.perf_counter()

    async def call(pool: Pool, due_s: float) -> list[Outcome]:
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        return [await pool.ask(request, due_s)]

    return await _pooled(url, lambda pool: _gathered([call(pool, start_s + float(at)) for at in np.cumsum(gaps)]))


async def _pooled(url: str, run: Callable[[Pool], Awaitable[list[Outcome]]]) -> list[Outcome]:
    pool = Pool(url)
    try:
        return await run(pool)
    finally:
        pool.close()


async def _gathered(calls: list[Awaitable[list[Outcome]]]) -> list[Outcome]:
    return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]
