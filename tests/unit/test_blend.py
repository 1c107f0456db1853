"""The merge: only the mask's pixels change, wherever the face lies and whatever sizes the network has."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.swap.blend import Blender, BlendSettings
from understudy.vision.align import align, mean_mesh
from understudy.vision.face import AlignedFace, Face

PLAIN = BlendSettings(colour_match=0, mask_feather=0, use_hull=False)
SIZE = 64


def scene(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def face_at(image: np.ndarray, x: float, y: float, side: float = 120, degrees: float = 0) -> AlignedFace:
    """A mean face whose unit crop is `side` px wide, centred at (x, y)."""
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    mesh = mean_mesh() * np.float32(side)
    mesh[:, :2] = (mesh[:, :2] - side / 2) @ rotation + (x, y)
    return align(image, Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh), SIZE)


def swap_of(colour: tuple[int, int, int], size: int = SIZE, radius: float = 0.25) -> np.ndarray:
    swap = np.empty((size, size, 4), np.uint8)
    swap[..., :3] = colour
    ys, xs = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5  # pixels have their colour at their centres
    edge = (radius - np.hypot(xs, ys)) * size + 0.5  # anti-aliased: the same disc at every size
    swap[..., 3] = np.rint(np.clip(edge, 0, 1) * 255)
    return swap


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def test_inside_becomes_the_swap_and_outside_stays_bit_exact() -> None:
    image = scene()
    out = image.copy()
    coverage = Blender().blend(out, face_at(image, 160, 120), swap_of((10, 200, 90)), PLAIN)
    ys, xs = np.mgrid[0:240, 0:320]
    half_px = 120 / SIZE / 2  # the middle of an even number of pixels lies between two
    distance = np.hypot(xs - 160 + half_px, ys - 120 + half_px)
    np.testing.assert_allclose(out[distance < 26], np.broadcast_to((10, 200, 90), out[distance < 26].shape), atol=1)
    np.testing.assert_array_equal(out[distance > 34], image[distance > 34])
    assert coverage == pytest.approx(np.pi * 0.25**2, abs=0.01)


def test_arguments_are_not_changed() -> None:
    image = scene()
    face, swap = face_at(image, 160, 120), swap_of((10, 200, 90), 128)
    crop, kept = face.crop.copy(), swap.copy()
    Blender().blend(image.copy(), face, swap, BlendSettings(strength=0.5, mask_size=-0.1))
    np.testing.assert_array_equal(swap, kept)
    np.testing.assert_array_equal(face.crop, crop)


@pytest.mark.parametrize("size", [32, 128, 256])
def test_network_size_does_not_move_the_swap(size: int) -> None:
    image = np.full((240, 320, 3), 100, np.uint8)
    face = face_at(image, 150.5, 110.25, degrees=20)
    seen = []
    for side in (SIZE, size):
        out = image.copy()
        Blender().blend(out, face, swap_of((250, 250, 250), side), PLAIN)
        share = (out[..., 0].astype(float) - 100) / 150
        ys, xs = np.mgrid[0:240, 0:320]
        seen.append(((share * xs).sum() / share.sum(), (share * ys).sum() / share.sum(), np.sqrt(share.sum())))
    np.testing.assert_allclose(seen[0], seen[1], atol=0.1)


def test_strength_mixes_camera_and_persona() -> None:
    image = np.full((240, 320, 3), 100, np.uint8)
    face, levels = face_at(image, 160, 120), []
    for strength in (0.0, 0.5, 1.0):
        out = image.copy()
        Blender().blend(out, face, swap_of((200, 200, 200)), BlendSettings(strength, 0, 0, 0, use_hull=False))
        levels.append(int(out[120, 160, 0]))
    assert levels[0] == 100
    assert levels[1] == pytest.approx(150, abs=2)
    assert levels[2] == pytest.approx(200, abs=1)


def test_colour_match_gives_the_swap_the_camera_s_mean_and_spread() -> None:
    image = cv2.convertScaleAbs(scene(), alpha=0.5, beta=20)
    face = face_at(image, 160, 120)
    swap = swap_of((0, 0, 0))
    swap[..., :3] = cv2.convertScaleAbs(scene(SIZE, SIZE, seed=1), alpha=0.5, beta=100)
    inside = np.hypot(*(np.mgrid[0:240, 0:320] - np.array([120, 160])[:, None, None])) < 24
    errors = {}
    for amount in (0.0, 1.0):
        out = image.copy()
        Blender().blend(out, face, swap, BlendSettings(1, amount, 0, 0, use_hull=False))
        errors[amount] = abs(out[inside].mean() - image[inside].mean())
    assert errors[0.0] > 40
    assert errors[1.0] < 6


def test_feather_is_soft_and_stays_inside_the_network_s_mask() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    out, hard = image.copy(), image.copy()
    face, swap = face_at(image, 160, 120), swap_of((255, 255, 255))
    Blender().blend(hard, face, swap, PLAIN)
    Blender().blend(out, face, swap, BlendSettings(1, 0, 0.1, 0, use_hull=False))
    row = out[120, 120:200, 0].astype(int)
    assert np.count_nonzero((row > 10) & (row < 245)) > 12
    assert not (changed(image, out) & ~cv2.dilate(hard[..., 0], np.ones((3, 3))).astype(bool)).any()


def test_mask_size_moves_the_edge() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    face, areas = face_at(image, 160, 120), []
    for amount in (-0.08, 0.0, 0.08):
        out = image.copy()
        Blender().blend(out, face, swap_of((255, 255, 255)), BlendSettings(1, 0, 0, amount, use_hull=False))
        areas.append(np.count_nonzero(out[..., 0]))
    assert areas[0] < 0.75 * areas[1] < areas[1] < 0.75 * areas[2]


def test_hull_keeps_the_swap_within_the_face_oval() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    face, swap = face_at(image, 160, 120), swap_of((255, 255, 255), radius=2)
    out = image.copy()
    Blender().blend(out, face, swap, BlendSettings(1, 0, 0, 0, use_hull=True))
    assert face.face.mesh is not None
    oval = cv2.convexHull(np.round(face.face.mesh[:, :2]).astype(np.int32))
    allowed = cv2.fillConvexPoly(np.zeros((240, 320), np.uint8), oval, (255,))
    spilled = changed(image, out) & (cv2.dilate(allowed, np.ones((9, 9))) == 0)
    assert not spilled.any()
    assert changed(image, out).sum() > 0.8 * np.count_nonzero(allowed)


def test_mask_that_reaches_the_crop_s_border_leaves_no_hard_square() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    out = image.copy()
    swap = swap_of((255, 255, 255), radius=2)
    Blender().blend(out, face_at(image, 160, 120), swap, BlendSettings(1, 0, 0.1, 0, use_hull=False))
    steps = np.abs(np.diff(out[120, :, 0].astype(int)))
    assert steps.max() < 80


@pytest.mark.parametrize(("x", "y"), [(0, 120), (319, 120), (160, 0), (160, 239), (-10, -10), (330, 250)])
def test_face_partly_outside_is_blended_where_it_is_visible(x: float, y: float) -> None:
    image = scene()
    out = image.copy()
    coverage = Blender().blend(out, face_at(image, x, y), swap_of((255, 0, 255)), PLAIN)
    assert coverage > 0.1
    assert changed(image, out).any()
    assert not changed(image, out)[np.hypot(*(np.mgrid[0:240, 0:320] - np.array([y, x])[:, None, None])) > 36].any()


def test_face_outside_the_frame_leaves_it_alone() -> None:
    image = scene()
    out = image.copy()
    Blender().blend(out, face_at(image, 900, 900), swap_of((255, 0, 255)), PLAIN)
    np.testing.assert_array_equal(out, image)


def test_empty_mask_replaces_nothing_and_says_so() -> None:
    image = scene()
    out = image.copy()
    assert Blender().blend(out, face_at(image, 160, 120), swap_of((255, 0, 255), radius=0)) == 0
    np.testing.assert_array_equal(out, image)


def test_mask_that_lets_the_camera_s_face_shine_through_hides_nothing() -> None:
    image = scene()
    face, swap = face_at(image, 160, 120), swap_of((255, 0, 255))
    swap[..., 3] = swap[..., 3] // 2
    assert Blender().blend(image.copy(), face, swap, PLAIN) == 0


def test_small_face_is_averaged_down_not_aliased() -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    swap = swap_of((0, 0, 0), 256)
    swap[:, ::2, :3] = 255
    out = image.copy()
    Blender().blend(out, face_at(image, 160, 120, side=60), swap, PLAIN)
    inside = out[112:128, 152:168].astype(int)
    assert np.abs(inside - 128).max() < 12


def test_scratch_left_by_a_larger_face_does_not_show_in_a_smaller_one() -> None:
    image, used = scene(), Blender()
    used.blend(image.copy(), face_at(image, 160, 120, side=220), swap_of((1, 2, 3), 256, radius=2))
    again, fresh = image.copy(), image.copy()
    used.blend(again, face_at(image, 60, 60, side=50), swap_of((255, 0, 255)))
    Blender().blend(fresh, face_at(image, 60, 60, side=50), swap_of((255, 0, 255)))
    np.testing.assert_array_equal(again, fresh)


def test_steady_state_allocates_far_less_than_a_frame() -> None:
    image = scene(1280, 720)
    out, blender = image.copy(), Blender()
    face, swap = face_at(image, 640, 360, side=400), swap_of((10, 200, 90), 256, radius=0.4)
    blender.blend(out, face, swap)
    tracemalloc.start()
    blender.blend(out, face, swap)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < image.nbytes / 8


@pytest.mark.parametrize(
    "wrong",
    [{"strength": 1.1}, {"strength": float("nan")}, {"colour_match": -1}, {"mask_feather": 1}, {"mask_size": 2}],
)
def test_setting_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BlendSettings(**wrong)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(-200, 500),
    y=st.floats(-200, 440),
    side=st.floats(8, 900),
    degrees=st.floats(-180, 180),
    size=st.sampled_from([16, 48, 64, 128]),
)
def test_any_place_size_and_roll_stays_within_the_crop(
    x: float, y: float, side: float, degrees: float, size: int
) -> None:
    image = np.full((240, 320, 3), 7, np.uint8)
    out = image.copy()
    coverage = Blender().blend(out, face_at(image, x, y, side, degrees), swap_of((255, 255, 255), size, radius=2))
    distance = np.hypot(*(np.mgrid[0:240, 0:320] - np.array([y, x])[:, None, None]))
    assert not changed(image, out)[distance > side * 0.75 + 3].any()
    assert 0 <= coverage <= 1
