"""Reading clips and photos as frames: upright, BGR, numbered and timed."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from liveframe.frame import Image
from understudy.media.decode import decode_frames, tone_map, upright
from understudy.media.guard import TRUSTED_LIMITS, MediaError, MediaInfo, MediaLimits, check_media
from understudy.media.photo import decode_image

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class UnreadFrame:
    """One decoded frame whose pixels wait to be asked for: that is most of a frame's work.

    Attributes:
        index: as in `ClipFrame`.
        time_s: as in `ClipFrame`.
        image: gives the pixels, uint8 [H, W, 3] BGR upright.
    """

    index: int
    time_s: float
    image: Callable[[], Image]


def read_lazily(
    path: Path,
    limits: MediaLimits = TRUSTED_LIMITS,
    note: Callable[[str], None] = _log.warning,
    from_s: float = 0.0,
) -> Generator[UnreadFrame]:
    """Read a clip's frames, or a photo as its only frame; pixels are made when asked for.

    Colours are SDR: HDR clips are tone-mapped. Interlaced frames are deinterlaced.

    Args:
        path: a file that the operator named (strangers' files: `guard.read_upload_frames`).
        limits: what is too large.
        note: told, after the last frame, what of a torn file could not be read.
        from_s: frames before that many seconds of the clip may be left out where its index allows it; indices then
            count from there.

    Raises:
        MediaError: missing, of an unknown kind, too large, or broken before its first frame; names the file.
    """
    info = check_media(path, limits)
    if not info.is_video:
        yield UnreadFrame(0, 0.0, lambda: decode_image(path, info.kind, limits))
        return
    rate_hz = info.frames / info.seconds if info.frames and info.seconds else 25.0
    tone = tone_map(path, info.kind)
    for index, frame in enumerate(decode_frames(path, info.kind, limits, note, from_s)):
        time_s = index / rate_hz if frame.pts is None else float(frame.time)
        yield UnreadFrame(index, time_s, partial(upright, frame, tone))


def read_frames(
    path: Path,
    every: int = 1,
    start: int = 0,
    limits: MediaLimits = TRUSTED_LIMITS,
    note: Callable[[str], None] = _log.warning,
) -> Iterator[ClipFrame]:
    """Read a clip's frames, or a photo as its only frame, as `read_lazily` does.

    Args:
        path: a file that the operator named.
        every: give frames whose index is a multiple of it.
        start: give no frame before this index.
        limits: what is too large.
        note: told, after the last frame, what of a torn file could not be read.

    Raises:
        MediaError: as `read_lazily`.
    """
    for frame in read_lazily(path, limits, note):
        if frame.index >= start and frame.index % every == 0:
            yield ClipFrame(frame.image(), frame.index, frame.time_s)


def read_photo(path: Path, limits: MediaLimits = TRUSTED_LIMITS) -> Image:
    """Read a photo: uint8 [H, W, 3] BGR, upright (EXIF), in sRGB, transparency on white, 16 bits brought to 8.

    Raises:
        MediaError: missing, not a picture, too large, or broken; names the file.
    """
    info = check_media(path, limits)
    if info.is_video:
        raise MediaError(f"'{path.name}' must be a picture, but is a clip. Choose a JPEG or PNG file.")
    return decode_image(path, info.kind, limits)


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
