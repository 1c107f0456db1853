"""The Live page under AppTest with a camera: a viewer whose frames a test sends itself."""

import json
import time
from collections.abc import Callable

import numpy as np
from streamlit.testing.v1 import AppTest

from benchmarks.harness.waiting import wait_until
from liveframe.frame import Image
from liveframe.gate import ShownState
from ui.session import shared
from ui.session.stream import StreamCounts
from ui.session.viewer import Viewer


def live_page() -> None:
    """The page's script."""
    from ui.live import page as live

    live.page()


def open_page() -> AppTest:
    """Open the page once; needs `benchmarks.harness.pages.fresh_app` around it."""
    page = AppTest.from_function(live_page, default_timeout=60).run()
    assert not page.exception
    return page


def pick(page: AppTest, persona: str) -> AppTest:
    """Choose a persona by its name, as the picker's callback does: AppTest cannot click what a component draws."""
    assert persona in offered_names(page)
    page.session_state["persona"] = persona
    return page.run()


def offered_names(page: AppTest) -> list[str]:
    """Who may be picked, in the picker's order."""
    drawn = [part.proto for part in page.get("bidi_component")]
    (picker,) = [json.loads(proto.json) for proto in drawn if proto.component_name == "persona_picker"]
    return [persona["name"] for group in picker["groups"] for persona in group["personas"]]


def admitted() -> Viewer:
    """The only viewer there is."""
    (viewer,) = shared.viewer_registry().viewers()
    return viewer


class HandCamera:
    """A camera whose frames a test hands in (a `ui.session.stream.Stream`).

    Attributes:
        dropped: what it tells of frames that it left out itself.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.is_ended = False
        self.dropped = 0
        self._viewer = viewer
        self._received = 0
        self._last_s = time.monotonic()
        viewer.attach(self)

    def send(self, image: Image) -> Image:
        """Send a frame; returns what is shown for it: uint8 [H, W, 3], BGR."""
        return self.begin(image)()

    def begin(self, image: Image) -> Callable[[], Image]:
        """Send a frame without waiting; returns what waits for its answer."""
        self._received += 1
        self._last_s = time.monotonic()
        return self._viewer.begin(np.array(image), self._last_s)

    def send_until(self, state: ShownState, image: Image) -> Image:
        """Send a frame, again and again, until what is shown is of that kind; returns it."""
        shown: list[Image] = []

        def is_there() -> bool:
            shown.append(self.send(image))
            return self._viewer.pipeline.stats().state is state

        wait_until(is_there, timeout_s=40)
        return shown[-1]

    def counts(self) -> StreamCounts:
        """Count what went through."""
        return StreamCounts(self._received, self._received, self.dropped, 0, "", time.monotonic() - self._last_s)

    def close(self) -> None:
        """End it."""
        self.is_ended = True
