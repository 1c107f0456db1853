"""The Live page in a real browser: what a viewer gets back, pixel by pixel."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from playwright.sync_api import BrowserContext

from benchmarks.harness import barcode
from benchmarks.harness.camera_clips import astronaut_frames, video_frames, write_y4m
from benchmarks.harness.live_page import PATIENCE_MS, LivePage, Seen
from benchmarks.harness.tiny_bundle import persona_colour
from benchmarks.harness.waiting import wait_until
from liveframe.frame import Image
from tests.browser.conftest import RunningApp
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.draw.label import Label
from understudy.vision.detect import FaceDetector
from understudy.vision.embedding import DlibEmbedder
from understudy.vision.face import Face

Serve = Callable[..., RunningApp]
OpenBrowser = Callable[..., BrowserContext]

CLEAR = slice(48, -barcode.HEIGHT - 8)  # rows without the mark "AI MODIFIED" and the number strip
pytestmark = pytest.mark.timeout(300)  # pages, browsers and a server, perhaps on a busy machine
RELAYS = [pytest.param("webrtc", id="webrtc"), pytest.param("websocket", id="websocket")]


@pytest.fixture(scope="module")
def clip_frames() -> list[Image]:
    """What the astronaut's camera sees, by frame number."""
    return astronaut_frames()


@pytest.fixture(scope="module")
def clip_faces(clip_frames: list[Image]) -> list[Face]:
    """The face in every frame of it."""
    detector = FaceDetector()
    return [detector.detect(frame)[0] for frame in clip_frames]


def live_page(
    serve: Serve, open_browser: OpenBrowser, bundle: Path, clip: Path | None, relay: str = "webrtc"
) -> LivePage:
    app = serve(UNDERSTUDY_BUNDLE=str(bundle), UNDERSTUDY_RELAY=relay)
    return LivePage(open_browser(clip), app.address, is_webrtc=relay == "webrtc")


def flat_page(
    serve: Serve, open_browser: OpenBrowser, bundle: Path, clip: Path | None, relay: str = "webrtc"
) -> LivePage:
    """A page that paints the tiny bundle's flat colours as they are."""
    live = live_page(serve, open_browser, bundle, clip, relay)
    live.paint_flat()
    return live


# ---------------------------------------------------------------- the shipped personas


@pytest.mark.parametrize("relay", RELAYS)
def test_shipped_persona_replaces_the_face_and_nothing_else(
    serve: Serve,
    open_browser: OpenBrowser,
    astronaut_clip: Path,
    clip_frames: list[Image],
    clip_faces: list[Face],
    relay: str,
    tmp_path: Path,
) -> None:
    live = live_page(serve, open_browser, shipped_bundle(), astronaut_clip, relay)
    live.start()
    live.wait_for_state("Swapped")
    numbers, pictures = zip(*(live.swapped_picture() for _ in range(6)), strict=True)
    live.screenshot(tmp_path / f"live-{relay}.png")
    sources = [clip_frames[number] for number in numbers]
    assert_nearer_to_persona(pictures, sources, persona_still(shipped_bundle()))
    assert background_psnr(pictures, sources, [clip_faces[number] for number in numbers]) >= 28


def test_clip_of_a_stranger_comes_back_as_the_persona(
    serve: Serve, open_browser: OpenBrowser, shared_clip: Callable[[str], Path], tmp_path: Path
) -> None:
    frames = video_frames(shared_clip("single_face.mp4"), 90)
    live = live_page(serve, open_browser, shipped_bundle(), write_y4m(tmp_path / "clip.y4m", frames))
    live.start()
    live.wait_for_state("Swapped")
    numbers, pictures = zip(*(live.swapped_picture() for _ in range(6)), strict=True)
    live.screenshot(tmp_path / "live-stranger.png")
    sources = [frames[number] for number in numbers]
    assert_nearer_to_persona(pictures, sources, persona_still(shipped_bundle()))


def shipped_bundle() -> Path:
    if not default_bundle().is_dir():
        pytest.skip(f"needs the shipped personas in {default_bundle()}, which this checkout does not have yet")
    return default_bundle()


