"""A clip of what a viewer is shown, written while it happens: H.264 in MP4, with sound where there is some."""

import logging
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from liveframe.cover import slate
from liveframe.errors import LiveframeError
from liveframe.frame import Image
from liveframe.gate import Shown, ShownState
from understudy.media.colour import BT709, LIMITED, ColourTags, from_bgr
from understudy.media.encoding import Encoding
from understudy.media.segment import even

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

LONGEST_S = 600.0
OWN_CAMERA = "The viewer showed their own camera here; it is not recorded."
_WAITING = 30  # pictures and pieces of sound; more are dropped and counted, the stream never waits
_TICKS_HZ = 90_000
_SOUND_HZ = 48_000
_COLOUR = ColourTags(BT709, BT709, BT709, LIMITED)
_RESYNC_S = 0.1  # sound that strayed this far from the clock is put back on it
_FINISH_LIMIT_S = 30.0

_log = logging.getLogger(__name__)


class RecordingError(LiveframeError, RuntimeError):
    """A recording could not be made; nothing is delivered."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of the camera's sound.

    Attributes:
        frame: as the relay decoded it.
        arrived_s: when, time.monotonic() seconds.
    """

    frame: "av.AudioFrame"
    arrived_s: float


class Recording:
    """Writes what leaves a pipeline to a file, on a thread of its own.

    `write` and `hear` may be called by any one thread each and never wait: what the encoder cannot take is dropped
    and counted. The bare camera is never written: a card stands in its place. A
    side-by-side view is written as it is shown, the camera's half included.
    """

    def __init__(self, path: Path, has_sound: bool) -> None:
        """Start.

        Args:
            path: the .mp4 to write; its folder exists.
            has_sound: whether sound will come.
        """
        self.path = path
        self.has_sound = has_sound
        self.dropped = 0
        self.seconds = 0.0
        self._played: set[str] = set()
        self._queue: queue.Queue[Shown | Sound | None] = queue.Queue(_WAITING)
        self._is_ending = threading.Event()
        self._is_unwanted = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    @property
    def played(self) -> tuple[str, ...]:
        """Names of all personas that played so far, sorted."""
        return tuple(sorted(self._played))

    @property
    def is_running(self) -> bool:
        """Whether it still writes: not finished, not failed, not too long."""
        return self._thread.is_alive() and not self._is_ending.is_set()

    def write(self, shown: Shown) -> None:
        """Add what was shown.

        Args:
            shown: as the pipeline's tap gives it; says who is to be seen in it.
        """
        self._played.update(shown.personas)
        self._put(shown)

    def hear(self, sound: Sound) -> None:
        """Add a piece of sound; left out where the recording has none."""
        if self.has_sound:
            self._put(sound)

    def finish(self) -> Path:
        """Write what waits and close the file; takes a moment.

        Raises:
            RecordingError: nothing was shown meanwhile, or the file could not be written.
        """
        self._end()
        self._thread.join(_FINISH_LIMIT_S)
        if self._thread.is_alive() or self._error is not None:
            reason = self._error or "the encoder hangs"
            self.discard()
            raise RecordingError(f"The recording could not be written: {reason}. Record again.")
        if not self.path.is_file():
            raise RecordingError("Nothing was shown while it recorded. Start the camera, then record.")
        return self.path

    def discard(self) -> None:
        """End without a file. Waits for nothing. Safe to call twice."""
        self._is_unwanted = True
        self._end()
        if not self._thread.is_alive():
            self.path.unlink(missing_ok=True)

    def _put(self, item: Shown | Sound) -> None:
        if not self.is_running:
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += 1

    def _end(self) -> None:
        self._is_ending.set()
        with suppress(queue.Full):  # the thread looks at the event, too
            self._queue.put_nowait(None)

    def _run(self) -> None:
        writer: _Writer | None = None
        try:
            while True:
                item = self._next()
                if item is None or self.seconds > LONGEST_S:
                    break
                if writer is None and isinstance(item, Shown):
                    writer = _Writer(self.path, item, self.has_sound)
                if writer is not None:
                    self.seconds = writer.add(item)
        except Exception as error:  # FFmpeg's errors share no base class; a recording must not harm the stream
            self._error = error
            _log.exception("A recording failed.")
        finally:
            self._is_ending.set()
            try:
                if writer is not None:
                    writer.close()
            except Exception as error:
                self._error = self._error or error
            if self._is_unwanted:
                self.path.unlink(missing_ok=True)

    def _next(self) -> Shown | Sound | None:
        """The next item; None once it is ending and nothing waits."""
        while True:
            try:
                return self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._is_ending.is_set():
                    return None


