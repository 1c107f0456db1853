"""A circuit breaker: after repeated errors, leave the failing side in peace for a while."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from liveframe.errors import OverloadedError


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    Attributes:
        errors: how many errors in a row open it.
        open_s: how long it stays open, in seconds.
        longest_retry_s: the most that a server's Retry-After can hold it open, in seconds.
    """

    errors: int = 5
    open_s: float = 2.0
    longest_retry_s: float = 30.0


class Breaker:
    """Counts errors in a row and says whether to try at all. Thread-safe, starts no thread.

    After it has been open it lets attempts through again; the first error then opens it
    once more, the first success closes it for good. An `OverloadedError` opens it at once
    for the time that the server asks for.
    """

    def __init__(self, policy: BreakerPolicy | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._lock = threading.Lock()
        self._errors_in_row = 0
        self._open_until_s = -math.inf
        self._opened = 0

    @property
    def opened(self) -> int:
        """How often it has opened."""
        return self._opened

    def open_for_s(self) -> float:
        """How long it stays open from now, in seconds; 0 when attempts may be made."""
        return max(0.0, self._open_until_s - self._clock())

    def succeed(self) -> None:
        """An attempt went well: forget earlier errors. An opening that another attempt caused stands."""
        with self._lock:
            self._errors_in_row = 0

    def fail(self, error: BaseException) -> None:
        """An attempt failed."""
        with self._lock:
            self._errors_in_row += 1
            if isinstance(error, OverloadedError):
                self._open(_bounded(error.retry_after_s, self._policy))
            elif self._errors_in_row >= self._policy.errors:
                self._open(self._policy.open_s)

    def reset(self) -> None:
        """Start afresh, as for another model or server."""
        with self._lock:
            self._errors_in_row = 0
            self._open_until_s = -math.inf

    def _open(self, for_s: float) -> None:
        """Open, and let one more error open it again. The caller holds the lock."""
        now_s = self._clock()
        if now_s >= self._open_until_s:
            self._opened += 1
        self._open_until_s = max(self._open_until_s, now_s + for_s)
        self._errors_in_row = self._policy.errors - 1


def _bounded(retry_after_s: float, policy: BreakerPolicy) -> float:
    """Keep a server's wish within [0, longest_retry_s]; what is no number counts as open_s."""
    if not math.isfinite(retry_after_s):
        return policy.open_s
    return min(max(retry_after_s, 0.0), policy.longest_retry_s)
