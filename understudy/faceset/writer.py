"""Writing a faceset so that the process may be killed at any moment, and started again."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import (
    CROPS,
    INDEX,
    JOURNAL,
    MANIFEST,
    SCHEMA,
    Faceset,
    FacesetError,
    FacesetInfo,
    Source,
    read_entries,
    read_info,
    read_sources,
)
from understudy.jobs.atomic_file import write_whole

_LOCK = ".lock"


class FacesetWriter:
    """The one process that writes a faceset. A context manager; used by one thread.

    Faces are committed chunk by chunk: crops, then their lines in the manifest, then the journal's
    word that the chunk is done, each on the disk before the next begins. Opening sweeps away what a
    killed writer left between those steps, so work starts again after the last whole chunk.

    Args:
        root: the faceset's directory; made where missing.
        info: for a new faceset. One that exists must have the same size, extension and options.

    Raises:
        FacesetError: another process writes there, it was made with other options, it is damaged, or
            the directory holds something else.
    """

    def __init__(self, root: Path, info: FacesetInfo) -> None:
        self.root = root
        _refuse_foreign(root)
        (root / CROPS).mkdir(parents=True, exist_ok=True)
        self._lock = _locked(root)
        try:
            self.info = self._agreed(info)
            self.sources = read_sources(root)
            self._sweep()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, root: Path) -> "FacesetWriter":
        """Open a faceset that exists, as it is.

        Raises:
            FacesetError: there is none, or another process writes there.
        """
        return cls(root, read_info(root))

    def __enter__(self) -> "FacesetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock. Safe to call twice."""
        self._lock.close()

    def faceset(self) -> Faceset:
        """Read what is committed so far."""
        return Faceset(self.root, self.info, read_entries(self.root, self.info.size, self.sources), self.sources)

    def commit(self, sources: Iterable[Source], faces: Sequence[tuple[FaceEntry, bytes]]) -> None:
        """Write one chunk of work: its faces, and how far its sources are now.

        Args:
            sources: the sources that the chunk is of, as they stand after it.
            faces: entries with the bytes of their crop files.

        Raises:
            FacesetError: the disk is full or refuses; nothing of the chunk counts then.
        """
        sources = list(sources)
        try:
            self._reopen()
            self._write_crops(faces)
            _append(self.root / MANIFEST, [entry.to_line(self.info.size) for entry, _ in faces])
            _append(self.root / JOURNAL, [json.dumps(asdict(source)) for source in sources])
        except OSError as error:
            raise _disk_error(self.root, error) from error
        self.sources.update({source.id: source for source in sources})

    def rewrite(self, entries: Iterable[FaceEntry]) -> None:
        """Replace the manifest at one stroke (after telling people apart, or dropping faces), then sweep crops.

        Raises:
            FacesetError: the disk is full or refuses; the old manifest stays.
        """
        try:
            self._reopen()
            lines = "".join(entry.to_line(self.info.size) + "\n" for entry in entries)
            _replace(self.root / MANIFEST, lines.encode())
        except OSError as error:
            raise _disk_error(self.root, error) from error
        self._sweep()

    def drop(self, ids: Collection[str]) -> int:
        """Take faces out, with their crops, and say how many there were.

        Raises:
            FacesetError: an id is unknown; nothing is dropped then.
        """
        faceset = self.faceset()
        unknown = set(ids) - {entry.id for entry in faceset}
        if unknown:
            raise FacesetError(f"{self.root} must hold the faces to drop, but has no {sorted(unknown)[0]}.")
        was_finished = self.info.is_finished
        self.rewrite([entry for entry in faceset if entry.id not in set(ids)])
        if was_finished:
            self.finish()
        return len(set(ids))

    def finish(self) -> Faceset:
        """Write down that the extraction came to its end, and the faceset's hash; give what it holds."""
        faceset = self.faceset()
        self._write_info(replace(self.info, is_finished=True, hash=faceset.hash()), len(faceset))
        return Faceset(self.root, self.info, faceset, self.sources)

    def _agreed(self, info: FacesetInfo) -> FacesetInfo:
        if not (self.root / INDEX).is_file():
            self.info = info
            self._write_info(replace(info, is_finished=False, hash=""))
            return self.info
        found = read_info(self.root)
        wanted = (info.size, info.extension, dict(info.options))
        if (found.size, found.extension, dict(found.options)) != wanted:
            had = _difference(found, info)
            raise FacesetError(f"{self.root} must go on with the options it was begun with ({had}). Use another --out.")
        return found

    def _reopen(self) -> None:
        """Say that the faceset is no longer finished, before the first change to it."""
        if self.info.is_finished:
            self._write_info(replace(self.info, is_finished=False, hash=""))

    def _write_info(self, info: FacesetInfo, faces: int | None = None) -> None:
        values: dict[str, Any] = {"schema": SCHEMA, **asdict(info)}
        if faces is not None:
            values |= {"faces": faces, "sources": [asdict(source) for source in self.sources.values()]}
        try:
            _replace(self.root / INDEX, json.dumps(values, indent=1).encode() + b"\n")
        except OSError as error:
            raise _disk_error(self.root, error) from error
        self.info = info

    def _write_crops(self, faces: Sequence[tuple[FaceEntry, bytes]]) -> None:
        """Write all files, then wait for the disk: one by one would wait for it each time."""
        parts = [self.root / f"{entry.crop}.part" for entry, _ in faces]
        for part, (_, content) in zip(parts, faces, strict=True):
            part.write_bytes(content)
        for part, (entry, _) in zip(parts, faces, strict=True):
            _to_disk(part)
            part.replace(self.root / entry.crop)
        _to_disk(self.root / CROPS)

    def _sweep(self) -> None:
        """Remove torn lines, faces of unfinished chunks, and crops that no face has."""
        _cut_torn_line(self.root / JOURNAL)
        _cut_torn_line(self.root / MANIFEST)
        entries = list(read_entries(self.root, self.info.size, self.sources))
        if len(entries) != _count_lines(self.root / MANIFEST):
            lines = "".join(entry.to_line(self.info.size) + "\n" for entry in entries)
            _replace(self.root / MANIFEST, lines.encode())
        kept = {Path(entry.crop).name for entry in entries}
        for path in (self.root / CROPS).iterdir():
            if path.name not in kept:
                path.unlink()


