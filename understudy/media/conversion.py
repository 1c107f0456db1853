"""One clip's conversion: decode, swap behind the gate, encode in segments, join, seal, publish."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Frame, Image
from liveframe.gate import Paint
from liveframe.model import FrameModel
from liveframe.sentinel import Inspect
from understudy.jobs.lock import exclusive
from understudy.media.ahead import Ahead
from understudy.media.clip import UnreadFrame, read_lazily
from understudy.media.clip_gate import ClipGate, FrameOutcome, ScreenPolicy
from understudy.media.encoding import CONTAINERS, Encoding, piece_suffix
from understudy.media.limits import ANIMATION_KINDS
from understudy.media.resume import FrameCounts, PartialClip, Scene, beside, fingerprint
from understudy.media.segment import ClipFormat, SegmentWriter, clip_format, even, join, publish, try_output
from understudy.media.sound import SoundSource

SEGMENT_FRAMES = 250
WARM_UP_FRAMES = 12  # shown to the tracker again, not written, where work goes on
_WARM_UP_S = 0.5  # the same before an in point


class ConvertError(LiveframeError, ValueError):
    """A clip cannot be converted as asked."""


class ConvertStopped(LiveframeError, RuntimeError):
    """The conversion was asked to stop; run it again to go on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversion is.

    Attributes:
        frames: frames written, those of earlier runs included.
        total: frames to write, as the clip's header says; 0 when it does not.
        tally: what they are.
        eta_s: seconds to go at this run's pace; None until known.
        phase: "swapping", then "joining", then "done".
    """

    frames: int
    total: int
    tally: FrameCounts
    eta_s: float | None
    phase: str


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What a conversion gave.

    Attributes:
        target: the result.
        tally: its frames.
        resumed_frames: how many of them an earlier run had made.
        seconds: how long this run took.
        scenes: what was not swapped, and why.
        notes: sentences about what of the source was left out.
    """

    target: Path
    tally: FrameCounts
    resumed_frames: int
    seconds: float
    scenes: Sequence[Scene] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert, and how.

    Attributes:
        source: a clip.
        target: the result, one of `encoding.CONTAINERS`.
        policy: what becomes of frames without a swap.
        overlays: put on every picture: label, watermark.
        seal: signs the finished file in place, before it is published.
        is_face_suspected: a second look at frames that would be kept for want of a face.
        inspect: a slow look, at every so-many-th frame, for the filmed face in what was swapped.
        fingerprint: whatever else decides how frames look (bundle, persona, settings): work of an earlier run is taken
            up only where it is the same.
        segment_frames: at most so many frames are lost when the process dies.
        is_overwriting: whether an existing target may be replaced.
        encoding: codec, quality and height of the result.
        start_s: where the result begins, in seconds of the clip.
        end_s: where it ends; None: with the clip.
    """

    source: Path
    target: Path
    policy: ScreenPolicy = field(default_factory=ScreenPolicy)
    overlays: Sequence[Paint] = ()
    seal: Callable[[Path], None] | None = None
    is_face_suspected: Callable[[Image], bool] | None = None
    inspect: Inspect | None = None
    fingerprint: Mapping[str, object] = field(default_factory=dict[str, object])
    segment_frames: int = SEGMENT_FRAMES
    is_overwriting: bool = False
    encoding: Encoding = field(default_factory=Encoding)
    start_s: float = 0.0
    end_s: float | None = None


def _ignore(progress: Progress) -> None:
    """Nobody watches."""


def _never() -> bool:
    return False


def convert(
    conversion: Conversion,
    model: FrameModel,
    on_progress: Callable[[Progress], None] = _ignore,
    should_stop: Callable[[], bool] = _never,
) -> ConvertReport:
    """Convert a clip; go on where an earlier run of the same conversion stopped.

    The target appears at once, complete, at the end. Until then, work lies in `TARGET.partial`.

    Args:
        conversion: what to do.
        model: swaps the frames; warmed up here.
        on_progress: told after every frame, on this thread.
        should_stop: asked before every frame.

    Raises:
        MediaError: the source is missing, too large, or broken.
        ConvertError: the target cannot be written, or no frame of the clip was swapped.
        ConvertStopped: `should_stop` said so.
        ModelError: the model cannot run.
        LockedError: another process converts to the same target.
    """
    started_s = time.monotonic()
    _check(conversion)
    source, target = conversion.source, conversion.target
    timing = clip_format(source)
    encoder = conversion.encoding.encoder_for(target)
    settings = {
        **conversion.fingerprint,
        "policy": conversion.policy,
        "segment_frames": conversion.segment_frames,
        "encoding": (encoder, conversion.encoding),
        "part": (conversion.start_s, conversion.end_s),
    }
    lock, notes = beside(target, ".lock"), list[str]()
    with exclusive(lock, f"The result '{target.name}'"):
        partial = PartialClip(target, fingerprint(source, settings), piece_suffix(encoder))
        resumed = partial.tally.frames
        try:
            run = _Run(conversion, timing, partial, notes, on_progress, should_stop)
            run.try_output()
            run.swap(model)
            run.publish()
        finally:
            lock.unlink(missing_ok=True)
    seconds = time.monotonic() - started_s
    return ConvertReport(target, partial.tally, resumed, seconds, partial.scenes, tuple(dict.fromkeys(notes)))


def check_target(conversion: Conversion, suffixes: Sequence[str]) -> None:
    """Refuse a target that cannot be written as asked.

    Raises:
        ConvertError: of another kind, in no folder, the source itself, or there already.
    """
    source, target = conversion.source, conversion.target
    if target.suffix.lower() not in suffixes:
        raise ConvertError(f"OUT must end in {', '.join(suffixes)}, but got '{target.name}'. Rename it.")
    if not target.parent.is_dir():
        raise ConvertError(f"OUT must lie in a folder that exists, but '{target.parent}' does not. Make it first.")
    if source.exists() and target.exists() and source.samefile(target):
        raise ConvertError(f"OUT must be another file than IN, but both are '{source}'. Choose another name.")
    if target.exists() and not conversion.is_overwriting:
        raise ConvertError(f"OUT must not exist, but '{target}' does. Choose another name, or say --overwrite.")


def fitted(image: Image, height: int, size: tuple[int, ...] | None = None) -> Image:
    """Scale a picture, uint8 [H, W, 3] BGR, to a height (0: its own), or to a size (height, width); sides get even."""
    wanted_height, wanted_width = size[:2] if size else image.shape[:2]
    if size is None and height:
        wanted_height, wanted_width = height, max(2, round(image.shape[1] * height / image.shape[0]))
    if (wanted_height, wanted_width) != image.shape[:2]:
        way = cv2.INTER_AREA if wanted_height < image.shape[0] else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (wanted_width, wanted_height), interpolation=way), np.uint8)
    return even(image)


def _check(conversion: Conversion) -> None:
    check_target(conversion, CONTAINERS)
    conversion.encoding.codec_for(conversion.target)
    start_s, end_s = conversion.start_s, conversion.end_s
    if not 0 <= start_s < float("inf") or (end_s is not None and not start_s < end_s):
        raise ConvertError(
            f"The start must be 0 s or later and the end after it, but got {start_s} and {end_s}. Change either."
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """One frame to write.

    Attributes:
        image: uint8 [H, W, 3] BGR.
        outcome: what it is.
        reason: why it is not swapped, where it is not.
        pts: its tick.
        time_s: when it is shown, on the source's clock from 0.
    """

    image: Image
    outcome: FrameOutcome
    reason: str
    pts: int
    time_s: float


class _Run:
    """One run of a conversion, from its first unwritten frame to its publication."""

    def __init__(
        self,
        conversion: Conversion,
        timing: ClipFormat,
        partial: PartialClip,
        notes: list[str],
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._conversion, self._timing, self._partial, self._notes = conversion, timing, partial, notes
        self._on_progress, self._should_stop = on_progress, should_stop
        self._first = partial.tally.frames
        self._encoder = conversion.encoding.encoder_for(conversion.target)
        self._started_s = time.monotonic()
        self._is_stopped = False

    def try_output(self) -> None:
        """See that the result can be written as asked, before any work is done."""
        conversion = self._conversion
        size = fitted(next(self._read()).image(), conversion.encoding.height).shape[1::-1]
        try_output(
            self._sound,
            conversion.target,
            self._timing,
            size,
            conversion.encoding,
            self._partial.path,
            conversion.seal,
        )

    def swap(self, model: FrameModel) -> None:
        """Write the segments that are missing."""
        model.warm_up()
        conversion = self._conversion
        clip_gate = ClipGate(
            model.open_session(),
            conversion.policy,
            conversion.overlays,
            conversion.is_face_suspected,
            conversion.inspect,
        )
        self._started_s = time.monotonic()
        try:
            with Ahead(self._decoded()) as decoded, Ahead(self._shown(clip_gate, decoded)) as frames:
                while self._write_segment(frames):
                    pass
        finally:
            clip_gate.close()
        if self._is_stopped:
            raise ConvertStopped("The conversion was stopped. Run the same command again to go on.")

    @property
    def _sound(self) -> SoundSource | None:
        """The part of the source's sound that belongs to the result; animations have none."""
        conversion, timing = self._conversion, self._timing
        if timing.kind in ANIMATION_KINDS:
            return None
        end_s = None if conversion.end_s is None else timing.start_s + conversion.end_s
        return SoundSource(conversion.source, timing.kind, timing.start_s + conversion.start_s, end_s)

    def _read(self) -> Iterator[UnreadFrame]:
        from_s = max(0.0, self._conversion.start_s - _WARM_UP_S)
        return read_lazily(self._conversion.source, note=self._notes.append, from_s=from_s)

    def _decoded(self) -> Iterator[tuple[Image, int, int, float]]:
        """Return the frames of the result that are missing, and a few before them: (image, index, number, time).

        The number counts the result's frames from 0; what lies before the in point has none: -1.
        """
        size: tuple[int, ...] | None = None
        conversion, number = self._conversion, -1
        for frame in self._read():
            time_s = frame.time_s - self._timing.start_s
            if conversion.end_s is not None and time_s >= conversion.end_s:
                return
            is_in = time_s >= conversion.start_s
            number += is_in
            if number < self._first - WARM_UP_FRAMES or (not is_in and time_s < conversion.start_s - _WARM_UP_S):
                continue
            image = fitted(frame.image(), conversion.encoding.height, size)
            size = size or image.shape
            yield image, frame.index, number, time_s

    def _shown(self, clip_gate: ClipGate, decoded: Iterator[tuple[Image, int, int, float]]) -> Iterator[_Written]:
        """Return what to write, frame by frame, from the first unwritten frame on."""
        last_pts = -1
        for image, index, number, time_s in decoded:
            shown, outcome = clip_gate.show(Frame(image, index, time_s))
            pts = round((time_s - self._conversion.start_s) / self._timing.time_base)
            if number >= 0:
                last_pts = max(pts, last_pts + 1)
            if number >= self._first:
                yield _Written(shown, outcome, clip_gate.reason, last_pts, time_s)

    def _write_segment(self, frames: Iterator[_Written]) -> bool:
        """Write one segment; tell whether there was anything to write."""
        first = self._next(frames)
        if first is None:
            return False
        height, width = first.image.shape[:2]
        path = self._partial.segment_path(len(self._partial.segments))
        outcomes, scenes = Counter[FrameOutcome](), list[Scene]()
        with SegmentWriter(path, self._timing, width, height, self._encoder, self._conversion.encoding) as writer:
            shown: _Written | None = first
            while shown is not None:
                writer.write(shown.image, shown.pts)
                outcomes[shown.outcome] += 1
                if shown.outcome is not FrameOutcome.SWAPPED:
                    scenes.append(Scene(shown.time_s, shown.time_s, 1, shown.outcome.value, shown.reason))
                self._tell(FrameCounts.of(outcomes), "swapping")
                shown = self._next(frames) if outcomes.total() < self._conversion.segment_frames else None
        self._partial.finish_segment(FrameCounts.of(outcomes), scenes)
        return True

    def _next(self, frames: Iterator[_Written]) -> _Written | None:
        self._is_stopped = self._is_stopped or self._should_stop()
        return None if self._is_stopped else next(frames, None)

    def publish(self) -> None:
        """Join what was written, seal it, and give it its name."""
        tally, conversion = self._partial.tally, self._conversion
        if not tally.frames:
            self._partial.remove()
            raise ConvertError(
                f"'{conversion.source.name}' must have frames between start and end, but lasts "
                f"{self._timing.seconds:.1f} s. Choose an earlier --start."
            )
        if not tally.swapped:
            self._partial.remove()
            raise ConvertError(
                f"'{conversion.source.name}' must show a face that can be swapped, but none was found in its "
                f"{tally.frames} frames. Nothing was written. Use a clip with a larger or less hidden face."
            )
        self._tell(FrameCounts(), "joining")
        joined = self._partial.path / conversion.target.name
        join(self._partial.segments, self._sound, joined, self._timing, self._notes.append)
        if conversion.seal is not None:
            conversion.seal(joined)
        for written in (joined.with_suffix(".c2pa"), joined):  # the manifest of what cannot hold one lies beside it
            if written.exists():
                publish(written, conversion.target.with_suffix(written.suffix))
        self._tell(FrameCounts(), "done")
        self._partial.remove()

    def _tell(self, written: FrameCounts, phase: str) -> None:
        """Report progress; `written` is what the segment at work holds so far."""
        tally = self._partial.tally + written
        made = tally.frames - self._first
        total = max(self._expected_frames, tally.frames) if self._timing.frames else 0
        pace_s = (time.monotonic() - self._started_s) / made if made else 0.0
        eta_s = (total - tally.frames) * pace_s if made and total else None
        self._on_progress(Progress(tally.frames, total, tally, eta_s, phase))

    @property
    def _expected_frames(self) -> int:
        """How many frames the header promises between the in and the out point."""
        conversion, timing = self._conversion, self._timing
        end_s = min(conversion.end_s or float("inf"), timing.frames / float(timing.rate_hz))
        is_whole = conversion.end_s is None and conversion.start_s == 0
        return timing.frames if is_whole else max(1, round((end_s - conversion.start_s) * float(timing.rate_hz)))
