"""The fine structure of a still, laid over what a network paints."""

import numpy as np
import pytest

from understudy.swap.skin_detail import SkinDetail
from understudy.vision.align import mean_mesh
from understudy.vision.mesh import LEFT_EYE, RIGHT_EYE
from understudy.vision.reenact import ReferenceFace

SIZE = 256
NOSE_TIP = 4


@pytest.fixture
def mesh():
    return (mean_mesh() * SIZE).astype(np.float32)


@pytest.fixture
def swap():
    return np.full((SIZE, SIZE, 4), (90, 110, 130, 200), np.uint8)


def dotted(mesh) -> ReferenceFace:
    """A grey still with a white dot on the tip of the nose."""
    image = np.full((SIZE, SIZE, 3), 100, np.uint8)
    x, y = np.round(mesh[NOSE_TIP, :2]).astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    return ReferenceFace(image, mesh)


def brightest(image) -> np.ndarray:
    y, x = np.unravel_index(image[..., :3].sum(-1, dtype=int).argmax(), image.shape[:2])
    return np.array([x, y])


def test_flat_still_adds_nothing(mesh, swap):
    still = ReferenceFace(np.full((SIZE, SIZE, 3), 77, np.uint8), mesh)
    np.testing.assert_array_equal(SkinDetail(still).added(swap, mesh, 1.0), swap)


def test_detail_lies_where_the_drivers_mesh_puts_it(mesh, swap):
    moved = mesh + np.float32([12, -7, 0])
    out = SkinDetail(dotted(mesh)).added(swap, moved, 1.0)
    assert np.abs(brightest(out) - moved[NOSE_TIP, :2]).max() <= 1.5
    assert out[..., :3].max() > 200


def test_mask_and_argument_stay_as_they_are(mesh, swap):
    before = swap.copy()
    out = SkinDetail(dotted(mesh)).added(swap, mesh, 1.5)
    np.testing.assert_array_equal(out[..., 3], 200)
    np.testing.assert_array_equal(swap, before)


def test_amount_scales_what_is_added(mesh, swap):
    detail = SkinDetail(dotted(mesh))
    half, whole = (detail.added(swap, mesh, amount)[..., :3].max() - 130.0 for amount in (0.4, 0.8))
    assert whole == pytest.approx(2 * half, abs=2)
    np.testing.assert_array_equal(detail.added(swap, mesh, 0.0), swap)


def test_eyes_get_no_detail(mesh, swap):
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    out = SkinDetail(ReferenceFace(noise, mesh)).added(swap, mesh, 1.0).astype(int)
    changed = np.abs(out - swap)[..., :3].mean(-1)
    for ring in (LEFT_EYE, RIGHT_EYE):
        x, y = np.round(mesh[list(ring), :2].mean(0)).astype(int)
        assert changed[y, x] <= 2
    x, y = np.round(mesh[NOSE_TIP, :2]).astype(int)
    assert changed[y - 5 : y + 6, x - 5 : x + 6].mean() > 20


@pytest.mark.parametrize("size", [64, 128, 512])
def test_swaps_of_other_sizes_get_the_same_detail(mesh, size):
    swap = np.full((size, size, 4), 100, np.uint8)
    scale = size / SIZE
    target = mesh * np.float32(scale)
    target[:, :2] += (scale - 1) / 2
    out = SkinDetail(dotted(mesh)).added(swap, target, 1.0)
    assert np.abs(brightest(out) - target[NOSE_TIP, :2]).max() <= max(1.5, 1.5 * scale)


def test_outside_the_mesh_nothing_is_added(mesh, swap):
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    small = mesh.copy()
    small[:, :2] = (small[:, :2] - SIZE / 2) * 0.5 + SIZE / 2
    out = SkinDetail(ReferenceFace(noise, mesh)).added(swap, small, 1.0)
    np.testing.assert_array_equal(out[:40], swap[:40])
