"""A face's movement is compared from its own neutral: another shape is no error, another movement is."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.motion import motion_error
from understudy.vision.align import mean_mesh

Meshes = NDArray[np.float64]

_MOUTH, _EYES = (list(points) for points in (metrics.MESH.mouth, metrics.MESH.eyes))


def _driver() -> Meshes:
    return mean_mesh().astype(np.float64)


def _persona() -> Meshes:
    """Another face: longer, flatter, its mouth and eyes larger and lower."""
    mesh = _driver() * [0.92, 1.1, 0.8]
    mesh[_MOUTH] = (mesh[_MOUTH] - mesh[_MOUTH].mean(0)) * 1.2 + mesh[_MOUTH].mean(0) + [0, 0.02, 0]
    mesh[_EYES, 1] += 0.01
    return mesh


def _turns(count: int = 12) -> list[Meshes]:
    phase = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [cv2.Rodrigues(np.radians([15 * np.sin(p), 25 * np.cos(p), 8 * np.sin(2 * p)]))[0] for p in phase]


def _play(shape: Meshes, turns: list[Meshes], ways: Meshes | None = None) -> Meshes:
    """Turn, scale and shift a head; `ways` [T, 468, 3] moves its points first."""
    ways = np.zeros((len(turns), 1, 3)) if ways is None else ways
    return np.stack(
        [
            (180 + 4 * t) * (shape + way) @ turn.T + [200 + 9 * t, 150 - 5 * t, 0]
            for t, (turn, way) in enumerate(zip(turns, ways, strict=True))
        ]
    )


def _nod_lips(depth: float, count: int = 12) -> Meshes:
    """The mouth up and down by `depth`, about the neutral."""
    ways = np.zeros((count, len(_driver()), 3))
    ways[:, _MOUTH, 1] = (depth * (-1.0) ** np.arange(count))[:, None]
    return ways


def test_another_face_that_moves_alike_has_no_error() -> None:
    source, swapped = _play(_driver(), _turns()), _play(_persona(), _turns())
    error = motion_error(source, swapped)
    assert error.pose_deg.max() < 0.01
    assert error.mouth_pct.max() < 1e-3 and error.eyes_pct.max() < 1e-3
    against_the_driver = metrics.expression_error(*(mesh[0].astype(np.float32) for mesh in (source, swapped)))
    assert against_the_driver.mouth_pct > 3, "the same faces differ where points are compared"


def test_a_mouth_that_moves_half_as_far_is_off_by_the_other_half() -> None:
    depth = 0.1 * metrics.eye_distance(_driver().astype(np.float32))
    source = _play(_driver(), _turns(), _nod_lips(depth))
    error = motion_error(source, _play(_driver(), _turns(), _nod_lips(depth / 2)))
    assert error.mouth_pct == pytest.approx(5, abs=1e-3)
    assert error.eyes_pct == pytest.approx(0, abs=1e-3)
    assert error.pose_deg == pytest.approx(0, abs=1e-3)
    assert error.mouth_followed == pytest.approx(0.75), "half of the way is missing, and counts squared"


def test_a_frozen_face_follows_nothing_and_one_that_goes_the_other_way_less() -> None:
    depth = 0.01 * metrics.eye_distance(_driver().astype(np.float32))
    source = _play(_driver(), _turns(), _nod_lips(depth))
    alike, frozen, contrary = (
        motion_error(source, _play(_persona(), _turns(), _nod_lips(d))) for d in (depth, 0.0, -depth)
    )
    assert frozen.mouth_pct.max() < 1.6, "a calm clip hides it from errors in %"
    assert alike.mouth_followed > 0.98
    assert frozen.mouth_followed == pytest.approx(0, abs=0.01)
    assert contrary.mouth_followed < -2
    assert np.isnan(motion_error(source[:1], source[:1]).mouth_followed)


def test_movement_counts_in_each_faces_own_size() -> None:
    depth = 0.1 * metrics.eye_distance(_driver().astype(np.float32))
    source = _play(_driver(), _turns(), _nod_lips(depth))
    error = motion_error(source, _play(_driver() * 0.5, _turns(), _nod_lips(depth / 2)))
    assert error.mouth_pct == pytest.approx(0, abs=1e-3)


def test_a_head_that_sways_beside_the_drivers_is_off_by_its_swaying_and_not_by_a_constant_tilt() -> None:
    tilt = cv2.Rodrigues(np.radians([7.0, 0, 0]))[0]
    sway = [cv2.Rodrigues(np.radians([0, 2.0 * (-1) ** t, 0]))[0] for t in range(12)]
    source = _play(_driver(), _turns())
    tilted = _play(_driver(), [turn @ tilt for turn in _turns()])
    swaying = _play(_driver(), [turn @ more for turn, more in zip(_turns(), sway, strict=True)])
    assert motion_error(source, tilted).pose_deg.max() < 0.01
    assert motion_error(source, swaying).pose_deg == pytest.approx(2, abs=0.02)


def test_one_frame_is_its_own_neutral_and_tells_nothing() -> None:
    error = motion_error(_play(_driver(), _turns(1)), _play(_driver(), _turns(1)))
    assert all(np.isnan(values).all() and len(values) == 1 for values in (error.pose_deg, error.mouth_pct))
