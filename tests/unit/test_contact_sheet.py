"""Contact sheets place pictures where they belong."""

import numpy as np
import pytest

from liveframe.frame import Image
from tests.support.sheets import bears_label
from understudy.draw.contact_sheet import contact_sheet, labelled, stack_sheets


def plain(level: int, height: int = 40, width: int = 40) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def test_pictures_fill_rows_from_the_left() -> None:
    sheet = contact_sheet([plain(50), plain(100), plain(150)], columns=2, cell=20, gap=2)
    assert sheet.shape == (2 * 22 + 2, 2 * 22 + 2, 3)
    assert [sheet[12, 12, 0], sheet[12, 34, 0], sheet[34, 12, 0], sheet[34, 34, 0]] == [50, 100, 150, 32]


def test_wide_picture_keeps_its_ratio() -> None:
    sheet = contact_sheet([plain(200, 20, 80)], columns=1, cell=40, gap=0)
    assert (sheet[15:25] == 200).all() and (sheet[:14] == 32).all() and (sheet[26:] == 32).all()


def test_title_and_labels_are_drawn() -> None:
    bare = contact_sheet([plain(0)] * 2, columns=4, cell=64)
    named = contact_sheet([plain(0)] * 2, columns=4, cell=64, title="person 0", labels=["+5", "é"])
    assert named.shape[0] == bare.shape[0] + 24 and named.shape[1] == 4 * 66 + 2
    assert named[:24].max() > 200 and named[24:].max() > 200


def test_sheets_of_other_widths_stand_on_each_other() -> None:
    stack = stack_sheets([plain(10, 5, 30), plain(20, 7, 50)])
    assert stack.shape == (12, 50, 3) and stack[0, 40, 0] == 32 and stack[6, 40, 0] == 20


def test_label_stands_above_a_sheet_and_hides_nothing() -> None:
    sheet = plain(90, 60, 400)
    marked = labelled(sheet)
    np.testing.assert_array_equal(marked[-60:], sheet)
    strip = marked[:-60]
    assert strip[:, 250:].max() > 240 and strip[:, :200].max() == 32, "white letters at the right, nothing at the left"
    assert bears_label(marked) and not bears_label(sheet)


@pytest.mark.parametrize(("images", "columns", "labels"), [([], 1, ()), ([plain(1)], 0, ()), ([plain(1)], 1, "ab")])
def test_sheet_that_cannot_be_is_refused(images: list[Image], columns: int, labels: str) -> None:
    with pytest.raises(ValueError, match="a sheet must have"):
        contact_sheet(images, columns, labels=list(labels))
