"""Files that are written whole or not at all."""

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that readers, a kill and a full disk leave the old one or the new one, never half of one.

    Args:
        path: replaced where it exists; its folder must exist.
        content: what it shall hold. It is on the disk when this returns.

    Raises:
        OSError: the disk is full or not writable; the old file stays.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a value as JSON, whole or not at all.

    Raises:
        OSError: as `write_whole`.
        TypeError: the value is none that JSON knows.
    """
    write_whole(path, (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode())
