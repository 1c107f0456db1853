"""A relay's frame handler made of a plain function."""

from collections.abc import Callable

from liveframe.frame import Image
from ui.session.stream import Show


class OneAtATime:
    """The FrameHandler of a function."""

    in_flight = 1

    def __init__(self, show: Show) -> None:
        self._show = show

    def begin(self, image: Image, captured_s: float) -> Callable[[], Image]:
        """Leave all to the second half."""
        return lambda: self._show(image, captured_s)
