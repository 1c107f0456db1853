"""Something to try everything on where there are no clips: scikit-image's public-domain astronaut, in motion.

    uv run python -m training.sample FOLDER

Two clips for training and one held out, and a photo. Enough to see every step work, not to train a good model:
it is one face with one expression.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE_PX = 384
_RATE_HZ = 15
# Of the face in scikit-image's picture (Eileen Collins, NASA).
_FACE_X, _FACE_Y = 222.0, 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Where the sample's files lie.

    Attributes:
        clips: to train on.
        held_out: to judge by.
        photo: one frontal picture of the same face.
    """

    clips: tuple[Path, ...]
    held_out: Path
    photo: Path


def write_sample(folder: Path, frames: int = 45) -> Sample:
    """Write the sample; the same bytes every time for the same number of frames.

    Args:
        folder: made where missing.
        frames: of each clip.
    """
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    image = np.ascontiguousarray(data.astronaut()[..., ::-1])
    clips = (folder / "sways.mp4", folder / "mirrored.mp4")
    _write_clip(clips[0], _moving(image, _FACE_X, frames, speed=1.0, light=0.15))
    _write_clip(
        clips[1], _moving(np.ascontiguousarray(image[:, ::-1]), image.shape[1] - _FACE_X, frames, speed=1.7, light=0.35)
    )
    held_out = folder / "held-out.mp4"
    _write_clip(held_out, _moving(image, _FACE_X, frames, speed=1.3, light=0.0))
    photo = folder / "astronaut.png"
    cv2.imwrite(str(photo), image)
    return Sample(clips, held_out, photo)


def _moving(image: NDArray[np.uint8], x: float, frames: int, speed: float, light: float) -> Iterator[NDArray[np.uint8]]:
    """Yield frames, uint8 [S, S, 3] BGR: the head sways, turns and nears, and the light comes and goes."""
    for phase in np.linspace(0, 2 * np.pi * speed, frames):
        matrix = cv2.getRotationMatrix2D((x, _FACE_Y), 12 * np.sin(1.3 * phase), 1.25 + 0.25 * np.cos(0.7 * phase))
        matrix[:, 2] += (_SIDE_PX / 2 - x + 40 * np.sin(phase), _SIDE_PX / 2 - _FACE_Y + 15 * np.cos(phase))
        frame = cv2.warpAffine(image, matrix, (_SIDE_PX, _SIDE_PX), borderMode=cv2.BORDER_REFLECT_101)
        yield cv2.convertScaleAbs(frame, alpha=1 - light * (1 + np.sin(phase)) / 2).astype(np.uint8)


def _write_clip(path: Path, frames: Iterator[NDArray[np.uint8]]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE_HZ, options={"crf": "18", "preset": "veryfast"})
        stream.height = stream.width = _SIDE_PX
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode(None))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="training.sample", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=45, help="of each clip (%(default)s)")
    options = parser.parse_args(arguments)
    sample = write_sample(options.folder, options.frames)
    for path in (*sample.clips, sample.held_out, sample.photo):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
