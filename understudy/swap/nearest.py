"""Which of a persona's references a frame is painted from: the nearest in pose and expression, without flicker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from understudy.swap.mesh_warp import ReferenceFace
from understudy.vision.face import MESH_POINTS, Points
from understudy.vision.mesh import INNER_MOUTH, LEFT_BROW, OUTER_MOUTH, RIGHT_BROW

# Another reference takes over only where it is clearly nearer, and not so soon after the last one did.
_NEARER, _HOLD_FRAMES = 0.8, 15
# How many frames the change takes.
_FADE_FRAMES = 6


def _weights() -> NDArray[np.float32]:
    """Return how much each point counts: float32 [468], their sum is 1.

    A mouth is a small part of a mesh, and most of what a face does. Eyes are turned and shut anyway.
    """
    weights = np.ones(MESH_POINTS, np.float32)
    weights[[*OUTER_MOUTH, *INNER_MOUTH, *RIGHT_BROW, *LEFT_BROW]] = 4
    return weights / weights.sum()


_WEIGHTS = _weights()


def unlikeness(shapes: NDArray[np.float32], mesh: Points) -> NDArray[np.float32]:
    """Return how far faces are from another one in pose and expression, px: float32 [R].

    Args:
        shapes: float32 [R, 468, 2], meshes in aligned crops: what differs is how heads are turned and what faces do.
        mesh: float32 [468, 2 or 3], in an aligned crop of the same size.
    """
    return np.asarray(np.linalg.norm(shapes - mesh[None, :, :2], axis=2) @ _WEIGHTS, np.float32)


class NearestReference:
    """How far references are from a driver. Read-only, and so thread-safe.

    Args:
        references: of one persona, at least one.
        size: side of the drivers' crop, px.
    """

    def __init__(self, references: Sequence[ReferenceFace], size: int) -> None:
        scaled = [each.mesh[:, :2] * np.float32(size / each.image.shape[0]) for each in references]
        self._points = np.stack(scaled).astype(np.float32)

    def distances(self, mesh: Points) -> NDArray[np.float32]:
        """Return how far each reference is from a driver's mesh, float32 [468, 3], px of the crop: float32 [R]."""
        return unlikeness(self._points, mesh)


class ReferenceChoice:
    """What one driver's face is painted from, frame by frame. Not thread-safe: one per track."""

    def __init__(self) -> None:
        self._now = self._before = -1
        self._since = 0

    def update(self, distances: NDArray[np.float32]) -> list[tuple[int, float]]:
        """Return the references of the next frame and their shares, which add up to 1: one, or two while they change.

        Args:
            distances: float32 [R], how far each reference is (`NearestReference.distances`).
        """
        nearest = int(distances.argmin())
        if self._now < 0:
            self._now = self._before = nearest
            self._since = _FADE_FRAMES
        else:
            self._since += 1
            is_nearer = distances[nearest] < _NEARER * distances[self._now]
            if is_nearer and self._since >= _HOLD_FRAMES:
                self._before, self._now, self._since = self._now, nearest, 1
        share = min(1.0, self._since / _FADE_FRAMES)
        return [(self._now, 1.0)] if share >= 1 else [(self._now, share), (self._before, 1 - share)]