def persona_still(bundle: Path) -> Image:
    return np.asarray(cv2.imread(str(Bundle.load(bundle).personas[0].still)), np.uint8)


def assert_nearer_to_persona(pictures: Sequence[Image], sources: Sequence[Image], still: Image) -> None:
    """Most returned faces must be nearer to the persona than to whoever sits before the camera."""
    detector, embedder = FaceDetector(), DlibEmbedder()

    def embed(image: Image) -> NDArray[np.float32]:
        return embedder.embed(image, detector.detect(image)[0])

    persona = embed(still)
    gains = []
    for picture, source in zip(pictures, sources, strict=True):
        returned = embed(picture)
        gains.append(embedder.distance(returned, embed(source)) - embedder.distance(returned, persona))
    assert np.mean(np.array(gains) > 0) >= 0.8, f"distance to the driver minus distance to the persona: {gains}"


# ---------------------------------------------------------------- the line itself, with flat-coloured personas


@pytest.mark.parametrize("relay", RELAYS)
def test_frames_arrive_in_order_with_the_face_repainted(
    serve: Serve,
    open_browser: OpenBrowser,
    tiny_bundle: Path,
    astronaut_clip: Path,
    clip_frames: list[Image],
    clip_faces: list[Face],
    relay: str,
    tmp_path: Path,
) -> None:
    live = flat_page(serve, open_browser, tiny_bundle, astronaut_clip, relay)
    live.start()
    live.wait_for_state("Swapped")
    seen = live.watch(6)
    steps = [(after.number - before.number) % len(clip_frames) for before, after in pairwise(seen)]
    assert len(seen) > 20
    assert max(steps) < len(clip_frames) // 2, f"a frame came after a later one: {[frame.number for frame in seen]}"
    number, picture = live.swapped_picture()
    live.screenshot(tmp_path / f"live-{relay}.png")
    assert background_psnr([picture], [clip_frames[number]], [clip_faces[number]]) >= 28
    assert_marked(picture, clip_frames[number])
    assert colour_share(picture, clip_faces[number], persona_colour(0)) > 0.5


