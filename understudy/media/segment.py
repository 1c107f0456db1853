"""Clips written in segments: each is encoded on its own, is whole or absent, and all are joined at the end.

Every segment starts with a key frame and has no B-frames, so that decoding and showing order agree, and segments
join by copying their packets. Between encoding and joining they are NUT files, which keep any time base exactly.
"""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Image, check_image
from understudy.media.clip import describe
from understudy.media.limits import EXTENSIONS

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

CONTAINERS = EXTENSIONS["mp4"]
# Sound that MP4 players read as it is; anything else becomes AAC.
_COPIED_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
_AAC_BIT_RATE = 160_000
_FALLBACK_RATE_HZ = 25
_BT601 = 5  # matrix coefficients as H.264 numbers them; cv2's I420 conversion uses these
_LIMITED_RANGE = 1


class SegmentError(LiveframeError, RuntimeError):
    """A segment cannot be written, or segments cannot be joined."""


@dataclass(frozen=True, slots=True)
class ClipFormat:
    """How a clip's pictures are timed.

    Attributes:
        time_base: seconds per tick.
        start_s: when the source's own clock starts, in seconds: taken off, so that the result starts at 0.
        rate_hz: frames a second on average; single frames may stay longer or shorter.
        pixel_aspect: width of a pixel by its height, in the stored picture.
        frames: how many the header declares or its length suggests; 0 when unknown.
    """

    time_base: Fraction
    start_s: float
    rate_hz: Fraction
    pixel_aspect: Fraction
    frames: int


def clip_format(path: Path) -> ClipFormat:
    """Read a clip's timing from its header.

    Raises:
        MediaError: missing, unreadable, or too large.
    """
    import av

    info = describe(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE_HZ)
        rate = rate if 0 < rate <= 1000 else Fraction(_FALLBACK_RATE_HZ)
        return ClipFormat(
            time_base=Fraction(stream.time_base or Fraction(1, 90_000)),
            start_s=max(0.0, (container.start_time or 0) / 1e6),
            rate_hz=rate,
            pixel_aspect=Fraction(stream.codec_context.sample_aspect_ratio or 1),
            frames=info.frames or round(info.seconds * rate),
        )


def even(image: Image) -> Image:
    """Leave out the last column or row where their number is odd, as 4:2:0 video asks."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(image[: max(2, height // 2 * 2), : max(2, width // 2 * 2)])


def video_encoder() -> str:
    """Name the best H.264 (else MPEG-4) encoder that the installed PyAV has."""
    import av

    return next(name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available)


class SegmentWriter:
    """Writes one segment; on `close` it appears under its name at once, whole, or (after an error) never.

    Used by one thread, as a context manager.
    """

    def __init__(self, path: Path, timing: ClipFormat, width: int, height: int, crf: int = 18) -> None:
        """Start a segment.

        Args:
            path: where it will be, ending in .nut.
            timing: the source's.
            width: px, even.
            height: px, even.
            crf: x264's quality: 18 looks like the source, 23 is smaller.
        """
        import av

        self._path, self._shape = path, (height, width, 3)
        self._writing = path.with_suffix(".writing")
        self._container: OutputContainer = av.open(str(self._writing), "w", format="nut")
        encoder = video_encoder()
        options = {"crf": str(crf), "preset": "veryfast"} if encoder == "libx264" else {"q": "2"}
        added = self._container.add_stream(encoder, rate=timing.rate_hz, options={**options, "bf": "0"})
        stream = cast("VideoStream", added)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = timing.time_base
        context.sample_aspect_ratio = timing.pixel_aspect
        context.colorspace, context.color_range = _BT601, _LIMITED_RANGE
        self._stream = stream
        self._time_base = timing.time_base

    def write(self, image: Image, pts: int) -> None:
        """Add a picture: uint8 [H, W, 3] BGR of the segment's size, shown from tick `pts` on; ticks rise."""
        import av

        check_image(image, "segment picture")
        if image.shape != self._shape:
            raise SegmentError(f"segment picture must be {list(self._shape)}, but got {list(image.shape)}. Resize it.")
        i420 = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)  # swscale's conversion darkens by two levels
        frame = av.VideoFrame.from_ndarray(np.asarray(i420, np.uint8), format="yuv420p")
        frame.colorspace, frame.color_range = _BT601, _LIMITED_RANGE
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish and publish the segment."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        publish(self._writing, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()
            self._writing.unlink(missing_ok=True)


