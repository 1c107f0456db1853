"""Reenactment of a still: one picture of a face, brought into a driver's pose, expression and light.

Piecewise-affine warp over the dense mesh (Beier & Neely's field morphing idea on a triangulation),
with the driver's own inner mouth and eyes, and its low-frequency light and colour. It makes the pairs
that a decoder learns from, and is the instant persona until that decoder is trained.
"""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import align, mean_mesh
from understudy.vision.face import MESH_POINTS, Crop, Face, Points
from understudy.vision.mesh import (
    FACE_OVAL,
    INNER_MOUTH,
    LEFT_BROW,
    LEFT_EYE,
    NOSE,
    OUTER_MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
)

Mask = NDArray[np.uint8]
Map = NDArray[np.float32]
_Real = TypeVar("_Real", bound=np.floating)

# Triangles seen this much narrower than in the still smear its texture: they are masked out.
_SMALLEST_AREA_RATIO = 0.12
_SUBPIXEL_BITS = 4
_POINTS_BETWEEN = 32
# The inner mouth and the eyes, as rings of points.
_DRIVER_PARTS = tuple(np.array(ring) for ring in (INNER_MOUTH, RIGHT_EYE, LEFT_EYE))
# Sides of references; the larger one where the picture has two thirds of its pixels or more.
REFERENCE_PX = (256, 512)
_LARGE_ENOUGH = 0.75
# Where no triangle lies, every pixel comes from here.
_NOWHERE = np.array([[0, 0, -1e4, 0, 0, -1e4]], np.float32)


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
def triangles(of: tuple[int, ...] = ()) -> NDArray[np.int32]:
    """Return the mesh's triangles: int32 [T, 3], a Delaunay triangulation of the mean face, read-only.

    Args:
        of: between these points of the mesh alone; between all of them where none are given.
    """
    chosen = np.array(of or range(MESH_POINTS), np.int32)
    points = mean_mesh()[chosen, :2].astype(np.float64) * 1000
    subdivision = cv2.Subdiv2D((-10, -10, 1020, 1020))
    vertex = {subdivision.insert((float(x), float(y))): i for i, (x, y) in enumerate(points)}
    corners = np.asarray(subdivision.getTriangleList()).reshape(-1, 3, 2)
    inside = corners[((corners >= 0) & (corners <= 1000)).all(axis=(1, 2))]
    distance = np.linalg.norm(inside[:, :, None] - points[None, None], axis=3)
    found = distance.argmin(2)[distance.min(2).max(1) < 0.5].astype(np.int32)
    if len(vertex) < len(points) // 2:
        raise RuntimeError("the mean mesh must have distinct points; restore understudy/vision/mean_mesh.npy from git.")
    a, b, c = (points[found[:, k]] for k in range(3))
    flipped = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
    found[flipped] = found[flipped][:, [0, 2, 1]]
    found = chosen[found]
    found.setflags(write=False)
    return found


@cache
def main_triangles() -> NDArray[np.int32]:
    """Return a third as many triangles, as `triangles`: the features' points and the oval's, and a few between them."""
    points = mean_mesh()[:, :2]
    features = (*OUTER_MOUTH, *INNER_MOUTH, *RIGHT_EYE, *LEFT_EYE, *RIGHT_BROW, *LEFT_BROW, *NOSE)
    chosen = list(dict.fromkeys([*FACE_OVAL, *features]))
    distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(1)
    for _ in range(_POINTS_BETWEEN):  # farthest first
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return triangles(tuple(chosen))


def warp_mesh(image: Crop, source: Points, target: Points, size: int) -> tuple[Crop, Mask]:
    """Warp a picture so that its mesh lies on another: far triangles first, folded ones culled.

    Args:
        image: uint8 [H, W, 3], BGR.
        source: float32 [468, 3], the picture's mesh, px of the picture.
        target: float32 [468, 3], where it shall lie, px of the result.
        size: side of the result, px.

    Returns:
        uint8 [size, size, 3] BGR, and uint8 [size, size]: 255 where a triangle lies, 0 elsewhere.
    """
    map_x, map_y, covered = MeshWarp(source).maps(target, size)
    warped = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.bitwise_and(warped, warped, mask=covered), covered  # type: ignore[return-value]


