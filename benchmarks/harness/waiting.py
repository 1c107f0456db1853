"""Waiting for what other threads do, without sleeping for fixed times."""

import time
from collections.abc import Callable

from liveframe.gate import GatePolicy
from liveframe.policy import PipelinePolicy

PATIENT = PipelinePolicy(GatePolicy(hold_s=25.0, freeze_s=25.0), deadline_s=20.0, hang_s=25.0)
"""Limits of a pipeline that shows every frame's own answer, on a busy machine too."""


def wait_until(is_true: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Return as soon as `is_true()` is.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {timeout_s:g} s")
        time.sleep(0.005)


def quickest(call: Callable[[], object], limit_s: float, tries: int = 4) -> float:
    """Return the seconds of the quickest of some calls, the first within the limit: a busy machine may hold one up."""
    times_s: list[float] = []
    for _ in range(tries):
        start_s = time.monotonic()
        call()
        times_s.append(time.monotonic() - start_s)
        if times_s[-1] < limit_s:
            break
    return min(times_s)
