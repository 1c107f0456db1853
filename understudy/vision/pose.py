"""Which way a head is turned, from its mesh."""

from dataclasses import dataclass

import numpy as np

from understudy.vision.align import mean_mesh
from understudy.vision.face import Points

# Brow ridge, eye corners, nose bridge and base, temples: bone, which expressions move little.
_RIGID = np.array([10, 151, 9, 168, 6, 197, 195, 33, 133, 362, 263, 2, 127, 356])


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Three turns, in degrees; all zero for a face that looks straight into the camera.

    Attributes:
        yaw: above 0 where the nose points to the right of the picture, -90 to 90.
        pitch: above 0 where the nose points up.
        roll: above 0 where the head leans clockwise in the picture, -180 to 180.
    """

    yaw: float
    pitch: float
    roll: float


def head_pose(mesh: Points) -> HeadPose:
    """Measure a head's pose: the rotation from the mean face to the mesh (Kabsch 1976), on rigid points.

    The rotation is split as roll * yaw * pitch (pitch acts first), so roll is the slant of the eye line.

    Args:
        mesh: float32 [468, 3], px of any frame or crop; an image's y points down, smaller z is nearer.
    """
    source = mean_mesh()[_RIGID].astype(np.float64)
    target = mesh[_RIGID].astype(np.float64)
    left, _, right = np.linalg.svd((target - target.mean(0)).T @ (source - source.mean(0)))
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    yaw = np.arcsin(np.clip(turn[2, 0], -1.0, 1.0))
    pitch = -np.arctan2(turn[2, 1], turn[2, 2])
    roll = np.arctan2(turn[1, 0], turn[0, 0])
    return HeadPose(*(float(angle) for angle in np.degrees([yaw, pitch, roll])))
