"""Batches what concurrent requests ask for: a bounded queue, a bounded wait, and no work past its deadline."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import LiveframeError, ModelError, OverloadedError
from liveframe.remote.wire import Extras

Run = Callable[[str, NDArray[np.uint8], Extras], NDArray[np.uint8]]
"""Variant, uint8 [N, H, W, C], extras -> uint8 [N, H2, W2, C2]. Called by the batcher's own threads."""

T = TypeVar("T", bound=np.generic)
OnCall = Callable[[int, float, list[float]], None]
"""Items of a call of the model, its seconds, and the seconds that each of its jobs had waited."""

_SMOOTHING = 0.2
_FIRST_GUESS_S = 0.005


class DeadlineError(LiveframeError, TimeoutError):
    """An answer would come, or has come, after its deadline; the work was dropped."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Bounds of a batcher.

    Attributes:
        max_batch: the most items that one call of the model gets.
        max_wait_s: how long the first item waits for company, and only while a request is on its way in.
        max_queue: the most items that wait.
        workers: calls of the model at the same time, each on a thread of its own.
    """

    max_batch: int = 16
    max_wait_s: float = 0.003
    max_queue: int = 64
    workers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= self.max_queue or not 0 <= self.max_wait_s <= 0.1 or self.workers < 1:
            raise ValueError(
                f"A batch policy needs 1 <= max_batch <= max_queue, a wait up to 0.1 s and a worker, but got {self}."
            )


@dataclass(slots=True)
class _Job:
    variant: str
    items: NDArray[np.uint8]
    extras: Extras
    deadline_s: float
    queued_s: float
    future: "Future[NDArray[np.uint8]]" = field(default_factory=lambda: Future())

    def fits(self, first: "_Job") -> bool:
        return self.variant == first.variant and self.items.shape[1:] == first.items.shape[1:]


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """Counts since the start.

    Attributes:
        calls: of the model.
        items: that went through it.
        refused: items not taken in, for want of room or time.
        expired: items dropped in the queue, past their deadline.
        queued: items that wait now.
        item_ms: smoothed milliseconds of model time per item.
    """

    calls: int
    items: int
    refused: int
    expired: int
    queued: int
    item_ms: float


