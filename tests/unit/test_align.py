import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, astronaut_face, moved
from understudy.vision.align import align, crop_matrix, cut_out, mean_mesh, similarity, transform
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face
from understudy.vision.mesh import FaceMesh


def test_similarity_finds_the_turn_scale_and_shift_that_made_the_points():
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 100, (12, 2)).astype(np.float32)
    turn, scale = np.radians(25), 1.7
    made = np.array(
        [[np.cos(turn) * scale, -np.sin(turn) * scale, 12], [np.sin(turn) * scale, np.cos(turn) * scale, -30]],
        np.float32,
    )
    found = similarity(source, transform(source, made))
    np.testing.assert_allclose(found, made, atol=1e-3)


def test_mean_face_is_upright_symmetric_and_inside_the_crop():
    mesh = mean_mesh()
    right, left = mesh[[33, 133], :2].mean(0), mesh[[362, 263], :2].mean(0)
    assert abs(right[1] - left[1]) < 0.01
    assert abs((right[0] + left[0]) / 2 - 0.5) < 0.015
    assert mesh[:, :2].min() > 0 and mesh[:, :2].max() < 1


def test_aligned_eyes_lie_level_where_the_mean_faces_lie_whatever_the_roll():
    for angle in (-30.0, 0.0, 20.0):
        image = moved(astronaut(), angle, 1.4)
        face = FaceMesh().refine(image, FaceDetector().detect(image)[0])
        eyes = align(image, face, 256).mesh[[33, 263], :2]
        assert abs(eyes[0, 1] - eyes[1, 1]) < 8
        np.testing.assert_allclose(eyes.mean(0), mean_mesh()[[33, 263], :2].mean(0) * 256, atol=10)


def test_crop_matrix_scales_with_the_crop():
    mesh = astronaut_face().mesh
    np.testing.assert_allclose(crop_matrix(mesh, 256), crop_matrix(mesh, 128) * 2, rtol=1e-4, atol=1e-2)


def test_face_without_mesh_is_refused():
    face = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32))
    with pytest.raises(ValueError, match="must have a mesh"):
        align(astronaut(), face, 64)


def test_frame_is_left_as_it_is():
    before = astronaut().copy()
    align(astronaut(), astronaut_face(), 128)
    np.testing.assert_array_equal(before, astronaut())


@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101])
@pytest.mark.parametrize(
    ("x", "y", "zoom"), [(40, 30, 1.1), (-60, 20, 1.4), (150, 140, 0.7), (900, 900, 1.0), (-9, -9, 9)]
)
def test_cutting_out_is_what_a_plain_warp_gives(x: float, y: float, zoom: float, border: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    turned = np.array([[0.9, -0.3, x / zoom], [0.3, 0.9, y / zoom]]) * zoom
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    plain = cv2.warpAffine(image, turned, (96, 96), flags=flags, borderMode=border)
    assert np.abs(cut_out(image, turned, 96, border).astype(int) - plain).max() <= 1
