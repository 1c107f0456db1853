"""dlib's five landmarks: an independent check of the mesh, and the alignment of dlib's embedder."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image
from understudy.vision.align import similarity
from understudy.vision.face import Face, Matrix, Points
from understudy.vision.model_files import installed_model

# Five points of an upright face, in a 112 px square: right eye, left eye, nose tip, right and left mouth
# corner. The template of ArcFace (Deng et al. 2019, arXiv:1801.07698), which SFace was trained on.
FACE_TEMPLATE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
TEMPLATE_SIZE = 112
# Mesh points that lie where dlib's predictor puts its five: the left eye's outer and inner corner, the
# right eye's outer and inner corner, the base of the nose.
FIVE_POINT_MESH = (263, 362, 33, 133, 2)

# dlib's detector draws a square of 1.69 times the spread (Frobenius norm) of those five points, a little
# to the left of their centroid: measured on 80 machine-made faces, standard deviation 4 %.
_SQUARE_PER_SPREAD = 1.69
_SQUARE_SHIFT = (-0.06, -0.02)
_PATCH_SIZE = 300
_SQUARE_SIZE = 150


def eye_distance(mesh: Points) -> float:
    """Measure the distance between the outer eye corners, in the mesh's px."""
    return float(np.linalg.norm(mesh[33, :2] - mesh[263, :2]))


def disagreement(mesh: Points, five_points: Points) -> float:
    """Measure how far dlib's points lie from the mesh's, in outer-eye distances.

    Args:
        mesh: float32 [468, 2 or 3], frame px.
        five_points: float32 [5, 2], frame px, from `FivePoints.fit`.

    Returns:
        The mean distance of the five pairs. 0.015 to 0.05 on faces of 9 clips; a mesh that slipped off its
        face (onto a hand, the background, a neighbour) is far above 0.1.
    """
    gaps = np.linalg.norm(mesh[list(FIVE_POINT_MESH), :2] - five_points, axis=1)
    return float(gaps.mean()) / max(eye_distance(mesh), 1e-6)


class FivePoints:
    """dlib's five-point predictor (ERT; Kazemi & Sullivan 2014), run on an upright patch.

    Not thread-safe. About 2 ms a face, most of it the patch.
    """

    def __init__(self) -> None:
        import dlib

        self._predictor: Any = dlib.shape_predictor(str(installed_model("dlib-5")))
        self._square: Any = dlib.rectangle(*_square())

    def fit(self, image: Image, face: Face) -> Points:
        """Find the eye corners and the nose base, starting from the detector's landmarks alone.

        Args:
            image: uint8 [H, W, 3], BGR.
            face: its `landmarks` say where to look; its mesh is not read.

        Returns:
            float32 [5, 2], frame px: the left eye's outer and inner corner, the right eye's outer
            and inner corner, the nose base.
        """
        _, frame_to_patch, shape = self.fit_patch(image, face)
        points = np.array([(part.x, part.y) for part in shape.parts()], np.float64)
        inverse = cv2.invertAffineTransform(frame_to_patch.astype(np.float64))
        return (points @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)

    def fit_patch(self, image: Image, face: Face) -> tuple[NDArray[np.uint8], Matrix, Any]:
        """Cut the face out upright and run the predictor.

        Returns:
            The patch, uint8 [300, 300, 3] RGB; float32 [2, 3], frame px to patch px; dlib's
            full_object_detection in patch px.
        """
        frame_to_patch = similarity(face.landmarks, _patch_template())
        patch = cv2.warpAffine(image, frame_to_patch, (_PATCH_SIZE, _PATCH_SIZE), borderMode=cv2.BORDER_REPLICATE)
        patch_rgb = cv2.cvtColor(patch, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        return patch_rgb, frame_to_patch, self._predictor(patch_rgb, self._square)


def _patch_template() -> Points:
    """Return the template scaled so that dlib's square has its set size, centred in the patch."""
    from_centre = FACE_TEMPLATE - FACE_TEMPLATE.mean(axis=0)
    zoom = _SQUARE_SIZE / (_SQUARE_PER_SPREAD * float(np.linalg.norm(from_centre)))
    return (from_centre * zoom + _PATCH_SIZE / 2).astype(np.float32)


def _square() -> tuple[int, int, int, int]:
    """Return the square that dlib's detector would draw in the patch: left, top, right, bottom."""
    left, top = (round(_PATCH_SIZE / 2 - _SQUARE_SIZE / 2 + shift * _SQUARE_SIZE) for shift in _SQUARE_SHIFT)
    return left, top, left + _SQUARE_SIZE, top + _SQUARE_SIZE
