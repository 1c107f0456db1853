"""Uploads on their way to disk: under a safe name, judged by their first bytes before anything reads them."""

import hashlib
import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Protocol

from understudy.media.guard import UPLOAD_LIMITS, MediaError, check_first_bytes


class Upload(Protocol):
    """What Streamlit's uploader and camera give."""

    @property
    def name(self) -> str:
        """The file's name on the sender's machine."""
        ...

    def getvalue(self) -> bytes:
        """Return the whole content."""
        ...


def safe_stem(name: str) -> str:
    """Give a sender's file name, without its extension, as it may stand on disk: messages name the file as theirs."""
    stem = re.sub(r"[^\w .,()+-]", "_", Path(name).stem).strip(" .-")
    return stem.encode()[:120].decode(errors="ignore") or "clip"


def keep_uploads(uploads: Iterable[Upload], folder: Path) -> list[Path]:
    """Write uploads under their senders' own names; those of one name are numbered: `walk.mp4`, `walk (2).mp4`.

    Raises:
        MediaError: as `keep_upload`.
    """
    taken: set[str] = set()
    kept: list[Path] = []
    for upload in uploads:
        own = safe_stem(upload.name)
        names = (own if number == 1 else f"{own} ({number})" for number in count(1))
        stem = next(name for name in names if name.lower() not in taken)
        taken.add(stem.lower())
        kept.append(keep_upload(upload, folder, stem))
    return kept


def keep_upload(upload: Upload, folder: Path, stem: str = "") -> Path:
    """Write an upload into a folder; what is in it is not decoded here.

    Args:
        upload: from a stranger.
        folder: made where missing.
        stem: the new name without its extension; the content's digest where left out.

    Returns:
        Where it lies. Only the extension is the sender's, and it fits the content.

    Raises:
        MediaError: it is no picture or clip, or pretends to be another kind; nothing is kept then.
    """
    content = upload.getvalue()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    suffix = Path(upload.name).suffix.lower()
    if not suffix.lstrip(".").isalnum():
        raise MediaError(f"'{upload.name}' must end in the extension of its kind (.jpg, .png, .mp4). Rename it.")
    path = folder / f"{stem or hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    path.write_bytes(content)
    try:
        check_first_bytes(path, UPLOAD_LIMITS)
    except MediaError as error:
        path.unlink()
        raise MediaError(str(error).replace(path.name, Path(upload.name).name)) from None
    return path