def crop_digest(content: bytes) -> str:
    """Return the digest that a manifest's line holds of a crop file: SHA-256, hex."""
    return hashlib.sha256(content).hexdigest()


def _refuse_foreign(root: Path) -> None:
    """Never sweep a directory that is not a faceset."""
    is_faceset = (root / INDEX).is_file() or (root / _LOCK).is_file()
    if root.exists() and not is_faceset and (not root.is_dir() or any(root.iterdir())):
        raise FacesetError(f"{root} must be new, empty or a faceset, but holds something else. Use another --out.")


def _locked(root: Path) -> BinaryIO:
    """Take the faceset's lock, which the system frees when the process dies."""
    lock = (root / _LOCK).open("wb")
    with suppress(ImportError):  # Windows has no fcntl: two writers are not told apart there
        import fcntl

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise FacesetError(f"{root} must have one writer, but another process writes there. Wait for it.") from None
    return lock


def _difference(found: FacesetInfo, wanted: FacesetInfo) -> str:
    def flat(info: FacesetInfo) -> Mapping[str, Any]:
        return {"size": info.size, "extension": info.extension, **info.options}

    had, now = flat(found), flat(wanted)
    return ", ".join(f"{name} {had[name]}" for name in had if had.get(name) != now.get(name)) or "other ones"


def _append(path: Path, lines: Sequence[str]) -> None:
    if not lines:
        return
    with path.open("ab") as file:
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    write_whole(path, content)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _disk_error(root: Path, error: OSError) -> FacesetError:
    return FacesetError(
        f"{root} must be writable, but the system says: {error.strerror or error}. Make room, then run the same "
        "command again: it goes on after the last whole chunk."
    )
