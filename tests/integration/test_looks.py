"""What a shipped persona looks like before cameras that see little: without colour, or in the dark."""

import cv2
import numpy as np
import pytest

from liveframe.frame import Frame, Image
from tests.support.real_faces import astronaut, astronaut_face
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.swap.swapper import FaceSwapper, SwapSettings
from understudy.vision.mesh import FACE_OVAL


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    model = FaceSwapper(Bundle.load(default_bundle()), SwapSettings("clara"))
    model.warm_up()
    return model


def face_pixels(image: Image) -> np.ndarray:
    """The pixels inside the face, float32 [N, 3], BGR, 0 to 255."""
    mesh, inside = astronaut_face().mesh, np.zeros(image.shape[:2], np.uint8)
    assert mesh is not None
    cv2.fillConvexPoly(inside, cv2.convexHull(np.rint(mesh[list(FACE_OVAL), :2]).astype(np.int32)), 255)
    return image[cv2.erode(inside, np.ones((9, 9), np.uint8)) > 0].astype(np.float32)


def swapped(swapper: FaceSwapper, image: Image) -> Image:
    session = swapper.open_session()
    result = session.process(Frame(image, 0, 0.0))
    session.close()
    assert result.is_complete
    return result.image


def chroma(pixels: np.ndarray) -> float:
    """95th percentile of Lab chroma."""
    lab = cv2.cvtColor(pixels[None] / np.float32(255), cv2.COLOR_BGR2LAB)[0]
    return float(np.percentile(np.hypot(lab[:, 1], lab[:, 2]), 95))


def contrast(pixels: np.ndarray) -> float:
    luma = pixels @ np.array([0.114, 0.587, 0.299], np.float32)
    return float(luma.std() / luma.mean())


def test_a_black_and_white_camera_gets_a_black_and_white_face(swapper: FaceSwapper) -> None:
    grey = cv2.cvtColor(cv2.cvtColor(astronaut(), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert chroma(face_pixels(swapped(swapper, grey))) <= 3
    assert chroma(face_pixels(swapped(swapper, astronaut().copy()))) > 10


@pytest.mark.parametrize("gain", [0.25, 0.12])
def test_in_the_dark_contrast_stays_the_cameras(swapper: FaceSwapper, gain: float) -> None:
    dark = np.rint(astronaut() * gain).astype(np.uint8)
    before, after = contrast(face_pixels(dark)), contrast(face_pixels(swapped(swapper, dark)))
    light = contrast(face_pixels(swapped(swapper, astronaut().copy()))) / contrast(face_pixels(astronaut()))
    # The persona has a contrast of her own; what the dark adds to it is what was wrong.
    assert after / before == pytest.approx(light, rel=0.2)
