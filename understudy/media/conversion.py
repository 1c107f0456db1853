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
from understudy.media.clip import read_frames
from understudy.media.clip_gate import ClipGate, FrameOutcome, ScreenPolicy
from understudy.media.resume import FrameCounts, PartialClip, fingerprint
from understudy.media.segment import CONTAINERS, ClipFormat, SegmentWriter, clip_format, even, join, publish

SEGMENT_FRAMES = 250
WARM_UP_FRAMES = 12  # shown to the tracker again, not written, where work goes on


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
    """

    target: Path
    tally: FrameCounts
    resumed_frames: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert, and how.

    Attributes:
        source: a clip.
        target: the result, .mp4, .m4v or .mov.
        policy: what becomes of frames without a swap.
        overlays: put on every picture: label, watermark.
        seal: signs the finished file in place, before it is published.
        is_face_suspected: a second look at frames that would be kept for want of a face.
        inspect: a slow look, at every so-many-th frame, for the filmed face in what was swapped.
        fingerprint: whatever else decides how frames look (bundle, persona, settings): work of an earlier run is taken
            up only where it is the same.
        segment_frames: at most so many frames are lost when the process dies.
        is_overwriting: whether an existing target may be replaced.
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
    timing = clip_format(conversion.source)
    settings = {**conversion.fingerprint, "policy": conversion.policy, "segment_frames": conversion.segment_frames}
    lock = conversion.target.with_name(conversion.target.name + ".lock")
    with exclusive(lock, f"The result '{conversion.target.name}'"):
        partial = PartialClip(conversion.target, fingerprint(conversion.source, settings))
        resumed = partial.tally.frames
        try:
            run = _Run(conversion, timing, partial, on_progress, should_stop)
            run.swap(model)
            run.publish()
        finally:
            lock.unlink(missing_ok=True)
    return ConvertReport(conversion.target, partial.tally, resumed, time.monotonic() - started_s)


def _check(conversion: Conversion) -> None:
    source, target = conversion.source, conversion.target
    if target.suffix.lower() not in CONTAINERS:
        raise ConvertError(f"OUT must end in {', '.join(CONTAINERS)}, but got '{target.name}'. Rename it.")
    if not target.parent.is_dir():
        raise ConvertError(f"OUT must lie in a folder that exists, but '{target.parent}' does not. Make it first.")
    if source.exists() and target.exists() and source.samefile(target):
        raise ConvertError(f"OUT must be another file than IN, but both are '{source}'. Choose another name.")
    if target.exists() and not conversion.is_overwriting:
        raise ConvertError(f"OUT must not exist, but '{target}' does. Choose another name, or say --overwrite.")


class _Run:
    """One run of a conversion, from its first unwritten frame to its publication."""

    def __init__(
        self,
        conversion: Conversion,
        timing: ClipFormat,
        partial: PartialClip,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._conversion, self._timing, self._partial = conversion, timing, partial
        self._on_progress, self._should_stop = on_progress, should_stop
        self._first = partial.tally.frames
        self._started_s = time.monotonic()
        self._last_pts = -1
        self._is_stopped = False

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
            frames = self._shown(clip_gate)
            while self._write_segment(frames):
                pass
        finally:
            clip_gate.close()
        if self._is_stopped:
            raise ConvertStopped("The conversion was stopped. Run the same command again to go on.")

    def _shown(self, clip_gate: ClipGate) -> Iterator[tuple[Image, FrameOutcome, int]]:
        """Return what to write, frame by frame, with its tick, from the first unwritten frame on."""
        size: tuple[int, ...] | None = None
        for clip_frame in read_frames(self._conversion.source, start=max(0, self._first - WARM_UP_FRAMES)):
            if self._should_stop():
                self._is_stopped = True
                return
            image = even(clip_frame.image)
            size = size or image.shape
            image = image if image.shape == size else np.asarray(cv2.resize(image, (size[1], size[0])), np.uint8)
            shown, outcome = clip_gate.show(Frame(image, clip_frame.index, clip_frame.time_s))
            pts = round((clip_frame.time_s - self._timing.start_s) / self._timing.time_base)
            self._last_pts = max(pts, self._last_pts + 1)
            if clip_frame.index >= self._first:
                yield shown, outcome, self._last_pts

    def _write_segment(self, frames: Iterator[tuple[Image, FrameOutcome, int]]) -> bool:
        """Write one segment; tell whether there was anything to write."""
        first = next(frames, None)
        if first is None:
            return False
        height, width = first[0].shape[:2]
        path = self._partial.segment_path(len(self._partial.segments))
        outcomes: Counter[FrameOutcome] = Counter()
        with SegmentWriter(path, self._timing, width, height) as writer:
            shown: tuple[Image, FrameOutcome, int] | None = first
            while shown is not None:
                writer.write(shown[0], shown[2])
                outcomes[shown[1]] += 1
                self._tell(FrameCounts.of(outcomes), "swapping")
                shown = next(frames, None) if outcomes.total() < self._conversion.segment_frames else None
        self._partial.finish_segment(FrameCounts.of(outcomes))
        return True

    def publish(self) -> None:
        """Join what was written, seal it, and give it its name."""
        tally, conversion = self._partial.tally, self._conversion
        if not tally.swapped:
            self._partial.remove()
            raise ConvertError(
                f"'{conversion.source.name}' must show a face that can be swapped, but none was found in its "
                f"{tally.frames} frames. Nothing was written. Use a clip with a larger or less hidden face."
            )
        self._tell(FrameCounts(), "joining")
        joined = self._partial.path / conversion.target.name
        join(self._partial.segments, conversion.source, joined, self._timing)
        if conversion.seal is not None:
            conversion.seal(joined)
        publish(joined, conversion.target)
        self._tell(FrameCounts(), "done")
        self._partial.remove()

    def _tell(self, written: FrameCounts, phase: str) -> None:
        """Report progress; `written` is what the segment at work holds so far."""
        tally = self._partial.tally + written
        made = tally.frames - self._first
        total = max(self._timing.frames, tally.frames) if self._timing.frames else 0
        pace_s = (time.monotonic() - self._started_s) / made if made else 0.0
        eta_s = (total - tally.frames) * pace_s if made and total else None
        self._on_progress(Progress(tally.frames, total, tally, eta_s, phase))
