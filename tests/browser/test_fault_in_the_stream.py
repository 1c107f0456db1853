"""A fault in mid-stream, seen by a real browser: no picture that it presents holds the camera's own face."""

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import BrowserContext, Error

from benchmarks.harness.camera_clips import astronaut_frames, write_y4m
from benchmarks.harness.live_page import LivePage
from liveframe.frame import Image
from tests.browser.conftest import RunningApp
from tests.support.fault_table import SHOWN
from understudy.vision.detect import FaceDetector

HERE = Path(__file__).parent
RECORDER = (HERE / "recorder.js").read_text()
SIZE = (320, 240)
RAW = 0.6  # correlation of a face's fine detail: VP8 leaves about 0.9 of it, a flat persona or a cover none

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture
def fault(tmp_path: Path) -> Iterator[Path]:
    """While this file exists, the app's personas fail as it says."""
    path = tmp_path / "fault"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("how", ["raise", "hang"])
def test_no_picture_in_the_browser_holds_the_raw_face(
    how: str,
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    fault: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    clip = astronaut_frames()
    context = open_browser(write_y4m(tmp_path / "camera.y4m", clip))  # a browser of its own: it is given a script
    context.add_init_script(RECORDER)
    app = serve(
        UNDERSTUDY_BUNDLE=str(tiny_bundle),
        UNDERSTUDY_RELAY="webrtc",
        UNDERSTUDY_TEST_FAULT=str(fault),
        PYTHONPATH=str(HERE / "breakable"),
    )
    live = LivePage(context, app.address)
    live.paint_flat()
    live.start()
    live.wait_for_state("Swapped")
    live.wait(1)
    fault.write_text(how)
    live.wait_for_state("Covered")
    live.wait(1.5)
    fault.unlink()
    live.wait_for_state("Swapped")
    live.wait(1)
    private = recorded(live)
    live.page.get_by_text("Show my own camera").click()
    live.wait_for_state("Not swapped")
    live.wait(1)
    open_ = recorded(live)[len(private) :]

    faces = own_faces(clip)
    raw = [number for number, picture in enumerate(private) if is_raw(picture, faces)]
    record_property(SHOWN, (f"model {how}s, in a browser", len(private), len(raw)))
    assert len(private) >= 30
    assert raw == []
    assert any(is_raw(picture, faces) for picture in open_), "the viewer's own camera, when asked for, is found raw"


def recorded(live: LivePage) -> list[Image]:
    """Every picture that was presented so far, unmirrored: uint8 [240, 320, 3], BGR."""
    pictures: list[Image] = []
    for frame in live.page.frames:
        with contextlib.suppress(Error):  # a frame that is being replaced
            for address, _ in frame.evaluate("window.recorded || []"):
                jpeg = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
                pictures.append(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, ::-1], np.uint8))
    return pictures


def own_faces(clip: list[Image]) -> list[tuple[tuple[slice, slice], NDArray[np.float32]]]:
    """Where the face is in every frame of the clip, and its fine detail there."""
    detector, faces = FaceDetector(), []
    for image in clip:
        small = np.asarray(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA), np.uint8)
        left, top, right, bottom = detector.detect(small)[0].box
        dx, dy = (right - left) * 0.2, (bottom - top) * 0.2
        where = np.s_[int(top + dy) : int(bottom - dy), int(left + dx) : int(right - dx)]
        faces.append((where, fine(small)[where]))
    return faces


def is_raw(picture: Image, faces: list[tuple[tuple[slice, slice], NDArray[np.float32]]]) -> bool:
    """Whether the picture shows the face of any frame of the clip, in its place."""
    detail = fine(picture)
    return any(correlation(detail[where], face) > RAW for where, face in faces)


def fine(image: Image) -> NDArray[np.float32]:
    """Detail that a cover takes away: float32 [H, W]."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), 4), np.float32)


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float((one * other).sum() / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1.0))
