"""A persona's reference: one aligned picture of a face, its mesh, and the mesh's triangles."""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import align, mean_mesh
from understudy.vision.face import MESH_POINTS, Crop, Face, Points

_Real = TypeVar("_Real", bound=np.floating)

# Sides of references; the larger one where the picture has two thirds of its pixels or more.
REFERENCE_PX = (256, 512)
_LARGE_ENOUGH = 0.75


@dataclass(frozen=True, slots=True)
class ReferenceFace:
    """A persona's look: one aligned picture and its mesh.

    Attributes:
        image: uint8 [S, S, 3], BGR, aligned (`understudy.vision.align`).
        mesh: float32 [468, 3], in px of the picture.
    """

    image: Crop
    mesh: Points


def reference_face(image: NDArray[np.uint8], face: Face) -> ReferenceFace:
    """Return a face as a reference: as large as its picture has it, 256 or 512 px.

    Args:
        image: uint8 [H, W, 3], BGR; left as it is.
        face: with its mesh.

    Raises:
        ValueError: the face has no mesh.
    """
    aligned = align(image, face, REFERENCE_PX[0])
    zoom = float(np.hypot(aligned.frame_to_crop[0, 0], aligned.frame_to_crop[1, 0]))
    if zoom < _LARGE_ENOUGH:
        aligned = align(image, face, REFERENCE_PX[1])
    return ReferenceFace(aligned.crop, aligned.mesh)


@cache
def triangles() -> NDArray[np.int32]:
    """Return the mesh's triangles: int32 [T, 3], a Delaunay triangulation of the mean face, read-only."""
    points = mean_mesh()[:, :2].astype(np.float64) * 1000
    subdivision = cv2.Subdiv2D((-10, -10, 1020, 1020))
    vertex = {subdivision.insert((float(x), float(y))): i for i, (x, y) in enumerate(points)}
    corners = np.asarray(subdivision.getTriangleList()).reshape(-1, 3, 2)
    inside = corners[((corners >= 0) & (corners <= 1000)).all(axis=(1, 2))]
    distance = np.linalg.norm(inside[:, :, None] - points[None, None], axis=3)
    found = distance.argmin(2)[distance.min(2).max(1) < 0.5].astype(np.int32)
    if len(vertex) < MESH_POINTS // 2:
        raise RuntimeError("the mean mesh must have distinct points; restore understudy/vision/mean_mesh.npy from git.")
    a, b, c = (points[found[:, k]] for k in range(3))
    flipped = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
    found[flipped] = found[flipped][:, [0, 2, 1]]
    found.setflags(write=False)
    return found


def affine_maps(t: NDArray[np.floating], s: NDArray[np.floating], t_area: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the affine maps that bring triangles t onto triangles s: [T, 3, 2] each -> float32 [T, 6]."""
    (ux, uy), (vx, vy) = (t[:, 1] - t[:, 0]).T, (t[:, 2] - t[:, 0]).T
    u, v = s[:, 1] - s[:, 0], s[:, 2] - s[:, 0]
    twice = (2 * t_area)[:, None]
    along_x, along_y = (u * vy[:, None] - v * uy[:, None]) / twice, (v * ux[:, None] - u * vx[:, None]) / twice
    shift = s[:, 0] - along_x * t[:, 0, :1] - along_y * t[:, 0, 1:]
    return np.stack([along_x, along_y, shift], axis=2).reshape(-1, 6).astype(np.float32)


def signed_areas(corners: NDArray[_Real]) -> NDArray[_Real]:
    """Return the area of each triangle [T, 3, 2], negative where it turns its back: [T], of the same dtype."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray((u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2, corners.dtype)
