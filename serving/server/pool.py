"""Threads for one kind of work: what waits for them is bounded, and a call that hangs is seen."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from liveframe.errors import OverloadedError

T = TypeVar("T")


class Pool:
    """Runs calls, first come, first served. `run` belongs to an event loop; the rest is thread-safe.

    The threads are daemons: a call that never returns keeps no process alive.
    """

    def __init__(self, name: str, threads: int, most_waiting: int, limit_s: float, niceness: int = 0) -> None:
        """Start the threads.

        Args:
            name: of the threads, and in the sentence of a refusal.
            threads: calls at the same time.
            most_waiting: calls that wait for a thread; more are refused.
            limit_s: a call that takes longer hangs.
            niceness: added to the threads' own, where the system knows such a thing (Linux): they yield to others.
        """
        self._name = name
        self._most_waiting = most_waiting
        self._limit_s = limit_s
        self._niceness = niceness
        self._lock = threading.Lock()
        self._waiting = 0
        self._began_s: dict[int, float] = {}
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._loop, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call on a thread and await what it gives. One that is cancelled while it waits never runs.

        Raises:
            OverloadedError: too many wait.
        """
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise OverloadedError(f"Too many requests wait for {self._name}. Send this one again in a moment.", 0.2)
            self._waiting += 1
        future: Future[T] = Future()
        self._jobs.put((future, call))
        return await asyncio.wrap_future(future)

    @property
    def is_stuck(self) -> bool:
        """Whether a call hangs."""
        with self._lock:
            return any(time.monotonic() - began_s > self._limit_s for began_s in self._began_s.values())

    def close(self) -> None:
        """Take what waits off, and end the threads as soon as they are free. Safe to call twice."""
        for _ in self._threads:
            self._jobs.put(None)

    def _loop(self) -> None:
        if self._niceness:
            with contextlib.suppress(AttributeError, OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        me = threading.get_ident()
        while (job := self._jobs.get()) is not None:
            future, call = job
            with self._lock:
                self._waiting -= 1
                self._began_s[me] = time.monotonic()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
            with self._lock:
                del self._began_s[me]
