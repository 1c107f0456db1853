"""A recording in a real browser, with sound: started, stopped, played back on the page, downloaded."""

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page

from benchmarks.harness.camera_clips import astronaut_frames
from benchmarks.harness.live_page import LivePage
from benchmarks.harness.tiny_bundle import persona_colour
from liveframe.frame import Image
from tests.browser.conftest import RunningApp
from tests.browser.test_live_page import grown
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face

pytestmark = pytest.mark.timeout(300)
_PLAYED = """async video => {
  video.muted = true;
  await video.play();
  while (video.currentTime < 0.5 && !video.ended) await new Promise((resolve) => setTimeout(resolve, 50));
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  canvas.getContext("2d").drawImage(video, 0, 0, 640, 480);
  return [video.currentTime, video.duration, canvas.toDataURL("image/png")];
}"""


def test_a_recording_with_sound_plays_back_and_is_downloaded(
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    astronaut_clip: Path,
    tmp_path: Path,
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY="webrtc")
    live = LivePage(open_browser(astronaut_clip), app.address)
    live.paint_flat()
    live.open_panel("Camera")
    live.page.get_by_text("Microphone, for recordings").click()
    live.start()
    live.wait_for_state("Swapped")
    live.page.get_by_role("button", name="Record", exact=True).click()
    live.page.get_by_text("with sound").wait_for()
    live.wait(3)
    live.page.get_by_role("button", name="Stop recording").click()

    current_s, duration_s, shown = played(live.page)
    assert current_s >= 0.5
    assert duration_s >= 2
    assert is_ada(shown)
    with live.page.expect_download() as download:
        live.page.get_by_role("button", name="Download recording").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    with av.open(str(path)) as clip:
        assert clip.streams.audio
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    assert len(pictures) > 10
    assert all(is_ada(picture) for picture in pictures[:: len(pictures) // 6])
    assert live.page.get_by_text("Labelled “AI MODIFIED”, watermarked and signed (C2PA). With sound.").count() == 1


def played(page: Page) -> tuple[float, float, Image]:
    """Play the page's recording for half a second: where it is then, how long it is, and the picture on screen."""
    import base64

    player = page.get_by_test_id("stVideo")
    player.wait_for()
    current_s, duration_s, address = player.evaluate(_PLAYED)
    png = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
    return current_s, duration_s, np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8)


def is_ada(picture: Image) -> bool:
    """Whether somewhere a face's worth of the picture has the persona's colour."""
    off = np.abs(picture.astype(int) - persona_colour(0)).max(axis=2)
    return float((off < 60).sum()) > 0.4 * _face_pixels()


def _face_pixels() -> float:
    left, top, right, bottom = grown(_smallest_face(), -0.3)
    return float((right - left) * (bottom - top))


def _smallest_face() -> Face:
    detector = FaceDetector()
    faces = [detector.detect(frame)[0] for frame in astronaut_frames()[::15]]
    return min(faces, key=lambda face: float(face.box[2] - face.box[0]))
