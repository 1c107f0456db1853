"""A persona that owes nothing to any camera: a face drawn on the mean mesh."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.support.real_faces import laid
from understudy.swap.renderer import OneShotPersona, one_shot_persona
from understudy.vision.align import mean_mesh
from understudy.vision.face import AlignedFace
from understudy.vision.mesh import FACE_OVAL, LEFT_EYE, OUTER_MOUTH, RIGHT_EYE
from understudy.vision.reference import ReferenceFace

_SIDE = 256
_BROWS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
_NOSE = (6, 197, 195, 5, 4, 1)


@cache
def drawn_still() -> ReferenceFace:
    """A still with dark skin, freckles, heavy brows and a wide mouth."""
    mesh = (mean_mesh() * np.float32(_SIDE)).astype(np.float32)
    image = np.full((_SIDE, _SIDE, 3), (60, 40, 30), np.uint8)
    points = np.round(mesh[:, :2]).astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(points[list(FACE_OVAL)]), (70, 105, 160))
    for x, y in np.random.default_rng(5).integers(40, 216, (90, 2)):
        cv2.circle(image, (int(x), int(y)), 2, (45, 70, 110), -1)
    for brow in _BROWS:
        cv2.polylines(image, [points[list(brow)]], False, (20, 25, 30), 9)
    for eye in (RIGHT_EYE, LEFT_EYE):
        cv2.fillPoly(image, [points[list(eye)]], (220, 225, 225))
    cv2.polylines(image, [points[list(_NOSE)]], False, (95, 135, 190), 7)
    cv2.fillPoly(image, [points[list(OUTER_MOUTH)]], (60, 50, 150))
    return ReferenceFace(np.asarray(cv2.GaussianBlur(image, (0, 0), 1.2), np.uint8), mesh)


def drawn_persona() -> OneShotPersona:
    """What paints that still in one shot."""
    return one_shot_persona([drawn_still()], None)


class DrawnCrop:
    """The same still, laid onto the driver's mesh crop by crop: a CropRenderer."""

    input_size = 96

    def __call__(self, face: AlignedFace) -> NDArray[np.uint8]:
        return laid(drawn_still(), face.mesh, face.crop.shape[0])
