"""A thread that runs one session, over a bounded inbox: the newest frame wins."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from liveframe.errors import FrameError
from liveframe.frame import Frame, FrameResult
from liveframe.model import FrameSession, SplitSession

_LOG = logging.getLogger(__name__)
_IDLE_S = 1.0  # how long an idle thread sleeps before it looks round; new frames wake it at once


class Ticket:
    """One frame on its way through a worker. Settled once: by the worker, or by whoever gives up.

    Attributes:
        frame: the frame.
        result: the model's answer once settled; None where there is none.
        started_s: when the model began, time.monotonic() seconds; 0 before.
        ended_s: when the model ended; 0 before.
    """

    __slots__ = ("_event", "_is_settled", "_lock", "ended_s", "frame", "result", "started_s")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.result: FrameResult | None = None
        self.started_s = 0.0
        self.ended_s = 0.0
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._is_settled = False

    @property
    def is_settled(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self._is_settled

    def resolve(self, result: FrameResult | None) -> bool:
        """Return the answer, and wake the waiter.

        Returns:
            False when the ticket was settled before: this answer is late.
        """
        with self._lock:
            if self._is_settled:
                return False
            self._is_settled = True
            self.result = result
        self._event.set()
        return True

    def wait(self, until_s: float) -> FrameResult | None:
        """Wait for the answer until a time.monotonic() moment, then give up for good."""
        if not self._event.wait(max(0.0, until_s - time.monotonic())):
            self.resolve(None)
        return self.result

    def why_nothing(self) -> str:
        """Why it came back without an answer."""
        if self.ended_s:
            return "The model failed on this picture."
        return "The model answers later than its deadline." if self.started_s else "The model is busy."

    def times_ms(self, result: FrameResult, now_s: float) -> list[tuple[str, float]]:
        """The frame's latency by stage until now, in milliseconds."""
        captured_s = self.frame.captured_s
        own = [
            ("queue", (self.started_s - captured_s) * 1e3),
            ("model", (self.ended_s - self.started_s) * 1e3),
            ("total", (now_s - captured_s) * 1e3),
        ]
        return [*((str(name), float(time_ms)) for name, time_ms in result.stages_ms.items()), *own]


Report = Callable[[Ticket, FrameResult | None, BaseException | None], None]
"""Called on the worker's thread with each answer, or with the error that came instead."""


