"""Which kinds of pictures and clips are known, how large one may be, and what a file says it is."""

from dataclasses import dataclass

from liveframe.errors import LiveframeError

MIB = 1 << 20
# By kind: the extensions it may carry. Kinds are told apart by their first bytes alone.
EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg"),
    "png": (".png",),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "heic": (".heic", ".heif", ".hif"),
    "avif": (".avif",),
    "mp4": (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2"),
    "matroska": (".webm", ".mkv"),
    "avi": (".avi",),
    "mpegts": (".ts", ".mts", ".m2ts"),
    "mpeg": (".mpg", ".mpeg"),
    "gif": (".gif",),
    "animated png": (".png", ".apng"),
    "animated webp": (".webp",),
}
IMAGE_KINDS = frozenset({"jpeg", "png", "webp", "bmp", "heic", "avif"})
ANIMATION_KINDS = frozenset({"gif", "animated png", "animated webp"})
IMAGE_EXTENSIONS = tuple(e for k, names in EXTENSIONS.items() if k in IMAGE_KINDS for e in names)
VIDEO_EXTENSIONS = tuple(
    e for k, names in EXTENSIONS.items() if k not in IMAGE_KINDS for e in names if e not in IMAGE_EXTENSIONS
)
CLIP_RESULTS = (".mp4", ".m4v", ".mov")  # of the kind "mp4", what is written here


class MediaError(LiveframeError, ValueError):
    """A picture or clip is refused. The message is a sentence for the person who chose it."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """How large a picture or clip may be.

    Attributes:
        max_bytes: size of the file.
        max_image_pixels: width x height of a picture.
        max_frame_pixels: width x height of a clip's frames.
        max_frames: frames of a clip.
        max_seconds: length of a clip.
        max_wait_s: how long in all the parent waits for the decoding child.
        max_memory_bytes: address space of the decoding child (where the system can limit it: not on Windows).
    """

    max_bytes: int = 50 * MIB
    max_image_pixels: int = 50_000_000
    max_frame_pixels: int = 3840 * 2160
    max_frames: int = 18_000
    max_seconds: float = 600.0
    max_wait_s: float = 120.0
    max_memory_bytes: int = 2048 * MIB


UPLOAD_LIMITS = MediaLimits()
TRUSTED_LIMITS = MediaLimits(
    max_bytes=32 * 1024 * MIB,
    max_image_pixels=80_000_000,
    max_frame_pixels=7680 * 4320,
    max_frames=2_000_000,
    max_seconds=6 * 3600.0,
    max_wait_s=6 * 3600.0,
    max_memory_bytes=8192 * MIB,
)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file says it is.

    Attributes:
        kind: a picture's ("jpeg", "png", "webp", "bmp", "heic", "avif"), an animation's ("gif", "animated png",
            "animated webp") or a clip's ("mp4", also of QuickTime and 3GP; "matroska", also of WebM; "avi", "mpegts",
            "mpeg").
        width: px, as stored, before any rotation.
        height: px, as stored.
        frames: 1 for a picture; for a clip as declared, or as counted by `vet_upload`; 0 when unknown.
        seconds: length of a clip; 0.0 for a picture or when unknown.
    """

    kind: str
    width: int
    height: int
    frames: int = 1
    seconds: float = 0.0

    @property
    def is_video(self) -> bool:
        """Whether it is a clip."""
        return self.kind not in IMAGE_KINDS
