"""Work done ahead in a thread of its own, so that decoding, swapping and encoding take turns on two cores."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
_WAIT_S = 0.2


class Ahead(Generic[Item]):
    """Runs an iterator in a thread, a few items ahead of who asks. An iterator itself; close it at the end.

    Errors of the iterator are raised where its next item would have been given. At most `depth` items wait.

    Args:
        items: run in the thread from start to end; closed there when the reader is.
        depth: how many items may wait.
    """

    def __init__(self, items: Iterator[Item], depth: int = 2) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
        self._is_closed = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="understudy-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if self._is_over:
            raise StopIteration
        item, error = self._queue.get()
        if error is None:
            return item  # pyright: ignore[reportReturnType]  # None only beside an error
        self._is_over = True
        raise error

    def close(self) -> None:
        """End the thread; waits for the item that it is at. Safe to call twice."""
        self._is_closed.set()
        self._is_over = True
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put((item, None)):
                    break
            else:
                self._put((None, StopIteration()))
        except BaseException as error:
            self._put((None, error))
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> bool:
        """Wait for room; False once the reader has gone."""
        while not self._is_closed.is_set():
            try:
                self._queue.put(entry, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False
