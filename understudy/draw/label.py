"""The visible mark on everything that leaves: "AI MODIFIED", top right, unobstructed.

The wording and the place follow the EU Code of Practice on marking AI-generated content (June 2026).
"""

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image, check_image

LABEL_TEXT = "AI MODIFIED"
_PANEL_OPACITY = 0.72  # white text on it keeps a contrast of 8:1 over pure white
_HEIGHT_SHARE = 0.05
_MIN_HEIGHT_PX = 16
_MAX_WIDTH_SHARE = 0.9
_CACHED_SIZES = 8


@dataclass(frozen=True, slots=True)
class _Stamp:
    """One size of the mark: the picture keeps `keep`/255 of itself there, and gains `plus`."""

    top: int
    left: int
    keep: NDArray[np.uint8]
    plus: NDArray[np.uint8]


class Label:
    """Paints the mark into a picture, in place. A `liveframe.gate.Paint`; thread-safe; about 0.05 ms at 480p.

    Mirror a picture before this paints on it, not after: mirrored text is no disclosure.

    Args:
        text: what it says.
    """

    def __init__(self, text: str = LABEL_TEXT) -> None:
        if not text.strip():
            raise ValueError("A label must say something, but its text is empty. Leave it out to use the default.")
        self._text = text
        self._stamps: dict[tuple[int, int], _Stamp] = {}
        self._lock = threading.Lock()

    def __call__(self, image: Image) -> Image:
        """Paint the mark.

        Args:
            image: uint8 [H, W, 3], BGR, writable; changed in place.

        Returns:
            The same array.

        Raises:
            FrameError: not an image.
        """
        check_image(image)
        stamp = self._stamp(image.shape[0], image.shape[1])
        height, width = stamp.keep.shape[:2]
        region = image[stamp.top : stamp.top + height, stamp.left : stamp.left + width]
        cv2.multiply(region, stamp.keep, dst=region, scale=1 / 255)
        cv2.add(region, stamp.plus, dst=region)
        return image

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Say where the mark lies in a picture of this size: xyxy, px."""
        stamp = self._stamp(height, width)
        return stamp.left, stamp.top, stamp.left + stamp.keep.shape[1], stamp.top + stamp.keep.shape[0]

    def _stamp(self, height: int, width: int) -> _Stamp:
        with self._lock:
            stamp = self._stamps.get((height, width))
            if stamp is None:
                if len(self._stamps) >= _CACHED_SIZES:
                    self._stamps.clear()
                stamp = self._stamps[height, width] = _make_stamp(self._text, height, width)
            return stamp


def _make_stamp(text: str, height: int, width: int) -> _Stamp:
    """Draw the mark for one frame size."""
    text_share, opacity = _draw(text, max(_MIN_HEIGHT_PX, round(_HEIGHT_SHARE * height)))
    shrink = min(1.0, _MAX_WIDTH_SHARE * width / opacity.shape[1], _MAX_WIDTH_SHARE * height / opacity.shape[0])
    if shrink < 1:
        size = max(1, round(opacity.shape[1] * shrink)), max(1, round(opacity.shape[0] * shrink))
        text_share = cv2.resize(text_share, size, interpolation=cv2.INTER_AREA)
        opacity = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
    margin = min(round(0.02 * height), height - opacity.shape[0], width - opacity.shape[1])
    keep = np.rint(255 * (1 - opacity) * (1 - text_share)).astype(np.uint8)
    plus = np.rint(255 * text_share).astype(np.uint8)
    return _Stamp(margin, width - margin - opacity.shape[1], _three(keep), _three(plus))


def _three(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a plane for blue, green and red: uint8 [h, w] -> [h, w, 3], contiguous."""
    return np.ascontiguousarray(np.repeat(plane[..., None], 3, axis=2))


def _draw(text: str, panel_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw text on a panel with round corners: the text's share and the panel's opacity, float32 [h, w], 0 to 1."""
    from PIL import Image as Pictures
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=round(0.62 * panel_px))
    left, top, right, bottom = font.getbbox(text)
    size = round(right - left + 0.9 * panel_px), panel_px
    letters, panel = Pictures.new("L", size), Pictures.new("L", size)
    where = (size[0] - (right + left)) / 2, (panel_px - (bottom + top)) / 2
    ImageDraw.Draw(letters).text(where, text, fill=255, font=font, stroke_width=panel_px // 40)
    ImageDraw.Draw(panel).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=panel_px // 4, fill=255)
    opacity = np.asarray(panel, np.float32) * np.float32(_PANEL_OPACITY / 255)
    return np.asarray(letters, np.float32) / np.float32(255), opacity
