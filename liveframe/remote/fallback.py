"""A remote model with the embedded one behind it: whichever is fast enough answers."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from liveframe.errors import FrameError
from liveframe.model import BatchModel, check_batch
from liveframe.remote.client import Batch, BoundedPool, Extra
from liveframe.stats import percentile


class Route(StrEnum):
    """Who answers now."""

    REMOTE = "remote"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class FallbackPolicy:
    """When to leave the remote model, and when to return.

    Attributes:
        deadline_s: the 95th percentile that the remote model must keep, in seconds.
        window: how many of the last remote calls that is taken over.
        least: how many of them there must be before it counts.
        failures: remote errors in a row that end it at once.
        probe_s: how often the remote model is tried in the background while it is left, in seconds.
        good_probes: tries in a row within the deadline that bring it back.
        max_in_flight: how many `submit` calls may be open.
    """

    deadline_s: float = 0.15
    window: int = 60
    least: int = 20
    failures: int = 3
    probe_s: float = 2.0
    good_probes: int = 3
    max_in_flight: int = 4


@dataclass(frozen=True, slots=True)
class FallbackStats:
    """How the two share the work.

    Attributes:
        route: who answers now.
        switches: how often that changed.
        remote_calls: calls that the remote model answered.
        local_calls: calls that the embedded model answered.
        remote_p95_s: over the window, an error counting as the deadline missed; 0 before the first.
        reason: why the remote model was left, empty while it answers.
    """

    route: Route
    switches: int
    remote_calls: int
    local_calls: int
    remote_p95_s: float
    reason: str


class FallbackModel:
    """A BatchModel that asks a remote one and falls back to the embedded one. Thread-safe.

    A remote error is answered by the embedded model in the same call, so the stream does
    not notice. Once errors repeat, or the window's 95th percentile passes the deadline, all
    calls go to the embedded model, and a thread tries the remote one with a blank batch
    until it keeps the deadline again.
    """

    def __init__(
        self,
        remote: BatchModel,
        local: BatchModel,
        policy: FallbackPolicy | None = None,
        on_switch: Callable[[Route, str], None] | None = None,
    ) -> None:
        """Take both; the remote one answers first.

        Args:
            remote: bounds its own calls, as RemoteClient does. Closed by its owner.
            local: warm; its spec must equal the remote one's in shapes.
            policy: limits.
            on_switch: told the new route and the reason, on the thread that found it out.
        """
        shapes = [(spec.input_shape, spec.output_shape, spec.extras) for spec in (remote.spec, local.spec)]
        if shapes[0] != shapes[1]:
            raise FrameError(f"remote and local must have the same shapes, but have {shapes}. Serve the same bundle.")
        self._remote, self._local = remote, local
        self._policy = policy or FallbackPolicy()
        self._on_switch = on_switch
        most = min(remote.spec.max_batch, local.spec.max_batch)
        self.spec = replace(local.spec, max_batch=most)
        self.max_in_flight = self._policy.max_in_flight
        self._pool = BoundedPool(self.max_in_flight, self.max_in_flight, "liveframe-fallback")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._times_s: deque[float] = deque(maxlen=self._policy.window)
        self._failures_in_row = 0
        self._route = Route.REMOTE
        self._reason = ""
        self._switches = self._remote_calls = self._local_calls = 0
        self._prober: threading.Thread | None = None

    def predict(self, batch: Batch, **extras: Extra) -> Batch:
        """Answer from where it is faster; see BatchModel."""
        check_batch(batch, self.spec, extras)
        if self._route is Route.REMOTE:
            start_s = time.monotonic()
            try:
                answer = self._remote.predict(batch, **extras)
            except Exception as error:
                self._note_failure(error)
            else:
                self._note_answer(time.monotonic() - start_s)
                return answer
        with self._lock:
            self._local_calls += 1
        return self._local.predict(batch, **extras)

    def submit(self, batch: Batch, **extras: Extra) -> Future[Batch]:
        """Answer on a thread of its own. The future fails with OverloadedError when too many are open."""
        return self._pool.submit(partial(self.predict, **extras), batch)

    def stats(self) -> FallbackStats:
        """How the two share the work; any thread may ask."""
        with self._lock:
            p95_s = percentile(sorted(self._times_s), 95)
            return FallbackStats(
                self._route, self._switches, self._remote_calls, self._local_calls, p95_s, self._reason
            )

    def close(self, timeout_s: float = 2.0) -> bool:
        """End the threads; True if they ended in time. The two models stay open."""
        self._closing.set()
        self._pool.close()
        prober = self._prober
        if prober is not None:
            prober.join(timeout_s)
        return prober is None or not prober.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ judging the remote model

    def _note_answer(self, took_s: float) -> None:
        with self._lock:
            self._remote_calls += 1
            self._failures_in_row = 0
            self._times_s.append(took_s)
            reason = self._why_too_slow()
        if reason:
            self._leave_remote(reason)

    def _note_failure(self, error: Exception) -> None:
        policy = self._policy
        with self._lock:
            self._failures_in_row += 1
            self._times_s.append(2 * policy.deadline_s)
            is_over = self._failures_in_row >= policy.failures
            reason = (str(error) or type(error).__name__) if is_over else self._why_too_slow()
        if reason:
            self._leave_remote(reason)

    def _why_too_slow(self) -> str:
        """Judge the window. The caller holds the lock."""
        p95_s, deadline_s = percentile(sorted(self._times_s), 95), self._policy.deadline_s
        if len(self._times_s) < self._policy.least or p95_s <= deadline_s:
            return ""
        return f"The endpoint's p95 is {p95_s * 1e3:.0f} ms, over the deadline of {deadline_s * 1e3:.0f} ms."

    def _leave_remote(self, reason: str) -> None:
        with self._lock:
            if self._route is Route.LOCAL or self._closing.is_set():
                return
            self._switch(Route.LOCAL, reason)
            self._prober = threading.Thread(target=self._probe, name="liveframe-probe", daemon=True)
            self._prober.start()
        if self._on_switch is not None:
            self._on_switch(Route.LOCAL, reason)

    def _switch(self, route: Route, reason: str) -> None:
        """Change the route and judge afresh. The caller holds the lock."""
        self._route, self._reason = route, reason
        self._switches += 1
        self._failures_in_row = 0
        self._times_s.clear()

    def _probe(self) -> None:
        """Try the remote model until it keeps the deadline several times in a row, then return to it."""
        blank = np.zeros((1, *self.spec.input_shape), np.uint8)
        extras = {port.name: np.zeros((1, *port.shape), np.float32) for port in self.spec.extras}
        good = 0
        while good < self._policy.good_probes:
            if self._closing.wait(self._policy.probe_s):
                return
            start_s = time.monotonic()
            try:
                self._remote.predict(blank, **extras)
            except Exception:
                good = 0
            else:
                good = good + 1 if time.monotonic() - start_s <= self._policy.deadline_s else 0
        with self._lock:
            self._switch(Route.REMOTE, "")
        if self._on_switch is not None:
            self._on_switch(Route.REMOTE, "")
