"""The Studio in a real browser: from a photo to one's own persona in the returned pixels; clips to references."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, TimeoutError

from benchmarks.harness.camera_clips import astronaut_frames
from benchmarks.harness.live_page import PATIENCE_MS, LivePage
from liveframe.frame import Image
from tests.browser.conftest import RunningApp
from tests.browser.test_live_page import assert_nearer_to_persona, shipped_bundle
from tests.support.real_faces import turned, write_clip
from understudy.bundle.bundle import Bundle

Serve = Callable[..., RunningApp]
OpenBrowser = Callable[..., BrowserContext]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A machine-made face that ships, as somebody's photo."""
    still = cv2.imread(str(Bundle.load(shipped_bundle()).personas[1].still))
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), cv2.copyMakeBorder(still, 90, 90, 90, 90, cv2.BORDER_REFLECT_101))
    return path


def open_studio(context: BrowserContext, app: RunningApp) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{app.address}/studio")
    page.get_by_role("heading", name="Studio").wait_for()
    return page


def upload(page: Page, label: str, path: Path) -> None:
    """Choose a file in the uploader of that label, and wait until it has arrived."""
    uploader = page.get_by_test_id("stFileUploader").filter(has_text=label)
    for _ in range(3):  # Streamlit forgets a file that is chosen while the page's script runs
        page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()
        uploader.locator("input[type=file]").set_input_files(path)
        try:
            uploader.get_by_text(path.name).wait_for(timeout=PATIENCE_MS / 6)
            return
        except TimeoutError:
            continue
    raise AssertionError(f"{path.name} did not arrive in three tries")


def make_persona(page: Page, title: str, photo: Path, form: Path) -> None:
    form.write_text("signed")
    page.get_by_label("Name of the persona").fill(title)
    page.get_by_label("Name of the persona").press("Tab")
    upload(page, "One photo, or a short clip", photo)
    page.get_by_text("Somebody’s who agreed").click()
    page.get_by_label("Their name").fill("Nobody: a machine-made face")
    page.get_by_label("Their name").press("Tab")
    page.get_by_text("This is the face of Nobody").wait_for()
    page.get_by_text("They agreed, and I can show it").click()
    upload(page, "Signed form or recorded statement", form)
    page.get_by_role("button", name="Make the persona").click()
    page.get_by_role("button", name="Play it live").wait_for()


def test_an_uploaded_photo_plays_in_the_returned_pixels(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, astronaut_clip: Path, photo: Path, tmp_path: Path
) -> None:
    app = serve(
        UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_RELAY="websocket", UNDERSTUDY_WORK=str(tmp_path / "work")
    )
    context = open_browser(astronaut_clip)
    make_persona(open_studio(context, app), "Nadia", photo, tmp_path / "form.txt")

    live = LivePage(context, app.address, is_webrtc=False)
    live.choose("Nadia")
    live.start()
    live.wait_for_state("Swapped")
    numbers, pictures = zip(*(live.swapped_picture() for _ in range(6)), strict=True)
    frames: list[Image] = astronaut_frames()
    still = np.asarray(cv2.imread(str(photo)), np.uint8)
    assert_nearer_to_persona(pictures, [frames[number] for number in numbers], still)


def test_without_a_permission_there_is_no_persona(
    serve: Serve, open_browser: OpenBrowser, tiny_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_WORK=str(tmp_path / "work"))
    page = open_studio(open_browser(None), app)
    page.get_by_label("Name of the persona").fill("Nadia")
    upload(page, "One photo, or a short clip", photo)
    page.get_by_role("button", name="Make the persona").click()
    page.get_by_text("A persona of a person must have").wait_for()
    assert list((tmp_path / "work").glob("viewers/*/personas/*")) == []


def test_references_are_chosen_while_the_page_is_reloaded_and_the_page_says_what_plays(
    serve: Serve, open_browser: OpenBrowser, photo: Path, tmp_path: Path
) -> None:
    app = serve(UNDERSTUDY_WORK=str(tmp_path / "work"), MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'mlflow.db'}")
    context = open_browser(None)
    page = open_studio(context, app)
    make_persona(page, "Nadia", photo, tmp_path / "form.txt")
    clip = write_clip(tmp_path / "turns.mp4", [turned(yaw) for yaw in (0, 8, 16, 24, 16, 8, 0, -8, -16, -24)])
    page.get_by_role("tab", name="Faces").click()
    upload(page, "Clips and photos", clip)
    page.get_by_role("button", name="Find the faces").click()
    page.get_by_text("Sharpest first").wait_for(timeout=120_000)
    page.get_by_role("tab", name="References").click()
    page.get_by_role("button", name="Choose references from the clips").click()
    page.get_by_text("References of Nadia").wait_for()

    page = open_studio(context, app)
    page.get_by_role("button", name="Nadia", exact=True).click()
    page.get_by_role("tab", name="References").click()
    page.get_by_text("the photo plays").wait_for(timeout=240_000)  # the clip shows somebody else