@pytest.mark.parametrize("relay", RELAYS)
def test_at_least_fifteen_frames_a_second_arrive(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path, relay: str
) -> None:
    if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
        pytest.skip(f"the machine is busy with other work: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    live = live_page(serve, open_browser, tiny_bundle, astronaut_clip, relay)
    live.start()
    live.wait_for_state("Swapped")
    assert max(fps(live.watch(4)) for _ in range(3)) >= 15


@pytest.mark.parametrize("relay", RELAYS)
def test_a_swap_keeps_most_of_what_the_bare_relay_delivers(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path, relay: str
) -> None:
    live = live_page(serve, open_browser, tiny_bundle, astronaut_clip, relay)
    live.start()
    rates: dict[str, list[float]] = {"Not swapped": [], "Swapped": []}
    for state in [*rates] * 3:  # in turn, in one stream: what else the machine does falls on both
        live.page.get_by_text("Show my own camera").click()
        live.wait_for_state(state)
        live.wait(1)
        rates[state].append(fps(live.watch(3)))
    assert max(rates["Swapped"]) >= 0.5 * max(rates["Not swapped"]), rates


@pytest.mark.parametrize("relay", RELAYS)
def test_persona_changes_in_mid_stream(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path, clip_faces: list[Face], relay: str
) -> None:
    live = flat_page(serve, open_browser, tiny_bundle, astronaut_clip, relay)
    live.start()
    live.wait_for_state("Swapped")
    live.choose("Ben")
    for _ in range(50):
        assert live.picture().mean() > 40, "a black frame came between"
        number, picture = live.swapped_picture()
        if colour_share(picture, clip_faces[number], persona_colour(1)) > 0.5:
            return
        live.wait(0.1)
    pytest.fail("the second persona did not appear within 5 s")


def test_own_camera_is_shown_only_when_asked_for(
    serve: Serve,
    open_browser: OpenBrowser,
    tiny_bundle: Path,
    astronaut_clip: Path,
    clip_frames: list[Image],
    clip_faces: list[Face],
) -> None:
    live = flat_page(serve, open_browser, tiny_bundle, astronaut_clip)
    live.start()
    live.wait_for_state("Swapped")
    live.page.get_by_text("Show my own camera").click()
    live.wait_for_state("Not swapped")
    number, picture = live.swapped_picture()
    assert cv2.PSNR(picture[CLEAR], clip_frames[number][CLEAR]) >= 28
    live.page.get_by_text("Show my own camera").click()
    live.wait_for_state("Swapped")
    number, picture = live.swapped_picture()
    assert colour_share(picture, clip_faces[number], persona_colour(0)) > 0.5


def test_stopped_camera_starts_again(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path
) -> None:
    live = live_page(serve, open_browser, tiny_bundle, astronaut_clip)
    for _ in range(2):
        live.start()
        live.wait_for_state("Swapped")
        live.stop()
        live.wait_for_state("Camera off")


def test_picture_without_a_face_is_covered(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, clip_frames: list[Image], tmp_path: Path
) -> None:
    wall = np.ascontiguousarray(np.tile(clip_frames[0][40:200, 400:480], (3, 8, 1)))
    live = live_page(serve, open_browser, tiny_bundle, write_y4m(tmp_path / "wall.y4m", [wall] * 30))
    live.start()
    live.wait_for_state("Covered")
    assert cv2.PSNR(live.picture()[CLEAR], wall[CLEAR]) < 26, "the camera's picture is shown"


# ---------------------------------------------------------------- viewers


def test_two_tabs_show_two_personas_at_once(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path, clip_faces: list[Face]
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle))
    context = open_browser(astronaut_clip)
    tabs = [LivePage(context, app.address) for _ in range(2)]
    for tab in tabs:
        tab.paint_flat()
    tabs[1].choose("Ben")
    for tab in tabs:
        tab.page.bring_to_front()
        tab.start()
        tab.wait_for_state("Swapped")
    for seed, tab in enumerate(tabs):
        tab.page.bring_to_front()
        tab.wait(1)
        number, picture = tab.swapped_picture()
        assert colour_share(picture, clip_faces[number], persona_colour(seed)) > 0.5


def test_viewer_beyond_the_limit_is_told_until_the_streaming_tab_is_closed(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_MAX_VIEWERS="1")
    context = open_browser(astronaut_clip)
    first = LivePage(context, app.address)
    first.start()
    late = context.new_page()
    late.goto(app.address)
    is_taken = late.get_by_text("All places of this server are taken")
    is_taken.wait_for(timeout=PATIENCE_MS)
    first.page.close()
    for _ in range(20):
        late.wait_for_timeout(500)
        late.reload()
        late.get_by_role("radiogroup", name="Persona").wait_for(timeout=PATIENCE_MS)
        if not is_taken.count():
            return
    pytest.fail("the closed tab's place was not free within 10 s")


@pytest.mark.parametrize("relay", RELAYS)
def test_closed_tab_frees_its_threads_and_connections(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path, relay: str
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY=relay)
    before = connections(app)
    live = LivePage(open_browser(astronaut_clip), app.address, is_webrtc=relay == "webrtc")
    live.start()
    live.wait_for_state("Swapped")
    wait_until(lambda: len(stream_threads(app)) >= 2, timeout_s=10)  # the model's thread and the relay's
    assert connections(app) > before
    live.page.close()
    wait_until(lambda: not stream_threads(app), timeout_s=35)
    wait_until(lambda: connections(app) <= before, timeout_s=35)


def stream_threads(app: RunningApp) -> list[str]:
    """The server's threads that belong to some viewer's stream."""
    spy = shutil.which("py-spy", path=Path(sys.executable).parent)
    assert spy is not None, "py-spy is one of the project's own development packages: run `uv sync`"
    command = [spy, "dump", "--nonblocking", "--pid", str(app.process.pid)]
    for _ in range(10):  # a running interpreter can move what is being read: such a look says nothing
        dump = subprocess.run(command, capture_output=True, text=True)
        if dump.returncode != 0 and "ermission" in dump.stderr:
            pytest.skip("needs the right to look into another process (ptrace)")
        if "MainThread" in dump.stdout:
            break
    else:
        pytest.fail(f"py-spy saw no threads in ten looks: {dump.stderr}")
    return re.findall(r'"(liveframe-\w+|camera-stream\w*|socket-stream\w*|ShutdownPolling\S*)"', dump.stdout)


