"""The dense face mesh: 468 points of a face (Kartynnik et al. 2019, arXiv:1907.06724) in LiteRT."""

import threading
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import cut_out
from understudy.vision.face import MESH_POINTS, Face, Matrix, Points
from understudy.vision.model_files import installed_model

_SIDE = 192
_ROI_SCALE = 1.5

# Point groups of the mesh. Right is the person's own right, so left in the picture.
RIGHT_EYE_CORNERS = (33, 133)
LEFT_EYE_CORNERS = (362, 263)
MOUTH_CORNERS = (61, 291)
NOSE_TIP = 1
INNER_MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
OUTER_MOUTH = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE = (1, 2, 4, 5, 6, 168, 98, 327, 64, 294, 48, 278, 97, 326, 129, 358, 197, 45, 275)  # its edges
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)


class FaceMesh:
    """Fits the 468-point mesh to a face whose place is roughly known. Thread-safe (calls take turns).

    Args:
        threads: how many threads one call may use.

    Raises:
        understudy.vision.model_files.WeightsError: the mesh model is not installed.
    """

    def __init__(self, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter  # takes a second: not at import

        self._lock = threading.Lock()
        self._net: Any = Interpreter(str(installed_model("mesh")), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        by_size = sorted(self._net.get_output_details(), key=lambda output: int(np.prod(output["shape"])))
        self._presence, self._points = by_size[0]["index"], by_size[1]["index"]
        self._blob = np.empty((1, _SIDE, _SIDE, 3), np.float32)

    def fit(self, image: NDArray[np.uint8], where: Face | Points) -> tuple[Points, float]:
        """Fit the mesh.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            where: a detected face, or the mesh of the frame before (tracking).

        Returns:
            float32 [468, 3] points in frame px (z in px, smaller is nearer), and the presence
            of a face, 0 to 1: below 0.5 the points mean nothing.
        """
        roi_to_frame = _roi_to_frame(where)
        crop = cut_out(image, roi_to_frame, _SIDE, cv2.BORDER_CONSTANT)
        with self._lock:
            # Turned round by cv2 first: six times faster than reading the channels backwards.
            np.multiply(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), np.float32(1 / 255), out=self._blob[0])
            self._net.set_tensor(self._input, self._blob)
            self._net.invoke()
            logit = float(self._net.get_tensor(self._presence).ravel()[0])
            points: Points = self._net.get_tensor(self._points).reshape(MESH_POINTS, 3).copy()
        scale = float(np.hypot(roi_to_frame[0, 0], roi_to_frame[1, 0]))
        points[:, :2] = points[:, :2] @ roi_to_frame[:, :2].T + roi_to_frame[:, 2]
        points[:, 2] *= scale
        return points, float(1 / (1 + np.exp(-logit)))

    def refine(self, image: NDArray[np.uint8], face: Face) -> Face:
        """Return the face with its mesh and presence; fitted twice, as the first fit finds the better region."""
        rough, presence = self.fit(image, face)
        if presence < 0.5:
            return replace(face, mesh=rough, presence=presence)
        mesh, presence = self.fit(image, rough)
        return replace(face, mesh=mesh, presence=presence)


def mesh_box(mesh: Points) -> NDArray[np.float32]:
    """Return the box around a mesh: float32 [4], xyxy, px."""
    return np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32)


def _roi_to_frame(where: Face | Points) -> Matrix:
    """Return the matrix from the network's square input to the frame: eye line level, 1.5 x the face's box."""
    if isinstance(where, Face):
        right, left = where.landmarks[0], where.landmarks[1]
        centre = (where.box[:2] + where.box[2:]) / 2
        side = float((where.box[2:] - where.box[:2]).max())
        angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    else:
        right, left = where[33, :2], where[263, :2]
        angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
        cos, sin = np.cos(angle), np.sin(angle)
        upright = where[:, :2] @ np.array([[cos, -sin], [sin, cos]], np.float32)
        low, high = upright.min(0), upright.max(0)
        middle = (low + high) / 2
        centre = np.array([cos * middle[0] - sin * middle[1], sin * middle[0] + cos * middle[1]])
        side = float((high - low).max())
    scale = max(side, 1.0) * _ROI_SCALE / _SIDE
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0]], np.float32)
    matrix[:, 2] = centre - matrix[:, :2] @ np.array([_SIDE / 2, _SIDE / 2], np.float32)
    return matrix
