"""The WebRTC relay: camera frames out of streamlit-webrtc, shown frames back, newest first.

streamlit-webrtc's own processing tracks do not serve: the synchronous one queues, and the
asynchronous one sends the raw camera until its first result. But `webrtc_streamer` also takes
a *sink* for what the camera sends and a *player* for what goes back; `CameraStream` is both,
with one slot between them where the newest frame replaces an older one.

What the libraries have no setting for is set in `ui.relay.aiortc_tuning`.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from streamlit_webrtc.sink import AudioSinkTrack

from liveframe.cover import slate
from liveframe.frame import Image
from ui.relay.frame_executor import FrameExecutor
from ui.relay.i420 import frame_from_image, image_from_frame
from ui.session.recording import Sound
from ui.session.stream import FAULT_SENTENCE, FrameHandler, StreamCounts

Hear = Callable[[Sound], None]
"""Takes a piece of the camera's sound."""

_log = logging.getLogger(__name__)


class CameraStream:
    """One start of one viewer's camera: `webrtc_streamer(sink_video_track=stream.sink, player_factory=lambda: stream)`.

    Sound, where the browser sends some, goes to `hear` (`sink_audio_track=stream.sound_sink`) and never back.

    Frames go back in the order they came, each with its own pts and time base, each at most
    once; while there is no room for another, only the newest of those that arrive is kept.
    Whatever raises is covered by a slate and counted: no camera frame leaves but through `handler`.

    streamlit-webrtc reads both ends on its event loop and stops them from any thread when the
    stream ends, for whatever reason; `handler` runs on this stream's own threads.

    Attributes:
        sink: takes the camera's frames (a `streamlit_webrtc.sink.MediaSink`).
        video: the track that goes back; with `audio`, what streamlit-webrtc asks of a player.
        audio: None; sound is not relayed.
    """

    def __init__(self, handler: FrameHandler, hear: Hear | None = None) -> None:
        """Make both ends; nothing runs before the camera's track arrives.

        Args:
            handler: gives what may be shown of a camera frame.
            hear: takes the sound, on the event loop: must be quick.
        """
        self._slot = _NewestSlot()
        self.sound_sink = AudioSinkTrack(_timed(hear)) if hear is not None else None
        self.sink = _CameraSink(self._slot)
        self.video = _ShownTrack(self._slot, handler)
        self.audio = None

    @property
    def is_ended(self) -> bool:
        """Whether the stream is over; a new start needs a new `CameraStream`."""
        return self._slot.is_closed

    def counts(self) -> StreamCounts:
        """Count what went through. Any thread may ask."""
        slot, video = self._slot, self.video
        idle_s = time.monotonic() - slot.last_put_s
        return StreamCounts(slot.received, video.shown, slot.dropped, video.faults, video.last_fault, idle_s)

    def close(self) -> None:
        """End the stream and free its thread. Safe from any thread, and twice."""
        self.sink.stop()
        self.video.stop()


def _timed(hear: Hear) -> Callable[[av.AudioFrame], None]:
    """Tell the listener when each piece of sound arrived."""
    return lambda frame: hear(Sound(frame, time.monotonic()))


class _NewestSlot:
    """Holds the newest frame, or none. `put` and `take` belong to one event loop; the rest to any thread."""

    def __init__(self) -> None:
        self._frame: av.VideoFrame | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self.is_closed = False
        self.received = 0
        self.dropped = 0
        self.last_put_s = time.monotonic()

    def put(self, frame: av.VideoFrame) -> None:
        """Leave a frame, in the place of one that nobody took."""
        self.received += 1
        self.dropped += self._frame is not None
        self._frame = frame
        self.last_put_s = time.monotonic()
        self._changed.set()

    def take(self) -> tuple[av.VideoFrame, float] | None:
        """Take the newest frame, with its time of arrival; None where there is none, or once closed."""
        frame, self._frame = self._frame, None
        return None if self.is_closed or frame is None else (frame, self.last_put_s)

    async def wait(self) -> None:
        """Wait until there is a frame, or the end."""
        self._loop = asyncio.get_running_loop()
        while self._frame is None and not self.is_closed:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """End the waiting, from any thread."""
        self.is_closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and its waiters with it
                self._loop.call_soon_threadsafe(self._changed.set)