class MeshWarp:
    """A picture's mesh, ready to be laid onto others. Read-only, and so thread-safe.

    Args:
        source: float32 [468, 2 or 3], px of the picture.
        faces: the triangles, `triangles()` where not given; fewer take less time.
    """

    def __init__(self, source: Points, faces: NDArray[np.int32] | None = None) -> None:
        self._faces = triangles() if faces is None else faces
        self._corners = source[self._faces, :2].astype(np.float64)
        self._areas = signed_areas(self._corners)
        self._oval_area = max(_oval_area(source), 1.0)

    def maps(self, target: Points, size: int) -> tuple[Map, Map, Mask]:
        """Return where each pixel of a warped picture comes from, for cv2.remap.

        Args:
            target: float32 [468, 3], where the mesh shall lie, px of the result.
            size: side of the result, px.

        Returns:
            x and y, float32 [size, size], px of the picture, far outside it where no triangle lies; and where one
            does: uint8 [size, size], 255 or 0.
        """
        drawn, to_source = self.visible(target)
        which = np.zeros((size, size), np.int32)
        for label, corner in enumerate(_drawn_corners(target, drawn), start=1):
            cv2.fillConvexPoly(which, corner, label, cv2.LINE_8, _SUBPIXEL_BITS)
        matrices = np.concatenate([_NOWHERE, to_source]).T
        xx, xy, x0, yx, yy, y0 = np.take(matrices, which, axis=1)
        x = np.arange(size, dtype=np.float32)
        y = x[:, None]
        return xx * x + xy * y + x0, yx * x + yy * y + y0, (which > 0).astype(np.uint8) * np.uint8(255)

    def visible(self, target: Points) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the triangles that face the viewer, far first, and each one's affine map target -> source [T, 6]."""
        corners = target[self._faces]
        t = corners[..., :2].astype(np.float64)
        area = signed_areas(t)
        least = _SMALLEST_AREA_RATIO * _oval_area(target) / self._oval_area
        kept = np.flatnonzero((self._areas > 1e-3) & (area > self._areas * least))
        order = kept[np.argsort(-corners[kept, :, 2].sum(1), kind="stable")]
        return self._faces[order], affine_maps(t[order], self._corners[order], area[order])


