"""Head pose has the stated signs."""

import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, moved
from understudy.vision.align import mean_mesh
from understudy.vision.detect import FaceDetector
from understudy.vision.mesh import FaceMesh
from understudy.vision.pose import HeadPose, head_pose


def turned(x_deg: float = 0, y_deg: float = 0, z_deg: float = 0) -> HeadPose:
    """Pose of the mean face turned about one axis of the picture (x right, y down, z away), right-handed."""
    turn = cv2.Rodrigues(np.radians(np.array([x_deg, y_deg, z_deg], np.float64)))[0]
    return head_pose((mean_mesh() @ turn.T * 200 + 300).astype(np.float32))


def test_mean_face_looks_straight() -> None:
    pose = turned()
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((0, 0, 0), abs=1e-3)


@pytest.mark.parametrize("angle", [-40.0, 15.0, 60.0])
def test_each_angle_is_measured_alone(angle: float) -> None:
    assert turned(z_deg=angle).roll == pytest.approx(angle, abs=1e-3)
    assert turned(y_deg=-angle).yaw == pytest.approx(angle, abs=1e-3)
    assert turned(x_deg=-angle).pitch == pytest.approx(angle, abs=1e-3)
    assert turned(y_deg=-angle).roll == pytest.approx(0, abs=1e-3)


def test_nose_to_the_right_of_the_picture_is_positive_yaw_and_up_is_positive_pitch() -> None:
    nose = np.array([0.0, 0.0, -1.0])
    right = cv2.Rodrigues(np.radians(np.array([0.0, -30.0, 0.0])))[0] @ nose
    up = cv2.Rodrigues(np.radians(np.array([-30.0, 0.0, 0.0])))[0] @ nose
    assert right[0] > 0 and turned(y_deg=-30).yaw > 0
    assert up[1] < 0 and turned(x_deg=-30).pitch > 0


def test_picture_turned_clockwise_rolls_clockwise() -> None:
    def roll(angle_deg: float) -> float:
        image = moved(astronaut(), angle_deg, 1.3)
        face = FaceMesh().refine(image, FaceDetector().detect(image)[0])
        assert face.mesh is not None
        return head_pose(face.mesh).roll

    # OpenCV turns counter-clockwise for positive angles.
    assert roll(-20) - roll(0) == pytest.approx(20, abs=2)
