"""Whole-picture pixelation for privacy: movement stays readable, identity and surroundings do not."""

import time

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Frame, FrameResult, Image
from liveframe.model import BatchSpec, check_batch


def pixelate(image: Image, columns: int) -> Image:
    """Replace a picture by flat tiles of its mean colours.

    Args:
        image: uint8 [H, W, 3], BGR.
        columns: tiles along the longer side.

    Returns:
        A new uint8 [H, W, 3], BGR.
    """
    height, width = image.shape[:2]
    scale = min(1.0, columns / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    tiles = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(tiles, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


class Pixelate:
    """A FrameModel and a BatchModel in one: the whole picture is the subject and is always replaced."""

    def __init__(self, columns: int = 32, size: int = 128, max_batch: int = 16) -> None:
        """Choose how coarse it is.

        Args:
            columns: tiles along the longer side; 8 to 96.
            size: px, height and width of what `predict` takes and gives.
            max_batch: the largest batch of `predict`.
        """
        if not 8 <= columns <= 96:
            raise ValueError(f"columns must be 8 to 96, but got {columns}. Fewer hide more.")
        self.columns = columns
        self.spec = BatchSpec((size, size, 3), (size, size, 3), max_batch)

    def warm_up(self) -> None:
        """Run once."""
        pixelate(np.zeros(self.spec.input_shape, np.uint8), self.columns)

    def open_session(self) -> "PixelateSession":
        """Start one viewer's stream."""
        return PixelateSession(self.columns)

    def predict(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Answer a batch: uint8 [N, S, S, 3] -> the same shape; takes no extras.

        Raises:
            FrameError: the batch has another shape or dtype, or too many items.
        """
        check_batch(batch, self.spec, extras)
        answer = np.empty_like(batch)
        for item, picture in enumerate(batch):
            answer[item] = pixelate(picture, self.columns)
        return answer


class PixelateSession:
    """One viewer's stream through `Pixelate`; keeps nothing between frames."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def process(self, frame: Frame) -> FrameResult:
        """Pixelate one frame."""
        start_s = time.perf_counter()
        image = pixelate(frame.image, self.columns)
        stages = {"pixelate": (time.perf_counter() - start_s) * 1e3}
        return FrameResult(image, frame.index, subjects_found=1, subjects_done=1, stages_ms=stages)

    def close(self) -> None:
        """Nothing to free."""
