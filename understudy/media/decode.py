"""The decoding side of `understudy.media.guard`: probes and decodes one file, as a child process with limits.

Run as `python -m understudy.media.decode`: one JSON request on stdin; answers on stdout, each a little-endian
uint32 length, that many bytes of JSON, and, where the JSON has a "shape", height x width x 3 bytes of BGR pixels.
`probe` and `decode_frames` are also called in the operator's own process, on files that the operator named.
"""

import json
import struct
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import cv2
import numpy as np

from liveframe.frame import Image
from understudy.media.colour import ColourTags, ToneMap, to_bgr
from understudy.media.limits import ANIMATION_KINDS, IMAGE_KINDS, MediaError, MediaInfo, MediaLimits
from understudy.media.photo import check_pixels, decode_animation, decode_image, probe_picture

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_DEMUXERS = {"mp4": "mov", "matroska": "matroska", "avi": "avi", "mpegts": "mpegts", "mpeg": "mpeg"}
_CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "prores", "ffv1", "rawvideo"}
    | {"h263", "mpeg1video", "mpeg2video", "dvvideo", "dnxhd", "qtrle"}
)
# No other file, no network, whatever a header asks for.
_OPTIONS = {"protocol_whitelist": "file", "enable_drefs": "0", "use_absolute_path": "0"}
_ATTACHED_PICTURE = 0x400 | 0x800  # FFmpeg's dispositions for cover pictures and timed thumbnails
_INDEXED = frozenset({"mp4", "matroska"})  # seeking lands where it should, before the time asked for
_WORTH_SEEKING_S = 2.0
_LIGHT_SAMPLES = 5
_SAMPLE_SIZE = (160, 90)

Note = Callable[[str], None]
"""Takes a sentence about what could not be read."""


def ignore_note(note: str) -> None:
    """Nobody asks."""


def file_address(path: Path) -> str:
    """Return a path as FFmpeg's own address for it: names with colons are names, never protocols."""
    return f"file:{path}"


def probe(path: Path, kind: str, limits: MediaLimits) -> MediaInfo:
    """Read a file's header and refuse what is larger than the limits.

    Raises:
        MediaError: unreadable, without a video stream, or too large.
    """
    if kind in IMAGE_KINDS:
        return probe_picture(path, kind, limits)
    if kind in ANIMATION_KINDS:
        info = probe_picture(path, kind, limits)
        check_length(path, info.frames, 0.0, limits)
        return info
    with open_clip(path, kind) as container:
        stream = video_stream(path, container)
        context = stream.codec_context
        check_pixels(path, context.width, context.height, limits.max_frame_pixels)
        seconds = max(0.0, (container.duration or 0) / 1e6)
        check_length(path, stream.frames, seconds, limits)
        return MediaInfo(kind, context.width, context.height, stream.frames, seconds)