def publish(written: Path, path: Path) -> None:
    """Move a finished file to its name so that a crash leaves the old or the new one, never a part."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(written, path)


def join(segments: Sequence[Path], source: Path, target: Path, timing: ClipFormat) -> None:
    """Put segments one after another and lay the source's sound beside them; pictures are copied, not encoded again.

    Metadata of the source (places, devices, names) and its subtitles are left behind.

    Args:
        segments: in showing order, at least one.
        source: whose sound is kept: copied where MP4 can hold it, else as AAC.
        target: the result, one of `CONTAINERS`. Not published atomically: give a name of its own and move it.
        timing: the source's.

    Raises:
        SegmentError: no segments, or they were encoded differently.
    """
    import av

    if not segments:
        raise SegmentError("A clip must have at least one segment to join, but got none. Convert it again.")
    with ExitStack() as stack:
        parts = [stack.enter_context(av.open(str(path))) for path in segments]
        pictures = [part.streams.video[0] for part in parts]
        _check_alike(pictures, segments)
        sound = stack.enter_context(av.open(str(source)))
        kind = "mov" if target.suffix.lower() == ".mov" else "mp4"
        result = stack.enter_context(av.open(str(target), "w", format=kind, options={"movflags": "+faststart"}))
        video = result.add_stream_from_template(pictures[0])
        video.time_base = timing.time_base
        tracks = [_picture_packets(parts, video, timing.time_base)]
        tracks += [_sound_packets(source, stream, result, timing.start_s) for stream in sound.streams.audio]
        for packet in heapq.merge(*tracks, key=_packet_time_s):
            result.mux(packet)


def _check_alike(streams: Sequence["VideoStream"], segments: Sequence[Path]) -> None:
    first = streams[0].codec_context
    for stream, path in zip(streams, segments, strict=True):
        context = stream.codec_context
        if (context.width, context.height, context.extradata) != (first.width, first.height, first.extradata):
            raise SegmentError(f"{path} must be encoded as the segments before it, but is not. Convert the clip again.")


def _packet_time_s(packet: "Packet[Any]") -> float:
    return float((packet.dts or 0) * packet.time_base)


def _picture_packets(
    parts: Iterable["InputContainer"], stream: "VideoStream", time_base: Fraction
) -> "Iterator[Packet[Any]]":
    """Return all parts' packets with the source's ticks and the time that each picture stays."""
    waiting: Packet[VideoStream] | None = None
    step = 1
    for part in parts:
        for packet in part.demux(video=0):
            if packet.size == 0 or packet.pts is None:
                continue
            ticks = round(packet.pts * packet.time_base / time_base)
            ticks = max(ticks, (waiting.pts or 0) + 1) if waiting is not None else ticks
            packet.stream, packet.time_base = stream, time_base
            packet.pts = packet.dts = ticks
            if waiting is not None:
                step = max(1, ticks - (waiting.pts or 0))
                waiting.duration = step
                yield waiting
            waiting = packet
    if waiting is not None:
        waiting.duration = step
        yield waiting


def _sound_packets(
    source: Path, stream: "AudioStream", result: "OutputContainer", start_s: float
) -> "Iterator[Packet[Any]]":
    """Add a sound track to the result; give its packets, copied or encoded anew."""
    if stream.codec_context.codec.name.removesuffix("float") in _COPIED_SOUND:
        track = result.add_stream_from_template(stream)
        return _copied_sound(source, stream.index, track, start_s)
    rate_hz = stream.codec_context.sample_rate or 48_000
    encoded = result.add_stream("aac", rate=rate_hz, layout="stereo" if stream.channels > 1 else "mono")
    encoded.bit_rate = _AAC_BIT_RATE
    return _encoded_sound(source, stream.index, encoded, start_s)


def _copied_sound(source: Path, index: int, track: "AudioStream", start_s: float) -> "Iterator[Packet[Any]]":
    import av

    with av.open(str(source)) as container:
        for packet in container.demux(container.streams[index]):
            if packet.size == 0 or packet.pts is None:
                continue
            shift = round(start_s / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.dts - shift if packet.dts is not None else packet.pts
            packet.stream = track
            yield packet


def _encoded_sound(source: Path, index: int, track: "AudioStream", start_s: float) -> "Iterator[Packet[Any]]":
    import av

    with av.open(str(source)) as container:
        for frame in container.decode(container.streams[index]):
            assert isinstance(frame, av.AudioFrame)
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(start_s / frame.time_base)
            yield from track.encode(frame)
        yield from track.encode(None)
