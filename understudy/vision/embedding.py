"""Who a face is: two independent embedders to measure identity with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image
from understudy.vision.align import similarity
from understudy.vision.dlib_landmarks import FACE_TEMPLATE, TEMPLATE_SIZE, FivePoints
from understudy.vision.face import Face
from understudy.vision.model_files import folded_onnx, installed_model
from understudy.vision.onnx_session import Device, open_session

Embedding = NDArray[np.float32]


class Embedder(Protocol):
    """Turns a face into a vector that is near for one person and far for two.

    An instance belongs to one thread. Vectors of two embedders never mix.

    Attributes:
        name: which embedder made a vector ("sface", "dlib").
        dimensions: the vector's length.
        same_person: a distance at or below it speaks for one person, above it for two.
    """

    name: ClassVar[str]
    dimensions: ClassVar[int]
    same_person: ClassVar[float]

    def embed(self, image: Image, face: Face) -> Embedding:
        """Embed one face.

        Args:
            image: uint8 [H, W, 3], BGR.
            face: its `landmarks` align it; it may reach outside the image.

        Returns:
            float32 [dimensions].
        """
        ...

    def distance(self, first: Embedding, second: Embedding) -> float:
        """Measure how unlike two faces are; 0 for the same picture."""
        ...

    def similarity(self, first: Embedding, second: Embedding) -> float:
        """Measure how alike two faces are: 1 - distance; 1 for the same picture."""
        ...


class SFaceEmbedder:
    """SFace (Zhong et al. 2021, arXiv:2205.12010; OpenCV Zoo weights, Apache-2.0) in ONNX Runtime.

    Vectors have unit length; `similarity` is their cosine. OpenCV's threshold for one person is a
    cosine of 0.363; six frames each of nine people measured a median of 0.80 (95 % above 0.45)
    for one person and at most 0.33 for two. About 25 ms a face on one thread.

    Args:
        threads: ONNX Runtime's threads for one call.
    """

    name: ClassVar[str] = "sface"
    dimensions: ClassVar[int] = 128
    same_person: ClassVar[float] = 1 - 0.363

    def __init__(self, threads: int = 1) -> None:
        self._session = _sface_session(threads)

    def embed(self, image: Image, face: Face) -> Embedding:
        """Embed one face: float32 [128], unit length. See `Embedder.embed`."""
        frame_to_crop = similarity(face.landmarks, FACE_TEMPLATE)
        crop = cv2.warpAffine(image, frame_to_crop, (TEMPLATE_SIZE, TEMPLATE_SIZE))
        batch_rgb = np.ascontiguousarray(crop[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
        vector: Embedding = self._session.run(None, {"data": batch_rgb})[0][0]
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def distance(self, first: Embedding, second: Embedding) -> float:
        """Return 1 - cosine: 0 for the same picture, about 1 for strangers, 2 at most."""
        return 1.0 - self.similarity(first, second)

    def similarity(self, first: Embedding, second: Embedding) -> float:
        """Return the cosine, -1 to 1."""
        return float(first @ second)


class DlibEmbedder:
    """dlib's resnet (King 2017, public domain weights), aligned by dlib's own five points.

    Vectors are as dlib gives them, not normalised. dlib's threshold for one person is a Euclidean
    distance of 0.6; six frames each of nine people measured a median of 0.32 (95 % below 0.53)
    for one person, and 0.83 (99 % above 0.63) for two. About 80 ms a face.

    Args:
        five_points: a predictor to share; a new one by default.
    """

    name: ClassVar[str] = "dlib"
    dimensions: ClassVar[int] = 128
    same_person: ClassVar[float] = 0.6

    def __init__(self, five_points: FivePoints | None = None) -> None:
        import dlib

        self._five_points = five_points or FivePoints()
        self._network: Any = dlib.face_recognition_model_v1(str(installed_model("dlib-resnet")))

    def embed(self, image: Image, face: Face) -> Embedding:
        """Embed one face: float32 [128], about 1.4 long. See `Embedder.embed`."""
        patch_rgb, _, shape = self._five_points.fit_patch(image, face)
        return np.array(self._network.compute_face_descriptor(patch_rgb, shape), np.float32)

    def distance(self, first: Embedding, second: Embedding) -> float:
        """Return the Euclidean distance: 0 for the same picture, 0.6 divides one person from two."""
        return float(np.linalg.norm(first - second))

    def similarity(self, first: Embedding, second: Embedding) -> float:
        """Return 1 - distance: above 0.4 speaks for one person."""
        return 1.0 - self.distance(first, second)


@lru_cache(maxsize=4)
def _sface_session(threads: int) -> Any:
    """Load SFace once per process and thread count; ONNX Runtime sessions may be shared."""
    return open_session(folded_onnx("sface"), threads, Device.CPU)
