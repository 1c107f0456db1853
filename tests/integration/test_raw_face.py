"""The slow look for the filmed face: at any roll and size, in what was shown instead."""

import cv2
import numpy as np
import pytest

from liveframe.frame import Frame, Image
from tests.faults.persona import drawn_persona
from tests.support.real_faces import astronaut, astronaut_face
from understudy.swap.raw_face import RawFaceInspector
from understudy.swap.swapper import FaceSwapper, SwapSettings


@pytest.fixture(scope="module")
def look() -> RawFaceInspector:
    return RawFaceInspector()


def scene(angle_deg: float, face_px: float = 130.0) -> Image:
    """The astronaut's head in the middle of 480p, turned, the face so large."""
    box = astronaut_face().box
    side, middle = float((box[2:] - box[:2]).max()), (box[:2] + box[2:]) / 2
    matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), angle_deg, face_px / side)
    matrix[:, 2] += np.array([320, 240]) - middle
    picture = cv2.warpAffine(astronaut(), matrix, (640, 480), flags=cv2.INTER_AREA, borderValue=(100, 110, 120))
    return np.asarray(picture, np.uint8)


@pytest.mark.parametrize("angle_deg", [0, 90, 135, 180, 270])
def test_face_that_is_still_there_is_seen_at_any_roll_and_a_swapped_one_is_not(
    look: RawFaceInspector, angle_deg: float
) -> None:
    camera = scene(angle_deg)
    marked = np.asarray(cv2.add(camera, np.full_like(camera, 3)), np.uint8)
    assert "own face" in look(camera, marked, None)
    model = FaceSwapper(settings=SwapSettings("drawn"), renderers={"drawn": drawn_persona()})
    model.warm_up()
    session = model.open_session()
    results = [session.process(Frame(camera, index, index / 30)) for index in range(4)]
    session.close()
    assert results[-1].is_complete and results[-1].personas == ("drawn",)
    assert look(camera, results[-1].image, None) == ""


def test_small_face_that_nobody_touched_is_seen(look: RawFaceInspector) -> None:
    camera = scene(0, face_px=34)
    assert "own face" in look(camera, camera.copy(), None)
    covered = np.asarray(cv2.GaussianBlur(camera, (0, 0), 12), np.uint8)
    assert look(camera, covered, None) == ""


def test_small_face_beside_a_large_one_is_swapped_too(look: RawFaceInspector) -> None:
    """From the first frame on; the look alone would cover both of them."""
    camera = scene(0, face_px=150)
    camera[20:140, 500:620] = scene(0, face_px=28)[180:300, 260:380]
    model = FaceSwapper(settings=SwapSettings("drawn"), renderers={"drawn": drawn_persona()})
    model.warm_up()
    session = model.open_session()
    results = [session.process(Frame(camera, index, index / 30)) for index in range(8)]
    session.close()
    assert [(result.subjects_found, result.subjects_done) for result in results] == [(2, 2)] * 8
    assert look(camera, results[-1].image, None) == ""


def test_face_that_was_to_be_left_alone_is_no_finding(look: RawFaceInspector) -> None:
    camera = scene(0)
    elsewhere = np.array([0, 0, 100, 100], np.float32)
    around = np.array([220, 140, 420, 340], np.float32)
    assert look(camera, camera.copy(), (elsewhere,)) == ""
    assert look(camera, camera.copy(), (around,)) != ""


def test_picture_without_a_face_is_no_finding(look: RawFaceInspector) -> None:
    grey = np.full((480, 640, 3), 110, np.uint8)
    assert look(grey, grey.copy(), None) == ""
