"""Finding faces in a frame: YuNet (Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector") in ONNX Runtime."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Face
from understudy.vision.model_files import folded_onnx
from understudy.vision.onnx_session import Device, open_session

_STRIDES = (8, 16, 32)
_MOST_FAR_PX = 1280


class FaceDetector:
    """Finds faces from about 20 px up, rolled by up to 90 degrees. Thread-safe.

    The frame is letterboxed into a small input; faces below 6 % of the frame's larger
    side are missed at the default size.

    Args:
        threads: how many threads one call may use.
        size: (width, height) of the network's input, px, multiples of 32.
    """

    def __init__(self, threads: int = 1, size: tuple[int, int] = (320, 256)) -> None:
        self.size = size
        width, height = size
        self._session = open_session(folded_onnx("yunet", (1, 3, height, width)), threads, Device.CPU)
        self._names = [f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in _STRIDES]
        self._priors = np.concatenate([_prior_grid(width, height, stride) for stride in _STRIDES])

    def detect(self, image: NDArray[np.uint8], min_score: float = 0.6) -> list[Face]:
        """Find the faces of a frame.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            min_score: faces scored below it (0 to 1) are left out.

        Returns:
            Faces without mesh, largest first.
        """
        blob, scale = self._letterbox(image)
        outputs = dict(zip(self._names, self._session.run(self._names, {"input": blob}), strict=True))
        parts = [
            np.concatenate([outputs[f"{part}_{stride}"][0] for stride in _STRIDES])
            for part in ("cls", "obj", "bbox", "kps")
        ]
        scores = np.sqrt(np.clip(parts[0][:, 0], 0, 1) * np.clip(parts[1][:, 0], 0, 1))
        kept = np.flatnonzero(scores >= min_score)
        boxes, landmarks = self._decode(parts[2][kept], parts[3][kept], self._priors[kept], scale)
        return _faces(boxes, landmarks, scores[kept], min_score)

    def _letterbox(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        width, height = self.size
        scale = min(width / image.shape[1], height / image.shape[0])
        inner = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        canvas = np.zeros((height, width, 3), np.uint8)
        cv2.resize(image, inner, dst=canvas[: inner[1], : inner[0]], interpolation=cv2.INTER_AREA)
        return canvas.transpose(2, 0, 1)[None].astype(np.float32), scale

    @staticmethod
    def _decode(
        bbox: NDArray[np.float32], kps: NDArray[np.float32], priors: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        corner, stride = priors[:, :2], priors[:, 2:]
        centre = corner + bbox[:, :2] * stride
        half = np.exp(bbox[:, 2:]) * stride / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) / scale
        landmarks = (corner[:, None] + kps.reshape(-1, 5, 2) * stride[:, None]) / scale
        return boxes.astype(np.float32), landmarks.astype(np.float32)


def far_detector(shape: Sequence[int]) -> FaceDetector:
    """Return the detector for a picture's small faces: its input is the picture's own size, 1,280 px at most.

    It finds faces from 10 px of its input up, and may miss those that fill the picture. All who ask share it.

    Args:
        shape: the picture's, height and width first.
    """
    scale = min(1.0, _MOST_FAR_PX / max(shape[:2]))
    return _sized(*(max(32, round(side * scale / 32) * 32) for side in (shape[1], shape[0])))


@lru_cache(maxsize=4)
def _sized(width: int, height: int) -> FaceDetector:
    return FaceDetector(1, (width, height))


def _prior_grid(width: int, height: int, stride: int) -> NDArray[np.float32]:
    y, x = np.mgrid[0 : height // stride, 0 : width // stride].astype(np.float32) * stride
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, stride, np.float32)], axis=1)


def _faces(
    boxes: NDArray[np.float32], landmarks: NDArray[np.float32], scores: NDArray[np.float32], min_score: float
) -> list[Face]:
    if not len(boxes):
        return []
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), min_score, 0.3)
    faces = [Face(boxes[i], float(scores[i]), landmarks[i]) for i in np.asarray(kept).ravel()]
    return sorted(faces, key=lambda face: -float(np.prod(face.box[2:] - face.box[:2])))
