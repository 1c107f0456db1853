import numpy as np
import pytest

from tests.support.real_faces import astronaut, astronaut_face
from understudy.vision.align import align, mean_mesh
from understudy.vision.mesh import INNER_MOUTH, LEFT_EYE
from understudy.vision.reenact import (
    ReferenceFace,
    attention_map,
    caricature,
    composite,
    face_mask,
    main_triangles,
    reenact,
    triangles,
    warp_mesh,
)


def aligned(size=256):
    face = align(astronaut(), astronaut_face(), size)
    return face.crop, face.mesh


def test_triangles_use_every_point_and_face_the_viewer():
    faces = triangles()
    assert set(faces.ravel()) == set(range(468))
    points = mean_mesh()[:, :2][faces]
    u, v = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    assert (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] > 0).all()


def test_main_triangles_cover_the_same_face_with_far_fewer():
    whole, main = triangles(), main_triangles()
    assert len(main) < len(whole) * 0.4
    points = mean_mesh()[:, :2]

    def area(faces):
        u, v = points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]
        return float((u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() / 2)

    assert area(main) == pytest.approx(area(whole), rel=0.01)


def test_warp_onto_the_same_mesh_changes_nothing_inside():
    crop, mesh = aligned()
    warped, covered = warp_mesh(crop, mesh, mesh, 256)
    inside = covered > 0
    assert inside.mean() > 0.2
    assert np.abs(warped.astype(int) - crop)[inside].mean() < 1.0
    assert not warped[~inside].any()


def test_warp_moves_the_picture_with_the_mesh():
    crop, mesh = aligned()
    shifted = mesh + np.array([10, 0, 0], np.float32)
    warped, covered = warp_mesh(crop, mesh, shifted, 256)
    moved_there = np.roll(crop, 10, axis=1)
    inside = covered > 0
    assert np.abs(warped.astype(int) - moved_there)[inside].mean() < 1.5


def test_triangles_turned_away_are_culled():
    crop, mesh = aligned()
    mirrored = mesh * np.array([-1, 1, 1], np.float32) + np.array([256, 0, 0], np.float32)
    _, covered = warp_mesh(crop, mesh, mirrored, 256)
    assert not covered.any()


def test_reenacting_a_face_onto_itself_gives_that_face():
    crop, mesh = aligned()
    out, mask = reenact(ReferenceFace(crop, mesh), crop, mesh)
    assert np.abs(out.astype(int) - crop)[mask > 128].mean() < 3


def test_driver_keeps_inner_mouth_eyes_and_background():
    crop, mesh = aligned()
    grey = ReferenceFace(np.full_like(crop, 90), mesh)
    out, mask = reenact(grey, crop, mesh)
    assert np.array_equal(out[mask == 0], crop[mask == 0])
    x, y = mesh[list(LEFT_EYE), :2].mean(0).astype(int)
    assert np.abs(out[y, x].astype(int) - crop[y, x]).max() <= 8
    x, y = mesh[list(INNER_MOUTH), :2].mean(0).astype(int)
    assert np.abs(out[y, x].astype(int) - crop[y, x]).max() <= 8


def test_light_of_the_driver_is_moved_to_the_still():
    crop, mesh = aligned()
    dark = (crop * 0.4).astype(np.uint8)
    out, mask = reenact(ReferenceFace(crop, mesh), dark, mesh)
    inside = mask > 200
    assert abs(out[inside].mean() - dark[inside].mean()) < 0.25 * abs(crop[inside].mean() - dark[inside].mean())


def test_masks_are_soft_inside_the_oval_and_zero_at_the_border():
    mesh = mean_mesh() * np.float32(128)
    mask, attention = face_mask(mesh, 128), attention_map(mesh, 128)
    assert mask[64, 64] == 255 and 0 < (mask > 0).mean() < 0.7
    assert len(np.unique(mask)) > 10
    assert not mask[0].any() and not mask[:, 0].any()
    x, y = mesh[list(LEFT_EYE), :2].mean(0).astype(int)
    assert attention[y, x] > 200 and attention[10, 64] == 0


def test_composite_of_too_few_is_refused_as_it_would_resemble_them():
    crop, mesh = aligned(128)
    with pytest.raises(ValueError, match="at least 40"):
        composite([(crop, mesh)] * 39)


def test_composite_of_one_face_is_that_face():
    crop, mesh = aligned(128)
    still = composite([(crop, mesh)] * 40, 128)
    np.testing.assert_allclose(still.mesh, mesh, atol=1e-3)
    assert np.abs(still.image.astype(int) - crop).mean() < 2


def test_caricature_doubles_the_difference_from_the_average():
    crop, mesh = aligned(128)
    average = ReferenceFace(np.full_like(crop, 100), mesh)
    still = ReferenceFace(np.full_like(crop, 110), mesh)
    exaggerated = caricature(still, average, 2.0)
    assert abs(int(exaggerated.image[64, 64, 0]) - 120) <= 1
    assert np.array_equal(caricature(still, average, 1.0).image, still.image)