@contextmanager
def open_clip(path: Path, kind: str) -> "Generator[InputContainer]":
    """Open a clip by the one demuxer that its kind names.

    Raises:
        MediaError: it cannot be read as that, at the start or while the block runs.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(file_address(path), format=_DEMUXERS[kind], container_options=_OPTIONS) as container:
            yield container
    except PermissionError:
        raise
    except (FFmpegError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        said = str(getattr(error, "strerror", "") or error)
        raise MediaError(f"'{path.name}' cannot be read as {kind} ({said}). Export it again as MP4.") from error


def video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    """Choose the stream to show, as players do; cover pictures and thumbnails do not count.

    Raises:
        MediaError: there is none, or it is of a codec that is not read.
    """
    streams = [each for each in container.streams.video if not int(each.disposition) & _ATTACHED_PICTURE]
    best = container.streams.best("video")
    stream = next((each for each in streams if best is not None and each.index == best.index), None)
    stream = stream or next(iter(streams), None)
    if stream is None:
        raise MediaError(f"'{path.name}' must have one video stream, but has none. Choose a clip with pictures.")
    # None for codecs that FFmpeg does not know, which its types leave out.
    context = cast("VideoCodecContext | None", stream.codec_context)
    if context is None:
        raise MediaError(f"'{path.name}' uses a codec that is not known here. Export it as H.264.")
    codec = context.codec.name.removeprefix("lib").split("-")[0].split("_")[0]
    name = {"vpx": "vp8", "dav1d": "av1", "aom": "av1"}.get(codec, codec)
    if name not in _CODECS:
        raise MediaError(f"'{path.name}' uses the codec '{name}', which is not read here. Export it as H.264.")
    return stream


def check_length(path: Path, frames: int, seconds: float, limits: MediaLimits) -> None:
    """Refuse a length.

    Raises:
        MediaError: too many frames or seconds.
    """
    if frames > limits.max_frames:
        raise MediaError(
            f"'{path.name}' must have at most {limits.max_frames} frames, but has {frames} or more. Cut it shorter."
        )
    if seconds > limits.max_seconds:
        raise MediaError(
            f"'{path.name}' must last at most {limits.max_seconds:.0f} s, but lasts {seconds:.0f} s. Cut it shorter."
        )


def decode_frames(
    path: Path, kind: str, limits: MediaLimits, note: Note = ignore_note, from_s: float = 0.0
) -> "Iterator[VideoFrame]":
    """Decode a clip, judging every frame again: a stream may change its size, and headers lie about lengths.

    Interlaced frames come out deinterlaced, at their own rate. A torn file gives what it has.

    Args:
        path: the clip.
        kind: as `check_first_bytes` tells it.
        limits: what is too large.
        note: told what of the clip could not be read, at the end.
        from_s: frames before that many seconds of the clip may be left out where its index allows it.

    Raises:
        MediaError: a picture, empty, larger than the limits, or broken before its first frame.
    """
    if kind in IMAGE_KINDS:
        raise MediaError(f"'{path.name}' must be a clip, but is a picture. Choose an MP4, MOV or WebM file.")
    probe(path, kind, limits)
    count, notes = 0, list[str]()
    try:
        frames = _animation(path, kind, limits) if kind in ANIMATION_KINDS else _decoded(path, kind, notes, from_s)
        for frame in frames:
            check_pixels(path, frame.width, frame.height, limits.max_frame_pixels)
            check_length(path, count + 1, frame.time or 0.0, limits)
            count += 1
            yield frame
    except MediaError as error:
        if count == 0 or "must" in str(error):
            raise
        notes.append(f"'{path.name}' breaks after {count} frames: what follows is missing.")
    if count == 0:
        raise MediaError(f"'{path.name}' must have frames, but none could be decoded. Export it again as MP4.")
    for sentence in notes:
        note(sentence)


def _animation(path: Path, kind: str, limits: MediaLimits) -> "Iterator[VideoFrame]":
    import av

    now_ms = 0
    for image, stays_ms in decode_animation(path, kind, limits):
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = now_ms, Fraction(1, 1000)
        now_ms += stays_ms
        yield frame


def _decoded(path: Path, kind: str, notes: list[str], from_s: float) -> "Iterator[VideoFrame]":
    """Return a clip's frames, progressive, with rising times; packets that cannot be decoded are passed over."""
    with open_clip(path, kind) as container:
        stream = video_stream(path, container)
        stream.codec_context.thread_count = 2
        is_whole = not (kind in _INDEXED and from_s > _WORTH_SEEKING_S and _seek(container, from_s))
        packets, count = _Packets(container, stream, is_timed=kind != "avi"), 0
        progressive = _Progressive(stream)
        for frame in packets.frames():
            for shown in progressive.push(frame):
                count += 1
                yield shown
        for shown in progressive.push(None):
            count += 1
            yield shown
        if packets.is_torn or (packets.broken and is_whole and count < stream.frames):
            of = f" of {stream.frames}" if is_whole and stream.frames > count else ""
            notes.append(f"'{path.name}' is torn: {count}{of} frames could be read, what follows is missing.")
        elif packets.broken:
            notes.append(f"'{path.name}' is damaged: {packets.broken} pieces of its video could not be read.")


def _seek(container: "InputContainer", from_s: float) -> bool:
    """Go to the last key frame before a time; tell whether that worked."""
    from av.error import FFmpegError

    try:
        container.seek((container.start_time or 0) + int(from_s * 1e6))
    except FFmpegError:
        return False
    return True


class _Packets:
    """Decodes packet by packet, so that a broken one costs no more than itself. Used once."""

    def __init__(self, container: "InputContainer", stream: "VideoStream", is_timed: bool) -> None:
        self._container, self._stream, self._is_timed = container, stream, is_timed
        self._ticks: deque[int] = deque()  # of AVI, whose packets carry the times of decoding, not of showing
        self.broken = 0
        self.is_torn = False

    def frames(self) -> "Iterator[VideoFrame]":
        from av.error import FFmpegError

        is_last_broken = False
        for packet in self._demuxed():
            if packet.size == 0 and is_last_broken:  # cut off here: what the decoder still holds misses its references
                self.is_torn = True
                return
            try:
                frames, is_last_broken = self._stream.decode(packet), False
            except FFmpegError:
                self.broken, is_last_broken = self.broken + 1, True
                continue
            if packet.size and packet.dts is not None:
                self._ticks.append(packet.dts)
            for frame in frames:
                if not self._is_timed and self._ticks:
                    frame.pts = self._ticks.popleft()
                yield frame

    def _demuxed(self) -> "Iterator[Packet[Any]]":
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.is_torn = True
                return
            if packet is None:
                return
            self.is_torn = self.is_torn or packet.is_corrupt
            yield packet


