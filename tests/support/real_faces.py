"""Real faces for tests: scikit-image's public-domain astronaut, still and moving."""

from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data

from liveframe.frame import Image
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face
from understudy.vision.mesh import FaceMesh

# Development data beside the repository; absent in CI.
SHARED = Path(__file__).parents[3] / "shared/data"


@cache
def astronaut() -> Image:
    """Return the picture: uint8 [512, 512, 3] BGR, read-only; one frontal face of about 100 px."""
    image = np.ascontiguousarray(skimage.data.astronaut()[:, :, ::-1])
    image.setflags(write=False)
    return image


@cache
def astronaut_face() -> Face:
    """Return the astronaut's face, with its mesh."""
    return FaceMesh().refine(astronaut(), FaceDetector().detect(astronaut())[0])


def moved(image: Image, angle_deg: float, zoom: float, shift_x: float = 0.0) -> Image:
    """Return the picture turned and zoomed about the face's middle and shifted to the right, same size."""
    matrix = cv2.getRotationMatrix2D((220.0, 120.0), angle_deg, zoom)
    matrix[:, 2] += (shift_x, 40.0)
    return cv2.warpAffine(image, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


def write_clip(path: Path, frames: list[Image], fps: int = 10) -> Path:
    """Write frames (uint8 [H, W, 3] BGR, one even size) as an H.264 clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def astronaut_clip(path: Path, frames: int = 12) -> Path:
    """Write a clip of the astronaut, who sways, turns and nears."""
    phase = np.linspace(0, 2 * np.pi, frames)
    pictures = [moved(astronaut(), 12 * np.sin(p), 1.2 + 0.2 * np.cos(p), 30 * np.sin(p)) for p in phase]
    return write_clip(path, pictures)
