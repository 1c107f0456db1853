"""What stands in for the camera's picture when nothing else may be shown."""

from enum import StrEnum
from functools import lru_cache

import cv2
import numpy as np

from liveframe.frame import Image

MOSAIC_CELLS = (16, 12)  # columns, rows: the only camera detail that ever leaves a cover
SMALLEST_CELL_PX = 16
SLATE_SIZE = (480, 640)  # height, width where no frame tells the size
_SLATE_BGR = (46, 40, 36)
_TEXT_BGR = (225, 222, 218)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class CoverStyle(StrEnum):
    """How a picture that may not be shown is covered.

    BLUR: the camera's colours as a blurred mosaic of at most 16 x 12 cells.
    SLATE: a plain card with a sentence.
    HOLD: the last good picture stands still, then the slate.
    """

    BLUR = "blur"
    SLATE = "slate"
    HOLD = "hold"


def blur_cover(image: Image) -> Image:
    """Cover a picture with its own colours, without its detail.

    Args:
        image: uint8 [H, W, 3], BGR.

    Returns:
        A new uint8 [H, W, 3], BGR: a mosaic of at most 16 x 12 cells, none smaller than
        16 px (one flat cell where the picture is smaller), blurred and enlarged.
    """
    height, width = image.shape[:2]
    columns = min(MOSAIC_CELLS[0], max(1, width // SMALLEST_CELL_PX))
    rows = min(MOSAIC_CELLS[1], max(1, height // SMALLEST_CELL_PX))
    mosaic = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    mosaic = cv2.GaussianBlur(mosaic, (5, 5), 0)
    return np.asarray(cv2.resize(mosaic, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@lru_cache(maxsize=4)
def slate(height: int, width: int, sentence: str) -> Image:
    """Draw a card with a sentence in its middle.

    Args:
        height: px, at least 1.
        width: px, at least 1.
        sentence: what the viewer reads; characters outside ASCII show as "?".

    Returns:
        uint8 [height, width, 3], BGR, read-only and shared by equal calls: copy before painting.
    """
    card = np.empty((height, width, 3), np.uint8)
    card[:] = _SLATE_BGR
    scale = max(0.3, min(height, width) / 640)
    lines = _wrap(sentence, scale, int(width * 0.84))
    step = int(cv2.getTextSize("Ag", _FONT, scale, 1)[0][1] * 2.1)
    top = (height - step * (len(lines) - 1)) // 2
    for row, line in enumerate(lines):
        (line_width, line_height), _ = cv2.getTextSize(line, _FONT, scale, 1)
        origin = ((width - line_width) // 2, top + row * step + line_height // 2)
        cv2.putText(card, line, origin, _FONT, scale, _TEXT_BGR, max(1, round(scale)), cv2.LINE_AA)
    card.flags.writeable = False
    return card


def _wrap(sentence: str, scale: float, widest: int) -> list[str]:
    """Break a sentence into lines of at most `widest` px, at most six."""
    lines: list[str] = []
    for word in sentence.encode("ascii", "replace").decode()[:400].split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and cv2.getTextSize(longer, _FONT, scale, 1)[0][0] <= widest:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:6]
