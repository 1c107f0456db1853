"""A reference's triangles, and the maps that the classic recipe learns by."""

import numpy as np

from tests.support.real_faces import astronaut, astronaut_face
from training.data.face_maps import attention_map, face_mask
from understudy.vision.align import mean_mesh
from understudy.vision.mesh import LEFT_EYE
from understudy.vision.reference import REFERENCE_PX, reference_face, triangles


def test_triangles_use_every_point_and_face_the_viewer():
    faces = triangles()
    assert set(faces.ravel()) == set(range(468))
    points = mean_mesh()[:, :2][faces]
    u, v = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    assert (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] > 0).all()


def test_masks_are_soft_inside_the_oval_and_zero_at_the_border():
    mesh = mean_mesh() * np.float32(128)
    mask, attention = face_mask(mesh, 128), attention_map(mesh, 128)
    assert mask[64, 64] == 255 and 0 < (mask > 0).mean() < 0.7
    assert len(np.unique(mask)) > 10
    assert not mask[0].any() and not mask[:, 0].any()
    x, y = mesh[list(LEFT_EYE), :2].mean(0).astype(int)
    assert attention[y, x] > 200 and attention[10, 64] == 0


def test_a_face_turned_away_may_not_be_replaced():
    mirrored = (mean_mesh() * np.array([-1, 1, 1], np.float32) + np.array([1, 0, 0], np.float32)) * np.float32(128)
    assert not face_mask(mirrored, 128).any()


def test_a_reference_is_as_large_as_its_picture_has_it():
    small = reference_face(astronaut(), astronaut_face())
    assert small.image.shape == (REFERENCE_PX[0],) * 2 + (3,)
