"""The decoding side of `understudy.media.guard`: probes and decodes one file, as a child process with limits.

Run as `python -m understudy.media.decode`: one JSON request on stdin; answers on stdout, each a little-endian
uint32 length, that many bytes of JSON, and, where the JSON has a "shape", height x width x 3 bytes of BGR pixels.
`probe` is also called in the operator's own process, on files that the operator named.
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from liveframe.frame import Image
from understudy.media.limits import IMAGE_KINDS, MediaError, MediaInfo, MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_DEMUXERS = {"mp4": "mov", "matroska": "matroska", "avi": "avi"}
_PIL_FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP"}
_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "prores", "ffv1", "rawvideo"})
# No other file, no network, whatever a header asks for.
_OPTIONS = {"protocol_whitelist": "file", "enable_drefs": "0", "use_absolute_path": "0"}


def probe(path: Path, kind: str, limits: MediaLimits) -> MediaInfo:
    """Read a file's header and refuse what is larger than the limits.

    Raises:
        MediaError: unreadable, animated, without one video stream, or too large.
    """
    return _probe_image(path, kind, limits) if kind in IMAGE_KINDS else _probe_clip(path, kind, limits)


def _probe_image(path: Path, kind: str, limits: MediaLimits) -> MediaInfo:
    from PIL import Image as Pictures
    from PIL import UnidentifiedImageError

    try:
        with Pictures.open(path, formats=[_PIL_FORMATS[kind]]) as picture:
            _check_pixels(path, picture.width, picture.height, limits.max_image_pixels)
            frames = getattr(picture, "n_frames", 1)
    except (Pictures.DecompressionBombError, Pictures.DecompressionBombWarning) as error:
        most = limits.max_image_pixels
        raise MediaError(f"'{path.name}' must hold at most {most} pixels, but declares far more. Shrink it.") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error, IndexError) as error:
        raise MediaError(f"'{path.name}' has a broken {kind} header ({error}). Save it again.") from error
    if frames > 1:
        raise MediaError(f"'{path.name}' must be one picture, but is an animation of {frames}. Save one of them.")
    return MediaInfo(kind, picture.width, picture.height)


def _probe_clip(path: Path, kind: str, limits: MediaLimits) -> MediaInfo:
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), format=_DEMUXERS[kind], container_options=_OPTIONS) as container:
            stream = _only_video(path, container)
            _check_pixels(path, stream.codec_context.width, stream.codec_context.height, limits.max_frame_pixels)
            seconds = max(0.0, (container.duration or 0) / 1e6)
            _check_length(path, stream.frames, seconds, limits)
            width, height = stream.codec_context.width, stream.codec_context.height
            return MediaInfo(kind, width, height, stream.frames, seconds)
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"'{path.name}' cannot be read as {kind} ({error}). Export it again as MP4.") from error


def _only_video(path: Path, container: "InputContainer") -> "VideoStream":
    streams = container.streams.video
    if len(streams) != 1:
        raise MediaError(f"'{path.name}' must have one video stream, but has {len(streams)}. Export one of them.")
    codec = streams[0].codec_context.codec.name.removeprefix("lib").split("-")[0].split("_")[0]
    name = {"vpx": "vp8", "dav1d": "av1", "aom": "av1"}.get(codec, codec)
    if name not in _CODECS:
        raise MediaError(f"'{path.name}' uses the codec '{name}', which is not read here. Export it as H.264.")
    return streams[0]


def _check_pixels(path: Path, width: int, height: int, most: int) -> None:
    if not (width > 0 and height > 0):
        raise MediaError(f"'{path.name}' must have pixels, but declares {width}x{height}. Save it again.")
    if width * height > most:
        raise MediaError(f"'{path.name}' must hold at most {most} pixels, but declares {width}x{height}. Shrink it.")


def _check_length(path: Path, frames: int, seconds: float, limits: MediaLimits) -> None:
    if frames > limits.max_frames:
        raise MediaError(
            f"'{path.name}' must have at most {limits.max_frames} frames, but has {frames} or more. Cut it shorter."
        )
    if seconds > limits.max_seconds:
        raise MediaError(
            f"'{path.name}' must last at most {limits.max_seconds:.0f} s, but lasts {seconds:.0f} s. Cut it shorter."
        )


def decode_image(path: Path, kind: str, limits: MediaLimits) -> Image:
    """Decode a picture that has passed `probe`.

    Returns:
        uint8 [H, W, 3] BGR, upright, transparency laid on white.

    Raises:
        MediaError: a clip, or broken.
    """
    from PIL import Image as Pictures
    from PIL import ImageOps

    if kind not in IMAGE_KINDS:
        raise MediaError(f"'{path.name}' must be a picture, but is a clip. Choose a JPEG or PNG file.")
    probe(path, kind, limits)
    try:
        with Pictures.open(path, formats=[_PIL_FORMATS[kind]]) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):
                raise MediaError(f"'{path.name}' must have 8 bits a channel, but has more. Save it with 8 bits.")
            rgba = upright.convert("RGBA")
            ground = Pictures.new("RGBA", rgba.size, "white")
            image_rgb = np.asarray(Pictures.alpha_composite(ground, rgba).convert("RGB"))
    except (OSError, ValueError, SyntaxError, struct.error, IndexError, EOFError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"'{path.name}' is broken inside ({error}). Save it again from its source.") from error
    return np.ascontiguousarray(image_rgb[..., ::-1])


def decode_frames(path: Path, kind: str, limits: MediaLimits) -> "Iterator[VideoFrame]":
    """Decode a clip, judging every frame again: a stream may change its size, and headers lie about lengths.

    Raises:
        MediaError: a picture, broken, empty, or larger than the limits.
    """
    import av
    from av.error import FFmpegError

    if kind in IMAGE_KINDS:
        raise MediaError(f"'{path.name}' must be a clip, but is a picture. Choose an MP4, MOV or WebM file.")
    probe(path, kind, limits)
    count = 0
    try:
        with av.open(str(path), format=_DEMUXERS[kind], container_options=_OPTIONS) as container:
            stream = _only_video(path, container)
            stream.codec_context.thread_count = 2
            for frame in container.decode(stream):
                count += 1
                _check_pixels(path, frame.width, frame.height, limits.max_frame_pixels)
                _check_length(path, count, frame.time or 0.0, limits)
                yield frame
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"'{path.name}' breaks after {count} frames ({error}). Export it again as MP4.") from error
    if count == 0:
        raise MediaError(f"'{path.name}' must have frames, but none could be decoded. Export it again as MP4.")


def upright(frame: "VideoFrame") -> Image:
    """Turn a decoded frame to pixels as a player shows it.

    Returns:
        uint8 [H, W, 3] BGR, with the stream's display rotation (multiples of 90 degrees) applied.
    """
    image = np.rot90(frame.to_ndarray(format="bgr24"), round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(image, dtype=np.uint8)


def _answer(stream: BinaryIO, header: dict[str, Any], image: Image | None = None) -> None:
    if image is not None:
        header |= {"shape": image.shape[:2]}
    raw = json.dumps(header).encode()
    stream.write(struct.pack("<I", len(raw)) + raw)
    if image is not None:
        stream.write(image.tobytes())
    stream.flush()


def _work(request: dict[str, Any], limits: MediaLimits, out: BinaryIO) -> None:
    path, kind, task = Path(request["path"]), str(request["kind"]), request["task"]
    if task == "image" or (task == "vet" and kind in IMAGE_KINDS):
        image = decode_image(path, kind, limits)
        info = {"kind": kind, "width": image.shape[1], "height": image.shape[0], "frames": 1, "seconds": 0.0}
        _answer(out, {"info": info, "end": True}, image if task == "image" else None)
        return
    frames, last_s, size = 0, 0.0, (0, 0)
    for frame in decode_frames(path, kind, limits):
        frames, last_s, size = frames + 1, float(frame.time or 0.0), (frame.width, frame.height)
        if task == "frames":
            _answer(out, {"time_s": last_s}, upright(frame))
    info = {"kind": kind, "width": size[0], "height": size[1], "frames": frames, "seconds": last_s}
    _answer(out, {"info": info, "end": True})


def _limit_self(limits: MediaLimits) -> None:
    """Give up what a decoder does not need: memory, processor time, open files, writing, core dumps."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit
        return
    seconds = int(limits.max_wait_s) + 1
    wanted = [
        (resource.RLIMIT_AS, limits.max_memory_bytes),
        (resource.RLIMIT_CPU, 2 * seconds),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ]
    for name, value in wanted:
        resource.setrlimit(name, (value, value))


def main() -> int:
    """Answer one request; the exit status is 0 whenever an answer was given."""
    out = sys.stdout.buffer
    request = json.loads(sys.stdin.buffer.read(65_536))
    limits = MediaLimits(**request["limits"])
    _limit_self(limits)
    try:
        _work(request, limits, out)
    except MediaError as error:
        _answer(out, {"refused": str(error), "end": True})
    except MemoryError:
        name = Path(request["path"]).name
        _answer(out, {"refused": f"'{name}' needs more memory than allowed. Lower its resolution.", "end": True})
    return 0


if __name__ == "__main__":
    sys.exit(main())
