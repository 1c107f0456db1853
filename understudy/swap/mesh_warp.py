"""A reference's picture laid onto a driver's mesh: where each pixel of the driver's crop comes from.

Piecewise-affine warp over the dense mesh (Beier & Neely's field morphing idea on a triangulation), evaluated on a
coarse grid of the crop and enlarged to whatever the frame needs: inside a triangle the map is affine, so nothing is
lost by that, and the picture is read once, at its own resolution, from the level of its pyramid that fits.
"""

from __future__ import annotations

from functools import cache
from math import ceil, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.scratch import Scratch
from understudy.swap.shape import NO_MAP
from understudy.vision.align import mean_mesh
from understudy.vision.face import Points
from understudy.vision.mesh import FACE_OVAL, INNER_MOUTH
from understudy.vision.reference import ReferenceFace, affine_maps, signed_areas, triangles

__all__ = ["ReferenceFace", "ReferenceWarp", "oval_area"]

Mask = NDArray[np.uint8]
Map = NDArray[np.float32]

# Triangles seen this much narrower than in the reference smear its texture: they are left out.
_SMALLEST_AREA_RATIO = 0.12
# Sample points a pixel of the grid, where a triangle has its mean size: fewer leave holes in a wide open mouth.
_SAMPLES_A_PX = 3.0
_MOUTH_STEPS = 8
# How far the map goes on where no triangle lies.
_GROWN_PX = 4
# How wide the median is that smooths folds, px of the grid.
_FOLDED_PX = 5
# How far beside its triangle a pixel may come from, px of the reference.
_SLACK_PX = 4.0
# Where no triangle lies, every pixel comes from here.
_NOWHERE = np.array([[0, 0, -1e4, 0, 0, -1e4]], np.float32)
_SMALLEST_LEVEL_PX = 64


class ReferenceWarp:
    """A reference, ready to be laid onto drivers. Read-only, and so thread-safe.

    Args:
        reference: the persona's picture and mesh.
        grid: side of the maps, px of the crop they cover.
        shown: uint8 [S, S], where the picture may be shown, 255 or less; everywhere where not given.

    Attributes:
        levels: the picture and its halves, largest first, each uint8 [S, S, 4], BGR and `shown`: cv2 reads four
            channels in less time than three.
    """

    def __init__(self, reference: ReferenceFace, grid: int, shown: Mask | None = None) -> None:
        whole = np.full(reference.image.shape[:2], 255, np.uint8) if shown is None else shown
        self.levels = [np.asarray(cv2.merge([*cv2.split(reference.image), whole]), np.uint8)]
        while self.levels[-1].shape[0] >= 2 * _SMALLEST_LEVEL_PX and self.levels[-1].shape[0] % 2 == 0:
            half = self.levels[-1].shape[0] // 2
            self.levels.append(
                np.asarray(cv2.resize(self.levels[-1], (half, half), interpolation=cv2.INTER_AREA), np.uint8)
            )
        self._grid = grid
        self._corners = reference.mesh[triangles(), :2].astype(np.float32)
        self._areas = signed_areas(self._corners)
        # A narrow triangle's map is steep: half a pixel beside it would come from far away.
        self._low, self._high = self._corners.min(1) - _SLACK_PX, self._corners.max(1) + _SLACK_PX
        self._oval_area = oval_area(reference.mesh)

    def map(self, target: Points) -> tuple[Map, Mask]:
        """Return where each pixel of the grid comes from.

        Args:
            target: float32 [468, 3], the driver's mesh, px of the grid.

        Returns:
            float32 [G, G, 2], x and y in px of the reference; and uint8 [G, G], 255 where a triangle that faces the
            viewer lies, 0 elsewhere. Just outside, the map goes on as the nearest triangle has it.
        """
        faces, size = triangles(), self._grid
        corners = target[faces]
        t = corners[..., :2]
        area = signed_areas(t)
        is_seen = (self._areas > 1e-3) & (
            area > self._areas * _SMALLEST_AREA_RATIO * oval_area(target) / self._oval_area
        )
        rank = np.zeros(len(faces), np.uint16)
        kept = np.flatnonzero(is_seen)
        order = kept[np.argsort(-corners[kept, :, 2].sum(1), kind="stable")]  # the nearest last: it wins
        rank[order] = np.arange(1, len(order) + 1, dtype=np.uint16)
        label = _drawn(target[:, :2], rank, size)
        drawn = (label > 0).astype(np.uint8) * np.uint8(255)
        covered = np.asarray(cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, _CLOSED), np.uint8)
        for _ in range(_GROWN_PX):  # closes what the points and folded triangles left open, and goes on past the edge
            label = np.where(label > 0, label, cv2.dilate(label, _SMALL))
        to_source = np.concatenate([_NOWHERE, affine_maps(t[order], self._corners[order], area[order])]).T
        which = label.astype(np.int32)
        xx, xy, x0, yx, yy, y0 = np.take(to_source, which, axis=1)
        x = np.arange(size, dtype=np.float32)
        y = x[:, None]
        low, high = (np.concatenate([_NOWHERE[:, 2::3], each[order]]).T for each in (self._low, self._high))
        left, top = np.take(low, which, axis=1)
        right, bottom = np.take(high, which, axis=1)
        x_from = np.clip(xx * x + xy * y + x0, left, right)
        y_from = np.clip(yx * x + yy * y + y0, top, bottom)
        # Where lids fold, a pixel falls to any of several narrow triangles. A median leaves an affine map as it is.
        maps = [cv2.medianBlur(each, _FOLDED_PX) for each in (x_from, y_from)]
        return np.asarray(cv2.merge(maps), np.float32), covered

    def sampled(self, positions: Map, scale: float, scratch: Scratch | None = None) -> NDArray[np.uint8]:
        """Read the reference.

        Args:
            positions: float32 [H, W, 2], px of the reference; with a scratch, it may be written to.
            scale: how many px of the reference lie on one px of the result: chooses the level.
            scratch: where the result lies; None: in memory of its own.

        Returns:
            uint8 [H, W, 4], BGR and where it may be shown; the border's colour goes on outside the picture.
        """
        index = int(np.clip(round(np.log2(max(scale, 1e-3))), 0, len(self.levels) - 1))
        level, shape = self.levels[index], (*positions.shape[:2], 4)
        if index:
            shrink = np.float32(1 / (1 << index))
            positions = np.multiply(positions, shrink, out=None if scratch is None else positions)
            positions += (shrink - 1) / 2
        out = np.empty(shape, np.uint8) if scratch is None else scratch.bytes("sampled", shape)
        return np.asarray(cv2.remap(level, positions, NO_MAP, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE), np.uint8)


