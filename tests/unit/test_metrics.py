"""Each metric on inputs whose answer is known: the same face, a turned one, a shifted one, another one."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation import metrics
from understudy.vision.align import mean_mesh
from understudy.vision.face import Points


@pytest.fixture
def mesh() -> Points:
    return (mean_mesh() * 200 + 40).astype(np.float32)


def _rotation(axis: str, angle_deg: float) -> NDArray[np.float64]:
    vector = np.array({"pitch": [1, 0, 0], "yaw": [0, 1, 0], "roll": [0, 0, 1]}[axis], np.float64)
    return cv2.Rodrigues(vector * np.radians(angle_deg))[0]


def _noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("axis", ["pitch", "yaw", "roll"])
@pytest.mark.parametrize("angle_deg", [0.05, 2.0, 35.0, 170.0])
def test_pose_error_is_the_angle_that_the_head_turned(mesh: Points, axis: str, angle_deg: float) -> None:
    turned = mesh @ _rotation(axis, angle_deg).T * 1.3 + [9, -4, 2]
    assert metrics.pose_error_deg(mesh, turned) == pytest.approx(angle_deg, abs=0.01)


def test_pose_error_of_the_same_face_is_zero(mesh: Points) -> None:
    assert metrics.pose_error_deg(mesh, mesh) == pytest.approx(0, abs=1e-5)


def test_similarity_fit_never_mirrors(mesh: Points) -> None:
    mirrored = mesh * np.float32([-1, 1, 1])
    _, rotation, _ = metrics.fit_similarity(mesh, mirrored)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_similarity_fit_recovers_scale_rotation_and_shift(mesh: Points) -> None:
    scale, rotation, shift = metrics.fit_similarity(mesh, mesh @ _rotation("yaw", 20).T * 1.5 + [7, 8, 9])
    assert scale == pytest.approx(1.5, rel=1e-5)
    assert rotation == pytest.approx(_rotation("yaw", 20), abs=1e-5)
    assert shift == pytest.approx([7, 8, 9], abs=1e-2)


def test_expression_error_ignores_where_and_how_large_the_face_is(mesh: Points) -> None:
    moved = mesh @ _rotation("roll", 25).T * 0.6 + [90, -30, 0]
    error = metrics.expression_error(mesh, moved)
    assert [error.expression_pct, error.mouth_pct, error.eyes_pct] == pytest.approx([0, 0, 0], abs=1e-3)
    assert [error.mouth_open_pct, error.eyes_open_pct] == pytest.approx([0, 0], abs=1e-3)


def test_a_mouth_moved_by_a_tenth_of_the_eye_distance_is_ten_percent_of_mouth_error(mesh: Points) -> None:
    moved = mesh.copy()
    moved[list(metrics.MESH.mouth), 1] += 0.1 * metrics.eye_distance(mesh)
    error = metrics.expression_error(mesh, moved)
    assert error.mouth_pct == pytest.approx(10, abs=1e-3)
    assert error.eyes_pct == pytest.approx(0, abs=1e-3)
    count = len(metrics.MESH.mouth), len(metrics.MESH.eyes)
    assert error.expression_pct == pytest.approx(10 * count[0] / sum(count), abs=1e-3)
    assert error.mouth_open_pct == pytest.approx(0, abs=1e-3)


def test_openness_says_how_much_wider_lips_and_lids_stand(mesh: Points) -> None:
    opened = mesh.copy()
    distance = metrics.eye_distance(mesh)
    opened[14, 1] += 0.08 * distance
    for _, lower in metrics.MESH.lids:
        opened[lower, 1] -= 0.01 * distance
    error = metrics.expression_error(mesh, opened)
    assert error.mouth_open_pct == pytest.approx(8, abs=0.2)
    assert error.eyes_open_pct == pytest.approx(-1, abs=0.05)


def test_second_opinion_scheme_measures_its_own_points() -> None:
    points = np.random.default_rng(3).uniform(0, 100, (68, 2)).astype(np.float32)
    points[36], points[45] = (0, 0), (100, 0)
    moved = points.copy()
    moved[list(metrics.IBUG68.mouth), 0] += 5
    error = metrics.expression_error(points, moved, metrics.IBUG68)
    assert (error.mouth_pct, error.eyes_pct) == pytest.approx((5, 0), abs=1e-3)


def test_gaze_offset_follows_the_iris_and_not_the_head() -> None:
    outer, inner, iris = np.float32([10, 50]), np.float32([50, 50]), np.float32([30, 52])
    offset = metrics.gaze_offset(iris, outer, inner)
    assert offset == pytest.approx([0.5, 0.05])
    turn = _rotation("roll", 30)[:2, :2]
    rolled = [2 * turn @ point + [5, 6] for point in (iris, outer, inner)]
    assert metrics.gaze_offset(*rolled) == pytest.approx(offset)


def test_gaze_error_is_the_iris_shift_in_percent_of_the_eye_width() -> None:
    straight = [np.array([0.5, 0.0]), np.array([0.5, 0.0])]
    aside = [np.array([0.6, 0.0]), np.array([0.5, 0.0])]
    assert metrics.gaze_error_pct(straight, straight) == 0
    assert metrics.gaze_error_pct(straight, aside) == pytest.approx(5)


def test_steady_motion_is_no_jitter() -> None:
    time = np.arange(30)[:, None, None]
    assert metrics.jitter(np.broadcast_to(time * 3.0, (30, 14, 2))) == pytest.approx(0, abs=1e-9)


def test_jitter_of_white_noise_is_its_known_second_difference() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (4000, 14, 2))
    assert metrics.jitter(noise) == pytest.approx(np.sqrt(2 * 6), rel=0.02)  # 1 + 4 + 1, in x and y


def test_jitter_ratio_is_how_much_more_the_swap_shakes() -> None:
    source = np.random.default_rng(1).normal(0, 1, (100, 14, 2))
    assert metrics.jitter_ratio(source, source) == pytest.approx(1)
    assert metrics.jitter_ratio(source, 1.5 * source) == pytest.approx(1.5)
    assert metrics.jitter_ratio(np.zeros((9, 14, 2)), np.zeros((9, 14, 2))) == 1
    assert metrics.jitter_ratio(np.zeros((9, 14, 2)), source[:9]) == np.inf


def test_jitter_leaves_out_what_touches_a_missing_frame() -> None:
    source = np.random.default_rng(1).normal(0, 1, (40, 14, 2))
    swapped = source.copy()
    swapped[20] = np.nan
    assert metrics.jitter_ratio(source, swapped) == pytest.approx(1)
    assert np.isnan(metrics.jitter(np.full((5, 14, 2), np.nan)))


def test_frame_change_is_the_mean_step_in_grey_levels_under_the_mask() -> None:
    before = _noise((32, 32, 3)) // 2
    mask = np.zeros((32, 32), bool)
    mask[:16] = True
    after = before.copy()
    after[:16] += 7
    after[16:] += 90
    assert metrics.frame_change(before, before, mask) == 0
    assert metrics.frame_change(before, after, mask) == pytest.approx(7)


def test_outside_psnr_looks_only_outside() -> None:
    source = _noise((40, 40, 3)) // 2
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    swapped = source.copy()
    swapped[inside] = 255
    assert metrics.outside_psnr_db(source, swapped, inside) == metrics.PSNR_CAP_DB
    assert metrics.outside_psnr_db(source, source + np.uint8(1), inside) == pytest.approx(48.13, abs=0.01)
    assert np.isnan(metrics.outside_psnr_db(source, swapped, np.ones((40, 40), bool)))


def test_face_hull_covers_the_oval_and_grows_about_its_centre(mesh: Points) -> None:
    hull, grown = (metrics.face_hull(mesh, (300, 300), grow) for grow in (1.0, 1.4))
    assert hull[tuple(mesh[1, 1::-1].astype(int))]
    assert (grown & hull).sum() == hull.sum()
    assert grown.sum() / hull.sum() == pytest.approx(1.4**2, rel=0.03)


def test_changed_share_counts_repainted_pixels_in_the_middle_of_a_face() -> None:
    source = np.full((100, 80, 3), 90, np.uint8)
    middle = metrics.box_middle(np.float32([20, 20, 60, 80]), (100, 80))
    assert middle.sum() == pytest.approx(np.pi * 12 * 18, rel=0.1)
    half = source.copy()
    half[:50] += 10
    assert metrics.changed_share(source, source, middle) == 0
    assert metrics.changed_share(source, half, middle) == pytest.approx(0.5, abs=0.03)
    assert metrics.changed_share(source, source + np.uint8(2), middle) == 0  # a watermark is no swap
    outside = metrics.box_middle(np.float32([-90, -90, -50, -40]), (100, 80))
    assert metrics.changed_share(source, half, outside) == 0


def test_changed_region_is_the_largest_repainted_piece_without_holes() -> None:
    source = np.full((120, 120, 3), 90, np.uint8)
    swapped = source.copy()
    cv2.circle(swapped, (60, 60), 30, (120, 120, 120), -1)
    cv2.circle(swapped, (60, 60), 2, (90, 90, 90), -1)
    cv2.circle(swapped, (110, 10), 3, (120, 120, 120), -1)
    region = metrics.changed_region(source, swapped, np.ones((120, 120), bool))
    assert region[60, 60] and not region[10, 110]
    assert region.sum() == pytest.approx(np.pi * 30**2, rel=0.05)
    assert not metrics.changed_region(source, source, np.ones((120, 120), bool)).any()


def test_seam_is_the_colour_step_across_the_edge() -> None:
    mask = np.zeros((90, 90), bool)
    cv2_mask = mask.astype(np.uint8)
    cv2.circle(cv2_mask, (45, 45), 25, 1, -1)
    mask = cv2_mask.astype(bool)
    flat = np.full((90, 90, 3), 119, np.uint8)  # Lab lightness 50
    stepped = flat.copy()
    stepped[mask] = 145  # Lab lightness 60
    assert metrics.seam_delta_e(flat, mask, 5) == pytest.approx(0, abs=1e-6)
    # Sharma 2005: grey 50 against 60 is delta L' 10 over S_L at mean lightness 55.
    lightness = [cv2.cvtColor(np.full((1, 1, 3), v / 255, np.float32), cv2.COLOR_BGR2Lab)[0, 0, 0] for v in (119, 145)]
    square = (np.mean(lightness) - 50) ** 2
    expected = (lightness[1] - lightness[0]) / (1 + 0.015 * square / np.sqrt(20 + square))
    assert metrics.seam_delta_e(stepped, mask, 5) == pytest.approx(expected, rel=0.01)


def test_seam_of_no_mask_is_unknown() -> None:
    assert np.isnan(metrics.seam_delta_e(_noise((20, 20, 3)), np.zeros((20, 20), bool), 3))


def test_cosine_tells_the_same_the_unrelated_and_the_opposite() -> None:
    ada, bea = np.float32([3, 0, 0]), np.float32([0, 0.2, 0])
    assert metrics.cosine(ada, ada * 2) == pytest.approx(1)
    assert metrics.cosine(ada, bea) == pytest.approx(0)
    assert metrics.cosine(ada, -ada) == pytest.approx(-1)
    assert np.isnan(metrics.cosine(ada, ada * 0))


def test_rank_counts_who_is_more_alike_and_ties_count_against() -> None:
    assert metrics.rank_of([0.1, 0.9, 0.3], 1) == 1
    assert metrics.rank_of([0.1, 0.9, 0.3], 0) == 3
    assert metrics.rank_of([0.5, 0.5], 0) == 2