class Worker:
    """Runs a session on a thread of its own and never makes anyone wait for it.

    A plain session answers one frame at a time. A SplitSession's second halves run on a
    second thread, in frame order, up to `in_flight` frames at once. `retire` ends the
    worker after the frame it is at; a worker that hangs is simply left behind.
    """

    def __init__(self, session: FrameSession, report: Report, in_flight: int = 1) -> None:
        self.session = session
        self._split = session if isinstance(session, SplitSession) else None
        self.in_flight = max(1, in_flight) if self._split else 1
        self._report = report
        self._changed = threading.Condition()
        self._inbox: deque[Ticket] = deque()
        self._is_retired = False
        self._begun: list[Ticket] = []  # at the model now, oldest first
        self._halves: list[tuple[Ticket, Callable[[], FrameResult]]] = []
        self._threads = [threading.Thread(target=self._run, name="liveframe-worker", daemon=True)]
        if self._split:
            self._threads.append(threading.Thread(target=self._run_second, name="liveframe-second", daemon=True))
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------ called by the pipeline

    def submit(self, ticket: Ticket) -> list[Ticket]:
        """Put a frame in the inbox: it has one place, or as many as the model has room for now.

        Returns:
            The tickets that it displaced, oldest first; the ticket itself if the worker is retired.
        """
        with self._changed:
            if self._is_retired:
                return [ticket]
            places = max(1, self.in_flight - len(self._begun))
            displaced = [self._inbox.popleft() for _ in range(len(self._inbox) - places + 1)]
            self._inbox.append(ticket)
            self._changed.notify_all()
            return displaced

    def oldest_age_s(self) -> float:
        """How long the oldest frame at the model has been there, in seconds; 0 when idle."""
        with self._changed:
            return time.monotonic() - self._begun[0].started_s if self._begun else 0.0

    def retire(self) -> list[Ticket]:
        """Take no more frames, and close the session after those at the model. Does not wait.

        Returns:
            The tickets still in the inbox, for another worker.
        """
        with self._changed:
            self._is_retired = True
            waiting = list(self._inbox)
            self._inbox.clear()
            self._changed.notify_all()
            return waiting

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads to end; True if they did."""
        until_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return not self.is_alive()

    def is_alive(self) -> bool:
        """Whether one of its threads still runs."""
        return any(thread.is_alive() for thread in self._threads)

    # ------------------------------------------------------------------ the worker's own threads

    def _run(self) -> None:
        """The first thread: take the newest frame, run the session, report."""
        try:
            while (ticket := self._next()) is not None:
                if self._split:
                    self._begin(self._split, ticket)
                else:
                    self._end(ticket, lambda ticket=ticket: self.session.process(ticket.frame))
        finally:
            if not self._split:
                close_session(self.session)

    def _next(self) -> Ticket | None:
        """Wait for a frame that somebody still waits for, and for room; None when retired."""
        with self._changed:
            while not self._is_retired:
                while self._inbox and self._inbox[0].is_settled:
                    self._inbox.popleft()
                if self._inbox and len(self._begun) < self.in_flight:
                    ticket = self._inbox.popleft()
                    ticket.started_s = time.monotonic()
                    self._begun.append(ticket)
                    return ticket
                self._changed.wait(_IDLE_S)
            return None

    def _begin(self, session: SplitSession, ticket: Ticket) -> None:
        """Run a frame's first half, and hand the rest to the second thread."""
        try:
            half = session.begin(ticket.frame)
        except BaseException as error:
            self._finish(ticket, None, error)
            return
        with self._changed:
            self._halves.append((ticket, half))
            self._changed.notify_all()

    def _run_second(self) -> None:
        """The second thread: finish begun frames in order."""
        try:
            while (item := self._next_half()) is not None:
                self._end(*item)
        finally:
            close_session(self.session)

    def _next_half(self) -> tuple[Ticket, Callable[[], FrameResult]] | None:
        """Wait for a begun frame; None when retired and none is left."""
        with self._changed:
            while not self._halves:
                if self._is_retired and not self._begun:
                    return None
                self._changed.wait(_IDLE_S)
            return self._halves.pop(0)

    def _end(self, ticket: Ticket, answer: Callable[[], FrameResult]) -> None:
        """Run what gives a frame's answer, and report it. A model may raise anything, SystemExit included."""
        try:
            result = answer()
            if not isinstance(result, FrameResult):
                got = type(result).__name__
                raise FrameError(f"A session must answer with a FrameResult, but gave {got}. Fix the model's session.")
        except BaseException as error:
            self._finish(ticket, None, error)
        else:
            self._finish(ticket, result, None)

    def _finish(self, ticket: Ticket, result: FrameResult | None, error: BaseException | None) -> None:
        ticket.ended_s = time.monotonic()
        with self._changed:
            self._begun.remove(ticket)
            self._changed.notify_all()
        self._report(ticket, result, error)


def close_session(session: FrameSession) -> None:
    """Close a session whatever it raises: nobody is left to act on that, so it is only logged."""
    try:
        session.close()
    except Exception as error:
        _LOG.warning("A %s could not be closed: %s", type(session).__name__, error)


class OrderedExit:
    """Numbers frames as they come in and lets them out in that order: each waits for those before it. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: set[int] = set()
        self.entered = 0

    def enter(self) -> int:
        """Take the next number, from 0. Whoever enters must `leave`."""
        with self._changed:
            index = self.entered
            self.entered += 1
            self._inside.add(index)
            return index

    def wait(self, index: int, timeout_s: float) -> bool:
        """Wait until no earlier number is inside; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: min(self._inside) == index, timeout_s)

    def leave(self, index: int) -> None:
        """Let the next number have its turn."""
        with self._changed:
            self._inside.discard(index)
            if self._inside:
                self._changed.notify_all()
