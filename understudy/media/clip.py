"""Reading clips and photos as frames: upright, BGR, numbered and timed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from liveframe.frame import Image
from understudy.media.decode import decode_frames, decode_image, upright
from understudy.media.guard import TRUSTED_LIMITS, MediaError, MediaInfo, MediaLimits, check_media


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One frame of a clip or photo.

    Attributes:
        image: uint8 [H, W, 3], BGR, as a player shows it: rotation applied, transparency on white.
        index: counts the frames of the file from 0, those left out included; 0 for a photo.
        time_s: when the frame is shown, seconds from the file's zero; rates may vary.
    """

    image: Image
    index: int
    time_s: float


def read_frames(
    path: Path, every: int = 1, start: int = 0, limits: MediaLimits = TRUSTED_LIMITS
) -> Iterator[ClipFrame]:
    """Read a clip's frames, or a photo as its only frame.

    Frames that are left out are decoded but not converted, which is most of the work saved.

    Args:
        path: a file that the operator named (strangers' files: `media_guard.read_upload_frames`).
        every: give frames whose index is a multiple of it.
        start: give no frame before this index.
        limits: what is too large.

    Raises:
        MediaError: missing, of an unknown kind, too large, or broken; names the file. Frames before
            a break have been given by then.
    """
    info = check_media(path, limits)
    if not info.is_video:
        if start == 0:
            yield ClipFrame(read_photo(path, limits), 0, 0.0)
        return
    rate_hz = info.frames / info.seconds if info.frames and info.seconds else 25.0
    for index, frame in enumerate(decode_frames(path, info.kind, limits)):
        if index >= start and index % every == 0:
            time_s = index / rate_hz if frame.pts is None else float(frame.time)
            yield ClipFrame(upright(frame), index, time_s)


def read_photo(path: Path, limits: MediaLimits = TRUSTED_LIMITS) -> Image:
    """Read a photo: uint8 [H, W, 3] BGR, upright (EXIF), transparency on white, 16 bits brought to 8.

    Raises:
        MediaError: missing, not a picture, too large, or broken; names the file.
    """
    info = check_media(path, limits)
    if info.is_video:
        raise MediaError(f"'{path.name}' must be a picture, but is a clip. Choose a JPEG or PNG file.")
    return _read_deep(path) if _is_deep(path) else decode_image(path, info.kind, limits)


def describe(path: Path, limits: MediaLimits = TRUSTED_LIMITS) -> MediaInfo:
    """Tell what a file's header declares: kind, size, frames, seconds. Decodes nothing.

    Raises:
        MediaError: missing, of an unknown kind, or too large.
    """
    return check_media(path, limits)


def find_media(paths: Iterable[Path]) -> Iterator[Path]:
    """List files to read: those named, and all that lie in folders named, sorted by name; hidden ones are passed over.

    Raises:
        MediaError: a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.is_file())
            yield from sorted(p for p in inside if not _is_hidden(p.relative_to(path)))
        elif path.is_file():
            yield path
        else:
            raise MediaError(f"'{path}' must be a clip, a photo or a folder, but does not exist. Check the path.")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_deep(path: Path) -> bool:
    """Whether a picture is gray with more than 8 bits, which Pillow would clip instead of scale."""
    from PIL import Image as Pictures

    with Pictures.open(path) as picture:
        return picture.mode.startswith(("I", "F"))


def _read_deep(path: Path) -> Image:
    gray = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise MediaError(f"'{path.name}' is broken inside. Save it again from its source.")
    steps = 257 if gray.dtype == np.uint16 else 1
    return np.repeat((gray // steps).astype(np.uint8)[..., None], 3, axis=2)
