"""Frames to measure on: a clip, or scikit-image's public-domain astronaut, moved, turned and zoomed."""

from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def frames(clip: Path | None, width: int, height: int, count: int) -> list[Image]:
    """Return frames of one size; a short clip runs forth and back.

    Args:
        clip: a video file; None for the astronaut.
        width: of each frame, px.
        height: of each frame, px.
        count: how many.

    Raises:
        ValueError: the clip cannot be read.
    """
    if clip is None:
        return [_astronaut(step, width, height) for step in range(count)]
    read = [_covering(image, width, height) for image in islice(_read(clip), count)]
    if not read:
        raise ValueError(f"{clip} must be a readable clip, but gave no frame. Check the path.")
    there_and_back = read + read[-2:0:-1]
    return [there_and_back[step % len(there_and_back)] for step in range(count)]


def _read(clip: Path) -> Iterator[Image]:
    capture = cv2.VideoCapture(str(clip))
    while True:
        is_read, image = capture.read()
        if not is_read:
            return
        yield np.asarray(image, np.uint8)


def _covering(image: Image, width: int, height: int) -> Image:
    """Scale to cover the size, and cut the middle out."""
    scale = max(width / image.shape[1], height / image.shape[0])
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    matrix[:, 2] = (width - scale * image.shape[1]) / 2, (height - scale * image.shape[0]) / 2
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _astronaut(step: int, width: int, height: int) -> Image:
    """The head, a third of the frame's height, sways, nods and nears as a person before a camera does.

    The room behind stands still, as a webcam's does: where all of it moves, the tracker looks for new faces in nearly
    every frame (88 of 100), which talkers' clips make it do in 25 to 35; here it is 46.
    """
    from skimage import data

    image = np.ascontiguousarray(data.astronaut()[..., ::-1])
    phase = step / 30
    zoom = height / 360 * (1 + 0.15 * np.sin(0.9 * phase))
    matrix = cv2.getRotationMatrix2D((222, 120), 8 * np.sin(1.3 * phase), zoom)
    matrix[:, 2] += (width / 2 - 222 + 0.08 * width * np.sin(phase), height * 0.45 - 120)
    size = (width, height)
    moved = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    person = cv2.warpAffine(_silhouette(image.shape[0]), matrix, size)
    share = person[..., None].astype(np.float32) / 255
    return np.asarray(moved * share + _room(width, height) * (1 - share), np.uint8)


@cache
def _silhouette(side: int) -> Image:
    """Where the astronaut's head and shoulders are in the photograph: uint8 [S, S], soft at the edge."""
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (222, 112), (88, 122), 0, 0, 360, (255,), -1)
    shoulders = np.array([[20, side], [150, 215], [300, 215], [440, side]], np.int32)
    cv2.fillConvexPoly(mask, shoulders, (255,))
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 5), np.uint8)


@cache
def _room(width: int, height: int) -> Image:
    """A wall with a shelf's worth of things on it: uint8 [H, W, 3], BGR."""
    rng = np.random.default_rng(7)
    shade = np.linspace(150, 95, height)[:, None, None] + np.linspace(-15, 15, width)[None, :, None]
    room = np.repeat(shade, 3, axis=2).astype(np.uint8)
    for _ in range(40):
        corner = rng.uniform(0, 0.9, 2) * (width, height)
        end = corner + rng.uniform(0.02, 0.1, 2) * (width, height)
        colour = tuple(int(value) for value in rng.integers(40, 200, 3))
        cv2.rectangle(room, tuple(corner.astype(int).tolist()), tuple(end.astype(int).tolist()), colour, -1)
    return np.asarray(cv2.GaussianBlur(room, (0, 0), height / 240), np.uint8)
