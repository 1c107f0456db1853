"""A still's mesh, fitted anew."""

import numpy as np

from tests.support.real_faces import astronaut, astronaut_face
from training.still import refitted
from understudy.vision.align import align
from understudy.vision.reenact import ReferenceFace


def test_mesh_that_lies_beside_the_face_comes_back_onto_it():
    face = align(astronaut(), astronaut_face(), 256)
    beside = face.mesh + np.float32([5, -4, 0])
    found = refitted(ReferenceFace(face.crop, beside))
    np.testing.assert_array_equal(found.image, face.crop)
    before, after = (np.linalg.norm((mesh - face.mesh)[:, :2], axis=1).mean() for mesh in (beside, found.mesh))
    assert before > 6
    assert after < 2


def test_picture_without_a_face_keeps_its_mesh():
    face = align(astronaut(), astronaut_face(), 256)
    blank = ReferenceFace(np.full_like(face.crop, 128), face.mesh)
    np.testing.assert_array_equal(refitted(blank).mesh, face.mesh)
