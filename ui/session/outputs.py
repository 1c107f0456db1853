"""What a viewer is shown, sent on to other programs of this machine: a virtual camera, or pictures at an address."""

import secrets
import threading
from collections.abc import Callable
from typing import Protocol

from liveframe.errors import LiveframeError
from liveframe.frame import Image
from liveframe.gate import Shown

LOOK_EVERY_S = 0.01


class Sink(Protocol):
    """Takes pictures (`understudy.camera.VirtualCamera`)."""

    def send(self, image: Image) -> None:
        """Show a picture; LiveframeError where that cannot be."""
        ...

    def close(self) -> None:
        """Let the device go."""
        ...


class Outputs:
    """One viewer's outputs, all off at first. What is sent is what left the gate: never the viewer's own camera.

    Args:
        newest: gives what was shown last; None before the first picture, and while the viewer's own camera is shown:
            other programs then keep the picture before.
    """

    def __init__(self, newest: Callable[[], Shown | None]) -> None:
        self.newest = newest
        self._token = ""
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.problem = ""

    @property
    def token(self) -> str:
        """The unguessable name of the pictures' address; "" while there is none."""
        return self._token

    def set_address(self, is_on: bool) -> None:
        """Open the address, a new one every time, or close it: whoever reads it is cut off."""
        if is_on != bool(self._token):
            self._token = secrets.token_urlsafe(16) if is_on else ""

    @property
    def has_camera(self) -> bool:
        """Whether pictures go to a virtual camera now."""
        return self._thread is not None and self._thread.is_alive()

    def start_camera(self, sink: Sink) -> None:
        """Send everything that is shown to a virtual camera, from a thread of its own, until `stop_camera`."""
        self.stop_camera()
        self.problem, self._closing = "", threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sink, self._closing), name="camera-output", daemon=True)
        self._thread.start()

    def stop_camera(self) -> None:
        """Let the virtual camera go. Safe to call twice."""
        self._closing.set()
        self._thread = None

    def close(self) -> None:
        """End all outputs. Waits for nothing; safe to call twice."""
        self._token = ""
        self.stop_camera()

    def _run(self, sink: Sink, closing: threading.Event) -> None:
        last: Shown | None = None
        try:
            while not closing.wait(LOOK_EVERY_S):
                shown = self.newest()
                if shown is not None and shown is not last:
                    last = shown
                    sink.send(shown.image)
        except LiveframeError as error:
            self.problem = str(error)
        finally:
            sink.close()
