"""What may be shown: every picture that leaves a pipeline leaves through `Gate.show`."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import cv2
import numpy as np

from liveframe.breaker import Breaker, BreakerPolicy
from liveframe.cover import SLATE_SIZE, CoverStyle, blur_cover, slate
from liveframe.errors import FrameError, LiveframeError
from liveframe.frame import Frame, FrameResult, Image, check_image
from liveframe.sentinel import Watch

Paint = Callable[[Image], Image]
"""Paints on a picture before it leaves (a label, a watermark). It may paint in place and return
its argument, or return a new uint8 array of the same size. Runs on the thread that calls `show`."""

_SAME_PICTURE = 2  # levels: a result this near to a camera frame everywhere has changed nothing
_RECENT_FRAMES = 4
_NO_FRAME = "The camera sent no usable picture."


class ShownState(StrEnum):
    """What the viewer sees: a fresh result, a held copy of one, a cover, or their own camera."""

    SWAPPED = "swapped"
    HELD = "held"
    COVERED = "covered"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Shown:
    """What left the gate for one camera frame.

    Attributes:
        image: uint8 [H, W, 3], BGR, the frame's size. Read-only, unless the state is OFF:
            then it is the camera's own array.
        state: what the picture is.
        index: the index of the camera frame that it answers.
        source_index: the frame whose content it shows; older than index when held, -1 for a cover without one.
        captured_s: when the answered frame was captured, time.monotonic() seconds.
        note: a sentence for the viewer, empty when there is nothing to say.
        personas: names of those who are to be seen in the image; consent, recordings and claims go by them.
        is_mixed: whether who was filmed may be recognised in it, by the viewer's own choice.
    """

    image: Image
    state: ShownState
    index: int
    source_index: int
    captured_s: float
    note: str = ""
    personas: tuple[str, ...] = ()
    is_mixed: bool = False


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """How the gate covers.

    Attributes:
        hold_s: how long the last good picture may stand in for missing ones, in seconds.
        freeze_s: how long it stands still under CoverStyle.HOLD before the slate, in seconds.
        cover: the cover at the start.
        breaker: when to leave a failing model in peace.
    """

    hold_s: float = 0.5
    freeze_s: float = 5.0
    cover: CoverStyle = CoverStyle.BLUR
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)

    def __post_init__(self) -> None:
        if not 0 <= self.hold_s <= self.freeze_s:
            raise ValueError(
                f"hold_s must be between 0 and freeze_s, but got {self.hold_s} and {self.freeze_s}. Change either."
            )


@dataclass(frozen=True, slots=True)
class _Good:
    """The last picture that passed: painted, our own copy, read-only."""

    image: Image
    index: int
    shown_s: float
    personas: tuple[str, ...]
    is_mixed: bool

    def again(self, frame: Frame, state: ShownState, note: str) -> Shown:
        """Show it in the place of a frame."""
        return Shown(self.image, state, frame.index, self.index, frame.captured_s, note, self.personas, self.is_mixed)


class Gate:
    """Decides, frame by frame, what may leave: a swapped frame, a held one, a cover, or the camera.

    While swapping is on, a picture that leaves is (a) our own copy of a complete, verified
    result for this very frame, (b) that copy again for at most `hold_s`, or (c) a cover.
    The camera's picture leaves only after `set_swapping(False)`.

    `show` is called by one thread at a time, in rising frame index. Everything else may be
    called by any thread at any time.
    """

    def __init__(
        self,
        policy: GatePolicy | None = None,
        overlays: Sequence[Paint] = (),
        clock: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
    ) -> None:
        self._policy = policy or GatePolicy()
        self._overlays = tuple(overlays)
        self._watch = watch
        self._clock = clock
        self._lock = threading.Lock()
        self.breaker = Breaker(self._policy.breaker, clock)
        self._is_swapping = True
        self._block = ""
        self._cover = CoverStyle(self._policy.cover)
        self._good: _Good | None = None
        self._hold_ends_s = -math.inf
        self._recent: deque[Image] = deque(maxlen=_RECENT_FRAMES)
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._last_error = ""

    # ------------------------------------------------------------------ what the viewer or the operator decides

    @property
    def is_swapping(self) -> bool:
        """Whether the camera's own picture must not be shown."""
        return self._is_swapping

    def set_swapping(self, is_on: bool) -> None:
        """Turn swapping on, or let the viewer's own camera pass. A frame shown after this returns obeys it."""
        with self._lock:
            if bool(is_on) != self._is_swapping:
                self._good = None
            self._is_swapping = bool(is_on)

    def set_cover(self, style: CoverStyle) -> None:
        """Choose how to cover from the next frame on."""
        self._cover = CoverStyle(style)

    def block(self, sentence: str) -> None:
        """Stop showing results, whatever the model answers, and say why (a consent that expired, say)."""
        with self._lock:
            self._block = sentence or "The operator stopped this stream."
            self._good = None

    def unblock(self) -> None:
        """Let results through again."""
        with self._lock:
            self._block = ""

    # ------------------------------------------------------------------ what the pipeline asks and reports

    def should_infer(self) -> bool:
        """Whether asking the model makes sense now: swapping, not blocked, breaker closed."""
        return self._is_swapping and not self._block and self.breaker.open_for_s() == 0.0

    def hold_ends_s(self) -> float | None:
        """When the last good picture may no longer be held, in clock seconds; None when there is none."""
        return self._hold_ends_s if self._good is not None else None

    def fail(self, error: BaseException) -> None:
        """Count a model's error; five in a row, or a server that is overloaded, open the breaker."""
        self.note_error(error)
        self.breaker.fail(error)

    def note_error(self, error: BaseException) -> None:
        """Count an error that says nothing against the running model."""
        with self._lock:
            self._errors[type(error).__name__] += 1
            self._last_error = str(error)[:300] or type(error).__name__

    def counts(self) -> tuple[Mapping[str, int], Mapping[str, int], str]:
        """Frames by what became of them, errors by type, and the last error's sentence."""
        with self._lock:
            return dict(self._counts), dict(self._errors), self._last_error

    def show(self, frame: Frame | None, result: FrameResult | None, note: str = "") -> Shown:
        """Decide what leaves for one frame.

        Args:
            frame: the camera's frame; None when the camera sent what is no picture.
            result: the model's answer, or None when there is none in time.
            note: why there is none, for the viewer.

        Returns:
            What may be shown. Never raises.
        """
        try:
            shown = self._decide(frame, result, note)
        except Exception as error:
            self.note_error(error)
            shown = self._card(frame, "The picture could not be made, so it is covered.")
        with self._lock:
            self._counts[shown.state.value] += 1
        return shown

    # ------------------------------------------------------------------ the decision

    def _decide(self, frame: Frame | None, result: FrameResult | None, note: str) -> Shown:
        if frame is None:
            return self._card(None, _NO_FRAME)
        with self._lock:
            is_swapping, block = self._is_swapping, self._block
        if not is_swapping:
            return Shown(frame.image, ShownState.OFF, frame.index, frame.index, frame.captured_s, block)
        if block:
            return self._covered(frame, block)
        try:
            if result is None:
                return self._hold_or_cover(frame, note)
            return self._fresh_or_hold(frame, result)
        except FrameError as error:
            self.fail(error)
            self._hold_ends_s = -math.inf
            return self._covered(frame, "The model's answer could not be used.")
        finally:
            self._recent.append(frame.image)

    def _fresh_or_hold(self, frame: Frame, result: FrameResult) -> Shown:
        """Show a result that is well formed and complete; hold or cover when subjects are missing."""
        image = verified_copy(frame, result, self._recent)
        self.breaker.succeed()
        if not result.is_complete:
            self._count("incomplete")
            return self._hold_or_cover(frame, result.note or "Not everything could be replaced in this picture.")
        suspicion = self._watch(frame, image, result) if self._watch is not None else ""
        if suspicion:
            self._count("suspected")
            with self._lock:
                self._good = None  # it may show what was seen now
            return self._covered(frame, suspicion)
        image = self._painted(image)
        with self._lock:
            if not self._block:
                now_s = self._clock()
                good = self._good = _Good(image, frame.index, now_s, result.personas, result.is_mixed)
                self._hold_ends_s = now_s + self._policy.hold_s
                return good.again(frame, ShownState.SWAPPED, result.note)
        return self._covered(frame, self._block)

    def _hold_or_cover(self, frame: Frame, note: str) -> Shown:
        good = self._fitting(frame)
        if good is not None and self._clock() <= self._hold_ends_s:
            return good.again(frame, ShownState.HELD, note)
        return self._covered(frame, note)

    def _covered(self, frame: Frame, note: str) -> Shown:
        """Cover a frame in the chosen style."""
        style = self._cover
        if style is CoverStyle.HOLD:
            good = self._fitting(frame)
            if good is not None and self._clock() - good.shown_s <= self._policy.freeze_s:
                return good.again(frame, ShownState.COVERED, note)
        if style is not CoverStyle.BLUR:
            return self._card(frame, note or "The picture is covered.")
        image = self._painted(blur_cover(frame.image))
        return Shown(image, ShownState.COVERED, frame.index, -1, frame.captured_s, note)

    def _card(self, frame: Frame | None, sentence: str) -> Shown:
        """Cover with a slate; where even painting fails, with a bare one."""
        height, width = frame.image.shape[:2] if frame is not None else self._last_size()
        card = slate(height, width, sentence)
        try:
            card = self._painted(card.copy()) if self._overlays else card
        except Exception as error:
            self.note_error(error)
        index, captured_s = (frame.index, frame.captured_s) if frame is not None else (-1, self._clock())
        return Shown(card, ShownState.COVERED, index, -1, captured_s, sentence)

    # ------------------------------------------------------------------ small parts

    def _fitting(self, frame: Frame) -> _Good | None:
        """The last good picture, unless the camera's size has changed since."""
        good = self._good
        return good if good is not None and good.image.shape == frame.image.shape else None

    def _last_size(self) -> tuple[int, int]:
        """Height and width of the newest camera frame seen."""
        return (self._recent[-1].shape[0], self._recent[-1].shape[1]) if self._recent else SLATE_SIZE

    def _painted(self, image: Image) -> Image:
        """Run every paint, check what they made, and lock it against later writes.

        Raises:
            LiveframeError: a paint failed, or gave another size.
        """
        shape = image.shape
        try:
            for paint in self._overlays:
                image = paint(image)
                check_image(image, "painted picture")
        except Exception as error:
            raise LiveframeError(f"A paint failed, so the picture is covered: {error}") from error
        if image.shape != shape:
            raise LiveframeError(f"painted picture must be {list(shape)}, but got {list(image.shape)}. Fix the paint.")
        image.flags.writeable = False
        return image

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def verified_copy(frame: Frame, result: FrameResult, recent: Sequence[Image] | deque[Image] = ()) -> Image:
    """Check that a result answers this frame with a picture of its own, and copy that picture.

    The copy comes first, so that a model that writes on to its buffer changes nothing that was checked.

    Args:
        frame: the camera's frame.
        result: what the model answered; anything may come.
        recent: earlier camera frames that the model may have kept, uint8 [H, W, 3].

    Returns:
        A new uint8 [H, W, 3], BGR, C-contiguous.

    Raises:
        FrameError: the answer is no FrameResult, or stale, misshapen, or a camera picture itself.
    """
    if not isinstance(result, FrameResult):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise FrameError(f"result must be a FrameResult, but got {type(result).__name__}. Fix the model's session.")
    if result.index != frame.index:
        raise FrameError(f"result must answer frame {frame.index}, but answers {result.index}. Discarded as stale.")
    check_image(result.image, "result")
    if result.image.shape != frame.image.shape:
        expected, got = list(frame.image.shape), list(result.image.shape)
        raise FrameError(f"result must be {expected} as its frame, but got {got}. Fix the model's session.")
    if np.may_share_memory(result.image, frame.image):
        raise FrameError("result must share no memory with its frame, but does. Return a new array.")
    image = np.array(result.image, order="C")
    if not result.is_complete:
        return image
    for camera in (frame.image, *recent):
        if _is_same_picture(image, camera):
            raise FrameError("result must differ from the camera's picture, but is the same. Covered instead.")
    return image


def _is_same_picture(one: Image, other: Image) -> bool:
    """Whether two pictures agree everywhere but for rounding. Looks at bands first: most differ at once."""
    if one.shape != other.shape:
        return False
    quarter = max(1, one.shape[0] // 4)
    for top in range(0, one.shape[0], quarter):
        band = slice(top + quarter // 2, top + quarter // 2 + 8)
        if one[band].size and cv2.norm(one[band], other[band], cv2.NORM_INF) > _SAME_PICTURE:
            return False
    return cv2.norm(one, other, cv2.NORM_INF) <= _SAME_PICTURE
