"""A server as a process on loopback, as a stranger meets it: dialled, and watched while it holds what it was sent."""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import requests

from benchmarks.harness.waiting import wait_until

MOST_GROWTH_BYTES = 100_000_000


@dataclass(frozen=True)
class Listening:
    """A server, and its process."""

    port: int
    process: psutil.Process

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)

    @contextlib.contextmanager
    def growth(self) -> Iterator[Callable[[], int]]:
        """Measure by how much the process grows at most while this is open."""
        before, highest, is_over = self.process.memory_info().rss, 0, threading.Event()

        def look() -> None:
            nonlocal highest
            while not is_over.wait(0.005):
                highest = max(highest, self.process.memory_info().rss)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield lambda: highest - before
        finally:
            is_over.set()
            watcher.join()


Served = TypeVar("Served", bound=Listening)


@contextlib.contextmanager
def listening(
    kind: type[Served],
    command: Sequence[str],
    port: int,
    health: str,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> Iterator[Served]:
    """Start a server; returns it once its health route answers 200, and kills it after."""
    process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=subprocess.DEVNULL)
    try:
        server = kind(port, psutil.Process(process.pid))

        def is_up() -> bool:
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                return requests.get(f"http://127.0.0.1:{port}{health}", timeout=5).status_code == 200
            return False

        wait_until(is_up, 90)
        yield server
    finally:
        process.kill()
        process.wait(10)
