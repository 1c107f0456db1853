"""Maps of a face that an autoencoder learns by: where it may be replaced, and where a viewer looks first."""

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import mean_mesh
from understudy.vision.face import Points
from understudy.vision.mesh import FACE_OVAL, LEFT_EYE, OUTER_MOUTH, RIGHT_EYE
from understudy.vision.reference import signed_areas, triangles

Mask = NDArray[np.uint8]

# Triangles seen this much narrower than from the front turn their back.
_SMALLEST_AREA_RATIO = 0.12
_SUBPIXEL_BITS = 4


def face_mask(mesh: Points, size: int) -> Mask:
    """Return where a face may be replaced: what of its oval faces the viewer, without ragged cheeks.

    The same for every persona.

    Args:
        mesh: float32 [468, 3], crop px.
        size: side of the crop, px.

    Returns:
        uint8 [size, size], 0 to 255, eroded and soft at the edge.
    """
    seen = np.zeros((size, size), np.uint8)
    for corner in np.rint(mesh[:, :2] * (1 << _SUBPIXEL_BITS)).astype(np.int32)[_visible(mesh, size)]:
        cv2.fillConvexPoly(seen, corner, 255, cv2.LINE_8, _SUBPIXEL_BITS)
    mask = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, _disc(_odd(size * 0.03)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(_odd(size * 0.10)))
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0  # a face cut off by the crop's edge is eroded there too
    mask = cv2.erode(mask, _disc(_odd(size * 0.025)))
    return cv2.GaussianBlur(mask, (0, 0), size * 0.012)  # type: ignore[return-value]


def attention_map(mesh: Points, size: int) -> Mask:
    """Return where a viewer looks first: eyes and mouth, soft; uint8 [size, size], 0 to 255.

    Args:
        mesh: float32 [468, 3], crop px.
        size: side of the crop, px.
    """
    detail = np.zeros((size, size), np.uint8)
    for ring in (OUTER_MOUTH, RIGHT_EYE, LEFT_EYE):
        cv2.fillPoly(detail, [cv2.convexHull(np.round(mesh[list(ring), :2]).astype(np.int32))], 255)
    detail = cv2.dilate(detail, _disc(_odd(size * 0.04)))
    return cv2.GaussianBlur(detail, (0, 0), size * 0.015)  # type: ignore[return-value]


def _visible(mesh: Points, size: int) -> NDArray[np.int32]:
    """Return the triangles that face the viewer: int32 [T, 3]."""
    frontal = mean_mesh() * np.float32(size)
    areas, seen = (signed_areas(each[triangles(), :2].astype(np.float64)) for each in (frontal, mesh))
    least = _SMALLEST_AREA_RATIO * _oval_area(mesh) / max(_oval_area(frontal), 1.0)
    return triangles()[(areas > 1e-3) & (seen > areas * least)]


def _oval_area(mesh: Points) -> float:
    return float(cv2.contourArea(mesh[list(FACE_OVAL), :2]))


def _disc(size: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))  # type: ignore[return-value]


def _odd(length: float) -> int:
    return max(1, int(length) // 2 * 2 + 1)
