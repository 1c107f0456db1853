"""How a result is encoded: which codec, how well, how large, in which container."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from liveframe.errors import LiveframeError

CODECS = ("h264", "hevc", "av1", "vp9", "prores")
QUALITY = 80
_ENCODERS: Mapping[str, tuple[str, ...]] = {
    "h264": ("libx264", "libopenh264", "mpeg4"),
    "hevc": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1"),
    "vp9": ("libvpx-vp9",),
    "prores": ("prores_ks",),
}
_HARDWARE = ("videotoolbox", "nvenc", "qsv", "amf", "v4l2m2m")
_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    ".mp4": ("h264", "hevc", "av1", "vp9"),
    ".m4v": ("h264", "hevc"),
    ".mov": ("h264", "hevc", "prores"),
    ".webm": ("vp9", "av1"),
    ".gif": ("h264",),  # of the pieces; the GIF is made of them at the end
}
CONTAINERS = tuple(_CONTAINERS)


class EncodingError(LiveframeError, ValueError):
    """A result cannot be encoded as asked."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a result is encoded.

    Attributes:
        codec: one of `CODECS`; empty: the first that the result's container holds.
        quality: 1 to 100; 80 looks like the source.
        height: px to scale to, before anything is swapped; 0: the source's own.
        is_hardware: whether an encoder of the graphics card or processor is taken where one works.
    """

    codec: str = ""
    quality: int = QUALITY
    height: int = 0
    is_hardware: bool = False

    def __post_init__(self) -> None:
        if self.codec and self.codec not in CODECS:
            raise EncodingError(f"The codec must be one of {', '.join(CODECS)}, but got '{self.codec}'. Pick one.")
        if not 1 <= self.quality <= 100:
            raise EncodingError(f"The quality must be from 1 to 100, but got {self.quality}. Change it.")
        if self.height and not 16 <= self.height <= 8192:
            raise EncodingError(f"The height must be from 16 to 8192 px, but got {self.height}. Change it.")

    def codec_for(self, target: Path) -> str:
        """Return the codec for a result.

        Raises:
            EncodingError: its container does not exist here, or does not hold the codec.
        """
        suffix = target.suffix.lower()
        held = _CONTAINERS.get(suffix)
        if held is None:
            raise EncodingError(f"OUT must end in {', '.join(CONTAINERS)}, but got '{target.name}'. Rename it.")
        if self.codec and (self.codec not in held or suffix == ".gif"):
            fits = ", ".join(end for end, codecs in _CONTAINERS.items() if self.codec in codecs and end != ".gif")
            raise EncodingError(f"{self.codec} must go into {fits}, but OUT ends in {suffix}. Rename it.")
        return self.codec or held[0]

    def encoder_for(self, target: Path) -> str:
        """Name FFmpeg's encoder for a result: the best that this build has, and that works here.

        Raises:
            EncodingError: there is none.
        """
        import av

        codec = self.codec_for(target)
        hardware = tuple(f"{codec}_{maker}" for maker in _HARDWARE) if self.is_hardware else ()
        for name in (*hardware, *_ENCODERS[codec]):
            if name in av.codecs_available and (name not in hardware or _works(name)):
                return name
        raise EncodingError(f"This build of FFmpeg has no encoder for {codec}. Pick another --codec.")

    def options(self, encoder: str) -> dict[str, str]:
        """Return an encoder's options. Frames leave in the order they are shown, so that pieces join."""
        crf = str(round(40 - 0.275 * self.quality))  # 18 at 80
        wide_crf = str(round(62 - 0.425 * self.quality))  # of 63: 28 at 80
        known = {
            "libx264": {"crf": crf, "preset": "veryfast", "bf": "0"},
            "libopenh264": {"q": "2"},
            "mpeg4": {"q": "2", "bf": "0"},
            "libx265": {"crf": str(int(crf) + 3), "preset": "fast", "x265-params": "bframes=0:log-level=none:info=0"},
            "libsvtav1": {"crf": wide_crf, "preset": "9", "svtav1-params": "pred-struct=1"},
            "libaom-av1": {"crf": wide_crf, "cpu-used": "8", "lag-in-frames": "0"},
            "libvpx-vp9": {"crf": wide_crf, "b": "0", "lag-in-frames": "0", "cpu-used": "5", "row-mt": "1"},
            "prores_ks": {"profile": "hq" if self.quality > QUALITY else "standard"},
        }
        return known.get(encoder, {"bf": "0", "q": "2", "cq": crf, "global_quality": crf})


def pixel_format(encoder: str) -> str:
    """Return the pixel format that frames are handed to an encoder in."""
    return "yuv422p10le" if encoder == "prores_ks" else "yuv420p"


def piece_suffix(encoder: str) -> str:
    """Return the container of pieces: NUT keeps any time base, but does not hold every codec and its tags."""
    if encoder == "prores_ks":
        return ".mov"
    return ".nut" if encoder in ("libx264", "libopenh264", "mpeg4") else ".mp4"


def _works(encoder: str) -> bool:
    """Whether a hardware encoder opens and takes a picture here."""
    import av
    import numpy as np
    from av.error import FFmpegError

    try:
        context = av.CodecContext.create(encoder, "w")
        context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"  # pyright: ignore[reportAttributeAccessIssue]
        context.time_base = Fraction(1, 25)
        frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 128, np.uint8), format="bgr24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = 0
        context.encode(frame)  # pyright: ignore[reportAttributeAccessIssue]
    except (FFmpegError, ValueError, OSError):
        return False
    return True
