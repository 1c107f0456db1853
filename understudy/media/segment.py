"""Clips written in segments: each is encoded on its own, is whole or absent, and all are joined at the end.

Every segment starts with a key frame and has no B-frames, so that decoding and showing order agree, and segments
join by copying their packets. Between encoding and joining they are NUT files, which keep any time base exactly,
where NUT holds the codec.
"""

import errno
import heapq
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Image, check_image
from understudy.media.clip import describe
from understudy.media.colour import LIMITED, ColourTags, from_bgr
from understudy.media.decode import Note, file_address, ignore_note, open_clip, video_stream
from understudy.media.encoding import Encoding, piece_suffix, pixel_format
from understudy.media.limits import ANIMATION_KINDS
from understudy.media.photo import animation_times_ms
from understudy.media.sound import SoundSource, add_sound

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_FALLBACK_RATE_HZ = 25
_MOST_GIF_HZ = 15
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})


class SegmentError(LiveframeError, RuntimeError):
    """A segment cannot be written, or segments cannot be joined."""


@dataclass(frozen=True, slots=True)
class ClipFormat:
    """How a clip's pictures are timed, shaped and coloured.

    Attributes:
        time_base: seconds per tick.
        start_s: when the source's own clock starts, in seconds: taken off, so that the result starts at 0.
        rate_hz: frames a second on average; single frames may stay longer or shorter.
        pixel_aspect: width of a pixel by its height, in the picture as it is shown (after its turn).
        frames: how many the header declares or its length suggests; 0 when unknown.
        colour: what the result is tagged as.
        kind: as `check_first_bytes` tells it.
        seconds: how long the header says it is; 0 when unknown.
    """

    time_base: Fraction
    start_s: float
    rate_hz: Fraction
    pixel_aspect: Fraction
    frames: int
    colour: ColourTags = field(default_factory=ColourTags)
    kind: str = "mp4"
    seconds: float = 0.0


def clip_format(path: Path) -> ClipFormat:
    """Read a clip's format from its header.

    Raises:
        MediaError: missing, unreadable, or too large.
    """
    info = describe(path)
    if info.kind in ANIMATION_KINDS:
        times_ms = animation_times_ms(path, info.kind)
        rate = Fraction(1000 * len(times_ms), sum(times_ms)).limit_denominator(1000)
        colour = ColourTags().written(is_rgb=True)
        return ClipFormat(
            Fraction(1, 1000), 0.0, rate, Fraction(1), info.frames, colour, info.kind, sum(times_ms) / 1e3
        )
    with open_clip(path, info.kind) as container:
        stream = video_stream(path, container)
        context = stream.codec_context
        rate = Fraction(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE_HZ)
        rate = rate if 0 < rate <= 1000 else Fraction(_FALLBACK_RATE_HZ)
        aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1)  # the container's own first
        return ClipFormat(
            time_base=Fraction(stream.time_base or Fraction(1, 90_000)),
            start_s=max(0.0, (container.start_time or 0) / 1e6),
            rate_hz=rate,
            pixel_aspect=1 / aspect if _is_on_its_side(container, stream) else aspect,
            frames=info.frames or round(info.seconds * rate),
            colour=ColourTags.of(context).written(is_rgb=context.pix_fmt is not None and _is_rgb(context.pix_fmt)),
            kind=info.kind,
            seconds=info.seconds,
        )


def _is_rgb(pixel_format: str) -> bool:
    return pixel_format.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8"))


def _is_on_its_side(container: "InputContainer", stream: "VideoStream") -> bool:
    """Whether players turn the clip by a quarter: its first frame says so."""
    from av.error import FFmpegError

    for _, packet in zip(range(100), container.demux(stream), strict=False):
        try:
            for frame in stream.decode(packet):
                return round(frame.rotation / 90) % 2 == 1
        except FFmpegError:
            continue
    return False


