"""Waiting for what other threads do, without sleeping for fixed times."""

import time
from collections.abc import Callable


def wait_until(is_true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return as soon as `is_true()` is.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {timeout_s:g} s")
        time.sleep(0.005)
