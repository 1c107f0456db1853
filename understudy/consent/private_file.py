"""Files for their owner's eyes: keys and trust lists."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def write_private(path: Path, content: bytes, is_exclusive: bool = False) -> None:
    """Write a file for its owner alone (mode 0600, folder 0700): whole or not at all, and on the disk.

    Args:
        path: replaced where it exists.
        content: what it shall hold.
        is_exclusive: leave an existing file alone instead; of several writers at once, the first wins.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if is_exclusive:
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
        else:
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def is_open_to_others(path: Path) -> bool:
    """Whether others than the owner may read a file; never on systems without POSIX modes."""
    return os.name == "posix" and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
