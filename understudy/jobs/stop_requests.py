"""Ends commands cleanly: SIGTERM and Ctrl-C become a question that a loop asks between two frames."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Generator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl-C into a question that the loop asks; give the question."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
