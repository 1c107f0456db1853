"""Whether a swap leaves what surrounds the head where it is.

A swap that bends the crop to another face shape moves hair, neck and wall along. How far, is seen by dense optical
flow from the source frame to its swap (DIS, Kroeger et al. 2016, arXiv:1603.03590); how much of that *changes* from
one frame to the next is what shakes. The source's own movement (a head that turns, a hand-held camera) carries the
displacement along and so counts for nothing.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Mask, eye_distance, face_hull
from understudy.vision.face import Points

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]

# Where flow is measured: this many outer-eye distances about the face's middle, scaled to this many px.
_WINDOW_EYES = 5.0
_WINDOW_PX = 320
# The painted face with its seam, and the head with hair and ears, as the face's oval grown.
_FACE_GROWN = 1.1
_HEAD_GROWN = 2.0
# A pixel's surroundings must have this contrast (grey levels a px) for its movement to be measurable, and to be seen.
_LEAST_GRADIENT = 6.0
_LEAST_PIXELS = 50
# Two pictures of one place that differ by less than this are one.
_SAME_LEVELS = 3


@dataclass(frozen=True, slots=True)
class BackgroundMotion:
    """Movement that a swap adds from one frame to the next: root mean square, in % of the outer-eye distance.

    Attributes:
        ring_pct: in the ring about the face: the oval grown from 1.1 to 2 times; hair, neck, what shows beside the jaw.
        outside_pct: outside that ring. NaN each where nothing there has enough contrast to be followed.
    """

    ring_pct: float
    outside_pct: float


class BackgroundMeter:
    """Measures added movement between pairs of frames. Not thread-safe."""

    def __init__(self) -> None:
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def measure(self, before: tuple[Image, Image], after: tuple[Image, Image], mesh: Points) -> BackgroundMotion:
        """Compare two neighbouring frames with their swaps.

        Args:
            before: source and swap of the first frame, uint8 [H, W, 3], BGR.
            after: source and swap of the second.
            mesh: float32 [468, 3], the driver's in the second frame, px.
        """
        to_window, scale = _window(mesh)
        size = (_WINDOW_PX, _WINDOW_PX)
        flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        grey = [
            np.asarray(cv2.cvtColor(cv2.warpAffine(image, to_window, size, flags=flags), cv2.COLOR_BGR2GRAY), np.uint8)
            for image in (*before, *after)
        ]
        shape = before[0].shape[:2]
        inside = cv2.warpAffine(np.ones(shape, np.uint8), to_window, size, flags=cv2.INTER_NEAREST) > 0
        points = mesh[:, :2] @ to_window[:, :2].T + to_window[:, 2]
        face = face_hull(points, size, _FACE_GROWN)
        head = face_hull(points, size, _HEAD_GROWN)
        added = self._added(*grey)
        seen = _textured(grey[2]) & inside
        to_pct = 100 / eye_distance(points)
        return BackgroundMotion(
            ring_pct=_rms(added, seen & head & ~face) * to_pct, outside_pct=_rms(added, seen & ~head) * to_pct
        )

    def _added(self, source0: Image, swap0: Image, source1: Image, swap1: Image) -> NDArray[np.float32]:
        """Return the length of the added movement, float32 [S, S], px of the window."""
        first, second = self._displacement(source0, swap0), self._displacement(source1, swap1)
        if not first.any() and not second.any():
            return np.zeros(source1.shape, np.float32)
        back = np.asarray(self._flow.calc(source1, source0, None), np.float32)
        y, x = np.mgrid[: back.shape[0], : back.shape[1]].astype(np.float32)
        carried = cv2.remap(first, x + back[..., 0], y + back[..., 1], cv2.INTER_LINEAR)
        return np.asarray(np.linalg.norm(second - carried, axis=2), np.float32)

    def _displacement(self, source: Image, swap: Image) -> Flow:
        """Return where the swap put each pixel, float32 [S, S, 2]; exactly 0 where it changed nothing nearby."""
        changed = (cv2.absdiff(source, swap) >= _SAME_LEVELS).astype(np.uint8)
        if not changed.any():
            return np.zeros((*source.shape, 2), np.float32)
        near = cv2.dilate(cv2.medianBlur(changed, 3), np.ones((7, 7), np.uint8))
        flow = np.asarray(self._flow.calc(source, swap, None), np.float32)
        flow[near == 0] = 0
        return flow


def _window(mesh: Points) -> tuple[NDArray[np.float32], float]:
    """Return the matrix from frame px into the window, float32 [2, 3], and its scale."""
    middle = (mesh[:, :2].min(0) + mesh[:, :2].max(0)) / 2
    scale = _WINDOW_PX / (_WINDOW_EYES * max(eye_distance(mesh), 1.0))
    shift = _WINDOW_PX / 2 - scale * middle
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32), scale


def _textured(grey: Image) -> Mask:
    """Return where enough contrast lies for movement to be measured, bool [S, S]."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.hypot(dx, dy) >= _LEAST_GRADIENT


def _rms(values: NDArray[np.float32], where: Mask) -> float:
    if int(where.sum()) < _LEAST_PIXELS:
        return float("nan")
    return float(np.sqrt((values[where].astype(np.float64) ** 2).mean()))
