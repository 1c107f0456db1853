"""dlib's five landmarks check the mesh."""

import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, astronaut_face
from understudy.vision.dlib_landmarks import FivePoints, disagreement, eye_distance
from understudy.vision.face import Face

ASTRONAUT, FACE = astronaut(), astronaut_face()
assert FACE.mesh is not None
MESH = FACE.mesh


@pytest.fixture(scope="module")
def five_points() -> FivePoints:
    return FivePoints()


def test_five_points_agree_with_the_mesh_on_a_real_face(five_points: FivePoints) -> None:
    assert disagreement(MESH, five_points.fit(ASTRONAUT, FACE)) < 0.05


def test_five_points_follow_a_rolled_face(five_points: FivePoints) -> None:
    turn = cv2.getRotationMatrix2D((220, 120), 60, 1.0).astype(np.float32)
    rolled = cv2.warpAffine(ASTRONAUT, turn, (512, 512))
    moved = Face(FACE.box, FACE.score, FACE.landmarks @ turn[:, :2].T + turn[:, 2])
    expected = five_points.fit(ASTRONAUT, FACE) @ turn[:, :2].T + turn[:, 2]
    gap = np.linalg.norm(five_points.fit(rolled.astype(np.uint8), moved) - expected, axis=1).max()
    assert gap < 0.05 * eye_distance(MESH)


def test_slipped_mesh_disagrees(five_points: FivePoints) -> None:
    slipped = MESH + np.array([0.3 * eye_distance(MESH), 0, 0], np.float32)
    assert disagreement(slipped, five_points.fit(ASTRONAUT, FACE)) > 0.2
