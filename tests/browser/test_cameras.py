"""Cameras: one of several is chosen; one that is absent or refused gets a sentence and a remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from benchmarks.harness.live_page import PATIENCE_MS, LivePage
from tests.browser.conftest import RunningApp

pytestmark = pytest.mark.timeout(300)
TWO_CAMERAS = "--use-fake-device-for-media-stream=device-count=2"
NO_CAMERA = "--use-fake-device-for-media-stream=device-count=0"
ELSEWHERE = "--host-resolver-rules=MAP elsewhere.test 127.0.0.1"

_NOTE_CAMERAS = """() => {
  window.opened = [];
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wishes) => {
    const stream = await open(wishes);
    opened.push(stream.getVideoTracks()[0].label);
    return stream;
  };
}"""

_KEEP_STREAM = """() => {
  if (!navigator.mediaDevices) return;
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wishes) => (window.stream = await open(wishes));
}"""


def open_page(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.get_by_role("radiogroup", name="Persona").wait_for()
    return page


@pytest.mark.parametrize("relay", ["webrtc", "websocket"])
def test_without_a_camera_the_page_says_so_before_the_start(
    serve: Callable[..., RunningApp], open_browser: Callable[..., BrowserContext], tiny_bundle: Path, relay: str
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY=relay)
    page = open_page(open_browser(None, NO_CAMERA), app.address)
    page.get_by_text("The browser finds no camera. Plug one in").wait_for()


def test_a_start_that_finds_no_camera_says_so_too(
    serve: Callable[..., RunningApp], open_browser: Callable[..., BrowserContext], tiny_bundle: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY="websocket")
    page = open_page(open_browser(None, NO_CAMERA), app.address)
    page.get_by_text("The browser finds no camera").wait_for()
    page.get_by_role("button", name="Start the camera").click()
    page.get_by_text("The browser finds no camera").nth(1).wait_for()


def test_a_page_without_https_says_where_the_camera_works(
    serve: Callable[..., RunningApp], open_browser: Callable[..., BrowserContext], tiny_bundle: Path
) -> None:
    app = serve(
        UNDERSTUDY_BUNDLE=str(tiny_bundle),
        UNDERSTUDY_RELAY="websocket",
        STREAMLIT_BROWSER_SERVER_ADDRESS="elsewhere.test",
        STREAMLIT_SERVER_ALLOWED_HOSTS="localhost 127.0.0.1 elsewhere.test",
    )
    page = open_page(open_browser(None, ELSEWHERE), app.address.replace("localhost", "elsewhere.test"))
    page.get_by_text("The browser gives the camera only to pages on this machine or over HTTPS").wait_for()


def test_one_of_two_cameras_is_chosen_by_its_name_while_it_runs(
    serve: Callable[..., RunningApp], open_browser: Callable[..., BrowserContext], tiny_bundle: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY="websocket")
    page = open_page(open_browser(None, TWO_CAMERAS), app.address)
    page.evaluate(_NOTE_CAMERAS)
    page.get_by_role("button", name="Start the camera").click()
    cameras = page.get_by_label("Camera", exact=True)
    cameras.wait_for()
    names = cameras.locator("option").all_inner_texts()
    assert len(names) == 2
    other = next(name for name in names if name != page.evaluate("opened[0]"))
    cameras.select_option(label=other)
    page.wait_for_function("opened.length === 2")
    assert page.evaluate("opened[1]") == other
    page.get_by_role("button", name="Stop", exact=True).wait_for()


@pytest.mark.parametrize("relay", ["webrtc", "websocket"])
def test_a_camera_that_is_unplugged_in_mid_stream_gets_a_remedy(
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    astronaut_clip: Path,
    relay: str,
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY=relay)
    live = LivePage(open_browser(astronaut_clip), app.address, is_webrtc=relay == "webrtc")
    live.button("Start the camera").wait_for()
    for frame in live.page.frames:
        frame.evaluate(_KEEP_STREAM)
    live.start()
    live.wait_for_state("Swapped")
    live.ask("() => stream.getTracks().forEach((track) => track.stop())")
    live.page.get_by_text("The camera has gone silent. If it was unplugged, plug it in").wait_for()


def test_browser_that_gives_no_stream_of_frames_is_served_too(
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    astronaut_clip: Path,
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY="websocket")
    without = "delete window.MediaStreamTrackProcessor"  # as in Firefox
    live = LivePage(open_browser(astronaut_clip), app.address, is_webrtc=False, script=without)
    live.start()
    live.wait_for_state("Swapped")
    numbers = [seen.number for seen in live.watch(2)]
    assert len(set(numbers)) > 10
