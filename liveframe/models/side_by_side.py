"""Two pictures of the same moment side by side: two personas, two models, or the camera beside the swap."""

from collections.abc import Callable

import cv2
import numpy as np

from liveframe.frame import Frame, FrameResult, Image
from liveframe.model import FrameModel, FrameSession

OWN_CAMERA = "Your own camera"
_GROUND_BGR = (46, 40, 36)
_TEXT_BGR = (225, 222, 218)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

Adjust = Callable[[FrameSession], None]
"""Gives one side's session its settings."""


class SideBySide:
    """A FrameModel that plays two models on every frame and shows both, at half size, with a caption each.

    Its result counts as complete only where every picture in it is: otherwise the gate covers it. With no left
    model the camera's own picture stands there: only for viewers who chose to show it.

    Args:
        left: the model on the left; None: the camera itself.
        right: the model on the right.
        captions: what stands above them, ASCII.
    """

    def __init__(self, left: FrameModel | None, right: FrameModel, captions: tuple[str, str]) -> None:
        self._left, self._right = left, right
        self._captions = captions

    def warm_up(self) -> None:
        """Warm both.

        Raises:
            ModelError: one of them cannot run here.
        """
        for model in (self._left, self._right):
            if model is not None:
                model.warm_up()

    def open_session(self) -> "SideBySideSession":
        """Start one viewer's stream."""
        left = self._left.open_session() if self._left is not None else None
        return SideBySideSession(left, self._right.open_session(), self._captions)


class SideBySideSession:
    """One viewer's stream through both. As FrameSession says; give the sides their settings before the first frame."""

    def __init__(self, left: FrameSession | None, right: FrameSession, captions: tuple[str, str]) -> None:
        self.left, self.right = left, right
        self._captions = captions

    def process(self, frame: Frame) -> FrameResult:
        """Play both and lay them side by side.

        Raises:
            LiveframeError: one of them could not.
        """
        right = self.right.process(frame)
        left = self.left.process(frame) if self.left is not None else None
        pictures = (frame.image if left is None else left.image, right.image)
        results = [right] if left is None else [left, right]
        found = max(result.subjects_found for result in results)
        is_complete = all(result.is_complete for result in results)
        stages_ms = dict(right.stages_ms)
        if left is not None:
            stages_ms["left side"] = sum(left.stages_ms.values())
        note = f"{OWN_CAMERA} is shown on the left." if left is None else ""
        note = note if is_complete else next((result.note for result in results if result.note), note)
        image = side_by_side(*pictures, self._captions)
        personas = tuple(dict.fromkeys(name for result in results for name in result.personas))
        is_mixed = any(result.is_mixed for result in results)
        done = found if is_complete else 0
        regions = right.regions if left is None else None
        return FrameResult(image, frame.index, found, done, stages_ms, note, personas, is_mixed, regions)

    def close(self) -> None:
        """End both."""
        for session in (self.left, self.right):
            if session is not None:
                session.close()


def side_by_side(left: Image, right: Image, captions: tuple[str, str]) -> Image:
    """Lay two pictures of one size side by side, each at half its size, on a dark ground, a caption above each.

    Args:
        left: uint8 [H, W, 3], BGR.
        right: the same size.
        captions: ASCII.

    Returns:
        uint8 [H, W, 3], BGR, a new array.
    """
    height, width = left.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    out[:] = _GROUND_BGR
    half = width // 2
    rows = max(1, height * half // width)
    top = (height - rows) // 2
    for image, column, caption in ((left, 0, captions[0]), (right, width - half, captions[1])):
        if half:
            out[top : top + rows, column : column + half] = cv2.resize(
                image, (half, rows), interpolation=cv2.INTER_AREA
            )
        scale = max(0.35, height / 900)
        cv2.putText(out, caption, (column + 8, max(12, top - 8)), _FONT, scale, _TEXT_BGR, 1, cv2.LINE_AA)
    return out
