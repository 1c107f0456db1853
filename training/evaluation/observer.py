"""The networks that measure a swap. None of them is used to train or to make one, but for the mesh.

The headline pose and expression use the dense mesh, as the published figures do; because the
mesh also aligns our crops, dlib's 68 landmarks (trained on iBUG 300-W: evaluation only) give a
second opinion. Identity is judged by SFace and by dlib's resnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.blazeface import BlazeFace
from training.evaluation.metrics import Array, gaze_offset
from understudy.vision.align import crop_matrix, mean_mesh, transform
from understudy.vision.detect import FaceDetector
from understudy.vision.dlib_landmarks import FIVE_POINT_MESH
from understudy.vision.embedding import DlibEmbedder, Embedding, SFaceEmbedder
from understudy.vision.face import Face, Points
from understudy.vision.iris import CORNERS, IrisModel
from understudy.vision.mesh import LEFT_EYE_CORNERS, NOSE_TIP, RIGHT_EYE_CORNERS, FaceMesh
from understudy.vision.model_files import installed_model

Image = NDArray[np.uint8]

_PATCH = 256
# Lids nearer than this, by the eye's width, hide the iris: its place is a guess.
_SHUT = 0.15
_MIN_PRESENCE = 0.5
# Rigid points of iBUG 68 and the mesh points at the same places.
_IBUG68_ON_MESH = (
    *((36, 33), (39, 133), (42, 362), (45, 263), (27, 168), (28, 197), (29, 195), (30, 4)),
    *((31, 98), (32, 97), (33, 2), (34, 326), (35, 327)),
)
_FOCAL = 4.0 * _PATCH


@dataclass(frozen=True, slots=True)
class Observation:
    """What the judges see in one frame.

    Attributes:
        mesh: float32 [468, 3], px.
        ibug68: float32 [68, 2], px, or None where it was not asked for.
        turn: float64 [3, 3], the head's rotation by those points, or None likewise.
        gaze: `gaze_offset` of the right and the left eye, NaN of a shut one; empty where it was not asked for.
    """

    mesh: Points
    ibug68: Points | None = None
    turn: Array | None = None
    gaze: tuple[Array, ...] = ()


class Observer:
    """Looks at source and swapped frames alike: every model gets the same region in both. Not thread-safe."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._mesh = FaceMesh()
        self._blaze = BlazeFace()
        self._ibug = _Ibug68()
        self._irises = IrisModel()
        self.embedders = (SFaceEmbedder(), DlibEmbedder())

    def find(self, image: Image) -> Face | None:
        """Find the largest face, with its mesh; None where there is none."""
        faces = self._detector.detect(image)
        if not faces:
            return None
        face = self._mesh.refine(image, faces[0])
        return face if face.presence >= _MIN_PRESENCE else None

    def boxes(self, image: Image) -> NDArray[np.float32]:
        """Find faces independently of the live path: float32 [N, 4], xyxy, px."""
        return self._blaze.detect(image)

    def observe(self, image: Image, region: Points, is_close: bool = False) -> Observation | None:
        """Measure the face that lies where a mesh says; None where there is no face.

        Args:
            image: uint8 [H, W, 3], BGR.
            region: float32 [468, 3], px: where to look. The same for source and swapped frame,
                because the mesh moves by about a degree with the region it is fitted in.
            is_close: whether to run the second opinion and the iris model as well.
        """
        mesh, presence = self._mesh.fit(image, region)
        if presence < _MIN_PRESENCE:
            return None
        if not is_close:
            return Observation(mesh)
        points, turn = self._ibug.fit(image, region)
        return Observation(mesh, points, turn, self._gaze(image, mesh, region))

    def _gaze(self, image: Image, mesh: Points, region: Points) -> tuple[Array, ...]:
        """Return `gaze_offset` of the right and the left eye, cut out where the region says; NaN of a shut one."""
        eyes = self._irises.both(image, region)
        return tuple(
            gaze_offset(iris, mesh[outer, :2], mesh[inner, :2]) if opening > _SHUT else np.full(2, np.nan)
            for iris, opening, (outer, inner) in zip(eyes.irises, eyes.openings, CORNERS, strict=True)
        )

    def embed(self, image: Image, region: Points) -> Mapping[str, Embedding]:
        """Embed a face with each embedder, aligned by the region's eyes, nose and mouth corners: name -> vector."""
        box = np.concatenate([region[:, :2].min(0), region[:, :2].max(0)])
        face = Face(box, 1.0, five_landmarks(region))
        return {embedder.name: embedder.embed(image, face) for embedder in self.embedders}


def five_landmarks(mesh: Points) -> Points:
    """Return the five landmarks of a detected face from a mesh: float32 [5, 2], in `Face.landmarks`' order."""
    eyes = [mesh[list(corners), :2].mean(0) for corners in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS)]
    return np.stack([*eyes, mesh[NOSE_TIP, :2], mesh[61, :2], mesh[291, :2]]).astype(np.float32)


class _Ibug68:
    """dlib's 68-point predictor (Kazemi & Sullivan 2014) on an upright patch."""

    def __init__(self) -> None:
        import dlib

        self._predictor: Any = dlib.shape_predictor(str(installed_model("dlib-68")))
        # dlib's detector draws a square 1.69 times the spread of these five points: understudy.vision.dlib_landmarks.
        five = mean_mesh()[list(FIVE_POINT_MESH), :2] * _PATCH
        centre, half = five.mean(0), 1.69 * float(np.linalg.norm(five - five.mean(0))) / 2
        self._square: Any = dlib.rectangle(*(round(float(v)) for v in (*(centre - half), *(centre + half))))

    def fit(self, image: Image, region: Points) -> tuple[Points, Array]:
        """Return the points, float32 [68, 2], frame px, and the head's rotation, float64 [3, 3]."""
        frame_to_patch = crop_matrix(region, _PATCH)
        patch_rgb = cv2.cvtColor(cv2.warpAffine(image, frame_to_patch, (_PATCH, _PATCH)), cv2.COLOR_BGR2RGB)
        parts = self._predictor(patch_rgb, self._square).parts()
        points = np.array([(part.x, part.y) for part in parts], np.float32)
        patch_to_frame = cv2.invertAffineTransform(frame_to_patch).astype(np.float32)
        return transform(points, patch_to_frame), _perspective_turn(points)


def _perspective_turn(patch_points: Points) -> Array:
    """Fit the mean face to the nose and the eye corners as a camera far away sees them (PnP)."""
    ibug, mesh = (np.array(column) for column in zip(*_IBUG68_ON_MESH, strict=True))
    model = mean_mesh()[mesh].astype(np.float64) * _PATCH
    camera = np.array([[_FOCAL, 0, _PATCH / 2], [0, _FOCAL, _PATCH / 2], [0, 0, 1]])
    start = np.array([-_PATCH / 2, -_PATCH / 2, _FOCAL], np.float64)
    _, turn, _ = cv2.solvePnP(
        model, patch_points[ibug].astype(np.float64), camera, None, np.zeros(3), start, True, cv2.SOLVEPNP_ITERATIVE
    )
    return cv2.Rodrigues(turn)[0]
