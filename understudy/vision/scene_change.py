"""A glance at the scene: has something come in, has the picture been cut? Costs about 0.05 ms."""

from collections.abc import Sequence
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

_CELLS = (32, 24)
_OVERSAMPLING = 4
_CELL_STEP = 18
_CUT_STEP = 30
_ARRIVAL_CELLS = 2


class Change(Enum):
    """What happened since the last look."""

    NONE = "none"
    ARRIVAL = "arrival"
    CUT = "cut"


class SceneWatch:
    """Compares frames as 32 x 24 grey cells. A face worth detecting covers two cells. Not thread-safe."""

    def __init__(self) -> None:
        self._reference: NDArray[np.int16] | None = None
        self._last: NDArray[np.int16] | None = None

    def update(self, image: NDArray[np.uint8], known: Sequence[NDArray[np.float32]]) -> Change:
        """Judge a frame.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            known: boxes of faces that are tracked already, float32 [4] xyxy: what moves there is no news.

        Returns:
            CUT when the picture as a whole changed since the last frame; ARRIVAL when something
            outside the known faces changed since `mark`; else NONE.
        """
        cells = _cells(image)
        last, self._last = self._last, cells
        if last is None or self._reference is None:
            self._reference = cells
            return Change.NONE
        if np.mean(_steps(cells, last)) > _CUT_STEP:
            self._reference = cells
            return Change.CUT
        news = _steps(cells, self._reference) > _CELL_STEP
        scale = np.array([_CELLS[0] / image.shape[1], _CELLS[1] / image.shape[0]] * 2, np.float32)
        for box in known:
            left, top, right, bottom = np.clip(box * scale + (-1, -1, 2, 2), 0, max(_CELLS)).astype(int)
            news[top:bottom, left:right] = False
        return Change.ARRIVAL if np.count_nonzero(news) >= _ARRIVAL_CELLS else Change.NONE

    def mark(self) -> None:
        """Take the last frame as the one to compare with: its faces have just been looked for."""
        self._reference = self._last


def _cells(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    fine = (_CELLS[0] * _OVERSAMPLING, _CELLS[1] * _OVERSAMPLING)
    small = cv2.cvtColor(cv2.resize(image, fine, interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2GRAY)
    return cv2.resize(small, _CELLS, interpolation=cv2.INTER_AREA).astype(np.int16)


def _steps(cells: NDArray[np.int16], other: NDArray[np.int16]) -> NDArray[np.float64]:
    """Absolute change by cell, without the picture's common change: exposure is no arrival."""
    change = cells - other
    return np.abs(change - np.median(change))
