"""Smoothing takes the shake out of a still face and does not lag behind a moving one."""

import numpy as np
import pytest

from understudy.vision.align import mean_mesh
from understudy.vision.one_euro import MeshSmoother, OneEuro

SIDE = 200
EYE_DISTANCE = float(np.linalg.norm(mean_mesh()[33, :2] - mean_mesh()[263, :2])) * SIDE


def noise(step: int, level: float = 0.006) -> np.ndarray:
    """What the mesh model shakes by: independent by frame, 0.6 % of the eye distance."""
    return np.random.default_rng(step).normal(0, level * EYE_DISTANCE, (468, 3)).astype(np.float32)


def face(x: float = 320, y: float = 240, side: float = SIDE, degrees: float = 0) -> np.ndarray:
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    mesh = mean_mesh() * np.float32(side)
    mesh[:, :2] = (mesh[:, :2] - side / 2) @ rotation + (x, y)
    return mesh


@pytest.mark.parametrize("rate_hz", [15, 30, 60])
def test_still_face_shakes_less_than_half_as_much(rate_hz: int) -> None:
    smoother = MeshSmoother()
    shaken = [face() + noise(step) for step in range(4 * rate_hz)]
    smooth = [smoother.step(mesh, step / rate_hz) for step, mesh in enumerate(shaken)]
    rest = slice(rate_hz, None)
    before = np.diff(np.array(shaken)[rest, :, :2], axis=0).std()
    after = np.diff(np.array(smooth)[rest, :, :2], axis=0).std()
    assert after < 0.45 * before


@pytest.mark.parametrize("speed", [50.0, 200.0, 800.0])
def test_moving_face_lags_by_less_than_a_fiftieth_of_its_size(speed: float) -> None:
    smoother, lags = MeshSmoother(), []
    for step in range(60):
        mesh = face(x=100 + speed * step / 30)
        lags.append(np.linalg.norm((smoother.step(mesh, step / 30) - mesh)[:, :2], axis=1).max())
    assert max(lags[15:]) < 0.02 * SIDE


def test_blink_of_a_tenth_of_a_second_survives() -> None:
    smoother, upper, lower = MeshSmoother(), 159, 145
    opening = []
    for step in range(40):
        mesh = face()
        if 30 <= step < 33:
            mesh[upper, 1] = mesh[lower, 1]
        smooth = smoother.step(mesh, step / 30)
        opening.append(float(smooth[lower, 1] - smooth[upper, 1]))
    assert min(opening[30:]) < 0.5 * opening[29]


def test_roll_past_half_a_turn_does_not_spin_the_face() -> None:
    smoother = MeshSmoother()
    for step in range(40):
        mesh = face(degrees=160 + step)
        smooth = smoother.step(mesh, step / 30)
        assert np.abs(smooth - mesh)[:, :2].max() < 0.05 * SIDE


def test_growing_face_is_followed() -> None:
    smoother = MeshSmoother()
    for step in range(45):
        mesh = face(side=100 * 1.02**step)
        smooth = smoother.step(mesh, step / 30)
    assert np.abs(smooth - mesh)[:, :2].max() < 0.03 * 100 * 1.02**44


@pytest.mark.parametrize("jump_s", [2.0, -1.0])
def test_gap_or_backward_clock_starts_anew(jump_s: float) -> None:
    smoother = MeshSmoother()
    for step in range(10):
        smoother.step(face(), step / 30)
    elsewhere = face(x=600, side=90)
    np.testing.assert_allclose(smoother.step(elsewhere, 0.3 + jump_s), elsewhere, atol=0.01)


def test_repeated_time_stamp_does_not_divide_by_zero() -> None:
    smoother = MeshSmoother()
    assert all(np.isfinite(smoother.step(face() + noise(step), 1.0)).all() for step in range(5))


def test_argument_is_not_changed() -> None:
    smoother, mesh = MeshSmoother(), face()
    kept = mesh.copy()
    smoother.step(mesh, 0)
    smoother.step(mesh, 0.1)
    np.testing.assert_array_equal(mesh, kept)


def test_same_motion_is_smoothed_alike_at_any_frame_rate() -> None:
    ends = []
    for rate_hz in (30, 120):
        smoother = OneEuro(1.0, 0.0, 1.0)
        for step in range(rate_hz):
            value = smoother.step(np.array([[float(step > 0)]]), 1 / rate_hz)
        ends.append(float(value[0, 0]))
    assert ends[0] == pytest.approx(ends[1], abs=0.01)
