"""One viewer's live pipeline: latest frame wins, a deadline per frame, and nothing raw by accident."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Self

from liveframe.cover import CoverStyle
from liveframe.errors import ModelError
from liveframe.frame import Frame, FrameResult, Image
from liveframe.gate import Gate, Paint, Shown, ShownState
from liveframe.loading import Configure, Loading, as_model_error, resolve, trial_frame
from liveframe.model import FrameModel, FrameSession
from liveframe.policy import PipelinePolicy
from liveframe.sentinel import Inspect, Sentinel
from liveframe.stats import Meter, Phase, PipelineStats, Rate
from liveframe.worker import OrderedExit, Ticket, Worker, close_session

Tap = Callable[[Shown], None]
"""Receives everything that was shown, in order, on the thread that called `process`. Must be quick."""

_TURN_GRACE_S = 0.05
_LOADING = "The model is loading."
_OUTDATED = "Another model was asked for before this one was ready."
_STUCK = "The model hangs; it is being replaced by a fresh session."


class FramePipeline:
    """Relays one viewer's frames through a model.

    A relay calls `process` from a thread of its own, one frame after another. With a
    SplitSession up to `in_flight` frames may be started at once (`start`); what comes back
    never goes back in time.
    A frame waits for its own answer until its deadline, then for nothing: a held picture or
    a cover is shown and the answer, when it comes, is dropped and counted. While the model
    is busy one frame waits; a newer one displaces it. A model that hangs is left behind
    with its thread, and a fresh session starts beside it.

    All methods are thread-safe. `process` never raises.
    """

    def __init__(
        self,
        model: FrameModel,
        policy: PipelinePolicy | None = None,
        *,
        overlays: Sequence[Paint] = (),
        configure: Configure | None = None,
        inspect: Inspect | None = None,
    ) -> None:
        """Start; the model warms up in the background, frames are covered until it is ready.

        Args:
            model: the model to relay through.
            policy: limits; the defaults suit live video.
            overlays: painted on everything that leaves (label, watermark), but for a pass-through.
            configure: gives every new session the viewer's settings; see `configure`.
            inspect: a slow look for the filmed face in what is shown; what it sees is covered. None: nobody looks.
        """
        self._policy = policy or PipelinePolicy()
        self._sentinel = Sentinel(inspect) if inspect is not None else None
        watch = self._sentinel.watch if self._sentinel is not None else None
        self._gate = Gate(self._policy.gate, overlays, watch=watch)
        self._meter = Meter()
        self._rate_in, self._rate_out = Rate(), Rate()
        self._turns = OrderedExit()
        self._lock = threading.RLock()
        self._configure: Configure = configure or _leave_as_is
        self._tap: Tap | None = None
        self._model = model
        self._worker: Worker | None = None
        self._loading: Loading | None = None
        self._wanted: tuple[FrameModel, Future[None]] | None = None  # waits until fewer models are on their way
        self._abandoned: list[Worker | Loading] = []
        self._last_frame: Frame | None = None
        self._last_shown: Shown | None = None
        self._retry_s = 0.0
        self._drops = self._late = self._model_swaps = 0
        self._is_closed = False
        with self._lock:
            self._load(model, trial=None)

    # ------------------------------------------------------------------ the live path

    def process(self, image: Image, captured_s: float | None = None) -> Shown:
        """Return what may be shown for a camera frame; returns by the frame's deadline.

        Args:
            image: uint8 [H, W, 3], BGR. The pipeline keeps no copy: do not write to it again.
            captured_s: when it was captured, time.monotonic() seconds; now, if left out.

        Returns:
            What to show. Never raises.
        """
        return self.start(image, captured_s)()

    def start(self, image: Image, captured_s: float | None = None) -> Callable[[], Shown]:
        """Take a camera frame in, without waiting: `process` in two halves.

        Frames are numbered in the order of these calls, so a relay that overlaps them starts all on one
        thread and waits for each on another.

        Returns:
            Gives what `process` would. Must be called, once: later frames wait for it. Neither half raises.
        """
        index = self._turns.enter()
        now_s = time.monotonic()
        captured_s = min(captured_s, now_s) if captured_s is not None else now_s
        frame: Frame | None = None
        ticket: Ticket | None = None
        note = ""
        try:
            frame = Frame(image, index, captured_s)
            ticket, note = self._submit(frame)
        except Exception as error:
            self._gate.note_error(error)
        return lambda: self._end(index, captured_s + self._policy.deadline_s, frame, ticket, note)

    def _end(self, index: int, until_s: float, frame: Frame | None, ticket: Ticket | None, note: str) -> Shown:
        """Wait for a frame's answer and for its turn to leave."""
        try:
            if ticket is not None:
                ticket.wait(self._patience_s(until_s))
                note = "" if ticket.result is not None else ticket.why_nothing()
        except Exception as error:
            self._gate.note_error(error)
        self._turns.wait(index, until_s + _TURN_GRACE_S - time.monotonic())
        try:
            return self._leave(index, frame, ticket, note)
        finally:
            self._turns.leave(index)

    def _submit(self, frame: Frame) -> tuple[Ticket | None, str]:
        """Hand a frame to the worker; without one, say why."""
        ticket = Ticket(frame)
        with self._lock:
            self._rate_in.tick()
            self._last_frame = frame
            if not self._is_closed:
                self._mend()
            worker = self._worker
        if worker is None:
            return None, self._why_no_worker()
        if not self._gate.should_infer():
            return None, "The model failed repeatedly and is left in peace for a moment."
        drops = sum(displaced.resolve(None) for displaced in worker.submit(ticket))
        if drops:
            with self._lock:
                self._drops += drops
        return ticket, ""

    def _patience_s(self, until_s: float) -> float:
        """Wait no longer than the deadline, nor than the picture now on screen may be held."""
        hold_ends_s = self._gate.hold_ends_s()
        if hold_ends_s is None or hold_ends_s <= time.monotonic():
            return until_s
        return min(until_s, hold_ends_s)

    def _leave(self, index: int, frame: Frame | None, ticket: Ticket | None, note: str) -> Shown:
        """Let the gate decide, count, and tell the tap. Called in frame order."""
        last = self._last_shown
        if last is not None and index < last.index and last.state is not ShownState.OFF:
            return last  # a newer frame could wait no longer: never go back in time
        result = ticket.result if ticket is not None else None
        shown = self._gate.show(frame, result, note)
        if frame is None:
            shown = replace(shown, index=index)
        with self._lock:
            self._last_shown = shown
            if shown.state in (ShownState.SWAPPED, ShownState.OFF):
                self._rate_out.tick()
            tap = self._tap
        try:
            if ticket is not None and result is not None and shown.state is ShownState.SWAPPED:
                self._meter.add(ticket.times_ms(result, time.monotonic()))
            if tap is not None:
                tap(shown)
        except Exception as error:
            self._gate.note_error(error)
        return shown

    def _why_no_worker(self) -> str:
        return _LOADING if self._loading is not None else "The model could not be brought up; it is tried again."

    def _report(self, ticket: Ticket, result: FrameResult | None, error: BaseException | None) -> None:
        """Take a worker's answer. Runs on the worker's thread."""
        if error is not None:
            self._gate.fail(error)
        if not ticket.resolve(result) and error is None:
            with self._lock:
                self._late += 1

    # ------------------------------------------------------------------ models: load, replace, abandon

    def replace_model(self, model: FrameModel) -> Future[None]:
        """Bring another model up in the background and switch to it between two frames.

        The running model serves until the new one is warm and has answered a trial frame in
        form. When that fails the old one stays. The newest choice wins: where too many are on their way already, it
        waits until one of them ends, and one that waited before it is given up.

        Returns:
            A future: None once the new model serves, or the ModelError that prevented it.
        """
        with self._lock:
            if self._is_closed:
                refused: Future[None] = Future()
                refused.set_exception(ModelError("The pipeline is closed. Open another one."))
                return refused
            if len(self._hung()) < self._policy.max_abandoned:
                return self._load(model, trial_frame(self._last_frame)).future
            self._forget_wanted(_OUTDATED)
            future: Future[None] = Future()
            self._wanted = (model, future)
            self._load_wanted()
            return future

    def _forget_wanted(self, sentence: str) -> None:
        """Give up the model that waits for room, if any. The caller holds the lock."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            resolve(wanted[1], ModelError(sentence))

    def _load_wanted(self, ended: Loading | None = None) -> None:
        """Bring up the model that waits, once there is room. The caller holds the lock.

        Args:
            ended: whose thread calls, and ends with this call.
        """
        if self._wanted is None or self._is_closed:
            return
        left = [each for each in self._hung() if each is not ended]
        if len(left) < self._policy.max_abandoned:
            (model, future), self._wanted = self._wanted, None
            self._load(model, trial_frame(self._last_frame), future)
        elif not any(isinstance(each, Loading) and not self._is_stuck(each) for each in left):
            self._forget_wanted("Too many models hang already. Restart the stream.")

    def _is_stuck(self, loading: Loading) -> bool:
        return time.monotonic() - loading.started_s > self._policy.load_s

    def configure(self, action: Configure) -> None:
        """Run an action on the session now, and on every session opened later, in place of the earlier action.

        The action runs on the caller's thread while frames go on: what it calls must be thread-safe.
        """
        with self._lock:
            self._configure = action
            worker = self._worker
        if worker is not None:
            action(worker.session)

    def _load(self, model: FrameModel, trial: Frame | None, future: Future[None] | None = None) -> Loading:
        """Start to bring a model up; earlier attempts are left behind. The caller holds the lock."""
        self._forget_wanted(_OUTDATED)
        if self._loading is not None:
            self._abandon_loading(_OUTDATED)
        self._loading = Loading(model, trial, self._configure_new, self._loaded, future)
        return self._loading

    def _configure_new(self, session: FrameSession) -> None:
        self._configure(session)

    def _loaded(self, loading: Loading, session: FrameSession | None, error: BaseException | None) -> None:
        """Take a loading's outcome. Runs on the loading's thread."""
        is_current = False
        with self._lock:
            is_newest = loading is self._loading and not self._is_closed
            is_current = is_newest and self._wanted is None
            if is_newest:
                self._loading = None
            if is_current:
                if session is not None:
                    self._install(loading.model, session)
                else:
                    self._retry_s = time.monotonic() + self._policy.gate.breaker.open_s
            self._load_wanted(loading)
        if error is not None:
            if is_current:
                self._gate.note_error(error)
            loading.resolve(as_model_error(error))
        elif is_current:
            loading.resolve()
        elif session is not None:
            close_session(session)
            loading.resolve(ModelError("The pipeline was closed." if self._is_closed else _OUTDATED))

    def _install(self, model: FrameModel, session: FrameSession) -> None:
        """Switch to a new session between two frames. The caller holds the lock."""
        old = self._worker
        self._worker = Worker(session, self._report, self._policy.in_flight)
        if model is not self._model:
            self._model_swaps += 1
            self._gate.breaker.reset()
        self._model = model
        if old is not None:
            self._abandoned.append(old)  # until it has finished its frame
            for waiting in old.retire():
                self._worker.submit(waiting)

    def _mend(self) -> None:
        """Leave behind what hangs, and start what is missing. The caller holds the lock."""
        worker, loading = self._worker, self._loading
        if worker is not None and worker.oldest_age_s() > self._policy.hang_s:
            self._leave_behind(worker)
            self._gate.note_error(ModelError(_STUCK))
        if loading is not None and self._is_stuck(loading):
            self._abandon_loading(f"The model took longer than {self._policy.load_s:g} s to warm up.")
        self._load_wanted()
        is_missing = self._worker is None and self._loading is None
        if is_missing and time.monotonic() >= self._retry_s and len(self._hung()) < self._policy.max_abandoned:
            self._load(self._model, trial=None)

    def _leave_behind(self, worker: Worker) -> None:
        """Wait no longer for a worker. The caller holds the lock."""
        self._worker = None
        for waiting in worker.retire():
            waiting.resolve(None)
        self._abandoned.append(worker)

    def _abandon_loading(self, sentence: str) -> None:
        loading, self._loading = self._loading, None
        if loading is not None:
            self._abandoned.append(loading)
            loading.resolve(ModelError(sentence))

    def _hung(self) -> list[Worker | Loading]:
        """What was left behind and still runs. The caller holds the lock."""
        self._abandoned = [left for left in self._abandoned if left.is_alive()]
        return self._abandoned

    # ------------------------------------------------------------------ controls

    @property
    def in_flight(self) -> int:
        """How many `process` calls may usefully overlap: 1, or more for a SplitSession."""
        worker = self._worker
        return worker.in_flight if worker is not None else 1

    @property
    def session(self) -> FrameSession | None:
        """The session now at work; None while a model loads. It changes with the model."""
        worker = self._worker
        return worker.session if worker is not None else None

    def set_swapping(self, is_on: bool) -> None:
        """Turn swapping on, or let the viewer's own camera pass: a choice that only the viewer makes."""
        self._gate.set_swapping(is_on)

    def set_cover(self, style: CoverStyle) -> None:
        """Choose how frames that may not be shown are covered."""
        self._gate.set_cover(style)

    def block(self, sentence: str) -> None:
        """Cover everything and say why, until `unblock`."""
        self._gate.block(sentence)

    def unblock(self) -> None:
        """Show results again."""
        self._gate.unblock()

    def tap(self, consumer: Tap | None) -> None:
        """Hand everything that is shown to a consumer as well (a recording, a snapshot); None ends that."""
        with self._lock:
            self._tap = consumer

    def stats(self) -> PipelineStats:
        """How the stream does. Cheap; any thread may ask at any time."""
        counts, errors, last_error = self._gate.counts()
        stages = self._meter.stages()
        with self._lock:
            shown = self._last_shown
            return PipelineStats(
                state=shown.state if shown is not None else ShownState.COVERED,
                phase=self._phase(),
                frames=self._turns.entered,
                fps_in=self._rate_in.per_s(),
                fps_out=self._rate_out.per_s(),
                swapped=counts.get("swapped", 0),
                held=counts.get("held", 0),
                covered=counts.get("covered", 0),
                off=counts.get("off", 0),
                incomplete=counts.get("incomplete", 0),
                suspected=counts.get("suspected", 0),
                drops=self._drops,
                late=self._late,
                errors=errors,
                breaker_opens=self._gate.breaker.opened,
                abandoned=len(self._hung()),
                model_swaps=self._model_swaps,
                stages=stages,
                note=shown.note if shown is not None else _LOADING,
                last_error=last_error,
                personas=shown.personas if shown is not None else (),
                is_mixed=shown is not None and shown.is_mixed,
            )

    def _phase(self) -> Phase:
        if self._is_closed:
            return Phase.CLOSED
        if self._worker is not None:
            return Phase.READY
        return Phase.LOADING if self._loading is not None else Phase.FAILED

    def close(self, timeout_s: float = 2.0) -> bool:
        """End the stream. Frames that still come are covered.

        Args:
            timeout_s: how long to wait for the model to finish its last frame.

        Returns:
            Whether every thread ended in time; a hung one is left behind. Safe to call twice.
        """
        with self._lock:
            self._is_closed = True
            self._gate.set_swapping(True)
            self._gate.block("The stream is closed.")
            if self._worker is not None:
                self._leave_behind(self._worker)
            self._forget_wanted("The pipeline was closed.")
            self._abandon_loading("The pipeline was closed.")
            self._tap = None
            left = self._hung()
        until_s = time.monotonic() + timeout_s
        ended = [hung.join(until_s - time.monotonic()) for hung in left]
        if self._sentinel is not None:
            ended.append(self._sentinel.close(until_s - time.monotonic()))
        return all(ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _leave_as_is(session: FrameSession) -> None:
    """The settings of a viewer who has none."""
