"""The mark is there, top right, on any background and at any size."""

import numpy as np
import pytest

from liveframe.errors import FrameError
from understudy.draw.label import Label


def luminance(level: float) -> float:
    """Relative luminance of a grey level (WCAG 2)."""
    share = level / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("background", [0, 128, 255])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (180, 320), (640, 360)])
def test_mark_is_legible_at_the_top_right_on_any_background(background: int, height: int, width: int) -> None:
    image = np.full((height, width, 3), background, np.uint8)
    label = Label()
    assert label(image) is image
    left, top, right, bottom = label.box(height, width)
    assert left > width / 3 and right > 0.96 * width and bottom < 0.16 * height
    region = image[top:bottom, left:right, 0].astype(float)
    text, panel = luminance(region.max()), luminance(np.median(region))
    assert (text + 0.05) / (panel + 0.05) >= 7
    assert 0.05 < (region > 230).mean() < 0.5


def test_nothing_outside_the_mark_changes() -> None:
    before = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    after = Label()(before.copy())
    left, top, right, bottom = Label().box(240, 320)
    assert (after[top:bottom, left:right] != before[top:bottom, left:right]).mean() > 0.9
    after[top:bottom, left:right] = before[top:bottom, left:right]
    np.testing.assert_array_equal(after, before)


def test_text_decides_the_pixels() -> None:
    first, second = np.zeros((2, 240, 320, 3), np.uint8)
    assert not np.array_equal(Label("AI MODIFIED")(first), Label("AI MODIFIES")(second))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 300), (300, 8), (16, 16), (32, 48)])
def test_tiny_pictures_do_not_break_it(height: int, width: int) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    assert Label()(image).shape == (height, width, 3)


def test_views_are_painted_in_place() -> None:
    whole = np.full((240, 640, 3), 90, np.uint8)
    Label()(whole[:, :320])
    assert (whole[:, :320] != 90).any() and (whole[:, 320:] == 90).all()


def test_more_sizes_than_it_remembers_and_what_is_no_picture() -> None:
    label = Label()
    for width in range(100, 120):
        assert label(np.zeros((90, width, 3), np.uint8)).any()
    with pytest.raises(FrameError, match=r"uint8 \[H, W, 3\]"):
        label(np.zeros((90, 90), np.uint8))
    with pytest.raises(ValueError, match="must say something"):
        Label(" ")
