"""Runs a command in a network of its own and records whatever it, or a child of it, sends to the world outside.

In a new user and network namespace only loopback exists, and everything that is not loopback is routed into it, where
a packet socket sees it: native code (a C++ library's telemetry) as well as Python. A proxy on loopback, named in the
environment, hears those who would ask one. Nothing gets out, and nothing is answered.
"""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "192.0.2.2"  # of documentation (RFC 5737): what packets to the outside come from
PROXY_PORT = 3128
_SETUP = (
    "link set lo up",
    f"addr add {ADDRESS}/32 dev lo",
    f"route add default dev lo src {ADDRESS}",
    "-6 route add default dev lo",
)
_ALL_PROTOCOLS = 3
_OUTGOING = 4
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_OWN_PREFIXES = ("127.", ADDRESS, "::1", "fe80:", "ff02:", "224.0.0.")  # this machine, and neighbours' link-local talk
_SETTLE_S = 1.0  # what a command that has just ended had sent is seen by then


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: its exit status.
        output: what it printed, both streams.
        attempts: every attempt to reach the outside, a line each, in order, without repetitions.
    """

    status: int
    output: str
    attempts: list[str]


@cache
def what_is_missing() -> str:
    """Say why no network of one's own can be made here; "" where it can."""
    missing = [name for name in ("unshare", "ip") if shutil.which(name) is None]
    if missing:
        return f"needs {' and '.join(missing)} on the path: apt-get install util-linux iproute2"
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        return "needs user and network namespaces, which this machine does not allow"
    return ""


def need_namespaces() -> None:
    """Skip the test, with the reason, where no network of one's own can be made."""
    if reason := what_is_missing():
        pytest.skip(reason)


def device_ids(home: Path) -> list[Path]:
    """Return the files below a home by which something tells this machine from others."""
    return [path for path in home.rglob("*") if path.name.lower() in ("deviceid", "machine_id_v4", "microsoft")]


def run_recorded(
    command: Sequence[str], environment: Mapping[str, str] | None = None, limit_s: float = 110, cwd: Path = ROOT
) -> Outcome:
    """Run a command in a network of its own, with CI unset: some libraries are silent only there.

    Args:
        command: argv.
        environment: variables set for it besides those of this process.
        limit_s: it is killed then, and its status is -9.
        cwd: where it runs.
    """
    variables = {key: value for key, value in os.environ.items() if not key.upper().endswith("PROXY") and key != "CI"}
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    variables |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), proxy)
    variables |= {"NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1", "PYTHONPATH": str(ROOT)}
    variables |= environment or {}
    with tempfile.NamedTemporaryFile("r") as told:
        here = [sys.executable, str(Path(__file__)), told.name, str(limit_s), *command]
        done = subprocess.run(
            ["unshare", "-rn", *here], cwd=cwd, env=variables, capture_output=True, text=True, check=False
        )
        attempts = list(dict.fromkeys(json.loads(line) for line in told.read().splitlines()))
    return Outcome(done.returncode, done.stdout + done.stderr, attempts)


# ---------------------------------------------------------------------- inside the namespace


class _Recorder:
    """Writes every attempt into a file, a JSON string a line."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115 - open while the process lives
        self._lock = threading.Lock()
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
        self._proxy = socket.create_server(("127.0.0.1", PROXY_PORT))
        for target in (self._hear_packets, self._hear_proxy):
            threading.Thread(target=target, daemon=True).start()

    def _note(self, attempt: str) -> None:
        with self._lock:
            self._file.write(json.dumps(attempt) + "\n")

    def _hear_packets(self) -> None:
        while True:
            packet, (_, _, kind, *_) = self._packets.recvfrom(2048)
            if kind == _OUTGOING and (attempt := describe_packet(packet)):
                self._note(attempt)

    def _hear_proxy(self) -> None:
        while True:
            connection, _ = self._proxy.accept()
            with connection:
                connection.settimeout(5)
                try:
                    first = connection.recv(4096).partition(b"\r\n")[0].decode("latin-1")
                except OSError:
                    first = ""
                self._note(f"proxy: {first[:200]}")


def describe_packet(packet: bytes) -> str:
    """Say where an IP packet goes; "" for one that stays on this machine and asks nobody's name."""
    if packet[0] >> 4 == 4:
        start, protocol, target = (packet[0] & 15) * 4, packet[9], socket.inet_ntoa(packet[16:20])
    elif packet[0] >> 4 == 6:
        start, protocol, target = 40, packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return ""
    kind = _PROTOCOLS.get(protocol, str(protocol))
    port = struct.unpack_from(">H", packet, start + 2)[0] if kind in ("tcp", "udp") else 0
    if kind == "udp" and port == 53:  # the resolver may be on loopback, the question goes further
        return f"name: {'.'.join(_labels(packet[start + 8 :]))}"
    return "" if target.startswith(_OWN_PREFIXES) else f"{kind}: {target}:{port}"


def _labels(question: bytes) -> Iterator[str]:
    """Read the name that a DNS message asks for."""
    at = 12
    while at < len(question) and (length := question[at]):
        yield question[at + 1 : at + 1 + length].decode("latin-1")
        at += 1 + length


def main(argv: Sequence[str]) -> int:
    """Record into a file while a command runs: FILE LIMIT_S COMMAND..."""
    path, limit_s, *command = argv
    for step in _SETUP:
        subprocess.run(["ip", *step.split()], check=True)
    _Recorder(path)
    try:
        status = subprocess.run(command, timeout=float(limit_s), check=False).returncode
    except subprocess.TimeoutExpired:
        status = -9
    time.sleep(_SETTLE_S)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
