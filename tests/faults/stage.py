"""A real pipeline before a camera whose truth is known, and the switches that break what is behind it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from liveframe.breaker import BreakerPolicy
from liveframe.frame import Frame, FrameResult
from liveframe.gate import GatePolicy, Shown, ShownState
from liveframe.model import FrameModel, FrameSession
from liveframe.pipeline import FramePipeline
from liveframe.policy import PipelinePolicy
from liveframe.stats import Phase
from tests.faults.judge import Judge
from tests.faults.scene import HEIGHT, WIDTH, Camera, Head, Picture
from understudy.swap.renderer import CropRenderer
from understudy.vision.face import AlignedFace

MIDDLE = WIDTH / HEIGHT / 2
_START_S = 60.0
_CAMERA_S = 1 / 60

Break = Callable[[AlignedFace], NDArray[np.uint8]]


def quick(pace_s: float) -> PipelinePolicy:
    """Limits in proportion to how long a frame takes on this machine now, so that a thousand frames need no minutes."""
    deadline_s = min(1.0, max(0.1, 6 * pace_s))
    gate = GatePolicy(hold_s=deadline_s, breaker=BreakerPolicy(errors=5, open_s=deadline_s / 2))
    return PipelinePolicy(gate, deadline_s=deadline_s, hang_s=4 * deadline_s)


class FlakyRenderer:
    """A persona that plays well until it is told to fail: a CropRenderer."""

    def __init__(self, renderer: CropRenderer) -> None:
        self.input_size = renderer.input_size
        self._renderer = renderer
        self._break: Break | None = None
        self._over = threading.Event()

    def __call__(self, face: AlignedFace) -> NDArray[np.uint8]:
        broken = self._break
        return broken(face) if broken is not None else self._renderer(face)

    @contextmanager
    def failing(self, how: Break) -> Iterator[None]:
        """Fail in this way for a while."""
        self._break, self._over = how, threading.Event()
        try:
            yield
        finally:
            self._break = None
            self._over.set()

    def hangs(self, face: AlignedFace) -> NDArray[np.uint8]:
        """Answer only when the fault is over, then well: what comes is long stale."""
        self._over.wait(30)
        return self._renderer(face)

    def slow(self, seconds: float) -> Break:
        """Answer well, but late."""

        def late(face: AlignedFace) -> NDArray[np.uint8]:
            time.sleep(seconds)
            return self._renderer(face)

        return late


class FlakyModel:
    """A FrameModel whose sessions answer well until they are told what to answer instead."""

    def __init__(self, model: FrameModel) -> None:
        self._model = model
        self.answer: Callable[[Frame, FrameSession], FrameResult] | None = None

    def warm_up(self) -> None:
        self._model.warm_up()

    def open_session(self) -> "FlakySession":
        return FlakySession(self, self._model.open_session())

    @contextmanager
    def failing(self, how: Callable[[Frame, FrameSession], FrameResult]) -> Iterator[None]:
        """Answer in this way for a while."""
        self.answer = how
        try:
            yield
        finally:
            self.answer = None


class FlakySession:
    """One viewer's stream through a FlakyModel."""

    def __init__(self, model: FlakyModel, session: FrameSession) -> None:
        self._model = model
        self._session = session
        self.kept: Frame | None = None

    def process(self, frame: Frame) -> FrameResult:
        answer = self._model.answer
        result = answer(frame, self) if answer is not None else self._session.process(frame)
        self.kept = frame
        return result

    def close(self) -> None:
        self._session.close()


