"""Face shape: the driver's crop bent towards the persona's bones, expression left alone.

A linear model of the mesh holds who somebody is (identity) apart from what the face does (expression), as in 3-D
morphable models (Blanz & Vetter 1999); `training.shape_model` learns it. The difference of two identities, brought
into the driver's pose, moves the mesh; a smooth field that is 0 at the crop's border moves the pixels along. That a
swap should carry the shape as well is HifiFace's idea (Wang et al. 2021, arXiv:2106.09965).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Points

Identity = NDArray[np.float32]
Field = NDArray[np.float32]

# Bone that expressions move little: eye corners, bridge and tip of the nose, temples, jaw's angles, forehead.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 234, 454, 127, 356, 10, 151, 9, 8)
# The mesh model's error on a point, px of a 256 px crop.
_NOISE_PX = 1.0
_UNIT_PX = 256.0
FIELD_GRID = 64
# The second map of cv2.remap, where the first one holds both coordinates; its types know of no None.
NO_MAP: Any = None
# The field: each mesh point's shift, spread by these Gaussians (sigma in cells, weight); the wide ones fill the rest.
_SPREAD = ((1.5, 1.0), (4.0, 0.05), (10.0, 0.002))
# Far from any mesh point the field dies off; and within this share of the side it falls to 0 at the border.
_STILL = 4e-6
_BORDER = 0.1
# An identity is the mean over so many frames; until then it eases in from the average face.
_SETTLED_FRAMES = 60
_EASE_FRAMES = 15


class _Pose(NamedTuple):
    scale: float
    turn: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceShapeModel:
    """The linear model. Read-only, and so thread-safe.

    Attributes:
        mean: float32 [468, 3], the average face, px of a 256 px crop.
        expression: float32 [E, 1404], orthonormal: what faces do.
        identity: float32 [I, 1404], orthonormal: who they are; orthogonal to `expression`.
        expression_spread: float32 [E], standard deviation of each, px.
        identity_spread: float32 [I], likewise.
        solver: float32 [I, 1404], mesh -> identity by ridge least squares.
    """

    mean: Points
    expression: NDArray[np.float32]
    identity: NDArray[np.float32]
    expression_spread: NDArray[np.float32]
    identity_spread: NDArray[np.float32]
    solver: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        mean: Points,
        expression: NDArray[np.float32],
        identity: NDArray[np.float32],
        expression_spread: NDArray[np.float32],
        identity_spread: NDArray[np.float32],
    ) -> FaceShapeModel:
        """Build a model from its bases, all as the attributes say."""
        basis = np.concatenate([expression, identity]).astype(np.float64)
        prior = np.concatenate([expression_spread, identity_spread]).astype(np.float64)
        solver = np.linalg.solve(basis @ basis.T + np.diag((_NOISE_PX / prior) ** 2), basis)[len(expression) :]
        parts = (mean, expression, identity, expression_spread, identity_spread, solver)
        return cls(*(np.asarray(part, np.float32) for part in parts))

    @classmethod
    def load(cls, path: Path) -> FaceShapeModel:
        """Read what `training.shape_model` wrote.

        Raises:
            OSError, ValueError: there is no such file, or it holds something else.
        """
        with np.load(path, allow_pickle=False) as held:
            names = ("mean", "expression", "identity", "expression_spread", "identity_spread")
            return cls.of(*(held[name].astype(np.float32) for name in names))

    def identify(self, mesh: Points) -> Identity:
        """Return who a mesh is: float32 [I], 0 for the average face.

        Args:
            mesh: float32 [468, 3], px of anything.
        """
        return np.asarray(self.solver @ (upright(mesh, self.mean) - self.mean).ravel(), np.float32)

    def displacement(self, mesh: Points, own: Identity, wanted: Identity) -> Points:
        """Return how a mesh's points move to become somebody else's: float32 [468, 3], px of the mesh's picture.

        Args:
            mesh: float32 [468, 3].
            own: whose mesh it is, float32 [I].
            wanted: whose shape it shall have, float32 [I].
        """
        scale, turn, _ = _pose(mesh, self.mean)
        return np.asarray((self.identity.T @ (wanted - own)).reshape(-1, 3) @ turn / scale, np.float32)


@cache
def shape_model() -> FaceShapeModel:
    """Return the model that ships (`training.shape_model`)."""
    return FaceShapeModel.load(Path(__file__).with_name("shape_model.npz"))


class RunningIdentity:
    """A driver's identity over a stream: the mean of what its frames say. Not thread-safe: one per track."""

    def __init__(self) -> None:
        self._mean: Identity | None = None
        self._frames = 0

    @property
    def confidence(self) -> float:
        """0 at the start of a stream, 1 once it has settled: how much of a change of shape may be shown."""
        ease = min(self._frames / _EASE_FRAMES, 1.0)
        return ease * ease * (3 - 2 * ease)

    def update(self, identity: Identity) -> Identity:
        """Take a frame's identity in and return the mean, float32 [I]."""
        self._frames += 1
        if self._mean is None:
            self._mean = identity.copy()
        else:
            self._mean += (identity - self._mean) / min(self._frames, _SETTLED_FRAMES)
        return self._mean


