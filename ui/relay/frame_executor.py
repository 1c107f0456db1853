"""Shows one stream's frames on threads of its own: one after another, or overlapping where the model is far away."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from liveframe.frame import Image
from ui.session.stream import FrameHandler

MOST = 8  # frames under way, whatever the model says
T = TypeVar("T")
Shown = Callable[[], Image]


class FrameExecutor:
    """Frames enter the handler in their order, on one thread, and are waited for on others.

    With room for one frame at a time both halves run on the first thread: no other is woken.
    `start` belongs to one thread.
    """

    def __init__(self, handler: FrameHandler, name: str) -> None:
        """Make the line; threads start with the first frames.

        Args:
            handler: gives what may be shown.
            name: of the threads.
        """
        self._handler = handler
        self._lock = threading.Lock()
        self._entry = ThreadPoolExecutor(1, name)
        self._waiting = ThreadPoolExecutor(MOST, f"{name}_waits")

    @property
    def room(self) -> int:
        """How many frames may be under way now."""
        return max(1, min(self._handler.in_flight, MOST))

    def start(
        self, take: Callable[[], tuple[Image, float]], give: Callable[[Image], T], cover: Callable[[Exception], T]
    ) -> Future[T]:
        """Show one frame.

        Args:
            take: gives the camera's picture and when it arrived.
            give: makes the answer of what may be shown.
            cover: makes one of an error that any of the steps raised.

        Returns:
            The answer to come, which must not be cancelled; nobody needs to wait for it.

        Raises:
            RuntimeError: the line is closed.
        """
        if self.room == 1:
            return self._entry.submit(lambda: self._finish(self._begin(take), give, cover))
        with self._lock:  # what has begun must be finished, so both are submitted or none
            begun = self._entry.submit(self._begin, take)
            return self._waiting.submit(lambda: self._finish(begun.result(), give, cover))

    def close(self) -> None:
        """Take no more frames; those under way are finished, and the threads end. Safe to call twice."""
        with self._lock:
            self._entry.shutdown(wait=False)
            self._waiting.shutdown(wait=False)

    def _begin(self, take: Callable[[], tuple[Image, float]]) -> Shown | Exception:
        try:
            return self._handler.begin(*take())
        except Exception as error:
            return error

    @staticmethod
    def _finish(begun: Shown | Exception, give: Callable[[Image], T], cover: Callable[[Exception], T]) -> T:
        if isinstance(begun, Exception):
            return cover(begun)
        try:
            return give(begun())
        except Exception as error:
            return cover(error)
