"""Cutting a face out upright: one similarity from frame to crop, fitted on points that expressions move little."""

from functools import cache
from math import ceil, floor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import AlignedFace, Face, Matrix, Points

# Bumped when crops change place: facesets and bundles of another version do not mix.
ALIGNMENT_VERSION = 1

# Eye corners, nose bridge, nose base, mouth corners, philtrum.
_RIGID = (33, 133, 362, 263, 168, 6, 2, 61, 291, 164)


@cache
def mean_mesh() -> Points:
    """Return the mean face in unit-crop coordinates: float32 [468, 3], 0 to 1, read-only.

    Generalised Procrustes mean of machine-made faces, made symmetric (`training.data.mean_mesh`).
    """
    mesh: Points = np.load(Path(__file__).with_name("mean_mesh.npy"))
    mesh.setflags(write=False)
    return mesh


def crop_matrix(mesh: Points, size: int) -> Matrix:
    """Return the similarity that brings a face upright into a square crop.

    Least squares on ten points against the mean face (Umeyama 1991, without reflection).

    Args:
        mesh: float32 [468, 3] or [468, 2], frame px.
        size: side of the crop, px.

    Returns:
        float32 [2, 3], frame px -> crop px.
    """
    rigid = np.array(_RIGID)
    return similarity(mesh[rigid, :2], mean_mesh()[rigid, :2] * np.float32(size))


def similarity(source: Points, target: Points) -> Matrix:
    """Return the similarity (scale, rotation, shift) that brings source nearest to target in least squares.

    Args:
        source: float32 [K, 2], px.
        target: float32 [K, 2], px.

    Returns:
        float32 [2, 3], source -> target.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    norm = float((s * s).sum()) + 1e-9
    a = float((s * t).sum()) / norm
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / norm
    linear = np.array([[a, -b], [b, a]], np.float32)
    return np.concatenate([linear, (target_mean - linear @ source_mean)[:, None]], axis=1).astype(np.float32)


def transform(points: Points, matrix: Matrix) -> Points:
    """Move points by a matrix; a third coordinate (depth) is scaled along.

    Args:
        points: float32 [K, 2] or [K, 3].
        matrix: float32 [2, 3].

    Returns:
        float32, as points.
    """
    moved = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    if points.shape[1] == 2:
        return moved.astype(np.float32)
    depth = points[:, 2:] * np.hypot(matrix[0, 0], matrix[1, 0])
    return np.concatenate([moved, depth], axis=1).astype(np.float32)


def align(image: NDArray[np.uint8], face: Face, size: int) -> AlignedFace:
    """Cut a face out of its frame.

    Args:
        image: uint8 [H, W, 3], BGR; left as it is. What lies outside it is mirrored in.
        face: a face with its mesh.
        size: side of the crop, px.

    Raises:
        ValueError: the face has no mesh.
    """
    if face.mesh is None:
        raise ValueError("face must have a mesh to be aligned, but got a detection only. Call FaceMesh.refine first.")
    matrix = crop_matrix(face.mesh, size)
    shrink = np.hypot(matrix[0, 0], matrix[1, 0])
    crop = _warp_small(image, matrix, size) if shrink < 0.5 else _warp(image, matrix, size)
    return AlignedFace(crop, matrix, transform(face.mesh, matrix), face)


def cut_out(
    image: NDArray[np.uint8], to_image: Matrix | NDArray[np.float64], size: int, border: int
) -> NDArray[np.uint8]:
    """Return a square part of an image, turned and scaled: cv2.warpAffine's result in half its time.

    cv2 warps four channels in less than half the time that it needs for three; so only what is looked at gets a fourth.

    Args:
        image: uint8 [H, W, 3]; left as it is.
        to_image: float [2, 3], px of the result -> px of the image.
        size: side of the result, px.
        border: cv2.BORDER_CONSTANT (black) or any other of cv2's.

    Returns:
        uint8 [size, size, 3].
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.asarray(to_image, np.float64)
    (xx, xy, x0), (yx, yy, y0) = matrix.tolist()
    xx, xy, yx, yy = (size * each for each in (xx, xy, yx, yy))
    left, right = floor(x0 + min(xx, 0) + min(xy, 0)) - 1, ceil(x0 + max(xx, 0) + max(xy, 0)) + 2
    top, bottom = floor(y0 + min(yx, 0) + min(yy, 0)) - 1, ceil(y0 + max(yx, 0) + max(yy, 0)) + 2
    height, width = image.shape[:2]
    is_inside = left >= 0 and top >= 0 and right <= width and bottom <= height
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if right <= left or bottom <= top or not (is_inside or border == cv2.BORDER_CONSTANT):
        return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=border), np.uint8)
    matrix = matrix - np.array([[0.0, 0.0, left], [0.0, 0.0, top]])
    part = cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_BGR2BGRA)
    warped = cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=border)
    return np.asarray(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), np.uint8)


def _warp(image: NDArray[np.uint8], matrix: Matrix, size: int) -> NDArray[np.uint8]:
    to_image = np.asarray(cv2.invertAffineTransform(matrix.astype(np.float64)), np.float64)
    return cut_out(image, to_image, size, cv2.BORDER_REFLECT_101)


def _warp_small(image: NDArray[np.uint8], matrix: Matrix, size: int) -> NDArray[np.uint8]:
    """Warp at twice the size, then average: a linear warp alone aliases when it shrinks by more than two."""
    twice = matrix * np.float32(2)
    twice[:, 2] += 0.5  # the mean of pixels 2i and 2i + 1 lies between them
    large = _warp(image, twice, size * 2)
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
