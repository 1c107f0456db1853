"""The panic key: one request covers whatever is shown, the viewer's own camera too, until they go on."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page, pick
from benchmarks.harness.pages import fresh_app
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut
from ui.live.stage import COVER_PATH, cover
from ui.session import shared


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


def ask(body: object) -> tuple[int, dict[str, object]]:
    """Send one request to the route; returns its status and what it answers."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    scope = {"type": "http", "method": "POST", "path": COVER_PATH, "headers": []}
    answer = asyncio.run(cover(Request(scope, receive), shared.viewer_registry()))
    return answer.status_code, json.loads(bytes(answer.body))


def state_after(camera: HandCamera) -> ShownState:
    camera.send(astronaut())
    return admitted().pipeline.stats().state


def test_the_frame_after_the_key_is_covered_until_the_viewer_goes_on(page: AppTest) -> None:
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, astronaut())
    token = admitted().token
    assert ask({"token": token, "covered": True}) == (200, {"covered": True})
    assert state_after(camera) is ShownState.COVERED
    assert "You covered yourself" in admitted().pipeline.stats().note
    pick(page, "ben")  # another choice does not uncover
    assert state_after(camera) is ShownState.COVERED
    assert admitted().check_consent() == ""
    assert state_after(camera) is ShownState.COVERED
    assert ask({"token": token, "covered": False}) == (200, {"covered": False})
    camera.send_until(ShownState.SWAPPED, astronaut())


def test_the_own_camera_is_covered_too_and_comes_back(page: AppTest) -> None:
    page.toggle(key="is_off").set_value(True).run()
    camera = HandCamera(admitted())
    camera.send_until(ShownState.OFF, astronaut())
    admitted().cover(True)
    assert state_after(camera) is ShownState.COVERED
    page.toggle(key="is_off").set_value(False).run()
    page.toggle(key="is_off").set_value(True).run()
    assert state_after(camera) is ShownState.COVERED
    admitted().cover(False)
    camera.send_until(ShownState.OFF, astronaut())


def test_the_key_waits_for_no_slow_consent_check(page: AppTest) -> None:
    viewer = admitted()
    with viewer._lock:  # held while records are read
        start_s = time.perf_counter()
        viewer.cover(True)
        assert time.perf_counter() - start_s < 0.1
    assert viewer.is_covered


@pytest.mark.parametrize(
    ("body", "status"),
    [({"token": "guessed", "covered": True}, 404), ({"covered": True}, 400), ([], 400)],
)
def test_nobody_is_covered_without_their_token(page: AppTest, body: object, status: int) -> None:
    answered, answer = ask(body)
    assert answered == status
    assert "Reload" in str(answer["error"])
    assert not admitted().is_covered
