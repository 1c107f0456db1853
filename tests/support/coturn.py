"""A real coturn on loopback, as a process, and what it says of its sessions."""

import re
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.harness.ports import free_port
from benchmarks.harness.waiting import wait_until
from serving.turn import TurnSettings, render_coturn

SECRET = "a-secret-of-twenty-one"
_ALLOCATED = re.compile(r"incoming packet ALLOCATE processed, success")
_PEER_USAGE = re.compile(r": peer usage: .*, rp=(\d+), rb=\d+, sp=(\d+)")


@dataclass(frozen=True)
class Coturn:
    """A running coturn.

    Attributes:
        port: UDP and TCP, on 127.0.0.1.
        log: what it says, one line each; it may lag by a second.
    """

    port: int
    log: Path

    @property
    def settings(self) -> TurnSettings:
        """What an app that uses it is told."""
        return TurnSettings((f"turn:127.0.0.1:{self.port}?transport=udp",), SECRET)

    def allocations(self) -> int:
        """How many relayed addresses it has given out so far."""
        return len(_ALLOCATED.findall(self._text()))

    def relayed_packets(self) -> int:
        """How many packets it has passed on, from peers and to them; told at a session's end at the latest."""
        return sum(int(count) for usage in _PEER_USAGE.findall(self._text()) for count in usage)

    def _text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""


@contextmanager
def running_coturn(directory: Path) -> Generator[Coturn]:
    """Start coturn with the file that the app's operator would render; skips the test where it is not installed."""
    if shutil.which("turnserver") is None:
        pytest.skip("needs coturn (apt install coturn)")
    coturn = Coturn(free_port(), directory / "log")
    text = render_coturn(coturn.settings, "example.org", "127.0.0.1", port=coturn.port, is_loopback=True)
    files = f"pidfile={directory}/pid\nlog-file={coturn.log}\nsimple-log\nverbose\nno-tls\nno-dtls\n"
    (directory / "coturn.conf").write_text(f"{text}{files}userdb={directory}/db\n")
    command = ["turnserver", "-c", str(directory / "coturn.conf")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory)
    try:
        wait_until(lambda: _listens(coturn.port))
        yield coturn
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
