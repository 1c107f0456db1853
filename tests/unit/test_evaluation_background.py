"""Movement beside the head is what the swap adds, not what the scene does."""

import cv2
import numpy as np
import pytest

from training.evaluation.background import BackgroundMeter
from training.evaluation.metrics import eye_distance, face_hull
from training.evaluation.self_swap import likeness, relit
from understudy.vision.align import mean_mesh
from understudy.vision.face import Points

Image = np.ndarray
_SIZE = 400


@pytest.fixture
def mesh() -> Points:
    return (mean_mesh() * 160 + [120, 110, 0]).astype(np.float32)


def _wall(shift_x: float = 0.0) -> Image:
    """A wall with smooth spots of 6 px or so, shifted."""
    noise = np.random.default_rng(0).normal(0, 1, (_SIZE, _SIZE, 3)).astype(np.float32)
    spots = cv2.GaussianBlur(noise, (0, 0), 3)
    shift = np.array([[1, 0, shift_x], [0, 1, 0]], np.float32)
    moved = cv2.warpAffine(spots / spots.std() * 40 + 128, shift, (_SIZE, _SIZE), borderMode=cv2.BORDER_REFLECT)
    return np.clip(moved, 0, 255).astype(np.uint8)


def _bent(image: Image, mesh: Points, by_px: float) -> Image:
    """Move what lies about the head to the right, fading to nothing at 2.5 ovals."""
    near = [face_hull(mesh, (_SIZE, _SIZE), grow).astype(np.float32) for grow in np.linspace(1.9, 2.5, 13)]
    weight = np.mean(near, axis=0).astype(np.float32)
    y, x = np.mgrid[:_SIZE, :_SIZE].astype(np.float32)
    return cv2.remap(image, x - by_px * weight, y, cv2.INTER_LINEAR)


def test_what_a_swap_leaves_alone_does_not_move(mesh: Points) -> None:
    first, second = _wall(), _wall(3)
    motion = BackgroundMeter().measure((first, first.copy()), (second, second.copy()), mesh)
    assert (motion.ring_pct, motion.outside_pct) == (0, 0)


def test_a_painted_face_moves_nothing_beside_it(mesh: Points) -> None:
    def painted(image: Image) -> Image:
        out = image.copy()
        out[face_hull(mesh, (_SIZE, _SIZE))] = 90
        return out

    first, second = _wall(), _wall(3)
    motion = BackgroundMeter().measure((first, painted(first)), (second, painted(second)), mesh)
    assert motion.ring_pct < 0.1 and motion.outside_pct < 0.1


@pytest.mark.parametrize("scene_px", [0.0, 3.0])
def test_a_steady_bend_counts_for_nothing_and_a_changing_one_by_its_change(mesh: Points, scene_px: float) -> None:
    first, second = _wall(), _wall(scene_px)
    meter = BackgroundMeter()
    steady = meter.measure((first, _bent(first, mesh, 4)), (second, _bent(second, mesh, 4)), mesh)
    shaken = meter.measure((first, _bent(first, mesh, 4)), (second, _bent(second, mesh, 1)), mesh)
    wanted = 100 * 3 / eye_distance(mesh)
    assert steady.ring_pct < 0.12 * wanted
    assert shaken.ring_pct == pytest.approx(wanted, rel=0.15)
    assert shaken.outside_pct < 0.5 * wanted


def test_a_bare_wall_cannot_be_seen_to_move(mesh: Points) -> None:
    bare = np.full((_SIZE, _SIZE, 3), 120, np.uint8)
    motion = BackgroundMeter().measure((bare, bare), (bare, bare), mesh)
    assert np.isnan(motion.ring_pct) and np.isnan(motion.outside_pct)


def test_the_same_face_is_entirely_alike(mesh: Points) -> None:
    assert likeness(_wall(), _wall(), mesh) == (1, 0)


def test_colour_difference_is_the_step_in_lab(mesh: Points) -> None:
    """Of greys only lightness differs, and its formula is known: L = 116 Y^(1/3) - 16."""
    levels = [100, 130]
    linear = [((level / 255 + 0.055) / 1.055) ** 2.4 for level in levels]
    lightness = [116 * value ** (1 / 3) - 16 for value in linear]
    first, second = (np.full((_SIZE, _SIZE, 3), level, np.uint8) for level in levels)
    ssim, step = likeness(first, second, mesh)
    assert step == pytest.approx(lightness[1] - lightness[0], abs=0.2)  # OpenCV interpolates a table
    assert ssim < 1


def test_an_unlike_face_is_told_and_one_outside_the_picture_is_not_measured(mesh: Points) -> None:
    assert likeness(_wall(), _wall(20), mesh)[0] < 0.5
    assert np.isnan(likeness(_wall(), _wall(), mesh + 900)).all()


def test_another_light_is_smooth_warm_and_the_same_each_time() -> None:
    grey = np.full((256, 256, 3), 120, np.uint8)
    lit = relit(grey)
    assert np.array_equal(lit, relit(grey)) and not np.array_equal(lit, relit(grey, seed=2))
    assert np.abs(np.diff(lit.astype(int), axis=1)).max() <= 4
    blue, green, red = lit.reshape(-1, 3).mean(0)
    assert blue < green < red
    assert np.array_equal(grey, np.full_like(grey, 120))
