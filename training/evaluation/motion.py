"""Whether a swapped face moves as its driver does, each seen from its own neutral: a changed shape is no error.

A face's neutral is its mean over the clip. Meshes are brought into one frame by the head's 14 rigid points, in three
dimensions, so that what is left is shape and expression; less the neutral it is expression alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import MESH, Array, eye_distance, fit_similarity, rotation_angle_deg
from understudy.vision.align import mean_mesh

Meshes = NDArray[np.floating]

_RIGID = np.array(MESH.rigid)
# The neutral and the frames' poses are fitted in turns; they stand still after the second.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class MotionError:
    """How far a swapped face's movement is off, frame by frame.

    Attributes:
        pose_deg: float64 [T], the head's turn from its mean against the driver's from theirs.
        mouth_pct: float64 [T], the mouth points' way from neutral against the driver's, mean distance in the picture
            plane of the upright head, in % of each face's own outer-eye distance.
        eyes_pct: float64 [T], the same of the eyes.
        mouth_followed: share of the driver's mouth movement that the swap follows, over the clip: 1 less the squared
            error over the squared way from neutral. 1 moves alike, 0 is as good as a frozen face, less is worse. On a
            calm clip a frozen face has small errors in %, too: this tells it.
        eyes_followed: the same of the eyes.
    """

    pose_deg: Array
    mouth_pct: Array
    eyes_pct: Array
    mouth_followed: float
    eyes_followed: float


def motion_error(source: Meshes, swapped: Meshes) -> MotionError:
    """Compare two faces' movements over a clip, each against its own neutral.

    Args:
        source: float [T, 468, 3], px; the driver's meshes, of frames that both have.
        swapped: float [T, 468, 3], px; the swapped face's, of the same frames.

    Returns:
        The errors; all NaN where T is less than 2: one frame is its own neutral.
    """
    if len(source) < 2:
        nothing = np.full(len(source), np.nan)
        return MotionError(nothing, nothing, nothing, np.nan, np.nan)
    (turns, moves), (swapped_turns, swapped_moves) = _posed(source), _posed(swapped)
    # Seen from the driver's head, so that a constant tilt of one neutral against the other drops out.
    tilts = np.einsum("tji,tjk->tik", turns, swapped_turns)
    mean_tilt = _nearest_rotation(tilts.mean(0))
    distance, way = np.linalg.norm(moves - swapped_moves, axis=2), np.linalg.norm(moves, axis=2)
    mouth, eyes = np.array(MESH.mouth), np.array(MESH.eyes)
    return MotionError(
        pose_deg=np.array([rotation_angle_deg(mean_tilt.T @ tilt) for tilt in tilts]),
        mouth_pct=100 * distance[:, mouth].mean(1),
        eyes_pct=100 * distance[:, eyes].mean(1),
        mouth_followed=_followed(distance[:, mouth], way[:, mouth]),
        eyes_followed=_followed(distance[:, eyes], way[:, eyes]),
    )


def _followed(distance: Array, way: Array) -> float:
    moved = float((way**2).sum())
    return 1 - float((distance**2).sum()) / moved if moved > 0 else float("nan")


def _posed(meshes: Meshes) -> tuple[Array, Array]:
    """Return each frame's rotation, [T, 3, 3], and way from neutral, [T, 468, 2] in outer-eye distances."""
    frames = np.asarray(meshes, np.float64)
    neutral: Array = mean_mesh().astype(np.float64)  # upright, so that x and y are the picture plane
    upright, turns = frames, np.broadcast_to(np.eye(3), (len(frames), 3, 3))
    for _ in range(_ROUNDS):
        fits = [fit_similarity(neutral[_RIGID], frame[_RIGID]) for frame in frames]
        turns = np.stack([turn for _, turn, _ in fits])
        upright = np.stack([(f - shift) @ turn / scale for f, (scale, turn, shift) in zip(frames, fits, strict=True)])
        neutral = upright.mean(0)
    return turns, (upright - neutral)[:, :, :2] / max(eye_distance(neutral.astype(np.float32)), 1e-6)


def _nearest_rotation(matrix: Array) -> Array:
    """Return the rotation nearest to a mean of rotations (chordal mean)."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0]) @ vt
