"""What stands before Streamlit, on the app as `streamlit run app.py` starts it: who is answered, and what they hold."""

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from benchmarks.harness.ports import free_port
from liveframe.errors import WireError
from tests.support.listening import MOST_GROWTH_BYTES, Listening, listening
from ui.relay.websocket import SUBPROTOCOL, decode_jpeg

ROOT = Path(__file__).resolve().parents[2]


class App(Listening):
    """The app, and its process."""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def socket_url(self, path: str) -> str:
        return f"ws://localhost:{self.port}{path}"


def running_app() -> contextlib.AbstractContextManager[App]:
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}", "--server.headless=true"]
    return listening(App, command, port, "/_stcore/health", os.environ, ROOT)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with running_app() as running:
        yield running


def status_of(url: str, origin: str | None = None, **headers: str) -> int:
    """The status with which a WebSocket's handshake is answered."""
    try:
        with connect(url, origin=origin, additional_headers=headers, open_timeout=20):  # type: ignore[arg-type]
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


# ---------------------------------------------------------------------- who is answered


@pytest.mark.parametrize("path", ["/_stcore/stream", "/frames"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "http://localhost"]
)
def test_sockets_of_foreign_pages_are_refused_at_once(app: App, path: str, origin: str) -> None:
    started_s = time.monotonic()
    assert status_of(app.socket_url(path), origin) == 403
    assert time.monotonic() - started_s < 5, "nobody outside was asked for our own address"


def test_the_apps_own_page_may_open_its_socket(app: App) -> None:
    assert status_of(app.socket_url("/_stcore/stream"), app.url) == 101


def test_frames_need_a_token_before_the_socket_is_accepted(app: App) -> None:
    for protocols in (None, [SUBPROTOCOL], [SUBPROTOCOL, "guessed"], ["guessed"]):
        with pytest.raises(InvalidStatus) as refused, connect(app.socket_url("/frames"), subprotocols=protocols):
            pass
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "localhost.evil.example", "", "[::1"])
def test_other_names_than_ours_are_refused_with_what_to_do(app: App, host: str) -> None:
    answer = requests.get(app.url, headers={"Host": host}, timeout=10)
    assert answer.status_code in (400, 403)
    if answer.status_code == 403:
        assert "--server.allowedHosts" in answer.text
    assert status_of(app.socket_url("/_stcore/stream"), None, Host=host) in (400, 403)


def test_uploads_from_foreign_pages_are_refused_before_they_are_read(app: App) -> None:
    headers = {"Origin": "https://evil.example"}
    answer = requests.put(f"{app.url}/_stcore/upload_file/a/b", b"x", headers=headers, timeout=10)
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["metrics", "agent/openapi.json", "agent/interact", "script-health-check"])
def test_figures_and_descriptions_of_the_api_are_closed(app: App, path: str) -> None:
    assert requests.get(f"{app.url}/_stcore/{path}", timeout=10).status_code == 404


def test_pages_cannot_be_framed_and_load_nothing_from_elsewhere(app: App) -> None:
    for path in ("/", "/studio", "/static/nothing", "/_stcore/health"):
        headers = requests.get(app.url + path, timeout=10).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["frame-ancestors"] == "'none'" and policy["default-src"] == "'self'"
        assert not any("http" in sources or "*" in sources for sources in policy.values())
        assert headers["X-Content-Type-Options"] == "nosniff"
    component = requests.get(f"{app.url}/component/streamlit_webrtc.webrtc_streamer/index.html", timeout=10)
    assert "frame-ancestors 'self'" in component.headers["Content-Security-Policy"]


# ---------------------------------------------------------------------- what they hold


def test_unfinished_messages_of_many_sockets_take_little_memory(app: App) -> None:
    """Sixty sockets, each with all but the end of a message of 24 MB."""
    handshake = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: localhost:{app.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    def send(connection: socket.socket) -> None:
        connection.sendall(handshake.encode())
        with contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"\x82\xff" + struct.pack(">Q", 24_000_000) + bytes(4))
            for _ in range(23):
                connection.sendall(bytes(1_000_000))
                time.sleep(0.02)

    with app.growth() as growth, contextlib.ExitStack() as stack, ThreadPoolExecutor(60) as pool:
        sent = [pool.submit(send, stack.enter_context(app.dial())) for _ in range(60)]
        for one in sent:
            one.result()
        assert requests.get(app.url, timeout=30).status_code == 200, "while what is left of them is held"
    assert growth() <= MOST_GROWTH_BYTES, f"{growth() / 1e6:.0f} MB"


def test_messages_are_neither_inflated_nor_larger_than_a_recorded_take(app: App) -> None:
    with connect(app.socket_url("/_stcore/stream")) as connection:
        assert not connection.protocol.extensions, "no compression was agreed on"
        with pytest.raises(ConnectionClosed):  # noqa: PT012 - the end is met while reading
            # The head alone: with data on the way, the system's reset may overtake the frame that says why.
            connection.socket.sendall(b"\x82\xff" + struct.pack(">Q", 26 * 1024 * 1024) + bytes(4))
            list(connection)  # whatever the page was sent before
        assert connection.close_code == 1009


def test_half_sent_heads_are_cut_off(app: App) -> None:
    strangers = [app.dial() for _ in range(300)]
    started_s = time.monotonic()
    for stranger in strangers:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert requests.get(app.url, timeout=30).status_code == 200, "others are answered all the while"
    strangers[-1].settimeout(30)
    with contextlib.suppress(ConnectionError):
        assert strangers[-1].recv(100) == b""
    assert time.monotonic() - started_s < 20
    for stranger in strangers:
        stranger.close()


def test_sigterm_ends_in_time_whoever_does_not_read() -> None:
    with running_app() as app, contextlib.ExitStack() as stack:
        for _ in range(5):  # asks for large files, and reads none of them
            deaf = stack.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", app.port))
            script = next((Path(requests.__file__).parents[1] / "streamlit/static/static/js").glob("index.*.js")).name
            deaf.sendall(f"GET /static/js/{script} HTTP/1.1\r\nHost: localhost:{app.port}\r\n\r\n".encode())
        time.sleep(1)
        started_s = time.monotonic()
        app.process.send_signal(signal.SIGTERM)
        app.process.wait(30)
        assert time.monotonic() - started_s < 15


# ---------------------------------------------------------------------- one frame


def test_frame_of_many_empty_scans_is_refused_at_once() -> None:
    start = cv2.imencode(".jpg", np.zeros((1080, 1920, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert decode_jpeg(start).shape == (1080, 1920, 3), "progressive frames are welcome"
    bomb = start[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x01\x05\x10" * 150_000 + b"\xff\xd9"
    started_s = time.process_time()
    with pytest.raises(WireError, match="at most 32 scans"):
        decode_jpeg(bomb)
    assert time.process_time() - started_s < 0.2
