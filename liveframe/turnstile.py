"""Numbers frames as they come in, and lets them out in that order."""

import threading


class OrderedExit:
    """Gives out turns; each waits until those before it have left. Thread-safe."""

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
