"""Answers in the order of the questions, however they overtake each other on the way."""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from liveframe.errors import LateError, OverloadedError
from liveframe.remote.client import Batch


class Submits(Protocol):
    """A client that answers later: LocalClient, RemoteClient, FallbackModel."""

    def submit(self, batch: Batch) -> Future[Batch]:
        """Send a batch and go on."""
        ...


@dataclass(frozen=True, slots=True)
class OrderedAnswer:
    """One answer of a stream.

    Attributes:
        index: the number that `send` was given.
        batch: uint8 [N, ...], or None where it failed.
        error: why it failed, or None.
    """

    index: int
    batch: Batch | None
    error: BaseException | None


class OrderedStream:
    """Several batches in flight; answers come out by rising index. Thread-safe: one sends, one takes."""

    def __init__(self, client: Submits, max_in_flight: int = 4) -> None:
        """Take a client; it stays its owner's to close.

        Args:
            client: answers the batches.
            max_in_flight: batches sent but not yet taken; a further one is refused.
        """
        self._client = client
        self._max_in_flight = max_in_flight
        self._changed = threading.Condition()
        self._pending: deque[tuple[int, Future[Batch]]] = deque()
        self._last = -1

    def send(self, index: int, batch: Batch) -> None:
        """Send a batch.

        Args:
            index: must rise from call to call; gaps are dropped frames.
            batch: as the client's spec asks.

        Raises:
            OverloadedError: max_in_flight answers wait to be taken.
            ValueError: the index does not rise.
        """
        with self._changed:
            if index <= self._last:
                raise ValueError(f"index must rise above {self._last}, but got {index}. Drop the older frame.")
            if len(self._pending) >= self._max_in_flight:
                raise OverloadedError(
                    f"{self._max_in_flight} batches are in flight already. Take an answer first.", 0.0
                )
            self._pending.append((index, self._client.submit(batch)))
            self._last = index
            self._changed.notify_all()

    def take(self, timeout_s: float) -> OrderedAnswer:
        """Wait for the oldest answer.

        Raises:
            LateError: nothing was sent, or not answered, in time; it may be taken later.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._pending), timeout_s):
                raise LateError(f"No batch was sent within {timeout_s:g} s. Send one.")
            index, future = self._pending[0]
        try:
            error = future.exception(timeout_s)
        except TimeoutError as late:
            raise LateError(f"Batch {index} was not answered within {timeout_s:g} s. Take it later.") from late
        with self._changed:
            self._pending.popleft()
        return OrderedAnswer(index, None if error else future.result(), error)