class Batcher:
    """Runs a model for many callers at once, on threads of its own. Thread-safe.

    Jobs run first come, first served; those of the same variant and shape share a call.
    A job that cannot be answered by its deadline, judged by what came before it and what an
    item costs, is refused at the door rather than queued.
    """

    def __init__(self, run: Run, policy: BatchPolicy | None = None, on_call: OnCall | None = None) -> None:
        """Start the threads.

        Args:
            run: the model.
            policy: bounds.
            on_call: told of every call that was answered, on the thread that made it.
        """
        self._on_call = on_call
        self.policy = policy or BatchPolicy()
        self._run = run
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._queued = self._running = self._arriving = 0
        self._calls = self._items = self._refused = self._expired = 0
        self._item_s = _FIRST_GUESS_S
        self._began_s: dict[int, float] = {}
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._loop, name=f"batcher-{number}", daemon=True)
            for number in range(self.policy.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs and takes jobs."""
        return all(thread.is_alive() for thread in self._threads) and not self._is_closed

    @contextmanager
    def expecting(self, deadline_s: float) -> Generator[None]:
        """Say that a job is on its way (its images are being decoded), so that a batch may wait for it.

        Args:
            deadline_s: the job's, time.monotonic().

        Raises:
            OverloadedError: it has no chance; nothing needs to be decoded.
        """
        with self._changed:
            self._admit(1, deadline_s)
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()

    def submit(
        self, variant: str, items: NDArray[np.uint8], deadline_s: float, extras: Extras | None = None
    ) -> "Future[NDArray[np.uint8]]":
        """Queue items that belong together.

        Args:
            variant: which model.
            items: uint8 [N, H, W, C], N from 1 to max_batch.
            deadline_s: time.monotonic() by which the answer is worth having.
            extras: tensors that accompany the items, [N, ...] by name; the same names for all of a variant.

        Returns:
            A future of uint8 [N, H2, W2, C2]; it raises what the model raised, or DeadlineError.

        Raises:
            OverloadedError: no room, or no time before the deadline; says when to come back.
        """
        with self._changed:
            self._admit(len(items), deadline_s)
            job = _Job(variant, items, extras or {}, deadline_s, time.monotonic())
            self._queue.append(job)
            self._queued += len(items)
            self._changed.notify_all()
        return job.future

    @property
    def oldest_s(self) -> float:
        """For how long the oldest call of the model that has not returned runs, in seconds. Any thread."""
        with self._changed:
            return max((time.monotonic() - began_s for began_s in self._began_s.values()), default=0.0)

    def stats(self) -> BatcherStats:
        """Return the counts. Any thread."""
        with self._changed:
            return BatcherStats(
                self._calls, self._items, self._refused, self._expired, self._queued, self._item_s * 1e3
            )

    def close(self) -> None:
        """Take no more jobs, refuse those that wait, and end the threads. Safe to call twice."""
        with self._changed:
            self._is_closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._queued = 0
            self._changed.notify_all()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(OverloadedError("The server is shutting down. Try another.", 1.0))
        for thread in self._threads:
            thread.join(timeout=5)

    def _admit(self, count: int, deadline_s: float) -> None:
        """Refuse items that there is no room or no time for. The caller holds the lock."""
        if self._is_closed:
            raise OverloadedError("The server is shutting down. Try another.", retry_after_s=1.0)
        self._forget_cancelled()
        ahead_s = (self._queued + self._running) * self._item_s / self.policy.workers
        # Idle, it takes whatever still has time: the estimate may be an old, bad one, and only work mends it.
        # Otherwise an answer comes when its whole call is done, whoever else is in that.
        shared = max(count, min(self.policy.max_batch, self._queued + count))
        needed_s = ahead_s + shared * self._item_s if ahead_s > 0 else 0.0
        left_s = deadline_s - time.monotonic()
        has_room = self._queued + count <= self.policy.max_queue
        if not has_room or needed_s > left_s:
            self._refused += count
            raise OverloadedError(_why_refused(has_room, needed_s, left_s), max(0.05, ahead_s))

    def _forget_cancelled(self) -> None:
        """Drop what nobody waits for any more. The caller holds the lock."""
        self._queue = deque(job for job in self._queue if not job.future.cancelled())
        self._queued = sum(len(job.items) for job in self._queue)

    # ------------------------------------------------------------------ the batcher's threads

    def _loop(self) -> None:
        while True:
            with self._changed:
                jobs = self._take()
                if jobs is None:
                    return
                count = sum(len(job.items) for job in jobs)
                self._running += count
                self._began_s[threading.get_ident()] = time.monotonic()
            if jobs:
                self._answer(jobs)
            with self._changed:
                self._running -= count
                del self._began_s[threading.get_ident()]

    def _take(self) -> list[_Job] | None:
        """Wait for jobs and take a batch of them, oldest first; None when closed. The caller holds the lock."""
        while not self._queue:
            if self._is_closed:
                return None
            self._changed.wait(timeout=1.0)
        until_s = self._queue[0].queued_s + self.policy.max_wait_s
        while self._is_company_coming() and (left_s := until_s - time.monotonic()) > 0:
            self._changed.wait(left_s)  # another thread may take the queue meanwhile
        return self._gather()

    def _is_company_coming(self) -> bool:
        return self._arriving > 0 and 0 < self._queued < self.policy.max_batch and not self._is_closed

    def _gather(self) -> list[_Job]:
        """Take the oldest job and all that fit with it; expire those that are too late on the way."""
        self._forget_cancelled()
        jobs: list[_Job] = []
        kept: deque[_Job] = deque()
        room = self.policy.max_batch
        now_s = time.monotonic()
        for job in self._queue:
            needed_s = len(job.items) * self._item_s if jobs or kept else 0.0
            if now_s + needed_s > job.deadline_s:
                self._expire(job)
            elif (not jobs or job.fits(jobs[0])) and (len(job.items) <= room or not jobs):
                jobs.append(job)
                room -= len(job.items)
            else:
                kept.append(job)
        self._queue = kept
        self._queued = sum(len(job.items) for job in kept)
        return [job for job in jobs if job.future.set_running_or_notify_cancel()]

    def _expire(self, job: _Job) -> None:
        self._expired += len(job.items)
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(DeadlineError("The deadline passed while waiting, so the work was dropped."))

    def _answer(self, jobs: list[_Job]) -> None:
        started_s = time.monotonic()
        try:
            batch = _joined([job.items for job in jobs])
            extras = {name: _joined([job.extras[name] for job in jobs]) for name in jobs[0].extras}
            answers = self._run(jobs[0].variant, batch, extras)
            if len(answers) != len(batch):
                raise ModelError(f"The model must answer {len(batch)} items, but answered {len(answers)}.")
        except Exception as error:
            for job in jobs:
                job.future.set_exception(error)
            return
        took_s = time.monotonic() - started_s
        self._learn(took_s / len(batch), len(batch))
        if self._on_call is not None:
            self._on_call(len(batch), took_s, [started_s - job.queued_s for job in jobs])
        start = 0
        for job in jobs:
            job.future.set_result(answers[start : start + len(job.items)])
            start += len(job.items)

    def _learn(self, item_s: float, count: int) -> None:
        with self._changed:
            self._calls += 1
            self._items += count
            self._item_s += _SMOOTHING * (item_s - self._item_s)


def _joined(parts: list[NDArray[T]]) -> NDArray[T]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _why_refused(has_room: bool, needed_s: float, left_s: float) -> str:
    if not has_room:
        return "The queue is full. Send the newest frame again in a moment, or raise the replicas."
    return f"An answer would take {needed_s * 1e3:.0f} ms, but only {left_s * 1e3:.0f} ms are left. Send a newer frame."
