"""Whether the filmed face is still to be seen in what was made of a frame: an embedder that swaps do not use looks."""

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Box, Image
from understudy.vision.detect import far_detector
from understudy.vision.embedding import SFaceEmbedder
from understudy.vision.face import Face
from understudy.vision.roll import FACE_SCORE, UPRIGHT_SCORE, RollCheck

RAW_SIMILARITY = 0.6
"""SFace's cosine between a camera's face and what is shown in its place, from which it counts as shown.

The face itself gives 1 (0.9 after blending away its edge), a swap that sits wrong 0.74 and more, a good swap 0.2 to
0.35; two pictures of one person 0.8 (median)."""

_SMALL_SIDE = 40.0  # px; SFace says little about smaller faces: of those the pixels are compared
_LEAST_SIDE = 24.0
_UNTOUCHED = 4.0  # levels: a small face that differs less (on average, after a blur) was not replaced
_MIN_SCORE = 0.6
_SENTENCE = "Your own face was still to be seen, so the picture is covered."


class RawFaceInspector:
    """Finds the camera's faces anew, at any roll and from 24 px up, and compares each with what is shown there.

    A `liveframe.sentinel.Inspect`. Used by one thread. 80 ms of one core a look at 480p with one face.
    """

    def __init__(self) -> None:
        self._embedder: SFaceEmbedder | None = None  # loaded on the sentinel's thread, not where a stream is opened
        self._roll = RollCheck()

    def __call__(self, camera: Image, shown: Image, regions: tuple[Box, ...] | None) -> str:
        """Look at a picture and what was made of it; a sentence where a face of the camera's is shown, else ""."""
        faces = self._found(camera)
        if regions is not None:
            faces = [face for face in faces if any(_holds(region, face.box) for region in regions)]
        return _SENTENCE if any(self._is_raw(camera, shown, face) for face in faces) else ""

    def _found(self, camera: Image) -> list[Face]:
        found = far_detector(camera.shape).detect(camera, _MIN_SCORE)
        turned = self._roll.turned_faces(camera, _MIN_SCORE)
        found += [face for face in turned if not any(_holds(other.box, face.box) for other in found)]
        return [face for face in found if float((face.box[2:] - face.box[:2]).max()) >= _LEAST_SIDE]

    def _is_raw(self, camera: Image, shown: Image, face: Face) -> bool:
        if float((face.box[2:] - face.box[:2]).max()) < _SMALL_SIDE:
            return _difference(camera, shown, face.box) < _UNTOUCHED
        upright = face if face.score >= UPRIGHT_SCORE else self._roll.upright(camera, face)
        if upright is None or upright.score < FACE_SCORE:
            return False  # no face after all
        embedder = self._embedder = self._embedder or SFaceEmbedder()
        one, other = (embedder.embed(image, upright) for image in (camera, shown))
        return embedder.similarity(one, other) > RAW_SIMILARITY


def _holds(region: Box, box: Box) -> bool:
    """Whether the middle of a box lies in a region."""
    middle = (box[:2] + box[2:]) / 2
    return bool((middle >= region[:2]).all() and (middle <= region[2:]).all())


def _difference(camera: Image, shown: Image, box: Box) -> float:
    """How far two pictures differ in the inner half of a box, in levels; marks and codecs differ by less than 3."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 4
    left, top = np.clip(np.floor(middle - half), 0, None).astype(int)
    right, bottom = np.ceil(middle + half).astype(int)
    parts: list[NDArray[np.uint8]] = [picture[top:bottom, left:right] for picture in (camera, shown)]
    if 0 in parts[0].shape:
        return 255.0
    one, other = (np.asarray(cv2.blur(part, (3, 3)), np.int16) for part in parts)
    return float(np.abs(one - other).mean())