def connections(app: RunningApp) -> int:
    """How many TCP connections and UDP sockets the server holds."""
    held = psutil.Process(app.process.pid).net_connections("inet")
    return sum(1 for each in held if each.status in (psutil.CONN_ESTABLISHED, psutil.CONN_NONE))


def test_camera_refused_gets_a_sentence_and_a_remedy(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle))
    page = open_browser(None).new_page()
    browser = page.context.new_cdp_session(page)
    for setting, is_told in (("denied", True), ("granted", False)):
        permission = {"permission": {"name": "camera"}, "setting": setting, "origin": app.address}
        browser.send("Browser.setPermission", permission)
        page.goto(app.address)
        page.get_by_role("radiogroup", name="Persona").wait_for(timeout=PATIENCE_MS)
        page.get_by_text("The browser refuses the camera to this page").wait_for(
            state="visible" if is_told else "hidden", timeout=PATIENCE_MS
        )


def test_missing_bundle_says_what_to_do(serve: Serve, open_browser: OpenBrowser, tmp_path: Path) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tmp_path / "nothing"))
    page = open_browser(None).new_page()
    page.goto(app.address)
    page.get_by_text("There are no personas to play yet").wait_for(timeout=PATIENCE_MS)


def test_server_never_loads_tensorflow(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle))
    live = LivePage(open_browser(astronaut_clip), app.address)
    live.start()
    live.wait_for_state("Swapped")
    mapped = Path(f"/proc/{app.process.pid}/maps").read_text()
    assert "onnxruntime" in mapped
    assert "tensorflow" not in mapped
    assert "Traceback" not in app.log.read_text()


# ---------------------------------------------------------------- measures


def fps(window: Sequence[Seen]) -> float:
    """Frames with new content per second."""
    changes = sum(after.number != before.number for before, after in pairwise(window))
    return changes * 1000 / (window[-1].time_ms - window[0].time_ms)


def background_psnr(pictures: Sequence[Image], sources: Sequence[Image], faces: Sequence[Face]) -> float:
    """The mean PSNR, dB, outside the face (its box grown by half on every side), mark and number strip."""
    scores = []
    for picture, source, face in zip(pictures, sources, faces, strict=True):
        keep = np.ones(picture.shape[:2], bool)
        keep[: CLEAR.start] = keep[CLEAR.stop :] = False
        left, top, right, bottom = grown(face, 0.5)
        keep[top:bottom, left:right] = False
        error = np.mean((picture[keep].astype(float) - source[keep]) ** 2)
        scores.append(10 * np.log10(255**2 / error))
    return float(np.mean(scores))


def assert_marked(picture: Image, source: Image) -> None:
    """The picture, which is mirrored for its viewer, must carry the visible mark."""
    label = Label()
    left, top, right, bottom = label.box(*picture.shape[:2])
    shown, plain = (np.ascontiguousarray(image[:, ::-1]) for image in (picture, source))
    marked = label(plain.copy())
    corner = np.s_[top:bottom, left:right]
    assert cv2.PSNR(shown[corner], marked[corner]) > cv2.PSNR(shown[corner], plain[corner]) + 6


def colour_share(picture: Image, face: Face, colour: tuple[int, int, int]) -> float:
    """How much of the face's middle has about that colour."""
    left, top, right, bottom = grown(face, -0.3)
    off = np.abs(picture[top:bottom, left:right].astype(int) - colour).max(axis=2)
    return float(np.mean(off < 60))


def grown(face: Face, by: float) -> tuple[int, int, int, int]:
    """The face's box, grown on every side by a share of its size, within the picture."""
    left, top, right, bottom = face.box
    dx, dy = (right - left) * by, (bottom - top) * by
    return max(0, int(left - dx)), max(0, int(top - dy)), int(right + dx), int(bottom + dy)
