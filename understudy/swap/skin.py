"""Where a photo shows skin at the edge of its face: hair over temples, forehead and cheeks is not carried along.

The mesh ends at the hairline that faces have on average; what a photo shows there may be a curl, a scarf or a fringe.
On another head it would lie on bare skin, so the driver's own skin (or hair) is shown there instead.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.mesh_warp import ReferenceFace
from understudy.vision.face import resized_mesh
from understudy.vision.mesh import FACE_OVAL, LEFT_BROW, LEFT_EYE, NOSE_TIP, OUTER_MOUTH, RIGHT_BROW, RIGHT_EYE

SKIN_GRID = 128
# How far from the oval's edge hair may lie, and how far from it skin is taken for skin, shares of the side.
_BAND, _JAW_BAND, _CORE = 0.10, 0.05, 0.07
# Skin is guessed outwards from its neighbourhood, this wide; as much darker, lighter or tinted (log) is no skin.
_REACH = 0.09
_SKIN, _HAIR = 0.28, 0.55
_LIFT = 12.0
_UNKNOWN = 1e-3


def skin_at_edge(reference: ReferenceFace) -> NDArray[np.float32]:
    """Return where a reference may be shown: float32 [128, 128], 1 in the face, 0 on hair near its upper edge."""
    size = SKIN_GRID
    image = cv2.resize(reference.image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    mesh = resized_mesh(reference.mesh, size / reference.image.shape[0])
    oval = np.zeros((size, size), np.uint8)
    cv2.fillPoly(oval, [np.rint(mesh[list(FACE_OVAL), :2]).astype(np.int32)], (255,))
    depth = cv2.distanceTransform(oval, cv2.DIST_L2, 5)
    features = np.zeros((size, size), np.uint8)
    for ring in (LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, OUTER_MOUTH):
        hull = cv2.convexHull(np.rint(mesh[list(ring), :2]).astype(np.int32))
        cv2.fillConvexPoly(features, hull, (255,))
    features = cv2.dilate(features, np.ones((7, 7), np.uint8))
    core = ((depth > _CORE * size) & (features == 0)).astype(np.float32)[..., None]
    tone = np.log(image + np.float32(_LIFT))
    sigma = _REACH * size
    total = cv2.GaussianBlur(core, (0, 0), sigma)[..., None]
    expected = cv2.GaussianBlur(tone * core, (0, 0), sigma) / np.maximum(total, np.float32(_UNKNOWN))
    away = np.abs(tone - expected).max(2)
    away[total[..., 0] < _UNKNOWN] = 0  # far from the face: never shown
    away = cv2.GaussianBlur(away, (0, 0), 1.0)
    hair = np.clip((away - _SKIN) / (_HAIR - _SKIN), 0, 1)
    # At the edge only; below the nose in a narrower band: a beard is the persona's, a collar or a lock is not.
    is_low = np.clip((np.arange(size, dtype=np.float32)[:, None] - mesh[NOSE_TIP, 1]) / (0.1 * size), 0, 1)
    band = size * (_BAND + (_JAW_BAND - _BAND) * is_low)
    hair *= np.clip((band - depth) / (0.3 * band), 0, 1)
    hair[features > 0] = 0
    return np.asarray(
        1 - cv2.GaussianBlur(cv2.dilate(hair.astype(np.float32), np.ones((3, 3))), (0, 0), 1.2), np.float32
    )
