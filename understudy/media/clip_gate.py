"""What of a clip may be written: a clip's frames go through the same gate as live ones, on the clip's own clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from liveframe.cover import CoverStyle
from liveframe.errors import LiveframeError, ModelError
from liveframe.frame import Frame, FrameResult, Image
from liveframe.gate import Gate, GatePolicy, Paint, ShownState
from liveframe.model import FrameSession
from liveframe.sentinel import Inspect, PacedSentinel

HOLD_S = 0.5
GRACE_S = 1.0
MAX_ERRORS_IN_A_ROW = 50


class OnMissedFace(StrEnum):
    """What becomes of a frame in which a face was seen but not swapped.

    COVER: the frame is covered.
    HOLD: the last swapped frame stands for up to half a second, then the cover.
    KEEP: the frame is written as it is, real face included.
    """

    COVER = "cover"
    HOLD = "hold"
    KEEP = "keep"


class OnNoFace(StrEnum):
    """What becomes of a frame in which no face was seen.

    COVER: the frame is treated as a miss, since detectors overlook faces.
    KEEP: the frame is written as it is, unless a face was seen within the last second or is suspected.
    """

    COVER = "cover"
    KEEP = "keep"


class FrameOutcome(StrEnum):
    """What was written for one frame."""

    SWAPPED = "swapped"
    HELD = "held"
    COVERED = "covered"
    KEPT = "kept"


_FATES = {
    ShownState.SWAPPED: FrameOutcome.SWAPPED,
    ShownState.HELD: FrameOutcome.HELD,
    ShownState.COVERED: FrameOutcome.COVERED,
}


@dataclass(frozen=True, slots=True)
class ScreenPolicy:
    """How frames without a swap are treated.

    Attributes:
        on_miss: a face was seen and not swapped, or the model failed.
        on_no_face: no face was seen.
        cover: how a covered frame looks.
    """

    on_miss: OnMissedFace = OnMissedFace.COVER
    on_no_face: OnNoFace = OnNoFace.COVER
    cover: CoverStyle = CoverStyle.BLUR


class ClipGate:
    """Runs a model's session over a clip and gives the pictures to write. Used by one thread; close it at the end."""

    def __init__(
        self,
        session: FrameSession,
        policy: ScreenPolicy,
        overlays: Sequence[Paint] = (),
        is_face_suspected: Callable[[Image], bool] | None = None,
        inspect: Inspect | None = None,
    ) -> None:
        """Start a clip.

        Args:
            session: the model's; the clip_gate closes it.
            policy: what to do without a swap.
            overlays: label and watermark, put on every picture, kept ones included.
            is_face_suspected: a second, wary look at frames that would be kept for want of a face.
            inspect: a slow look, at every so-many-th frame, for the filmed face in what was swapped.
        """
        self._session, self._policy, self._overlays = session, policy, tuple(overlays)
        self._is_face_suspected = is_face_suspected
        self._now_s = 0.0
        self._seen_s: float | None = None
        self._errors = 0
        self.reason = ""
        hold_s = HOLD_S if policy.on_miss is OnMissedFace.HOLD else 0.0
        watch = PacedSentinel(inspect).watch if inspect is not None else None
        gate = GatePolicy(hold_s=hold_s, cover=policy.cover)
        self._gate = Gate(gate, self._overlays, clock=lambda: self._now_s, watch=watch)

    def show(self, frame: Frame) -> tuple[Image, FrameOutcome]:
        """Return what may be written for a frame: uint8 [H, W, 3] BGR of its size, and what it is.

        `reason` then says why it was not swapped, where it was not.

        Args:
            frame: indices and times rise; `captured_s` is the clip's own time.

        Raises:
            ModelError: the model failed on `MAX_ERRORS_IN_A_ROW` frames in a row.
        """
        self._now_s = frame.captured_s
        result = self._ask(frame)
        is_seen = result is None or result.subjects_found > 0
        if is_seen:
            self._seen_s = frame.captured_s
        shown = self._gate.show(frame, result)
        self.reason = shown.note or (result.note if result is not None else "")
        if shown.state is not ShownState.SWAPPED and self._may_keep(frame, is_seen):
            return self._painted(frame.image), FrameOutcome.KEPT
        return shown.image, _FATES[shown.state]

    def _ask(self, frame: Frame) -> FrameResult | None:
        try:
            result = self._session.process(frame)
        except LiveframeError as error:
            self._gate.note_error(error)
            self._errors += 1
            if self._errors >= MAX_ERRORS_IN_A_ROW:
                raise ModelError(
                    f"The model must answer, but failed on {self._errors} frames in a row: {error} "
                    "Pick another persona or bundle."
                ) from error
            return None
        self._errors = 0
        return result

    def _may_keep(self, frame: Frame, is_seen: bool) -> bool:
        if is_seen:
            return self._policy.on_miss is OnMissedFace.KEEP
        if self._policy.on_no_face is not OnNoFace.KEEP:
            return False
        if self._seen_s is not None and frame.captured_s - self._seen_s <= GRACE_S:
            return False
        return self._is_face_suspected is None or not self._is_face_suspected(frame.image)

    def _painted(self, image: Image) -> Image:
        image = image.copy()
        for paint in self._overlays:
            image = paint(image)
        return image

    def close(self) -> None:
        """Free the model's session."""
        self._session.close()