def even(image: Image) -> Image:
    """Leave out the last column or row where their number is odd, as 4:2:0 video asks."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(image[: max(2, height // 2 * 2), : max(2, width // 2 * 2)])


class SegmentWriter:
    """Writes one segment; on `close` it appears under its name at once, whole, or (after an error) never.

    Used by one thread, as a context manager.
    """

    def __init__(
        self,
        path: Path,
        timing: ClipFormat,
        width: int,
        height: int,
        encoder: str = "libx264",
        encoding: Encoding | None = None,
    ) -> None:
        """Start a segment.

        Args:
            path: where it will be, ending in the encoder's `piece_suffix`.
            timing: the source's.
            width: px, even.
            height: px, even.
            encoder: FFmpeg's name, as `Encoding.encoder_for` gives it.
            encoding: how well; as `Encoding()` where left out.
        """
        import av

        self._path, self._shape = path, (height, width, 3)
        self._writing = path.with_suffix(".writing")
        self._container: OutputContainer = av.open(
            file_address(self._writing), "w", format=piece_suffix(encoder).lstrip(".")
        )
        added = self._container.add_stream(
            encoder, rate=timing.rate_hz, options=(encoding or Encoding()).options(encoder)
        )
        stream = cast("VideoStream", added)
        self._pixels = pixel_format(encoder)
        stream.width, stream.height, stream.pix_fmt = width, height, self._pixels
        context, self._colour = stream.codec_context, timing.colour
        context.time_base = stream.time_base = timing.time_base
        context.sample_aspect_ratio = timing.pixel_aspect
        context.thread_count = 2
        context.colorspace, context.color_range = self._colour.matrix, self._colour.range or LIMITED
        context.color_primaries, context.color_trc = self._colour.primaries, self._colour.transfer
        if encoder == "libsvtav1":
            context.open()
            _share_the_processor()
        self._stream = stream
        self._time_base = timing.time_base

    def write(self, image: Image, pts: int) -> None:
        """Add a picture: uint8 [H, W, 3] BGR of the segment's size, shown from tick `pts` on; ticks rise."""
        check_image(image, "segment picture")
        if image.shape != self._shape:
            raise SegmentError(f"segment picture must be {list(self._shape)}, but got {list(image.shape)}. Resize it.")
        frame = from_bgr(image, self._colour, self._pixels)
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


