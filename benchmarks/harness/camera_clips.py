"""Clips for Chromium's fake camera: Y4M, 640x480, 30 fps, each frame numbered by a barcode in its bottom strip."""

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import skimage.data

from benchmarks.harness import barcode
from liveframe.frame import Image

SIZE = (480, 640)
FPS = 30


def write_y4m(path: Path, frames: Iterable[Image]) -> Path:
    """Write frames uint8 [480, 640, 3] BGR as Y4M, numbered from 0."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{SIZE[1]} H{SIZE[0]} F{FPS}:1 Ip A1:1 C420\n".encode())
        for number, frame in enumerate(frames):
            planes = cv2.cvtColor(barcode.drawn(frame, number), cv2.COLOR_BGR2YUV_I420)
            file.write(b"FRAME\n" + planes.tobytes())
    return path


def astronaut_frames(count: int = 90) -> list[Image]:
    """A public-domain face that moves and comes nearer, in a loop without a jump."""
    return [_astronaut(2 * np.pi * number / count) for number in range(count)]


def _astronaut(phase: float) -> Image:
    """One frame: the face's middle, (225, 122) in the photograph, drifts round the frame's middle."""
    photograph = skimage.data.astronaut()[..., ::-1]
    zoom = 1.5 + 0.2 * np.sin(phase)
    centre = (320 + 60 * np.sin(phase), 230 + 20 * np.cos(phase))
    matrix = np.array([[zoom, 0, centre[0] - 225 * zoom], [0, zoom, centre[1] - 122 * zoom]])
    return np.asarray(cv2.warpAffine(photograph, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT), np.uint8)


def video_frames(path: Path, count: int, keep: Callable[[int], bool] = lambda number: True) -> list[Image]:
    """Up to `count` frames of a video, scaled to fill 640x480."""
    video = cv2.VideoCapture(str(path))
    frames: list[Image] = []
    number = 0
    while len(frames) < count:
        has_frame, image = video.read()
        if not has_frame:
            break
        if keep(number):
            frames.append(_filled(np.asarray(image, np.uint8)))
        number += 1
    video.release()
    return frames


def _filled(image: Image) -> Image:
    """Scale and cut to 640x480, the middle kept."""
    height, width = image.shape[:2]
    zoom = max(SIZE[0] / height, SIZE[1] / width)
    matrix = np.array([[zoom, 0, (SIZE[1] - width * zoom) / 2], [0, zoom, (SIZE[0] - height * zoom) / 2]])
    return np.asarray(cv2.warpAffine(image, matrix, SIZE[::-1], flags=cv2.INTER_AREA), np.uint8)
