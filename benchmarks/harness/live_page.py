"""The Live page as a test drives it: start the camera, look at what comes back."""

import base64
import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from playwright.sync_api import BrowserContext, ElementHandle, FrameLocator, Locator, Page

from benchmarks.harness import barcode
from liveframe.frame import Image

BARCODE_READER = Path(__file__).with_name("barcode.js").read_text()
PROBE = BARCODE_READER + Path(__file__).with_name("probe.js").read_text()
_VIDEO, _CANVAS = "video", ".stage canvas"
PATIENCE_MS = 60_000  # a busy machine takes its time to open a page
START_MS = 10_000  # about one start in twenty never plays; the page says so after as long


class Seen(NamedTuple):
    """A frame number that the page presented, and when, in ms."""

    number: int
    time_ms: float


class LivePage:
    """One open Live page, by either relay. Waits only by Playwright's own timers: its event loop must go on."""

    def __init__(self, context: BrowserContext, address: str, is_webrtc: bool = True, script: str = "") -> None:
        """Open the page; a `script` runs first in it and in every frame of it."""
        context.clear_cookies(name="understudy")  # what an earlier page of this browser remembers
        self.page: Page = context.new_page()
        if script:
            self.page.add_init_script(script)
        self.is_webrtc = is_webrtc
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.goto(address)
        self.page.get_by_role("heading", name="Live").wait_for()

    def choose(self, persona: str) -> None:
        """Pick a persona by the title on its face."""
        self.page.get_by_role("radio", name=persona).click()

    def open_panel(self, title: str) -> None:
        """Open a folded part of the panel."""
        self.page.locator("summary", has_text=title).click()

    def paint_flat(self) -> None:
        """Leave the persona's colours as they are."""
        self.open_panel("Blend")
        self.page.get_by_text("Match the colours to the light").click()

    def start(self) -> None:
        """Start the camera and wait for its picture; try once more, as a person would."""
        for _ in range(2):
            self.button("Start the camera").click()
            if self.plays_within(START_MS):
                return
            self.button("Stop").click()
        raise AssertionError(f"the camera's picture did not arrive in two starts of {START_MS / 1000:g} s")

    def stop(self) -> None:
        """Stop the camera."""
        self.button("Stop").click()
        self.button("Start the camera").wait_for()

    def picture(self, is_mirrored: bool = True) -> Image:
        """The picture on screen now, unmirrored: uint8 [H, W, 3], BGR."""
        address = self._screen().evaluate("(screen, mirrored) => probe.picture(screen, mirrored)", is_mirrored)
        png = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
        return np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8)

    def swapped_picture(self, is_mirrored: bool = True) -> tuple[int, Image]:
        """The next picture that carries a number, and the number: covered ones carry none."""
        for _ in range(100):
            picture = self.picture(is_mirrored)
            number = barcode.read(picture)
            if number is not None:
                return number, picture
            self.wait(0.05)
        raise AssertionError("every picture of five seconds was covered")

    def watch(self, seconds: float, is_mirrored: bool = True) -> list[Seen]:
        """The frames that are presented from now on, but for covered ones, which carry no number."""
        probe = "probe.watch" if self.is_webrtc else "probe.watchCanvas"
        ask = f"(screen, [mirrored, ms]) => {probe}(screen, mirrored, ms)"
        seen = self._screen().evaluate(ask, [is_mirrored, seconds * 1000])
        return [Seen(int(number), float(time_ms)) for number, time_ms in seen if number is not None]

    def ask(self, expression: str, argument: object = None) -> object:
        """Evaluate JavaScript, a function of the picture's element and an argument, where the picture is."""
        return self._screen().evaluate(expression, argument)

    def wait_for_state(self, label: str, timeout_s: float = PATIENCE_MS / 1000) -> None:
        """Wait until the state badge reads `label`."""
        badge = self.page.locator(".stMarkdownBadge").filter(has_text=re.compile(f"{label}$"))
        badge.wait_for(timeout=timeout_s * 1000)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.page.wait_for_timeout(seconds * 1000)

    def screenshot(self, path: Path) -> Path:
        """Save the whole page."""
        self.page.screenshot(path=path, full_page=True)
        return path

    def button(self, name: str) -> Locator:
        """The camera's button of that name."""
        return self._camera().get_by_role("button", name=name, exact=True)

    def plays_within(self, limit_ms: int) -> bool:
        """Whether the first picture comes in time."""
        screen = self._camera().locator(_VIDEO if self.is_webrtc else _CANVAS)
        has_picture = "screen => screen.readyState === undefined || (screen.readyState >= 2 && screen.videoWidth > 0)"
        for _ in range(limit_ms // 100):
            if screen.count() and screen.first.is_visible() and screen.first.evaluate(has_picture):
                return True
            self.page.wait_for_timeout(100)
        return False

    def _camera(self) -> Page | FrameLocator:
        return self.page.frame_locator("iframe[title*=webrtc_streamer]") if self.is_webrtc else self.page

    def _screen(self) -> ElementHandle:
        """The returned video or the painted canvas, with the probe beside it."""
        screen = self._camera().locator(_VIDEO if self.is_webrtc else _CANVAS).first.element_handle(timeout=START_MS)
        screen.evaluate(f"() => {{ if (!window.probe) {{ {PROBE} }} }}")
        return screen
