"""One process at a time: a lock on a file, which the system releases when its holder dies, however it dies."""

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from liveframe.errors import LiveframeError

_POLL_S = 0.02


class LockedError(LiveframeError, RuntimeError):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path, what: str, wait_s: float = 0.0) -> Generator[IO[bytes]]:
    """Hold a lock while the block runs.

    Args:
        path: the file to lock; made where missing, and left behind.
        what: how the error names what is locked.
        wait_s: how long to wait for another holder, in seconds.

    Yields:
        The open file. A child process that inherits it shares the lock, and holds it until it ends.

    Raises:
        LockedError: another process (or another block of this one) still holds it.
    """
    until_s = time.monotonic() + wait_s
    while True:
        with path.open("a+b") as file:
            is_locked = _try_lock(file)
            if is_locked and _is_at(file, path):
                yield file
                return
        if not is_locked:
            if time.monotonic() >= until_s:
                raise LockedError(f"{what} must have one user at a time, but another process is at it. Wait for it.")
            time.sleep(_POLL_S)


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the locked file still has its name: the holder before us may have deleted it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