def _drawn_corners(target: Points, drawn: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return triangles' corners as cv2 draws them, in parts of a pixel: int32 [T, 3, 2]."""
    return np.rint(target[:, :2] * (1 << _SUBPIXEL_BITS)).astype(np.int32)[drawn]


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


def _oval_area(mesh: Points) -> float:
    return float(cv2.contourArea(mesh[list(FACE_OVAL), :2]))


def reenact(still: ReferenceFace, driver_crop: Crop, driver_mesh: Points) -> tuple[Crop, Mask]:
    """Bring a still into a driver's pose, expression and light.

    About 10 ms at 256 px. Pure: safe from any thread.

    Args:
        still: the persona's look.
        driver_crop: uint8 [S, S, 3], BGR, aligned.
        driver_mesh: float32 [468, 3], px of the driver's crop.

    Returns:
        uint8 [S, S, 3] BGR, the driver's crop with the persona's face in it, and its mask,
        uint8 [S, S], 0 to 255, soft at the edge.
    """
    size = driver_crop.shape[0]
    warped, covered = warp_mesh(still.image, still.mesh, driver_mesh, size)
    mask = np.asarray(cv2.min(face_mask(driver_mesh, size), covered), np.uint8)
    lit = _relight(warped, driver_crop, covered)
    keep = driver_parts(driver_mesh, size)
    face = _mix(driver_crop, lit, keep)
    return _mix(face, driver_crop, mask), mask


def face_mask(mesh: Points, size: int) -> Mask:
    """Return where a face may be replaced: what of its oval faces the viewer, without ragged cheeks.

    The same for every persona.

    Args:
        mesh: float32 [468, 3], crop px.
        size: side of the crop, px.

    Returns:
        uint8 [size, size], 0 to 255, eroded and soft at the edge.
    """
    drawn, _ = MeshWarp(mean_mesh() * np.float32(size)).visible(mesh)
    seen = np.zeros((size, size), np.uint8)
    for corner in _drawn_corners(mesh, drawn):
        cv2.fillConvexPoly(seen, corner, 255, cv2.LINE_8, _SUBPIXEL_BITS)
    mask = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, _disc(_odd(size * 0.03)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(_odd(size * 0.10)))
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0  # a face cut off by the crop's edge is eroded there too
    mask = cv2.erode(mask, _disc(_odd(size * 0.025)))
    return cv2.GaussianBlur(mask, (0, 0), size * 0.012)  # type: ignore[return-value]


def attention_map(mesh: Points, size: int) -> Mask:
    """Return where a viewer looks first: eyes and mouth, soft; uint8 [size, size], 0 to 255.

    Args:
        mesh: float32 [468, 3], crop px.
        size: side of the crop, px.
    """
    detail = np.zeros((size, size), np.uint8)
    for ring in (OUTER_MOUTH, RIGHT_EYE, LEFT_EYE):
        cv2.fillPoly(detail, [cv2.convexHull(np.round(mesh[list(ring), :2]).astype(np.int32))], 255)
    detail = cv2.dilate(detail, _disc(_odd(size * 0.04)))
    return cv2.GaussianBlur(detail, (0, 0), size * 0.015)  # type: ignore[return-value]


def _relight(warped: Crop, driver: Crop, covered: Mask) -> Crop:
    """Move the driver's low-frequency lightness and colour (Lab) to the warped still."""
    size = warped.shape[0]
    quarter = (size // 4, size // 4)
    weight = cv2.resize(covered, quarter, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab_warped, lab_driver = (cv2.cvtColor(image, cv2.COLOR_BGR2LAB) for image in (warped, driver))
    difference = cv2.resize(lab_driver, quarter, interpolation=cv2.INTER_AREA).astype(np.float32)
    difference -= cv2.resize(lab_warped, quarter, interpolation=cv2.INTER_AREA)
    sigma = size * 0.12 / 4
    total = cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-3
    shift = cv2.GaussianBlur(difference * weight[..., None], (0, 0), sigma) / total[..., None]
    shift = cv2.resize(shift, (size, size), interpolation=cv2.INTER_LINEAR)
    lit = np.clip(lab_warped + shift * np.float32(0.85), 0, 255).astype(np.uint8)
    return cv2.cvtColor(lit, cv2.COLOR_LAB2BGR)  # type: ignore[return-value]


def driver_parts(mesh: Points, size: int) -> Mask:
    """Return where the driver is kept: the inner mouth and the eyes, feathered.

    Args:
        mesh: float32 [468, 2 or 3], crop px.
        size: side of the crop, px.

    Returns:
        uint8 [size, size], 0 to 255.
    """
    parts = np.zeros((size, size), np.uint8)
    corners = np.round(mesh[:, :2]).astype(np.int32)
    for ring in _DRIVER_PARTS:
        cv2.fillPoly(parts, [corners[ring]], 255)
    sigma = size * 0.006
    reach = int(4 * sigma) + 2  # further out the blur leaves nothing: only what it changes is blurred
    around = corners[np.concatenate(_DRIVER_PARTS)]
    (left, top), (right, bottom) = np.clip(around.min(0) - reach, 0, size), np.clip(around.max(0) + reach, 0, size)
    if right > left and bottom > top:
        part = parts[top:bottom, left:right]
        parts[top:bottom, left:right] = cv2.GaussianBlur(part, (0, 0), sigma)
    return parts


def _mix(image: Crop, other: Crop, weight: Mask) -> Crop:
    """Return image where weight is 255, other where it is 0."""
    alpha = weight.astype(np.float32) / np.float32(255)
    return cv2.blendLinear(image, other, alpha, 1 - alpha)  # type: ignore[return-value]


def _disc(size: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))  # type: ignore[return-value]


def _odd(length: float) -> int:
    return max(1, int(length) // 2 * 2 + 1)


def composite(faces: list[tuple[Crop, Points]], size: int = 256) -> ReferenceFace:
    """Average faces over their mean mesh: a look that is nobody's.

    Args:
        faces: aligned crops uint8 [S, S, 3] BGR, each with its mesh float32 [468, 3] in crop px.
        size: side of the result, px.

    Raises:
        ValueError: fewer than 40 faces: an average of few would still resemble them.
    """
    if len(faces) < 40:
        raise ValueError(f"a composite must have at least 40 faces, but got {len(faces)}. Add pictures.")
    meshes = [(mesh * np.float32(size / crop.shape[0])).astype(np.float32) for crop, mesh in faces]
    mean = np.mean(meshes, axis=0).astype(np.float32)
    total, around = np.zeros((size, size, 3), np.float32), np.zeros((size, size, 3), np.float32)
    weight = np.full((size, size, 1), 1e-6, np.float32)
    for crop, mesh in faces:
        warped, covered = warp_mesh(crop, mesh, mean, size)
        total += warped
        weight += (covered > 0)[..., None]
        around += cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    inside = _inside(weight[..., 0] > len(faces) * 0.9)
    blended = total / weight * inside + around / len(faces) * (1 - inside)
    return ReferenceFace(np.clip(blended, 0, 255).astype(np.uint8), mean)


def caricature(still: ReferenceFace, average: ReferenceFace, strength: float) -> ReferenceFace:
    """Move a look away from the average face, so that it is told apart at a glance.

    The texture's difference from the average (Brennan 1985, on pixels) is scaled; the mesh stays.

    Args:
        still: the look, such as a composite.
        average: the composite of everybody, the same size.
        strength: 1 leaves the still as it is; 2 doubles its difference.
    """
    size = still.image.shape[0]
    base, covered = warp_mesh(average.image, average.mesh, still.mesh, size)
    gain = _inside(covered > 0) * np.float32(strength - 1)
    image = still.image + gain * (still.image.astype(np.float32) - base)
    return ReferenceFace(np.clip(image, 0, 255).astype(np.uint8), still.mesh)


def _inside(covered: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a soft weight, float32 [S, S, 1], that is 0 at the edge of what is covered and 1 further in."""
    size = covered.shape[0]
    core = cv2.erode(covered.astype(np.float32), _disc(_odd(size * 0.07)))
    return cv2.GaussianBlur(core, (0, 0), size * 0.015)[..., None]  # type: ignore[return-value]
