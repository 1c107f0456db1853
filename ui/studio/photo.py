"""From an upload to a persona's look: the photo, or a clip's best picture, brought into the crop."""

import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Image
from training.data.drivers import DriverFinder
from understudy.media.guard import IMAGE_EXTENSIONS, read_upload_frames, read_upload_image
from understudy.vision.face import AlignedFace
from understudy.vision.pose import head_pose
from understudy.vision.reference import ReferenceFace, reference_face

_LOOK_EVERY_S = 0.25
_MOST_LOOKS = 60
_MOST_YAW_DEG = 30.0
_LEAST_EYES_PX = 40.0
_EYE_CORNERS = (33, 263)


class LookError(LiveframeError, ValueError):
    """An upload shows no face that a persona can be made of; says why."""


@dataclass(frozen=True, slots=True)
class PersonaPhoto:
    """A persona's look, before it has a name.

    Attributes:
        photo: uint8 [H, W, 3] BGR, the whole picture.
        still: the face in the crop, with its mesh.
    """

    photo: Image
    still: ReferenceFace


_finder_lock = threading.Lock()


def face_finder() -> DriverFinder:
    """The detector and the mesh; loaded once, safe for all sessions."""
    with _finder_lock:
        return _load_finder()


@cache
def _load_finder() -> DriverFinder:
    return DriverFinder()


def warm_up() -> None:
    """Load the detector and the mesh in the background, so that the first persona need not wait for them."""
    if not _load_finder.cache_info().currsize and not _finder_lock.locked():
        threading.Thread(target=face_finder, name="face-finder", daemon=True).start()


def read_photo(upload: Path) -> PersonaPhoto:
    """Take the look from a photo or a clip that a stranger sent. It is decoded in a limited child.

    Raises:
        MediaError: the file is refused.
        LookError: it shows no face, or one that is too small or turned away.
    """
    if upload.suffix in IMAGE_EXTENSIONS:
        photo = read_upload_image(upload)
        face = face_finder().aligned(photo)
        if face is None:
            raise LookError("The photo must show a clear face, but none was found. Use a sharp photo from the front.")
        _check(face)
    else:
        with closing(read_upload_frames(upload)) as frames:
            photo, face = best_picture(frames)
    return PersonaPhoto(photo, reference_face(photo, face.face))


def best_picture(frames: Iterable[tuple[float, Image]]) -> tuple[Image, AlignedFace]:
    """Choose the picture that shows a face sharpest and most from the front.

    Args:
        frames: seconds, and uint8 [H, W, 3] BGR.

    Raises:
        LookError: none of them shows a face well enough.
    """
    best: tuple[float, Image, AlignedFace] | None = None
    next_s, looks = 0.0, 0
    for time_s, image in frames:
        if time_s < next_s:
            continue
        next_s, looks = time_s + _LOOK_EVERY_S, looks + 1
        face = face_finder().aligned(image)
        if face is not None and not _fault(face) and (best is None or _merit(face) > best[0]):
            best = (_merit(face), image, face)
        if looks == _MOST_LOOKS:
            break
    if best is None:
        raise LookError(
            "The clip must show a face from the front at some moment, but shows none large and clear enough. "
            "Come nearer to the camera and look into it."
        )
    return best[1], best[2]


def _merit(face: AlignedFace) -> float:
    """Sharpness, less for every degree that the head is turned."""
    pose = head_pose(face.mesh)
    sharpness = float(cv2.Laplacian(cv2.cvtColor(face.crop, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())
    return float(np.log1p(sharpness)) - (abs(pose.yaw) + abs(pose.pitch)) / 15


def _fault(face: AlignedFace) -> str:
    """Why a face makes no look; "" when it does."""
    yaw = head_pose(face.mesh).yaw
    if abs(yaw) > _MOST_YAW_DEG:
        return f"The head must be turned by {_MOST_YAW_DEG:.0f}° at most, but is by {abs(yaw):.0f}°. Face the camera."
    right, left = face.mesh[list(_EYE_CORNERS), :2]
    eyes_px = float(np.linalg.norm(left - right)) / float(np.hypot(*face.frame_to_crop[0, :2]))
    if eyes_px < _LEAST_EYES_PX:
        least = f"{_LEAST_EYES_PX:.0f} px between the outer corners of the eyes"
        return f"The face must have at least {least}, but has {eyes_px:.0f}. Use a larger picture, or come nearer."
    return ""


def _check(face: AlignedFace) -> None:
    if fault := _fault(face):
        raise LookError(fault)
