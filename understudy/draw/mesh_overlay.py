"""Look into the works: the mask or the mesh drawn over the swap. Never shows more of the camera than the swap does."""

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Face

_TINT = (80, 220, 80)
_POINT = (255, 240, 120)


def tinted(swap: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a swap (uint8 [R, R, 4], BGR and mask) tinted green, so that the mask shows once it is blended."""
    flat = np.empty_like(swap)
    flat[..., :3] = _TINT
    mixed = np.asarray(cv2.addWeighted(swap, 0.45, flat, 0.55, 0), np.uint8)
    mixed[..., 3] = swap[..., 3]
    return mixed


def draw_mesh(image: NDArray[np.uint8], face: Face) -> None:
    """Draw a face's mesh points and its box into an image (uint8 [H, W, 3], BGR), in place."""
    if face.mesh is None:
        return
    points = np.round(face.mesh[:, :2]).astype(int)
    is_inside = ((points >= 0) & (points < (image.shape[1], image.shape[0]))).all(axis=1)
    image[points[is_inside, 1], points[is_inside, 0]] = _POINT
    left, top, right, bottom = (round(float(value)) for value in face.box)
    cv2.rectangle(image, (left, top), (right, bottom), _POINT, 1)
