"""The persona's eyes with the driver's gaze: the iris moves inside the lids, lids and whites follow the mesh.

What lies inside the lids decides a fifth of who a recogniser sees; so the photo's own eyes are kept, and its iris is
carried to where the driver's is. The iris model's centre (Ablavatski et al. 2020, arXiv:2006.11341) of both eyes.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Matrix, Points
from understudy.vision.mesh import LEFT_EYE, RIGHT_EYE

# Each eye: its ring of points, the outer and the inner corner.
EYES = ((RIGHT_EYE, 33, 133), (LEFT_EYE, 263, 362))
# The iris moves whole within so many radii, not at all beyond so many; a radius is this share of the eye's width.
_RADIUS = 0.2
_WHOLE, _NOTHING = 1.2, 2.4
_FARTHEST = 0.3
# Eyes less open than this (height by width) are shut: the lids say all.
_SHUT = 0.12
_MARGIN_PX = 3

Irises = NDArray[np.float32]


class _Eye(NamedTuple):
    ring: Points
    iris: Points


class GazeWarp:
    """A reference's eyes, ready to look elsewhere. Read-only, and so thread-safe.

    Args:
        mesh: float32 [468, 3], the reference's mesh, px of its picture.
        irises: float32 [2, 2], its irises' centres, right and left, px of the picture.
    """

    def __init__(self, mesh: Points, irises: Irises) -> None:
        self._eyes = [
            _Eye(mesh[list(ring), :2].astype(np.float32), iris) for (ring, *_), iris in zip(EYES, irises, strict=True)
        ]

    def turn(self, face: NDArray[np.uint8], mesh: Points, irises: Irises) -> None:
        """Turn the eyes of a warped reference, in place.

        Args:
            face: uint8 [H, W, 3 or 4], BGR: the reference on the driver's mesh.
            mesh: float32 [468, 3], the driver's mesh, px of `face`; may reach outside.
            irises: float32 [2, 2], the driver's irises' centres, px of `face`.
        """
        for (ring, outer, inner), eye, wanted in zip(EYES, self._eyes, irises, strict=True):
            lids = mesh[list(ring), :2].astype(np.float32)
            width = float(np.linalg.norm(mesh[outer, :2] - mesh[inner, :2]))
            if eye_opening(mesh, ring, outer, inner) < _SHUT or width < 4:
                continue
            own = _carried(eye, lids)
            shift = np.clip(wanted - own, -_FARTHEST * width, _FARTHEST * width).astype(np.float32)
            _move(face, lids, own + shift, shift, _RADIUS * width)


def eye_opening(mesh: Points, ring: tuple[int, ...], outer: int, inner: int) -> float:
    """Return how open an eye is: its height across the line of its corners, by its width."""
    across = mesh[inner, :2] - mesh[outer, :2]
    width = float(np.hypot(*across)) + 1e-6
    height = np.ptp((mesh[list(ring), :2] - mesh[outer, :2]) @ np.array([-across[1], across[0]]) / width)
    return float(height) / width


def _carried(eye: _Eye, lids: Points) -> Points:
    """Return where the reference's iris lies once its lids lie on the driver's: float32 [2]."""
    ones = np.ones((len(eye.ring), 1), np.float32)
    affine = np.linalg.lstsq(np.concatenate([eye.ring, ones], axis=1), lids, rcond=None)[0]
    return np.asarray(np.array([*eye.iris, 1.0], np.float32) @ affine, np.float32)


def _move(face: NDArray[np.uint8], lids: Points, centre: Points, shift: Points, radius: float) -> None:
    height, width = face.shape[:2]
    left, top = np.maximum((lids.min(0) - _MARGIN_PX).astype(int), 0)
    right, bottom = np.minimum((lids.max(0) + _MARGIN_PX + 1).astype(int), [width, height])
    if right - left < 2 or bottom - top < 2:
        return
    x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)[:, None]
    far = np.hypot(x - centre[0], y - centre[1]) / np.float32(radius)
    share = np.clip((_NOTHING - far) / np.float32(_NOTHING - _WHOLE), 0, 1)
    share = share * share * (3 - 2 * share)
    part = cv2.remap(
        face, x - shift[0] * share, y - shift[1] * share, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    inside = np.zeros(part.shape[:2], np.uint8)
    corners = np.rint((lids - [left, top]) * 16).astype(np.int32)
    cv2.fillPoly(inside, [corners], (255,), cv2.LINE_AA, 4)
    weight = cv2.GaussianBlur(inside, (0, 0), max(0.5, radius * 0.12)).astype(np.float32) / np.float32(255)
    target = face[top:bottom, left:right]
    target[:] = cv2.blendLinear(part, np.ascontiguousarray(target), weight, 1 - weight)


def moved_irises(irises: Irises, matrix: Matrix) -> Irises:
    """Return irises' centres moved by a matrix: float32 [2, 2]."""
    return np.asarray(irises @ matrix[:, :2].T + matrix[:, 2], np.float32)
