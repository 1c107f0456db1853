"""A slow, independent look at what is about to be shown: is whom the camera filmed still to be seen in it?"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from liveframe.frame import Box, Frame, FrameResult, Image

_LOG = logging.getLogger(__name__)
_BROKEN = "The picture could not be checked for your own face, so it is covered."

Inspect = Callable[[Image, Image, tuple[Box, ...] | None], str]
"""Compares a camera frame with what a model made of it.

Takes both pictures, uint8 [H, W, 3] BGR of one size, and the places that the model says it replaced (None: all of the
picture counts). Gives a sentence for the viewer where whom the camera filmed is to be seen, else "". May take a tenth
of a second; called by one thread at a time."""

Watch = Callable[[Frame, Image, FrameResult], str]
"""Asked by the gate before a complete answer is shown, with our own copy of its picture. Gives why it must be covered,
or ""."""


class _Look(NamedTuple):
    """What waits to be looked at."""

    camera: Image
    made: Image
    regions: tuple[Box, ...] | None


class Sentinel:
    """Inspects a picture now and then, on a thread of its own, and covers everything while it sees the filmed face.

    The hot path pays one copy of a picture for every look. `watch` is called by one thread at a time.

    Args:
        inspect: the look.
        every_s: how long after a look the next one may begin, in seconds. While something was seen, looks follow each
            other at once, and the first good one uncovers.
    """

    def __init__(self, inspect: Inspect, every_s: float = 1.0) -> None:
        self._inspect = inspect
        self._every_s = every_s
        self._changed = threading.Condition()
        self._waiting: _Look | None = None
        self._is_looking = self._is_closed = False
        self._next_s = 0.0
        self._suspicion = ""
        self._thread: threading.Thread | None = None

    def watch(self, frame: Frame, image: Image, result: FrameResult) -> str:
        """Return why this answer must be covered, as far as is known by now (a `Watch`). Never waits for a look.

        Where the viewer chose a mix of both faces, there is nothing to look for.
        """
        if result.is_mixed:
            return ""
        with self._changed:
            is_due = not self._is_looking and (bool(self._suspicion) or time.monotonic() >= self._next_s)
            if is_due and not self._is_closed:
                self._is_looking = True
                self._waiting = _Look(frame.image, image.copy(), result.regions)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="liveframe-sentinel", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
            return self._suspicion

    def close(self, timeout_s: float = 2.0) -> bool:
        """End the thread; whether it ended in time. Safe to call twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, timeout_s))
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
                look, self._waiting = self._waiting, None
                if look is None or self._is_closed:
                    return
            sentence = inspected(self._inspect, look.camera, look.made, look.regions)
            with self._changed:
                self._suspicion, self._is_looking = sentence, False
                self._next_s = time.monotonic() + self._every_s


class PacedSentinel:
    """The same look on the caller's own thread, for clips: at every n-th frame, and at each while something was seen.

    Args:
        inspect: the look.
        every: frames from one look to the next.
    """

    def __init__(self, inspect: Inspect, every: int = 12) -> None:
        self._inspect = inspect
        self._every = every
        self._since = every
        self._suspicion = ""

    def watch(self, frame: Frame, image: Image, result: FrameResult) -> str:
        """Look where it is time to; returns why this answer must be covered, or "" (a `Watch`)."""
        self._since += 1
        if result.is_mixed:
            return ""
        if self._suspicion or self._since >= self._every:
            self._since = 0
            self._suspicion = inspected(self._inspect, frame.image, image, result.regions)
        return self._suspicion


def inspected(inspect: Inspect, camera: Image, made: Image, regions: tuple[Box, ...] | None) -> str:
    """Look, and fail closed: a look that fails is logged, and covers."""
    try:
        return inspect(camera, made, regions)
    except Exception:
        _LOG.exception("A picture could not be checked for the filmed face.")
        return _BROKEN
