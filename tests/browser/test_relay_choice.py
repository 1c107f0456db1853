"""The automatic choice of a relay: where WebRTC cannot work the WebSocket takes over, and the page says why."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from benchmarks.harness.camera_clips import astronaut_frames
from benchmarks.harness.live_page import LivePage
from benchmarks.harness.ports import free_port
from benchmarks.harness.tiny_bundle import persona_colour
from tests.browser.conftest import RunningApp
from tests.browser.test_live_page import background_psnr, colour_share
from ui.relay.choice import FAILED_STARTS
from understudy.vision.detect import FaceDetector

pytestmark = pytest.mark.timeout(600)  # starts that must fail first, perhaps on a busy machine
FAILED_S = 60.0  # the page waits ten seconds for a picture; its script may take its time


def test_where_only_tcp_reaches_the_server_the_websocket_is_chosen(
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    astronaut_clip: Path,
    tmp_path: Path,
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), K_SERVICE="understudy")  # as Cloud Run sets it
    live = LivePage(open_browser(astronaut_clip), app.address, is_webrtc=False)
    live.page.get_by_text("Connected by WebSocket. This server can be reached by TCP only").wait_for()
    assert_swaps(live)
    live.screenshot(tmp_path / "live-tcp-only.png")


def test_webrtc_that_never_connects_gives_way_to_the_websocket(
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    astronaut_clip: Path,
    tmp_path: Path,
) -> None:
    app = serve(
        UNDERSTUDY_BUNDLE=str(tiny_bundle),
        UNDERSTUDY_TURN_URLS=f"turn:127.0.0.1:{free_port()}?transport=tcp",  # nobody listens there
        UNDERSTUDY_TURN_SECRET="a-secret-of-twenty-one",
        UNDERSTUDY_ICE_POLICY="relay",
    )
    blocked = LivePage(open_browser(astronaut_clip), app.address)
    for _ in range(FAILED_STARTS):
        assert blocked.page.get_by_text("Connected by").count() == 0, "WebRTC is given up too soon"
        blocked.button("Start the camera").click()
        again = blocked.page.get_by_role("button", name="Try again")
        again.wait_for(timeout=FAILED_S * 1000)
        blocked.page.get_by_text("The camera's video does not arrive").wait_for()
        blocked.page.get_by_text(f"after {FAILED_STARTS} failures in a row the page changes to WebSocket").wait_for()
        again.click()
        again.wait_for(state="detached")
    reason = f"Connected by WebSocket. WebRTC did not connect in {FAILED_STARTS} starts."
    blocked.page.get_by_text(reason).wait_for()
    blocked.is_webrtc = False
    assert_swaps(blocked)
    blocked.screenshot(tmp_path / "live-given-up.png")


def assert_swaps(live: LivePage) -> None:
    """The stream that this page starts now must come back with the face repainted, and nothing else."""
    live.paint_flat()
    live.start()
    live.wait_for_state("Swapped")
    number, picture = live.swapped_picture()
    source = astronaut_frames()[number]
    face = FaceDetector().detect(source)[0]
    assert colour_share(source, face, persona_colour(0)) < 0.1
    assert colour_share(picture, face, persona_colour(0)) > 0.5, "the face is not repainted"
    assert background_psnr([picture], [source], [face]) >= 28
