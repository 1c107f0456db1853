"""Contact sheets: many pictures on one, to look at."""

from collections.abc import Sequence

import cv2
import numpy as np

from liveframe.frame import Image, check_image
from understudy.draw.label import Label

_GROUND = 32
_INK = (235, 235, 235)
_TITLE_PX = 24


def contact_sheet(
    images: Sequence[Image],
    columns: int = 12,
    cell: int = 96,
    gap: int = 2,
    title: str = "",
    labels: Sequence[str] = (),
) -> Image:
    """Lay pictures out in rows on a dark ground.

    Args:
        images: uint8 [H, W, 3] BGR, of any size; each is fitted into its cell, its sides' ratio kept.
        columns: pictures in a row; the last row may be shorter.
        cell: the cells' side, px.
        gap: px between cells and around them.
        title: a line above; none when empty.
        labels: a short text in each picture's corner; none, or as many as pictures.

    Returns:
        uint8 [H, W, 3], BGR; as wide as the row, or as `columns` cells where there is a title.

    Raises:
        ValueError: no pictures, columns or cell below 1, or as many labels as do not fit.
    """
    if not images or columns < 1 or cell < 1:
        raise ValueError(f"a sheet must have pictures, columns and cells, but got {len(images)}, {columns}, {cell}.")
    if labels and len(labels) != len(images):
        raise ValueError(f"a sheet must have as many labels as pictures ({len(images)}), but got {len(labels)}.")
    width = columns if title else min(columns, len(images))
    rows, top, pitch = -(-len(images) // columns), _TITLE_PX if title else 0, cell + gap
    sheet = np.full((top + rows * pitch + gap, width * pitch + gap, 3), _GROUND, np.uint8)
    for index, image in enumerate(images):
        y, x = top + gap + index // columns * pitch, gap + index % columns * pitch
        _place(sheet[y : y + cell, x : x + cell], image)
        if labels:
            _write(sheet, labels[index], (x + 3, y + cell - 4), 0.35)
    if title:
        _write(sheet, title, (gap + 4, _TITLE_PX - 7), 0.5)
    return sheet


def labelled(sheet: Image) -> Image:
    """Return a sheet with the mark "AI MODIFIED" on a strip above it, where it hides no face.

    Args:
        sheet: uint8 [H, W, 3], BGR.

    Returns:
        uint8 [H + strip, W, 3], BGR.
    """
    strip = np.full((_TITLE_PX, sheet.shape[1], 3), _GROUND, np.uint8)
    return np.vstack([Label()(strip), sheet])


def stack_sheets(sheets: Sequence[Image]) -> Image:
    """Stand sheets on each other: uint8 [sum of H, largest W, 3], BGR; narrower ones are filled up.

    Raises:
        ValueError: no sheets.
    """
    if not sheets:
        raise ValueError("a stack must have sheets, but got none.")
    width = max(sheet.shape[1] for sheet in sheets)
    filled = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=_GROUND) for s in sheets]
    return np.concatenate(filled)


def _place(cell: Image, image: Image) -> None:
    check_image(image, "a sheet's picture")
    side = cell.shape[0]
    zoom = side / max(image.shape[:2])
    height, width = (max(1, round(length * zoom)) for length in image.shape[:2])
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    top, left = (side - height) // 2, (side - width) // 2
    cell[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=method)


def _write(sheet: Image, text: str, at: tuple[int, int], height: float) -> None:
    """Write light letters over a dark shadow; characters that OpenCV's font lacks become '?'."""
    plain = text.encode("ascii", "replace").decode()
    for shift, ink in ((1, (0, 0, 0)), (0, _INK)):
        cv2.putText(sheet, plain, (at[0] + shift, at[1] + shift), cv2.FONT_HERSHEY_SIMPLEX, height, ink, 1, cv2.LINE_AA)
