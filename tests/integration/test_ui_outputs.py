"""The stream in other programs: a virtual camera's pictures and an address that OBS reads, never the own camera."""

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page
from benchmarks.harness.pages import fresh_app
from benchmarks.harness.waiting import wait_until
from liveframe.frame import Image
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut
from ui.relay.mjpeg import PATH, stream_pictures
from ui.session import shared
from understudy.camera import CameraError


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


@pytest.fixture
def address() -> Iterator[str]:
    async def pictures(request: Request) -> Response:
        return await stream_pictures(request, shared.viewer_registry())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = Starlette(routes=[Route(PATH, pictures)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


class Album:
    """A sink that keeps what it gets."""

    def __init__(self, most: int = 1_000) -> None:
        self.pictures: list[Image] = []
        self.is_closed = False
        self._most = most

    def send(self, image: Image) -> None:
        if len(self.pictures) >= self._most:
            raise CameraError("The virtual camera is gone. Start it again.")
        self.pictures.append(image)

    def close(self) -> None:
        self.is_closed = True


def test_a_virtual_camera_gets_what_is_shown_and_never_the_own_camera(page: AppTest) -> None:
    album, camera = Album(), HandCamera(admitted())
    admitted().outputs.start_camera(album)
    shown = camera.send_until(ShownState.SWAPPED, astronaut())
    wait_until(lambda: bool(album.pictures) and np.array_equal(album.pictures[-1], shown))
    admitted().choose(replace(admitted().choices, is_swapping=False))
    own = camera.send_until(ShownState.OFF, astronaut())
    assert admitted().outputs.has_camera
    admitted().close()
    wait_until(lambda: album.is_closed)
    assert not any(np.array_equal(picture, own) for picture in album.pictures)


def test_a_camera_that_goes_away_is_told_and_let_go(page: AppTest) -> None:
    album, camera = Album(most=0), HandCamera(admitted())
    admitted().outputs.start_camera(album)
    camera.send_until(ShownState.SWAPPED, astronaut())
    wait_until(lambda: album.is_closed)
    assert "Start it again" in admitted().outputs.problem
    assert not admitted().outputs.has_camera


def test_obs_reads_the_pictures_at_an_address_until_it_is_closed(page: AppTest, address: str) -> None:
    camera = HandCamera(admitted())
    shown = camera.send_until(ShownState.SWAPPED, astronaut())
    assert admitted().outputs.token == ""
    admitted().outputs.set_address(True)
    url = address + PATH.format(token=admitted().outputs.token)
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=understudy"
        assert answer.readline() == b"--understudy\r\n"
        answer.readline()
        size = int(answer.readline().partition(b":")[2])
        answer.readline()
        picture = cv2.imdecode(np.frombuffer(answer.read(size), np.uint8), cv2.IMREAD_COLOR)
        assert cv2.PSNR(picture, shown) > 30
        admitted().outputs.set_address(False)
        answer.read()  # ends
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url, timeout=30)


def test_an_address_is_nothing_to_guess_and_nothing_for_a_proxy(page: AppTest, address: str) -> None:
    admitted().outputs.set_address(True)
    url = address + PATH.format(token=admitted().outputs.token)
    proxied = urllib.request.Request(url, headers={"X-Forwarded-For": "203.0.113.7"})
    for wanted in (address + PATH.format(token="guessed"), proxied):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(wanted, timeout=30)


def test_the_switches_open_and_close_and_say_what_is_missing(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.live.outputs_panel.is_local", lambda: True)
    page.toggle(key="mjpeg").set_value(True).run()
    assert not page.exception
    assert admitted().outputs.token in page.code[0].value
    page.toggle(key="mjpeg").set_value(False).run()
    assert admitted().outputs.token == ""
    if any(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera or a loopback device: what is said without one cannot be seen")
    page.toggle(key="virtual_camera").set_value(True).run()
    assert not page.exception
    HandCamera(admitted()).send_until(ShownState.SWAPPED, astronaut())
    wait_until(lambda: not admitted().outputs.has_camera, timeout_s=30)  # no loopback device here
    page.run()
    assert any("v4l2loopback" in warning.value for warning in page.warning)