class Stage:
    """A pipeline, its camera and its judge. The script reads `last` to know how far it is."""

    def __init__(
        self, pipeline: FramePipeline, judge: Judge, camera: Camera, policy: PipelinePolicy | None = None
    ) -> None:
        self.pipeline = pipeline
        self.judge = judge
        self.camera = camera
        self.rest_s = (policy or PipelinePolicy()).deadline_s / 8
        self.states: Counter[ShownState] = Counter()
        self.notes_since_start: Counter[str] = Counter()
        self.last: Shown | None = None
        self._step = 0
        self._source = -1

    def show(self, picture: Picture) -> Shown:
        """Send one frame through and judge what comes back; the stream's own rules are asserted."""
        shown = self.pipeline.process(picture.image)
        assert shown.index == self.judge.frames, "a frame was lost or came twice"
        assert shown.image.shape == picture.image.shape and shown.image.dtype == np.uint8
        if shown.source_index >= 0:
            assert self._source <= shown.source_index <= shown.index, "the stream went back in time"
            self._source = shown.source_index
        self.judge.look(shown.image, picture, shown.source_index)
        self.states[shown.state] += 1
        self.notes_since_start[shown.note] += 1
        self.last = shown
        return shown

    def start(self) -> None:
        """Show frames at a camera's pace until the model is ready: the first ones count too."""
        until_s = time.monotonic() + _START_S
        for picture in self.sway():
            self.show(picture)
            if self.pipeline.stats().phase is Phase.READY:
                self.notes_since_start.clear()
                return
            assert time.monotonic() < until_s, self.pipeline.stats()
            time.sleep(_CAMERA_S)

    def play(self, script: Iterable[Picture], frames: int) -> None:
        """Start, then show as many frames of the script as are asked for, as fast as they go."""
        self.start()
        for picture in islice(script, frames):
            self.show(picture)

    # ------------------------------------------------------------------ parts of scripts

    def sway(self) -> Iterator[Picture]:
        """One head before the camera that sways and nods, for ever."""
        for _ in count():
            phase = self._step / 9
            self._step += 1
            yield self.camera.take(
                Head(MIDDLE + 0.12 * np.sin(phase), 0.5 + 0.03 * np.sin(2 * phase), 0.72, 8 * np.sin(0.7 * phase))
            )

    def sway_until(self, state: ShownState, at_least: int = 6, at_most: int = 60) -> Iterator[Picture]:
        """Sway until the last frame shown is of that state."""
        yield from self.sway_while(lambda: self.last is None or self.last.state is not state, at_least, at_most)

    def sway_while(self, is_pending: Callable[[], bool], at_least: int = 6, at_most: int = 60) -> Iterator[Picture]:
        """Sway as long as something is awaited.

        A hold, a breaker and a Retry-After last for a time, and while they do frames come back at once: without the
        rests here they would use up all the frames of a test before the time is over.
        """
        for number, picture in enumerate(self.sway()):
            if number >= at_least:
                if number >= at_most or not is_pending():
                    return
                time.sleep(self.rest_s)
            yield picture


def bursts(stage: Stage, failing: Callable[[], object], *, is_waiting: bool = False) -> Iterator[Picture]:
    """The fault from the first frame on, until it is covered; then good until it is swapped; and again, for ever.

    Args:
        stage: where it plays.
        failing: gives a context manager in which the fault holds.
        is_waiting: whether every frame of the fault waits for its deadline: then the bursts are shorter.
    """
    broken, calm = (2, 20) if is_waiting else (8, 8)
    while True:
        with failing():  # type: ignore[attr-defined]
            yield from stage.sway_until(ShownState.COVERED, at_least=broken)
            yield from islice(stage.sway(), broken // 2)
        yield from stage.sway_until(ShownState.SWAPPED)
        yield from islice(stage.sway(), calm)


def recovery_s(stage: Stage, failing: Callable[[], object], fault_s: float = 1.6) -> float:
    """Swap at a camera's pace, let the fault hold for a while, and give how long after its end a swap came back.

    Asserts that from half a second after the fault's beginning on every frame was covered: what the camera takes
    later than that is never shown as held or swapped, however busy the machine is.
    """
    until_s = time.monotonic() + _START_S
    for picture in stage.sway():
        if stage.show(picture).state is ShownState.SWAPPED:
            break
        assert time.monotonic() < until_s, stage.pipeline.stats()
        time.sleep(_CAMERA_S)
    with failing():  # type: ignore[attr-defined]
        began_s = time.monotonic()
        for picture in stage.sway():
            taken_s = time.monotonic()
            state = stage.show(picture).state
            if taken_s - began_s > 0.5:
                assert state is ShownState.COVERED, f"{state} {taken_s - began_s:.3f} s after the fault began"
            if taken_s - began_s > fault_s:
                break
            time.sleep(_CAMERA_S)
    ended_s = time.monotonic()
    for picture in stage.sway():
        if stage.show(picture).state is ShownState.SWAPPED:
            return time.monotonic() - ended_s
        assert time.monotonic() - ended_s < _START_S, stage.pipeline.stats()
        time.sleep(_CAMERA_S)
    raise AssertionError("unreachable: swaying never ends")
