"""One face of a faceset, and the line of the manifest that holds it."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import transform
from understudy.vision.face import MESH_POINTS, Face, Matrix, Points
from understudy.vision.pose import HeadPose

# Meshes are stored as 16-bit fractions of the crop's side, -4 to 4: 1/64 px at 256 px.
_MESH_STEPS = 8192


@dataclass(frozen=True, slots=True)
class FaceEntry:
    """One face of a faceset.

    Attributes:
        id: names the face and its crop; unique in the faceset.
        crop: the crop's path inside the faceset.
        sha256: the crop file's digest, hex.
        source: id of the clip or photo: the first 12 hex digits of its SHA-256.
        name: the source's path as the user gave it.
        chunk: which piece of the source's work wrote the face.
        frame_index: the frame in its source, from 0; 0 for a photo.
        time_s: when the frame is shown, seconds from the clip's start.
        box: float32 [4], xyxy in frame px.
        score: the detector's confidence, 0 to 1.
        landmarks: float32 [5, 2], frame px; see `Face.landmarks`.
        presence: the mesh's confidence, 0 to 1.
        mesh: float32 [468, 3], crop px.
        frame_to_crop: float32 [2, 3], maps frame px to crop px.
        sharpness: variance of the Laplacian in the middle of the crop; higher is sharper.
        pose: degrees.
        track: which run of neighbouring frames the face belongs to, across the whole faceset.
        identity: which person, 0 for the one with the most faces; -1 before people are told apart.
    """

    id: str
    crop: str
    sha256: str
    source: str
    name: str
    chunk: int
    frame_index: int
    time_s: float
    box: NDArray[np.float32]
    score: float
    landmarks: Points
    presence: float
    mesh: Points
    frame_to_crop: Matrix
    sharpness: float
    pose: HeadPose
    track: str
    identity: int = -1

    @property
    def face(self) -> Face:
        """The face in its frame, mesh included (frame px)."""
        linear = np.linalg.inv(self.frame_to_crop[:, :2].astype(np.float64))
        crop_to_frame = np.column_stack([linear, -linear @ self.frame_to_crop[:, 2]]).astype(np.float32)
        return Face(self.box, self.score, self.landmarks, transform(self.mesh, crop_to_frame), self.presence)

    @property
    def face_in_crop(self) -> Face:
        """The face in its crop: box, landmarks and mesh in crop px."""
        x0, y0, x1, y1 = self.box
        corners = transform(np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float32), self.frame_to_crop)
        box = np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32)
        landmarks = transform(self.landmarks, self.frame_to_crop)
        return Face(box, self.score, landmarks, self.mesh, self.presence)

    def to_line(self, size: int) -> str:
        """Write the manifest's line, without the line break; `size` is the crop's side in px."""
        return json.dumps(
            {
                "id": self.id,
                "crop": self.crop,
                "sha256": self.sha256,
                "source": self.source,
                "name": self.name,
                "chunk": self.chunk,
                "frame_index": self.frame_index,
                "time_s": round(self.time_s, 6),
                "box": _rounded(self.box, 2),
                "score": round(self.score, 4),
                "landmarks": _rounded(self.landmarks, 2),
                "presence": round(self.presence, 4),
                "mesh": encode_mesh(self.mesh, size),
                "frame_to_crop": _rounded(self.frame_to_crop, 6),
                "sharpness": round(self.sharpness, 2),
                "pose": _rounded(np.array([self.pose.yaw, self.pose.pitch, self.pose.roll]), 2),
                "track": self.track,
                "identity": self.identity,
            }
        )

    @classmethod
    def from_line(cls, line: str | bytes, size: int) -> "FaceEntry":
        """Read a manifest's line.

        Raises:
            ValueError: torn, or not a face.
        """
        values: dict[str, Any] = json.loads(line)
        try:
            values["mesh"] = decode_mesh(values["mesh"], size)
            for name, shape in (("box", (4,)), ("landmarks", (5, 2)), ("frame_to_crop", (2, 3))):
                with np.errstate(over="ignore"):
                    values[name] = np.array(values[name], np.float32).reshape(shape)
                if not np.isfinite(values[name]).all():
                    raise ValueError(f"a face's {name} must be finite numbers, but is not")
            values["pose"] = HeadPose(*values["pose"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a manifest's line must be a face, but is not ({error!r})") from error


def encode_mesh(mesh: Points, size: int) -> str:
    """Pack a mesh (float32 [468, 3], crop px) into 3,744 characters of base64, exact to 1/64 px at 256 px."""
    steps = np.clip(np.rint(mesh * (_MESH_STEPS / size)), -32768, 32767).astype("<i2")
    return base64.b64encode(steps.tobytes()).decode("ascii")


def decode_mesh(text: str, size: int) -> Points:
    """Unpack a mesh: float32 [468, 3], crop px.

    Raises:
        ValueError: not a packed mesh.
    """
    steps = np.frombuffer(base64.b64decode(text, validate=True), "<i2")
    return steps.reshape(MESH_POINTS, 3).astype(np.float32) * np.float32(size / _MESH_STEPS)


def _rounded(values: NDArray[Any], digits: int) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()
