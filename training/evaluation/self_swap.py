"""The strict test: the persona is the clip's own first clear frame, so that the right answer is the clip itself."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Points
from understudy.vision.mesh import FACE_OVAL

Image = NDArray[np.uint8]

_SIDE = 256
# How the reference is lit otherwise: a smooth field of light, and a warmer lamp (BGR).
_FIELD_SPREAD = 0.3
_FIELD_KNOTS = 3
_LAMP_BGR = np.array([0.85, 1.0, 1.15], np.float32)


def likeness(source: Image, swapped: Image, mesh: Points) -> tuple[float, float]:
    """Compare two pictures of one face: its oval's box, the longer side brought to 256 px.

    Args:
        source: uint8 [H, W, 3], BGR.
        swapped: uint8 [H, W, 3], BGR.
        mesh: float32 [468, 2 or 3], px: where the face is.

    Returns:
        SSIM of the grey pictures (Wang et al. 2004), 1 where they are equal; and the mean colour difference,
        CIE 1976 delta E, 0 where they are equal. NaN both where the face lies outside the picture.
    """
    from skimage.metrics import structural_similarity

    oval = mesh[list(FACE_OVAL), :2]
    left, top = np.maximum(oval.min(0), 0).astype(int)
    right, bottom = np.maximum(oval.max(0), 0).astype(int)
    parts = [image[top:bottom, left:right] for image in (source, swapped)]
    if min(parts[0].shape[:2]) < 8:
        return float("nan"), float("nan")
    scale = _SIDE / max(parts[0].shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    first, second = (cv2.resize(part, None, fx=scale, fy=scale, interpolation=how) for part in parts)
    grey = [cv2.cvtColor(part, cv2.COLOR_BGR2GRAY) for part in (first, second)]
    step = np.linalg.norm(_lab(first) - _lab(second), axis=2)
    ssim: Any = structural_similarity(*grey)
    return float(ssim), float(step.mean())


def _lab(image: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2Lab), np.float32)


def relit(image: Image, seed: int = 1) -> Image:
    """Return a picture in another light: a smooth random field (a third of a stop or so), under a warmer lamp.

    Args:
        image: uint8 [H, W, 3], BGR; left as it is.
        seed: which field.
    """
    knots = np.random.default_rng(seed).normal(0, _FIELD_SPREAD, (_FIELD_KNOTS, _FIELD_KNOTS)).astype(np.float32)
    field = np.exp(cv2.resize(knots, image.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    return np.clip(image * field[..., None] * _LAMP_BGR + 0.5, 0, 255).astype(np.uint8)