class _Writer:
    """The file: pictures and sound by the time at which they arrived. Used by one thread."""

    def __init__(self, path: Path, first: Shown, has_sound: bool) -> None:
        import av

        self._start_s = first.captured_s
        height, width = even(first.image).shape[:2]
        self._size = (width, height)
        self._container: OutputContainer = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        encoder = Encoding().encoder_for(path)
        options = {"crf": "21", "preset": "superfast"} if encoder == "libx264" else {}
        video = cast("VideoStream", self._container.add_stream(encoder, rate=30, options=options))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.bit_rate = 0 if encoder == "libx264" else 4_000_000
        video.codec_context.time_base = video.time_base = Fraction(1, _TICKS_HZ)
        video.codec_context.thread_count = 1  # the other core is the stream's
        context = video.codec_context
        context.colorspace, context.color_range = _COLOUR.matrix, _COLOUR.range
        context.color_primaries, context.color_trc = _COLOUR.primaries, _COLOUR.transfer
        self._video = video
        self._sound: AudioStream | None = None
        if has_sound:
            self._sound = cast("AudioStream", self._container.add_stream("aac", rate=_SOUND_HZ, layout="stereo"))
        self._last_tick = -1
        self._next_sample = 0

    def add(self, item: Shown | Sound) -> float:
        """Write one item; returns how long the clip is now, in seconds."""
        if isinstance(item, Shown):
            return self._add_picture(item)
        return self._add_sound(item)

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._container.mux(self._sound.encode(None))
        self._container.close()

    def _add_picture(self, shown: Shown) -> float:
        image = shown.image
        if shown.state is ShownState.OFF:
            image = slate(image.shape[0], image.shape[1], OWN_CAMERA)
        frame = from_bgr(_fitted(image, self._size), _COLOUR)
        elapsed_s = max(0.0, shown.captured_s - self._start_s)
        self._last_tick = max(self._last_tick + 1, round(elapsed_s * _TICKS_HZ))
        frame.pts, frame.time_base = self._last_tick, Fraction(1, _TICKS_HZ)
        self._container.mux(self._video.encode(frame))
        return elapsed_s

    def _add_sound(self, sound: Sound) -> float:
        """Lay a piece of sound behind the one before it, or where the clock says when it strayed."""
        frame = sound.frame
        elapsed_s = sound.arrived_s - self._start_s
        due = round(elapsed_s * _SOUND_HZ)
        if abs(due - self._next_sample) > _RESYNC_S * _SOUND_HZ:
            if due < self._next_sample:
                return max(0.0, elapsed_s)  # older than what was written: before the first picture, or twice
            self._next_sample = due
        if self._sound is not None and frame.sample_rate:
            frame.pts, frame.time_base = self._next_sample, Fraction(1, _SOUND_HZ)
            self._next_sample += round(frame.samples * _SOUND_HZ / frame.sample_rate)
            self._container.mux(self._sound.encode(frame))
        return max(0.0, elapsed_s)


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    """Fit a picture into the clip's size (width, height), with bars where the camera was turned meanwhile."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))))
    card = np.zeros((height, width, 3), np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    card[top : top + small.shape[0], left : left + small.shape[1]] = small
    return card
