"""Real little clips for tests: H.264 and sound, pictures numbered by a barcode that survives encoding."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

_BITS = 10


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def numbered(number: int, width: int = 160, height: int = 96, background: int = 90) -> NDArray[np.uint8]:
    """A picture that carries a number in its top rows: uint8 [H, W, 3] BGR, with a disc that moves."""
    image = np.full((height, width, 3), background, np.uint8)
    cell = width // _BITS
    for bit in range(_BITS):
        image[: height // 4, bit * cell : (bit + 1) * cell] = 235 if number >> bit & 1 else 20
    cv2.circle(image, (20 + number * 3 % (width - 40), height * 2 // 3), height // 6, (60, 120, 200), -1)
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """The number of a picture from `numbered`, also after encoding."""
    height, width = image.shape[:2]
    cell = width // _BITS
    rows = image[height // 16 : height * 3 // 16].mean(axis=(0, 2))
    return sum(
        1 << bit for bit in range(_BITS) if rows[bit * cell + cell // 4 : (bit + 1) * cell - cell // 4].mean() > 128
    )


def write_clip(path: Path, images: Sequence[NDArray[np.uint8]], times_s: Sequence[float], crf: int = 10) -> Path:
    """Write pictures at given times, to a millisecond, as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": str(crf), "preset": "ultrafast"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image, time_s in zip(images, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = round(time_s * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_sound(clip: Path, target: Path, seconds: float, codec: str = "aac") -> Path:
    """Lay a tone beside a clip's pictures, which are copied."""
    tone = f"sine=frequency=440:duration={seconds}"
    ffmpeg("-i", clip, "-f", "lavfi", "-i", tone, "-c:v", "copy", "-c:a", codec, target)
    return target


def rotate(clip: Path, target: Path, degrees: int) -> Path:
    """Say in the header that players turn the clip counterclockwise; the pictures stay as they are."""
    ffmpeg("-i", clip, "-c", "copy", "-metadata:s:v:0", f"rotate={degrees}", target)
    return target


def read_clip(path: Path) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """All pictures (as stored) and their times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="bgr24") for frame in frames], [float(frame.time) for frame in frames]


def read_sound(path: Path) -> NDArray[np.float32]:
    """The first sound track, mono: float32 [samples]."""
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate([np.atleast_2d(block).astype(np.float32).mean(axis=0) for block in blocks])
