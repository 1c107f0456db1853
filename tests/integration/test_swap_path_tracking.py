"""The tracker on real models and moving faces: ids last, lost faces still count, detection runs only where needed."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, astronaut_face
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face
from understudy.vision.mesh import FaceMesh
from understudy.vision.track import FaceTracker, TrackSettings

WIDTH, HEIGHT = 640, 480
Place = tuple[float, float, bool]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


@pytest.fixture
def tracker(detector: FaceDetector, mesh: FaceMesh) -> FaceTracker:
    return FaceTracker(detector, mesh)


def scene(*places: Place, size: int = 200, light: float = 1.0) -> np.ndarray:
    """A grey room with heads at (x, y, is_mirrored), the last in front."""
    room = np.random.default_rng(0).integers(90, 140, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(room, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    head = cv2.resize(astronaut()[30:230, 120:320], (size, size), interpolation=cv2.INTER_AREA)
    alpha = cv2.ellipse(
        np.zeros((size, size), np.float32),
        (size // 2, int(size * 0.46)),
        (size // 3, int(size * 0.45)),
        0,
        0,
        360,
        1,
        -1,
    )
    alpha = cv2.GaussianBlur(alpha, (0, 0), 4)
    for x, y, is_mirrored in places:
        shift = np.array([[1, 0, x - size / 2], [0, 1, y - size / 2]])
        sprite, cover = (head[:, ::-1], alpha[:, ::-1]) if is_mirrored else (head, alpha)
        moved = cv2.warpAffine(np.ascontiguousarray(sprite), shift, (WIDTH, HEIGHT))
        weight = cv2.warpAffine(np.ascontiguousarray(cover), shift, (WIDTH, HEIGHT))[..., None]
        image += weight * (moved - image)
    return np.clip(image * light, 0, 255).astype(np.uint8)


def fitted(faces: list[Face]) -> dict[int, float]:
    """Ids of the faces with a mesh, with the x of their middle."""
    return {face.track_id: float(face.mesh[:, 0].mean()) for face in faces if face.mesh is not None}


def test_face_is_detected_once_and_then_followed_by_its_mesh(tracker: FaceTracker) -> None:
    image, runs = scene((320, 240, False)), 0
    for step in range(15):
        faces = tracker.update(image, step / 30)
        runs += tracker.stages_ms["detect"] > 0
        assert list(fitted(faces)) == [0]
    assert runs == 1


def wide_scene(width: int, height: int, *heads: tuple[int, int, int]) -> np.ndarray:
    """A grey picture with the astronaut in it, her face so many px large and at (x, y)."""
    box = astronaut_face().box
    middle, side = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
    image = np.full((height, width, 3), 110, np.uint8)
    for face_px, x, y in heads:
        zoom = face_px / side
        shown = cv2.resize(astronaut(), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        left, top = (np.array([x, y]) - middle * zoom).round().astype(int)
        shown = shown[max(0, -top) : height - top, max(0, -left) : width - left]
        image[max(0, top) :, max(0, left) :][: shown.shape[0], : shown.shape[1]] = shown
    return image


@pytest.mark.parametrize(("width", "height", "small_px"), [(640, 480, 24), (1280, 720, 24), (1920, 1080, 24)])
def test_small_face_beside_a_large_one_is_found_in_the_first_frame_and_soon_when_it_comes(
    tracker: FaceTracker, width: int, height: int, small_px: int
) -> None:
    """Down to 24 px in a picture of 1,920; nothing of it is shown while it cannot be fitted."""
    large, small = (height // 4, width // 4, height // 3), (small_px, width * 3 // 4, height // 3)
    both, alone = wide_scene(width, height, large, small), wide_scene(width, height, large)
    assert [len(tracker.update(both, step / 30)) for step in range(20)] == [2] * 20
    tracker.reset()
    seen = [len(tracker.update(alone if step < 5 else both, step / 30)) for step in range(25)]
    came = seen.index(2)
    assert seen[came:] == [2] * (25 - came) and came - 5 <= TrackSettings().far_every


def test_tracked_face_describes_itself(tracker: FaceTracker, detector: FaceDetector) -> None:
    image = scene((320, 240, False))
    tracker.update(image, 0)
    (face,) = tracker.update(image, 1 / 30)
    (found,) = detector.detect(image)
    assert face.mesh is not None and face.mesh.shape == (468, 3) and face.mesh.dtype == np.float32
    assert face.box.dtype == np.float32 and face.presence > 0.9
    assert np.abs(face.landmarks - found.landmarks).max() < 12
    assert set(tracker.stages_ms) == {"detect", "mesh", "check", "smooth"}


def test_frame_is_not_written_to(tracker: FaceTracker) -> None:
    image = scene((320, 240, False))
    image.setflags(write=False)
    tracker.update(image, 0)
    tracker.update(image, 1 / 30)


def test_faces_that_cross_keep_their_ids(tracker: FaceTracker) -> None:
    ends: list[dict[int, float]] = []
    for step in range(50):
        x = 110 + step * 420 / 49
        faces = tracker.update(scene((640 - x, 230, True), (x, 250, False)), step / 30)
        if step in (2, 49):
            ends.append(fitted(faces))
    assert set(ends[0]) == set(ends[1]) == {0, 1}
    assert all((ends[0][key] < 320) != (ends[1][key] < 320) for key in (0, 1))


def test_hidden_face_still_counts_and_returns_under_its_id(tracker: FaceTracker) -> None:
    seen: list[list[Face]] = []
    for step in range(24):
        image = scene((200, 240, False), (440, 240, True))
        if 8 <= step < 14:
            image[100:400, 320:560] = 120
        seen.append(tracker.update(image, step / 30))
    (key,) = [k for k, x in fitted(seen[5]).items() if x > 320]
    assert [len(faces) for faces in seen[8:14]] == [2] * 6
    assert all(key not in fitted(faces) for faces in seen[8:14])
    assert key in fitted(seen[15]) and len(fitted(seen[15])) == 2


def test_face_that_is_gone_stops_counting_after_the_hold(tracker: FaceTracker) -> None:
    tracker.update(scene((320, 240, False)), 0)
    tracker.update(scene((320, 240, False)), 0.03)
    empty = scene()
    counts = [len(tracker.update(empty, 0.06 + 0.1 * step)) for step in range(12)]
    assert counts[0] in (0, 1) and counts[-1] == 0


@pytest.mark.parametrize("calm_frames", [2, 6, 9, 14])
def test_second_face_is_found_in_the_frame_in_which_it_comes(tracker: FaceTracker, calm_frames: int) -> None:
    for step in range(calm_frames):
        tracker.update(scene((180, 240, False)), step / 30)
    faces = tracker.update(scene((180, 240, False), (470, 240, True)), calm_frames / 30)
    assert len(fitted(faces)) == 2


def test_faces_beyond_the_limit_are_reported_without_a_mesh(detector: FaceDetector, mesh: FaceMesh) -> None:
    tracker = FaceTracker(detector, mesh, TrackSettings(max_faces=1))
    image = scene((180, 240, False), (470, 240, True))
    for step in range(6):
        faces = tracker.update(image, step / 30)
        assert len(faces) == 2 and len(fitted(faces)) == 1


def test_cut_to_another_picture_gives_a_new_id(tracker: FaceTracker) -> None:
    for step in range(5):
        tracker.update(scene((180, 240, False)), step / 30)
    halves = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    halves[:, :320] = 255
    assert fitted(tracker.update(halves, 5 / 30)) == {}
    assert list(fitted(tracker.update(scene((180, 240, False)), 6 / 30))) == [1]


def test_new_frame_size_starts_anew_without_a_crash(tracker: FaceTracker) -> None:
    tracker.update(scene((320, 240, False)), 0)
    smaller = cv2.resize(scene((320, 240, False)), (320, 240), interpolation=cv2.INTER_AREA)
    assert len(fitted(tracker.update(smaller, 1 / 30))) == 1


def test_fast_face_is_not_lost(tracker: FaceTracker) -> None:
    places = [320 + 180 * np.sin(step / 4) for step in range(40)]
    found = [fitted(tracker.update(scene((x, 240, False)), step / 30)) for step, x in enumerate(places)]
    assert all(list(ids) == [0] for ids in found)


def test_fifteen_frames_a_second_and_dropped_frames_are_followed(tracker: FaceTracker) -> None:
    times = [0, 1, 2, 5, 6, 10, 11, 12, 18, 19]
    found = [fitted(tracker.update(scene((200 + 12 * time, 240, False)), time / 15)) for time in times]
    assert all(list(ids) == [0] for ids in found)
    assert found[-1][0] == pytest.approx(found[0][0] + 12 * 19, abs=8)


def test_picture_without_faces_gives_none(tracker: FaceTracker) -> None:
    assert [tracker.update(scene(), step / 30) for step in range(4)] == [[]] * 4


@pytest.mark.parametrize("name", ["WolfgangLanger_Pexels.mp4", "franck.mp4"])
def test_clip_is_covered_wherever_an_independent_detector_sees_a_face(
    name: str, shared_clip: Callable[[str], Path], detector: FaceDetector, mesh: FaceMesh
) -> None:
    import dlib

    independent = dlib.get_frontal_face_detector()
    tracker, clip = FaceTracker(detector, mesh), cv2.VideoCapture(str(shared_clip(name)))
    covered = seen = 0
    for step in range(60):
        is_read, image = clip.read()
        if not is_read:
            break
        faces = fitted(tracker.update(image, step / 25))
        if step % 3 == 0 and len(independent(np.ascontiguousarray(image[..., ::-1]))) > 0:
            seen, covered = seen + 1, covered + (len(faces) > 0)
    assert seen >= 10
    assert covered / seen >= 0.98
