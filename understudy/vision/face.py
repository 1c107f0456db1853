"""A face in a frame, and a face cut out of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Matrix = NDArray[np.float32]
Crop = NDArray[np.uint8]

MESH_POINTS = 468


@dataclass(frozen=True, slots=True)
class Face:
    """One face found in a frame.

    Attributes:
        box: float32 [4], xyxy in frame px; may reach outside the frame.
        score: the detector's confidence, 0 to 1.
        landmarks: float32 [5, 2], frame px: right eye, left eye, nose tip, right and left
            mouth corner (right is the person's own right, so left in the picture).
        mesh: float32 [468, 3], frame px (z in px too, smaller is nearer), or None where
            only the detector has run. Topology: MediaPipe Face Mesh
            (Kartynnik et al. 2019, arXiv:1907.06724).
        presence: the mesh model's confidence that it looks at a face, 0 to 1.
        track_id: which track the face belongs to; -1 outside a tracker.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: Points
    mesh: Points | None = None
    presence: float = 0.0
    track_id: int = -1


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """A face cut out upright, at a fixed size.

    Attributes:
        crop: uint8 [S, S, 3], BGR.
        frame_to_crop: float32 [2, 3], maps frame px to crop px.
        mesh: float32 [468, 3], in crop px.
        face: the face in its frame.
    """

    crop: Crop
    frame_to_crop: Matrix
    mesh: Points
    face: Face

    def mesh_at(self, size: int) -> Points:
        """Return the mesh in px of the same crop at another size, resized by averaging: pixel centres stay.

        Args:
            size: side of that picture, px.
        """
        return resized_mesh(self.mesh, size / self.crop.shape[0])


def resized_mesh(mesh: Points, scale: float) -> Points:
    """Return a mesh in px of its picture resized by averaging: pixel centres stay where they are.

    Args:
        mesh: float32 [K, 2 or 3], px.
        scale: new side over old side.
    """
    resized = mesh * np.float32(scale)
    resized[:, :2] += (scale - 1) / 2
    return resized
