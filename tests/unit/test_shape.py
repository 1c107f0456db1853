import numpy as np
import pytest

from understudy.swap.shape import (
    FIELD_GRID,
    FaceShapeModel,
    RunningIdentity,
    bending,
    moved,
    shape_model,
    upright,
)
from understudy.vision.align import mean_mesh

SIDE = 128


def turned(mesh, degrees, scale=1.0, shift=(0.0, 0.0, 0.0)):
    yaw = np.radians(degrees)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    centre = mesh.mean(0)
    return ((mesh - centre) @ turn.T * scale + centre + shift).astype(np.float32)


@pytest.fixture
def mesh():
    return mean_mesh() * np.float32(SIDE)


@pytest.fixture
def other(mesh):
    """The same face with a jaw wider by a tenth: another person."""
    wide = mesh.copy()
    low = mesh[:, 1] > 0.6 * SIDE
    wide[low, 0] = (wide[low, 0] - SIDE / 2) * 1.1 + SIDE / 2
    return wide


def test_average_face_is_nobody_in_any_pose(mesh):
    model = shape_model()
    straight = np.linalg.norm(model.identify(model.mean))
    assert straight < 0.05
    assert np.linalg.norm(model.identify(turned(model.mean, 25, 0.5, (9, -4, 2)))) < 0.05


def test_identity_does_not_change_with_pose_and_size(mesh, other):
    model = shape_model()
    straight, away = model.identify(other), model.identify(turned(other, 30, 1.7, (40, 8, 0)))
    assert np.linalg.norm(straight - away) < 0.02 * np.linalg.norm(straight)


def test_expression_is_no_identity():
    model = shape_model()
    for direction, spread in zip(model.expression, model.expression_spread, strict=True):
        smiling = model.mean + (direction * spread).reshape(-1, 3)
        # Bone moves a little with every expression's direction: a tenth of it may be taken for shape.
        assert np.linalg.norm(model.identify(smiling)) < 0.35 * spread


def test_displacement_makes_one_face_the_other(mesh):
    model = shape_model()
    wanted = np.zeros(len(model.identity), np.float32)
    wanted[0] = 2 * model.identity_spread[0]
    pose = turned(model.mean, 20, 0.5)
    there = pose + model.displacement(pose, np.zeros_like(wanted), wanted)
    reached = model.identify(there)
    assert np.linalg.norm(reached - wanted) < 0.25 * np.linalg.norm(wanted)


def test_own_identity_moves_nothing(other):
    model = shape_model()
    own = model.identify(other)
    assert not model.displacement(other, own, own).any()


def test_field_is_zero_at_the_border_and_follows_the_points(mesh):
    change = np.zeros((468, 3), np.float32)
    change[:, 0] = 2.0
    field = bending(mesh, change, SIDE)
    assert field.shape == (FIELD_GRID, FIELD_GRID, 2)
    assert not field[[0, -1]].any() and not field[:, [0, -1]].any()
    inside = mesh[(np.abs(mesh[:, :2] - SIDE / 2) < 0.3 * SIDE).all(1)]
    shift = moved(inside, field, SIDE) - inside
    assert np.allclose(shift[:, 0], 2.0, atol=0.15)
    assert np.allclose(shift[:, 1:], 0, atol=1e-3)


def test_bent_points_never_fold(mesh, other):
    model = shape_model()
    change = model.displacement(mesh, model.identify(mesh), model.identify(other))
    field = bending(mesh, change, SIDE)
    step = SIDE / FIELD_GRID
    assert np.abs(np.diff(field[..., 0], axis=1)).max() < step
    assert np.abs(np.diff(field[..., 1], axis=0)).max() < step


def test_background_stands_still_while_the_mesh_trembles(mesh, other):
    """The mesh's noise of a third of a pixel moves the corners of the crop by less than a twentieth."""
    model, rng = shape_model(), np.random.default_rng(0)
    own, wanted = model.identify(mesh), model.identify(other)
    fields = []
    for _ in range(8):
        noisy = mesh + rng.normal(0, 0.3, mesh.shape).astype(np.float32)
        fields.append(bending(noisy, model.displacement(noisy, own, wanted), SIDE))
    spread = np.std(np.stack(fields), axis=0)
    corner = FIELD_GRID // 8
    for part in (
        spread[:corner, :corner],
        spread[:corner, -corner:],
        spread[-corner:, :corner],
        spread[-corner:, -corner:],
    ):
        assert part.max() < 0.05


def test_running_identity_eases_in_and_settles(other):
    model, rng = shape_model(), np.random.default_rng(1)
    true, running = model.identify(other), RunningIdentity()
    assert running.confidence == 0
    for _ in range(80):
        mean = running.update(true + rng.normal(0, 3, true.shape).astype(np.float32))
    assert running.confidence == 1
    assert np.abs(mean - true).max() < 2
    assert np.linalg.norm(mean - true) < 0.3 * 3 * np.sqrt(len(true))


def test_upright_undoes_a_pose(mesh):
    assert np.allclose(upright(turned(mesh, 33, 2.0, (5, 6, 7)), mesh), mesh, atol=0.05)


def test_model_survives_its_file(tmp_path):
    from training.data.shape_model import write

    model = shape_model()
    write(model, tmp_path / "model.npz")
    again = FaceShapeModel.load(tmp_path / "model.npz")
    assert np.allclose(again.solver, model.solver, atol=1e-5)


def test_learning_tells_people_from_expressions():
    """Meshes made of known parts: what moved within clips is expression, what differs between people identity."""
    from training.data.shape_model import learn

    rng = np.random.default_rng(3)
    base = mean_mesh() * np.float32(256)
    # Smooth directions away from bone: chin and cheeks for expression, jaw's width for people.
    low = np.clip((base[:, 1] - 150) / 60, 0, 1)
    opens = np.zeros_like(base)
    opens[:, 1] = low**2
    widens = np.zeros_like(base)
    widens[:, 0] = low * (base[:, 0] - 128) / 60
    people = np.stack([base + widens * rng.normal(0, 6) + opens * rng.normal(0, 2) for _ in range(60)])
    clips = [base + widens * rng.normal(0, 6) + opens * rng.uniform(-6, 6) for _ in range(4) for _ in range(1)]
    frames = np.concatenate([np.stack([person + opens * rng.uniform(-6, 6) for _ in range(20)]) for person in clips])
    which = np.concatenate([np.full(60, -1), np.repeat(np.arange(4), 20)])
    model = learn(np.concatenate([people, frames]).astype(np.float32), which, expressions=1, identities=2)
    cosine = abs(float(model.expression[0] @ (opens.ravel() / np.linalg.norm(opens))))
    assert cosine > 0.95
    assert abs(float(model.identity[0] @ (widens.ravel() / np.linalg.norm(widens)))) > 0.95