def _share_the_processor() -> None:
    """Take back the real-time priority that SVT-AV1 gives itself, and its caller, where it runs as root.

    Whatever the process starts later inherits it, and starves the machine.
    """
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has ended meanwhile
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def publish(written: Path, path: Path) -> None:
    """Move a finished file to its name so that a crash leaves the old or the new one, never a part."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(written, path)


def join(
    segments: Sequence[Path], sound: SoundSource | None, target: Path, timing: ClipFormat, note: Note = ignore_note
) -> None:
    """Put segments one after another and lay the source's sound beside them; pictures are copied, not encoded again.

    Metadata of the source (places, devices, names) and its subtitles are left behind, languages of sound are kept.
    Sound that breaks ends there: no picture is lost for it.

    Args:
        segments: in showing order, at least one.
        sound: whose sound is kept; None: nobody's.
        target: the result, one of `encoding.CONTAINERS`. Not published atomically: give a name of its own and move it.
        timing: the source's.
        note: told of what is left out.

    Raises:
        SegmentError: no segments, or they were encoded differently.
    """
    import av

    if not segments:
        raise SegmentError("A clip must have at least one segment to join, but got none. Convert it again.")
    suffix = target.suffix.lower()
    if suffix == ".gif":
        _write_gif(segments, target, timing)
        return
    kind, options = {".mov": "mov", ".webm": "webm"}.get(suffix, "mp4"), {"movflags": "+faststart"}
    with ExitStack() as stack:
        parts = [stack.enter_context(av.open(file_address(path))) for path in segments]
        pictures = [part.streams.video[0] for part in parts]
        _check_alike(pictures, segments)
        result = stack.enter_context(
            av.open(file_address(target), "w", format=kind, options=options if kind != "webm" else {})
        )
        video = result.add_stream_from_template(pictures[0], opaque=True)
        video.time_base = timing.time_base
        tracks = [_picture_packets(parts, video, timing.time_base)]
        tracks += add_sound(sound, result, suffix, note) if sound is not None else []
        _mux(result, heapq.merge(*tracks, key=_packet_time_s), note)


def _mux(result: "OutputContainer", packets: "Iterator[Packet[Any]]", note: Note) -> None:
    """Write packets; sound that the container refuses is left out, so that no picture is lost for it."""
    from av.error import FFmpegError

    refused = 0
    for packet in packets:
        is_sound = packet.stream.type == "audio"
        try:
            result.mux(packet)
        except FFmpegError:
            if not is_sound:
                raise
            refused += 1
    if refused:
        note(f"{refused} pieces of the sound could not be written: left out.")


def try_output(
    sound: SoundSource | None,
    target: Path,
    timing: ClipFormat,
    size: tuple[int, int],
    encoding: Encoding,
    room: Path,
    seal: Callable[[Path], None] | None = None,
) -> None:
    """Open the result as it will be, write one picture and the first of each sound track, sign it; then forget it.

    What cannot be written fails here, before any work is done.

    Args:
        sound: whose sound.
        target: the result: its extension counts.
        timing: the source's.
        size: (width, height) of its pictures, even.
        encoding: how it will be encoded.
        room: a folder to write in.
        seal: signs the result.

    Raises:
        EncodingError: no encoder.
        OSError: the disk is full, or may not be written.
        SegmentError: the result cannot hold what it must.
    """
    from av.error import FFmpegError

    encoder = encoding.encoder_for(target)
    piece = room / f"trial{piece_suffix(encoder)}"
    whole = room / f"trial{target.suffix.lower()}"
    try:
        with SegmentWriter(piece, timing, *size, encoder, encoding) as writer:
            writer.write(np.full((size[1], size[0], 3), 128, np.uint8), 0)
        first = replace(sound, most_packets=1) if sound is not None else None
        join([piece], first, whole, timing)
        if seal is not None:
            seal(whole)
    except (FFmpegError, ValueError) as error:
        # A disk that is full or closed is no fault of the result's kind: the command says what to do about it.
        if isinstance(error, LiveframeError) or getattr(error, "errno", None) in _DISK_ERRORS:
            raise
        said = getattr(error, "strerror", "") or error
        raise SegmentError(
            f"'{target.name}' cannot be written as {size[0]}x{size[1]} by {encoder} ({said}). Choose another "
            "container, --codec or --height."
        ) from error
    finally:
        for path in (piece, whole, whole.with_suffix(".c2pa")):
            path.unlink(missing_ok=True)


def _write_gif(segments: Sequence[Path], target: Path, timing: ClipFormat) -> None:
    """Encode segments as a GIF: at most 15 frames a second, a palette of its own for each."""
    import av

    with av.open(file_address(target), "w", format="gif") as result, ExitStack() as stack:
        parts = [stack.enter_context(av.open(file_address(path))) for path in segments]
        first = parts[0].streams.video[0]
        stream = result.add_stream("gif", rate=min(timing.rate_hz, Fraction(_MOST_GIF_HZ)))
        stream.width, stream.height, stream.pix_fmt = first.codec_context.width, first.codec_context.height, "pal8"
        stream.codec_context.time_base = Fraction(1, 100)
        for frame in _filtered(_timed(parts, timing.time_base), _gif_graph(first, timing)):
            result.mux(stream.encode(frame))
        result.mux(stream.encode(None))


def _gif_graph(first: "VideoStream", timing: ClipFormat) -> Any:
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(template=first, time_base=timing.time_base)
    is_slow = timing.rate_hz <= _MOST_GIF_HZ  # then frames keep their own times
    paced = graph.add("null") if is_slow else graph.add("fps", f"fps={_MOST_GIF_HZ}")
    split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    use, sink = graph.add("paletteuse", "new=1:dither=bayer"), graph.add("buffersink")
    source.link_to(paced)
    paced.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _timed(parts: Iterable["InputContainer"], time_base: Fraction) -> "Iterator[VideoFrame]":
    for part in parts:
        for frame in part.decode(video=0):
            frame.pts = round((frame.pts or 0) * (frame.time_base or time_base) / time_base)
            frame.time_base = time_base
            yield frame


def _filtered(frames: "Iterator[VideoFrame]", graph: Any) -> "Iterator[VideoFrame]":
    from av.error import BlockingIOError as NotYet
    from av.error import EOFError as Ended

    for frame in _then_none(frames):
        graph.vpush(frame)
        while True:
            try:
                yield graph.vpull()
            except (NotYet, Ended):
                break


def _then_none(frames: "Iterator[VideoFrame]") -> "Iterator[VideoFrame | None]":
    yield from frames
    yield None


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