def bending(mesh: Points, displacement: Points, size: int) -> Field:
    """Return the smooth field that bends a crop: 0 at the border, the points' displacement where they lie.

    A pixel p of the bent crop shows what lay at p - field(p); points move by + field.

    Args:
        mesh: float32 [468, 3], px of the crop.
        displacement: float32 [468, 3], px of the crop.
        size: side of the crop, px.

    Returns:
        float32 [64, 64, 2], px of the crop.
    """
    cells = np.clip(np.rint(resize_points(mesh[:, :2], FIELD_GRID / size)), 0, FIELD_GRID - 1).astype(np.int32)
    packed = np.zeros((FIELD_GRID * FIELD_GRID, 3), np.float32)
    ones = np.ones((len(mesh), 1), np.float32)
    np.add.at(packed, cells[:, 1] * FIELD_GRID + cells[:, 0], np.concatenate([displacement[:, :2], ones], axis=1))
    packed = packed.reshape(FIELD_GRID, FIELD_GRID, 3)
    total = np.zeros_like(packed)
    for sigma, gain in _SPREAD:
        total += np.float32(gain) * cv2.GaussianBlur(packed, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    field = total[..., :2] / (total[..., 2:] + np.float32(_STILL))
    return np.asarray(field * _window(), np.float32)


def moved(points: Points, field: Field, size: int) -> Points:
    """Return points moved along with a bent crop.

    Args:
        points: float32 [K, 2 or 3], px of the crop.
        field: float32 [64, 64, 2], px of the crop.
        size: side of the crop, px.
    """
    at = resize_points(points[:, :2], FIELD_GRID / size).astype(np.float32)
    shift = cv2.remap(field, at[None], NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    out = points.copy()
    out[:, :2] += shift
    return out


def upright(mesh: Points, onto: Points) -> Points:
    """Return a mesh brought into another's pose and size, on bone, in 3-D: float32 [468, 3]."""
    scale, turn, shift = _pose(mesh, onto)
    return np.asarray((mesh * np.float32(scale)) @ turn.T + shift, np.float32)


def resize_points(points: Points, scale: float) -> Points:
    """Return points in px of their picture resized by averaging: pixel centres stay where they are."""
    return points * np.float32(scale) + np.float32((scale - 1) / 2)


@cache
def _window() -> NDArray[np.float32]:
    cells = np.arange(FIELD_GRID)
    edge = np.clip(np.minimum(cells, cells[::-1]) / (FIELD_GRID * _BORDER), 0, 1)
    edge = (edge * edge * (3 - 2 * edge)).astype(np.float32)
    return (edge[:, None] * edge[None])[..., None]


def _pose(mesh: Points, onto: Points) -> _Pose:
    """Return the similarity that brings a mesh onto another, on bone, in 3-D (Umeyama 1991)."""
    rigid = list(RIGID)
    source, target = mesh[rigid].astype(np.float64), onto[rigid].astype(np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    left, spread, right = np.linalg.svd(s.T @ t)
    mirror = np.array([1.0, 1.0, float(np.sign(np.linalg.det(left @ right)))])
    turn = (left * mirror @ right).T
    scale = float((spread * mirror).sum() / (s * s).sum())
    shift = target_mean - scale * turn @ source_mean
    return _Pose(scale, turn.astype(np.float32), shift.astype(np.float32))
