"""What the two relays have in common: one start of a camera, and what it has carried."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from liveframe.frame import Image

FAULT_SENTENCE = "Something failed while making this picture, so it is covered."

Show = Callable[[Image, float], Image]
"""Gives what may be shown of a camera frame: (uint8 [H, W, 3] BGR, when it arrived in
time.monotonic() seconds) -> uint8 [H, W, 3] BGR."""


class FrameHandler(Protocol):
    """Gives what may be shown, several frames at once where the model behind it is far away."""

    @property
    def in_flight(self) -> int:
        """How many begun frames may wait at once, now; 1 for a model in this process."""
        ...

    def begin(self, image: Image, captured_s: float) -> Callable[[], Image]:
        """Take a frame in without waiting; the relay calls it for one frame after another, in their order.

        Args:
            image: uint8 [H, W, 3], BGR; not written to again.
            captured_s: when it arrived, time.monotonic() seconds.

        Returns:
            Waits, and gives what may be shown as `Show` does. The relay calls it once, from any thread.
        """
        ...


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """What one start of the camera has carried so far.

    Attributes:
        received: frames that the camera sent.
        shown: frames that went back.
        dropped: frames replaced by a newer one before their turn.
        faults: frames covered because showing them raised.
        last_fault: the last fault's message, empty when there was none.
        idle_s: seconds since the camera's last frame, or since the start when none came.
    """

    received: int
    shown: int
    dropped: int
    faults: int
    last_fault: str
    idle_s: float


class Stream(Protocol):
    """One start of a viewer's camera, by whichever relay. Any thread may call it."""

    @property
    def is_ended(self) -> bool:
        """Whether it is over; a new start needs a new stream."""
        ...

    def counts(self) -> StreamCounts:
        """Count what went through."""
        ...

    def close(self) -> None:
        """End it and free its thread. Safe to call twice."""
        ...
