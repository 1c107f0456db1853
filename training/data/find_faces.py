"""From frames to aligned faces: detect, follow, fit the mesh, check it, cut the face out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image
from understudy.faceset.entry import FaceEntry
from understudy.faceset.writer import crop_digest
from understudy.media.clip import ClipFrame
from understudy.vision.align import align
from understudy.vision.detect import FaceDetector
from understudy.vision.dlib_landmarks import FivePoints, disagreement, eye_distance
from understudy.vision.face import AlignedFace, Face, Points
from understudy.vision.mesh import FaceMesh, mesh_box
from understudy.vision.pose import head_pose

_FOLLOWS_IOU = 0.3
_MIN_PRESENCE = 0.5


@dataclass(frozen=True, slots=True)
class FindOptions:
    """What counts as a face worth keeping.

    Attributes:
        size: the crops' side, px.
        extension: ".jpg" (quality 95, colour at full resolution) or ".png".
        max_faces: at most so many faces of one frame, the largest; 0 for all.
        min_eye_px: least distance of the outer eye corners in the frame.
        min_sharpness: least variance of the Laplacian, see `sharpness`.
        max_disagreement: most that dlib's points may lie from the mesh's, in eye distances.
        max_outside: most of the mesh that may lie outside the frame, 0 to 1.
    """

    size: int = 256
    extension: Literal[".jpg", ".png"] = ".jpg"
    max_faces: int = 0
    min_eye_px: float = 20.0
    min_sharpness: float = 4.0
    max_disagreement: float = 0.1
    max_outside: float = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """What a run of frames holds.

    Attributes:
        faces: entries with the bytes of their crop files.
        frames: how many frames were looked at.
        seen: how many faces the detector saw.
        left_out: how many of those were dropped, by reason.
    """

    faces: list[tuple[FaceEntry, bytes]] = field(default_factory=list[tuple[FaceEntry, bytes]])
    frames: int = 0
    seen: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])


class FaceFinder:
    """Finds the faces of frames. An instance belongs to one thread.

    Every frame is searched, for a face may come in at any. A face that overlaps one of the frame before
    continues its track, and its mesh starts from that one's: one fit instead of two.
    """

    def __init__(self, options: FindOptions) -> None:
        self._options = options
        self._detector = FaceDetector()
        self._mesh = FaceMesh()
        self._five_points = FivePoints()

    def find(self, frames: Sequence[ClipFrame], source: str, name: str, chunk: int) -> Found:
        """Find, check and cut out the faces of neighbouring frames.

        Args:
            frames: in rising index.
            source: the source's id.
            name: its path, for the manifest.
            chunk: which piece of it the frames are; the result depends on nothing outside the piece.
        """
        left_out: Counter[str] = Counter()
        faces: list[tuple[FaceEntry, bytes]] = []
        seen = next_track = 0
        before: list[Face] = []
        for frame in frames:
            now: list[Face] = []
            for rank, detected in enumerate(self._detector.detect(frame.image)):
                seen += 1
                face = self._fit(frame.image, detected, before)
                if face.track_id < 0:
                    face = _on_track(face, next_track)
                    next_track += 1
                else:
                    before = [other for other in before if other.track_id != face.track_id]
                reason, aligned = self._check(frame.image, face, rank)
                if reason:
                    left_out[reason] += 1
                if face.presence >= _MIN_PRESENCE:
                    now.append(face)
                if aligned is not None and not reason:
                    faces.append(self._entry(frame, aligned, rank, source, name, chunk))
            before = now
        return Found(faces, len(frames), seen, left_out)

    def _fit(self, image: Image, detected: Face, before: Sequence[Face]) -> Face:
        """Fit the mesh, from the track that the face continues where there is one."""
        overlaps = [box_overlap(detected.box, other.box) for other in before]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] > _FOLLOWS_IOU:
            last = before[best]
            assert last.mesh is not None
            shift = np.append((detected.box[:2] + detected.box[2:] - last.box[:2] - last.box[2:]) / 2, 0)
            mesh, presence = self._mesh.fit(image, last.mesh + shift.astype(np.float32))
            if presence >= _MIN_PRESENCE and box_overlap(detected.box, mesh_box(mesh)) > _FOLLOWS_IOU:
                return Face(detected.box, detected.score, detected.landmarks, mesh, presence, last.track_id)
        return self._mesh.refine(image, detected)

    def _check(self, image: Image, face: Face, rank: int) -> tuple[str, AlignedFace | None]:
        """Return the reason to drop a face, cheapest check first, or its crop."""
        options = self._options
        assert face.mesh is not None
        if options.max_faces and rank >= options.max_faces:
            return "beyond --max-faces", None
        if face.presence < _MIN_PRESENCE:
            return "no mesh", None
        if eye_distance(face.mesh) < options.min_eye_px:
            return "too small", None
        if _share_outside(face.mesh, image) > options.max_outside:
            return "cut off by the frame", None
        if disagreement(face.mesh, self._five_points.fit(image, face)) > options.max_disagreement:
            return "misaligned (dlib disagrees)", None
        aligned = align(image, face, options.size)
        return ("blurred" if sharpness(aligned.crop) < options.min_sharpness else ""), aligned

    def _entry(
        self, frame: ClipFrame, aligned: AlignedFace, rank: int, source: str, name: str, chunk: int
    ) -> tuple[FaceEntry, bytes]:
        face, identifier = aligned.face, f"{source}-{frame.index:06d}-{rank}"
        content = encode_crop(aligned.crop, self._options.extension)
        entry = FaceEntry(
            id=identifier,
            crop=f"crops/{identifier}{self._options.extension}",
            sha256=crop_digest(content),
            source=source,
            name=name,
            chunk=chunk,
            frame_index=frame.index,
            time_s=frame.time_s,
            box=face.box,
            score=face.score,
            landmarks=face.landmarks,
            presence=face.presence,
            mesh=aligned.mesh,
            frame_to_crop=aligned.frame_to_crop,
            sharpness=sharpness(aligned.crop),
            pose=head_pose(aligned.mesh),
            track=f"{source}-{chunk}-{face.track_id}",
        )
        return entry, content


def sharpness(crop: Image) -> float:
    """Measure how sharp a crop is: variance of the Laplacian of its gray middle half (Pech-Pacheco et al. 2000).

    Args:
        crop: uint8 [S, S, 3], BGR.
    """
    margin = crop.shape[0] // 4
    gray = cv2.cvtColor(crop[margin:-margin, margin:-margin], cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_32F).var())


def encode_crop(crop: Image, extension: str) -> bytes:
    """Return the bytes of a crop's file."""
    best = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, content = cv2.imencode(extension, crop, best if extension == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return content.tobytes()


def box_overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return intersection over union of two boxes (xyxy), 0 to 1."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    inside = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - inside
    return inside / max(union, 1e-6)


def _share_outside(mesh: Points, image: Image) -> float:
    height, width = image.shape[:2]
    x, y = mesh[:, 0], mesh[:, 1]
    return float(((x < 0) | (y < 0) | (x >= width) | (y >= height)).mean())


def _on_track(face: Face, track: int) -> Face:
    return Face(face.box, face.score, face.landmarks, face.mesh, face.presence, track)