class _CameraSink:
    """The end that takes the camera's frames (a `streamlit_webrtc.sink.MediaSink`)."""

    def __init__(self, slot: _NewestSlot) -> None:
        self._slot = slot
        self._track: MediaStreamTrack | None = None
        self._pump: asyncio.Task[None] | None = None

    def addTrack(self, track: MediaStreamTrack) -> None:  # noqa: N802 (the library's name)
        self._track = track

    def hasTrack(self) -> bool:  # noqa: N802 (the library's name)
        return self._track is not None

    def start(self) -> None:
        """Begin to take frames. Called on the event loop."""
        if self._track is not None and not self._slot.is_closed:
            self._pump = asyncio.get_running_loop().create_task(self._take_frames(self._track))

    def stop(self) -> None:
        """End the stream. Called by streamlit-webrtc when it ends for any reason, from any thread."""
        self._slot.close()
        pump, self._pump, self._track = self._pump, None, None
        if pump is not None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the pump with it
                pump.get_loop().call_soon_threadsafe(pump.cancel)

    async def _take_frames(self, track: MediaStreamTrack) -> None:
        try:
            while not self._slot.is_closed:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self._slot.put(frame)
        except MediaStreamError:
            pass  # the camera's track ended
        finally:
            self._slot.close()
            track.stop()


class _ShownTrack(MediaStreamTrack):
    """The end that sends frames back: the newest camera frame, shown, and nothing else."""

    kind = "video"

    def __init__(self, slot: _NewestSlot, handler: FrameHandler) -> None:
        super().__init__()
        self._slot = slot
        self._line = FrameExecutor(handler, "camera-stream")
        self._under_way: deque[tuple[av.VideoFrame, asyncio.Future[av.VideoFrame]]] = deque()
        self._logged_s = float("-inf")
        self.shown = 0
        self.faults = 0
        self.last_fault = ""

    async def recv(self) -> av.VideoFrame:
        """Return the next shown frame.

        Raises:
            MediaStreamError: the stream is over.
        """
        try:
            while self.readyState == "live" and not self._slot.is_closed:
                self._begin()
                if self._under_way and self._under_way[0][1].done():
                    shown = self._give(*self._under_way.popleft())
                    self._begin()  # the next one is swapped while aiortc encodes this one
                    return shown
                await self._something()
        except RuntimeError:  # the line was closed meanwhile
            pass
        self.stop()
        raise MediaStreamError

    def _begin(self) -> None:
        """Start on the newest frame, while there is one and room for it."""
        while len(self._under_way) < self._line.room and (taken := self._slot.take()):
            self._under_way.append((taken[0], asyncio.wrap_future(self._start(*taken))))

    async def _something(self) -> None:
        """Wait for the oldest answer, or, while there is room, for another camera frame."""
        waits: list[asyncio.Future[Any]] = [self._under_way[0][1]] if self._under_way else []
        camera = asyncio.ensure_future(self._slot.wait()) if len(self._under_way) < self._line.room else None
        try:
            await asyncio.wait([*waits, *([camera] if camera else [])], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if camera is not None:
                camera.cancel()

    def _give(self, frame: av.VideoFrame, answer: "asyncio.Future[av.VideoFrame]") -> av.VideoFrame:
        shown = answer.result()
        shown.pts, shown.time_base = frame.pts, frame.time_base
        self.shown += 1
        return shown

    def stop(self) -> None:
        """End the track and let its threads go."""
        super().stop()
        self._slot.close()
        self._line.close()

    def _start(self, frame: av.VideoFrame, arrived_s: float) -> "Future[av.VideoFrame]":
        """Show one frame on this stream's threads; a slate of its size where that raises."""
        size = frame.height, frame.width

        def give(image: Image) -> av.VideoFrame:
            if image.shape[:2] != size:
                raise ValueError(f"shown image must be {frame.height}x{frame.width}, but got {image.shape}.")
            return frame_from_image(image)

        def cover(error: Exception) -> av.VideoFrame:
            self._count_fault(error)
            return frame_from_image(slate(*size, FAULT_SENTENCE))

        return self._line.start(lambda: (image_from_frame(frame), arrived_s), give, cover)

    def _count_fault(self, error: Exception) -> None:
        self.faults += 1
        self.last_fault = f"{type(error).__name__}: {error}"[:300]
        if time.monotonic() - self._logged_s >= 1:
            self._logged_s = time.monotonic()
            _log.error("A frame could not be shown and was covered (%d so far).", self.faults, exc_info=error)
