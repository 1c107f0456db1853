"""Real faces for tests: scikit-image's public-domain astronaut, still and moving."""

from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data

from liveframe.frame import Image
from understudy.swap.mesh_warp import ReferenceWarp
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face, Points
from understudy.vision.mesh import FaceMesh
from understudy.vision.reference import ReferenceFace, reference_face

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


def laid(still: ReferenceFace, mesh: Points, size: int) -> Image:
    """Return a still on another mesh: uint8 [size, size, 4], BGR and where it covers, 0 to 255."""
    warp = ReferenceWarp(still, size)
    positions, covered = warp.map(mesh)
    bgr = cv2.cvtColor(warp.sampled(positions, 1.0), cv2.COLOR_BGRA2BGR)
    return np.asarray(cv2.merge([*cv2.split(bgr), covered]), np.uint8)


def turned(yaw_deg: float, size: int = 384) -> Image:
    """Return the astronaut with her head turned, over a blurred picture: uint8 [size, size, 3]."""
    face = reference_face(astronaut(), astronaut_face())
    angle, middle = np.radians(yaw_deg), face.mesh.mean(0)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], np.float32)
    mesh = ((face.mesh - middle) @ turn.T + middle) * np.float32(0.8 * size / 256) + np.float32([0.1 * size] * 2 + [0])
    ground = cv2.GaussianBlur(cv2.resize(face.image, (size, size)), (0, 0), 15)
    painted = laid(face, mesh.astype(np.float32), size)
    return np.where(painted[..., 3:] > 0, painted[..., :3], ground).astype(np.uint8)


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