_SMALL, _CLOSED = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)


@cache
def _samples(size: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return points spread over the mesh's triangles: triangle [N], corners [3, N], weights [3, N, 1]."""
    mean, faces = mean_mesh()[:, :2] * np.float32(size), triangles()
    which: list[int] = []
    weights: list[tuple[float, float, float]] = []
    for index, area in enumerate(signed_areas(mean[faces])):
        steps = max(1, ceil(sqrt(max(float(area), 0.0) * _SAMPLES_A_PX)))
        if set(faces[index].tolist()) <= set(INNER_MOUTH):  # flat in the mean face, tall in a cry
            steps = max(steps, _MOUTH_STEPS)
        for u in range(steps):
            for v in range(steps - u):
                parts = [1 / 3] if u + v == steps - 1 else [1 / 3, 2 / 3]
                for part in parts:
                    b, c = (u + part) / steps, (v + part) / steps
                    which.append(index)
                    weights.append((1 - b - c, b, c))
    chosen = np.array(which, np.int32)
    shares = np.array(weights, np.float32).T[..., None]
    return chosen, np.ascontiguousarray(faces[chosen].T), np.ascontiguousarray(shares)


def _drawn(points: Points, rank: NDArray[np.uint16], size: int) -> NDArray[np.uint16]:
    """Draw the triangles by sample points, the highest rank on top: uint16 [size, size], 0 where none lies."""
    which, (a, b, c), (wa, wb, wc) = _samples(size)
    at = np.take(points, a, 0) * wa
    at += np.take(points, b, 0) * wb
    at += np.take(points, c, 0) * wc
    at += np.float32(0.5)
    cells = np.clip(at, 0, size - 1).astype(np.int32)
    label = np.zeros(size * size, np.uint16)
    np.maximum.at(label, cells[:, 1] * size + cells[:, 0], rank[which])
    return label.reshape(size, size)


def oval_area(mesh: Points) -> float:
    """Return the area inside the face oval, square px, at least 1."""
    return max(float(cv2.contourArea(mesh[list(FACE_OVAL), :2])), 1.0)
