"""Which way up a face is: the detector asked again, on small pictures of it that are turned.

YuNet finds faces at any roll and gives all of them five points as if they were upright: beyond some 45 degrees the
points are wrong, and a mesh fitted from them is upside down and sure of itself. On an upright picture of a face it
scores higher than on the same picture turned (by 0.03 at least in 1,650 of 1,650 looks at 105 people, twelve rolls and
two sizes; the mesh of an upside-down fit has it the other way round).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import hypot, pi

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import crop_matrix, cut_out, transform
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face, Matrix, Points

UPRIGHT_SCORE = 0.92
"""From this score on a detected face is upright: one that is turned by more than 45 degrees is scored 0.9 at most."""

FACE_SCORE = 0.82
"""Below this score of `upright` a detection may be anything: a fold of cloth got 0.74, most faces get 0.9."""

_SIDE = 96  # of the small pictures, px
_SHARE = 0.7  # of their side is the face's
_TURNS = 8  # with four, one face in seven between two of them is missed
_LEAST_SCORE = 0.3
_SURE_SCORE = 0.5
_APART = 0.5  # of the distance between the eyes: 99 of 100 good fits lie within 0.4
_WIDE_SIDE = 160  # of the whole picture when it is looked at turned, px

# Eye corners (right, then left), nose tip, mouth corners: mesh points that stand for the detector's five.
_FIVE = np.array([33, 133, 362, 263, 1, 61, 291])


def five_points(mesh: Points) -> Points:
    """Return a mesh's five points as the detector has them: float32 [5, 2], of a mesh float32 [468, 2 or 3]."""
    right, right_too, left, left_too, *rest = mesh[_FIVE, :2]
    return np.stack([(right + right_too) / 2, (left + left_too) / 2, *rest])


class RollCheck:
    """Asks a detector which way up a face is. Thread-safe; all share two small networks."""

    def upright(self, image: NDArray[np.uint8], face: Face) -> Face | None:
        """Return a face found anew at whichever roll it is believed most, its five points right.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            face: its box says where to look; about 6 ms.

        Returns:
            The face without a mesh, or None where none is seen at any roll.
        """
        centre, side = _middle(face), float((face.box[2:] - face.box[:2]).max())
        looks = [self._look(image, centre, side, 2 * pi * turn / _TURNS) for turn in range(_TURNS)]
        best = max((look for look in looks if look is not None), key=lambda look: look.score, default=None)
        if best is None:
            return None
        eyes = best.landmarks[1] - best.landmarks[0]
        centre, side = _middle(best), float((best.box[2:] - best.box[:2]).max())
        again = self._look(image, centre, side, float(np.arctan2(eyes[1], eyes[0])))
        return again if again is not None and again.score >= best.score - 0.05 else best

    def agrees(self, image: NDArray[np.uint8], mesh: Points) -> bool | None:
        """Tell whether a mesh lies on a face the right way up; about 1.3 ms.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            mesh: float32 [468, 3], px.

        Returns:
            False where the detector sees the face elsewhere or upside down, None where it sees none.
        """
        matrix = crop_matrix(mesh, _SIDE) * np.float32(_SHARE)
        matrix[:, 2] += _SIDE * (1 - _SHARE) / 2
        to_image = np.asarray(cv2.invertAffineTransform(matrix.astype(np.float64)), np.float64)
        if not np.isfinite(to_image).all():
            return False
        patch = cut_out(image, to_image, _SIDE, cv2.BORDER_CONSTANT)
        five = transform(five_points(mesh), matrix)
        upright, turned = _best(patch), _best(np.asarray(cv2.rotate(patch, cv2.ROTATE_180), np.uint8))
        if turned is not None and turned.score >= _SURE_SCORE and (upright is None or turned.score > upright.score):
            return False
        if upright is None or upright.score < _SURE_SCORE:
            return None
        apart = np.linalg.norm(upright.landmarks - five, axis=1).max()
        return bool(apart <= _APART * np.linalg.norm(five[0] - five[1]))

    def turned_faces(self, image: NDArray[np.uint8], min_score: float, turns: Sequence[int] = (0, 1, 2)) -> list[Face]:
        """Find the faces of a picture that lie on their sides or are upside down; about 1.3 ms a turn.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            min_score: faces scored below it (0 to 1) are left out.
            turns: how the picture is turned: 0 clockwise by 90 degrees, 1 by 180, 2 by 270.

        Returns:
            Faces without a mesh, from about 6 % of the picture's larger side up.
        """
        scale = _WIDE_SIDE / max(image.shape[:2])
        small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        found: list[Face] = []
        ways = _turns(small.shape)
        for turn, matrix in (ways[turn] for turn in turns):
            turned = np.asarray(cv2.rotate(small, turn), np.uint8)
            faces = _detector(_WIDE_SIDE).detect(turned, min_score)
            found += [_moved(face, matrix / np.float32(scale)) for face in faces]
        return found

    def _look(self, image: NDArray[np.uint8], centre: Points, side: float, angle: float) -> Face | None:
        """Look at a square of an image, turned: its face, in px of the image."""
        scale = max(side, 1.0) / (_SIDE * _SHARE)
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        matrix = np.array([[cos, -sin, 0], [sin, cos, 0]], np.float32)
        matrix[:, 2] = centre - matrix[:, :2] @ np.array([_SIDE / 2 - 0.5] * 2, np.float32)
        found = _best(cut_out(image, matrix, _SIDE, cv2.BORDER_CONSTANT))
        return _moved(found, matrix) if found is not None else None


@lru_cache(maxsize=2)
def _detector(side: int) -> FaceDetector:
    return FaceDetector(1, (side, side))


def _best(patch: NDArray[np.uint8]) -> Face | None:
    return max(_detector(_SIDE).detect(patch, _LEAST_SCORE), key=lambda face: face.score, default=None)


def _middle(face: Face) -> Points:
    return np.asarray((face.box[:2] + face.box[2:]) / 2, np.float32)


def _moved(face: Face, matrix: Matrix) -> Face:
    """A face brought from one picture into another; its box stays a square about the same middle."""
    middle = transform(_middle(face)[None], matrix)[0]
    half = float((face.box[2:] - face.box[:2]).max()) / 2 * hypot(float(matrix[0, 0]), float(matrix[1, 0]))
    box = np.concatenate([middle - half, middle + half]).astype(np.float32)
    return Face(box, face.score, transform(face.landmarks, matrix))


def _turns(shape: tuple[int, ...]) -> list[tuple[int, Matrix]]:
    """The three turns of a picture [H, W, ...]: cv2's name, and the matrix from the turned picture back, px."""
    height, width = shape[:2]
    return [
        (cv2.ROTATE_90_CLOCKWISE, np.array([[0, 1, 0], [-1, 0, height - 1]], np.float32)),
        (cv2.ROTATE_180, np.array([[-1, 0, width - 1], [0, -1, height - 1]], np.float32)),
        (cv2.ROTATE_90_COUNTERCLOCKWISE, np.array([[0, -1, width - 1], [1, 0, 0]], np.float32)),
    ]