class _Progressive:
    """Deinterlaces (bwdif, one frame for each frame) from the first interlaced frame on; others pass as they are."""

    def __init__(self, stream: "VideoStream") -> None:
        self._time_base = stream.time_base
        self._graph: Any = None
        self._form: tuple[int, int, str] | None = None
        self._waiting: deque[int | None] = deque()

    def push(self, frame: "VideoFrame | None") -> "Iterator[VideoFrame]":
        """Take a frame, or None at the end; give those that are ready."""
        if frame is None:
            yield from self._flushed()
            return
        if self._graph is None and not frame.interlaced_frame:
            yield frame
            return
        form = (frame.width, frame.height, frame.format.name)
        if form != self._form:
            yield from self._flushed()
            self._graph, self._form = self._new_graph(frame), form
        self._waiting.append(frame.pts)
        graph: Any = self._graph
        graph.vpush(frame)
        yield from self._ready()

    def _ready(self) -> "Iterator[VideoFrame]":
        from av.error import BlockingIOError as NotYet
        from av.error import EOFError as Ended

        while self._waiting:
            try:
                frame = self._graph.vpull()
            except (NotYet, Ended):
                return
            frame.pts = self._waiting.popleft()
            frame.time_base = self._time_base
            yield frame

    def _flushed(self) -> "Iterator[VideoFrame]":
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready()
            self._graph = None

    def _new_graph(self, frame: "VideoFrame") -> Any:
        from av.filter import Graph

        graph = Graph()
        graph.threads = 2
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or self._time_base
        )
        deinterlacer = graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = graph.add("buffersink")
        source.link_to(deinterlacer)
        deinterlacer.link_to(sink)
        graph.configure()
        return graph


def tone_map(path: Path, kind: str) -> ToneMap | None:
    """Look at a clip's light here and there; None where it is no HDR video.

    Raises:
        MediaError: it cannot be read.
    """
    if kind in ANIMATION_KINDS:
        return None
    with open_clip(path, kind) as container:
        stream = video_stream(path, container)
        tags = ColourTags.of(stream.codec_context)
        if not tags.is_hdr:
            return None
        return ToneMap(tags.transfer, list(_light_samples(container, stream)))


def _light_samples(container: "InputContainer", stream: "VideoStream") -> Iterator[np.ndarray]:
    from av.error import FFmpegError

    length = container.duration or 0
    for number in range(_LIGHT_SAMPLES):
        try:
            container.seek((container.start_time or 0) + length * number // _LIGHT_SAMPLES)
            frame = next(container.decode(stream))
        except (FFmpegError, StopIteration):
            continue
        matrix = ColourTags.of(frame).working_matrix(frame.width, frame.height)
        pixels = frame.reformat(format="rgb48le", src_colorspace=matrix, dst_color_range=2).to_ndarray()
        yield cv2.resize(pixels, _SAMPLE_SIZE, interpolation=cv2.INTER_AREA)


def upright(frame: "VideoFrame", tone: ToneMap | None = None) -> Image:
    """Turn a decoded frame to pixels as a player shows it.

    Args:
        frame: from `decode_frames`.
        tone: as `tone_map` gives it; HDR only.

    Returns:
        uint8 [H, W, 3] BGR, with the stream's display rotation (multiples of 90 degrees) applied.
    """
    quarters = round(frame.rotation / 90) % 4
    image = to_bgr(frame, tone)
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


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
    if task == "probe":
        _answer(out, {"info": asdict(probe(path, kind, limits)), "end": True})
        return
    if task == "image" or (task == "vet" and kind in IMAGE_KINDS):
        image = decode_image(path, kind, limits)
        info = {"kind": kind, "width": image.shape[1], "height": image.shape[0], "frames": 1, "seconds": 0.0}
        _answer(out, {"info": info, "end": True}, image if task == "image" else None)
        return
    frames, last_s, size = 0, 0.0, (0, 0)
    tone = tone_map(path, kind) if task == "frames" and kind not in IMAGE_KINDS else None
    for frame in decode_frames(path, kind, limits, from_s=float(request.get("from_s") or 0.0)):
        frames, last_s, size = frames + 1, float(frame.time or 0.0), (frame.width, frame.height)
        if task == "frames":
            _answer(out, {"time_s": last_s}, upright(frame, tone))
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
