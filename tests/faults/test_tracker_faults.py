"""What the tracker must report even when it fails or cannot fit: a face it has seen is never passed over."""

import numpy as np
import pytest

from tests.faults.scene import Camera, Head, Picture
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face, Points
from understudy.vision.mesh import FaceMesh
from understudy.vision.track import FaceTracker

pytestmark = pytest.mark.faults
FIRST, SECOND = Head(0.33, side=0.62), Head(1.0, side=0.62, is_mirrored=True)


class FlakyMesh(FaceMesh):
    """The real mesh; raises at the calls whose numbers are in `fails_at`, counted from the last `arm`."""

    def arm(self, *fails_at: int) -> None:
        self.calls, self.fails_at = 0, fails_at

    def fit(self, image: np.ndarray, where: Face | Points) -> tuple[Points, float]:
        self.calls += 1
        if self.calls in self.fails_at:
            raise RuntimeError("The mesh failed on purpose.")
        return super().fit(image, where)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def mesh() -> FlakyMesh:
    return FlakyMesh()


def settled(detector: FaceDetector, mesh: FlakyMesh, camera: Camera, *heads: Head) -> FaceTracker:
    """A tracker that has known these heads for a while."""
    mesh.arm()
    tracker = FaceTracker(detector, mesh)
    for step in range(4):
        tracker.update(camera.take(*heads).image, step / 30)
    return tracker


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_face_that_came_while_the_tracker_failed_is_found_in_the_next_frame(
    detector: FaceDetector, mesh: FlakyMesh, failing_call: int
) -> None:
    camera = Camera()
    tracker = settled(detector, mesh, camera, FIRST)
    mesh.arm(failing_call)  # the first follows the known face, the others fit the new one
    with pytest.raises(RuntimeError, match="on purpose"):
        tracker.update(camera.take(FIRST, SECOND).image, 4 / 30)
    faces = tracker.update(camera.take(FIRST, SECOND).image, 5 / 30)
    assert len(faces) == 2


def test_face_that_came_while_the_detector_failed_is_found_in_the_next_frame(
    detector: FaceDetector, mesh: FlakyMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Camera()
    tracker = settled(detector, mesh, camera, FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(FaceDetector, "detect", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tracker.update(camera.take(FIRST, SECOND).image, 4 / 30)
    assert len(tracker.update(camera.take(FIRST, SECOND).image, 5 / 30)) == 2


def test_face_behind_another_is_reported_although_its_mesh_slips_onto_the_one_in_front(
    detector: FaceDetector, mesh: FlakyMesh
) -> None:
    camera, reported = Camera(), 0
    for x in (0.52, 0.54, 0.56):
        tracker = settled(detector, mesh, camera, FIRST)
        picture: Picture = camera.take(Head(x, side=0.6, is_mirrored=True), FIRST)
        seen = len(detector.detect(picture.image))
        assert len(tracker.update(picture.image, 4 / 30)) == seen
        reported += seen
    assert reported >= 5, "the detector sees the face behind in at least two of the three"


@pytest.mark.parametrize("frames_missed", [0, 9])
@pytest.mark.parametrize(("dx", "dy"), [(-0.24, 0.0), (0.24, 0.0), (0.0, 0.2), (0.16, -0.2)])
def test_face_that_jumped_is_fitted_where_it_is_or_not_at_all(
    detector: FaceDetector, mesh: FlakyMesh, dx: float, dy: float, frames_missed: int
) -> None:
    """A fast head, or a stream that stood still for a moment: a mesh beside the face would leave it raw."""
    camera, start = Camera(), Head(0.5, 0.5, 0.62)
    tracker = settled(detector, mesh, camera, start)
    picture = camera.take(Head(start.x + dx, start.y + dy, start.side))
    (face,) = tracker.update(picture.image, (4 + frames_missed) / 30)
    if face.mesh is None:
        return
    truth = picture.faces[0].landmarks
    eyes = float(np.linalg.norm(truth[0] - truth[1]))
    assert np.linalg.norm(face.landmarks - truth, axis=1).max() < 0.35 * eyes
