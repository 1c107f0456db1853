"""A faceset: aligned faces on disk, and what is known of each.

    faceset.json     what all faces share: schema, crop size, alignment, options; once finished also the sources
                     and the hash
    manifest.jsonl   one face a line (`FaceEntry`)
    journal.jsonl    what is done: one line for each source begun, and for each chunk of one finished
    crops/           <id>.jpg or .png
    sheet.jpg        made by extraction, to look at

A face counts only once the journal says that its chunk is done, so a process may die at any moment: what it left
half-done is not seen by readers, and is swept away by the next writer (`understudy.faceset.writer`).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Image
from understudy.faceset.entry import FaceEntry
from understudy.vision.align import ALIGNMENT_VERSION
from understudy.vision.embedding import Embedder, Embedding
from understudy.vision.face import AlignedFace

SCHEMA = 1
INDEX, MANIFEST, JOURNAL, CROPS = "faceset.json", "manifest.jsonl", "journal.jsonl", "crops"

SortKey = Literal["sharpness", "yaw", "pitch", "frame"]
_SORT_KEYS: Mapping[str, Callable[[FaceEntry], Any]] = {
    "sharpness": lambda entry: -entry.sharpness,
    "yaw": lambda entry: entry.pose.yaw,
    "pitch": lambda entry: entry.pose.pitch,
    "frame": lambda entry: (entry.name, entry.frame_index),
}


class FacesetError(LiveframeError, RuntimeError):
    """A faceset is missing, of another kind, damaged, or in use."""


@dataclass(frozen=True, slots=True)
class Source:
    """A clip or photo that faces came from.

    Attributes:
        id: the first 12 hex digits of its SHA-256.
        name: its path as the user gave it.
        sha256: hex.
        kind: "clip" or "photo".
        chunks: how many pieces of it are done.
        frames: how many of its frames have been looked at so far.
        next_index: the first frame that has not been considered yet.
        is_done: whether it has been read to its end.
        left_out: how many faces were dropped, by reason.
        note: why it could not be read to its end; empty if it could.
    """

    id: str
    name: str
    sha256: str
    kind: str
    chunks: int = 0
    frames: int = 0
    next_index: int = 0
    is_done: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    note: str = ""


@dataclass(frozen=True, slots=True)
class FacesetInfo:
    """What all faces of a faceset share.

    Attributes:
        size: the crops' side, px.
        extension: ".jpg" or ".png".
        alignment: `understudy.vision.align.ALIGNMENT_VERSION` when it was made.
        options: the options of the extraction that made it.
        is_finished: whether its last extraction came to its end.
        hash: of its faces then (`Faceset.hash`); empty unless finished.
    """

    size: int = 256
    extension: str = ".jpg"
    alignment: int = ALIGNMENT_VERSION
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_finished: bool = False
    hash: str = ""


class Faceset(Sequence[FaceEntry]):
    """The faces of a faceset, read-only, in the order they were found. Holds the manifest, not the crops.

    Args:
        root: its directory.
        info: what its faces share.
        entries: its faces.
        sources: where they came from.
    """

    def __init__(
        self, root: Path, info: FacesetInfo, entries: Iterable[FaceEntry], sources: Mapping[str, Source]
    ) -> None:
        self.root = root
        self.info = info
        self.sources = dict(sources)
        self._entries = tuple(entries)

    @classmethod
    def open(cls, root: Path) -> "Faceset":
        """Read a faceset, finished or still being written; faces of unfinished chunks are left out.

        Raises:
            FacesetError: there is none, or it is of another schema or alignment, or damaged.
        """
        info = read_info(root)
        sources = read_sources(root)
        return cls(root, info, read_entries(root, info.size, sources), sources)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[FaceEntry]:
        return iter(self._entries)

    @overload
    def __getitem__(self, index: int) -> FaceEntry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FaceEntry, ...]: ...
    def __getitem__(self, index: int | slice) -> FaceEntry | tuple[FaceEntry, ...]:
        return self._entries[index]

    @property
    def identities(self) -> dict[int, int]:
        """How many faces each identity has, the most first."""
        counts: dict[int, int] = {}
        for entry in self:
            counts[entry.identity] = counts.get(entry.identity, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def crop(self, entry: FaceEntry) -> Image:
        """Read a face's crop: uint8 [S, S, 3], BGR.

        Raises:
            FacesetError: the file is missing or no picture.
        """
        path = self.root / entry.crop
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None or image.shape != (self.info.size, self.info.size, 3):
            raise FacesetError(f"{path} must be a picture of {self.info.size} px, but is not. Run the extraction anew.")
        return image.astype(np.uint8, copy=False)

    def load(self, entry: FaceEntry) -> AlignedFace:
        """Read a face as `understudy.vision.align.align` gave it.

        Raises:
            FacesetError: the crop is missing or no picture.
        """
        return AlignedFace(self.crop(entry), entry.frame_to_crop, entry.mesh, entry.face)

    def filter(self, keep: Callable[[FaceEntry], bool]) -> "Faceset":
        """Return a view of the faces that `keep` holds true for; nothing on disk changes."""
        return Faceset(self.root, self.info, (entry for entry in self if keep(entry)), self.sources)

    def sorted_by(self, key: SortKey) -> "Faceset":
        """Return a view sorted by sharpness (sharpest first), yaw, pitch (low to high), or name and frame.

        Raises:
            FacesetError: the key is unknown.
        """
        if key not in _SORT_KEYS:
            raise FacesetError(f"sort key must be one of {', '.join(_SORT_KEYS)}, but got {key!r}. Check the spelling.")
        return Faceset(self.root, self.info, sorted(self, key=_SORT_KEYS[key]), self.sources)

    def sorted_by_likeness(self, embedder: Embedder, wanted: Embedding) -> "Faceset":
        """Return a view sorted by likeness to one face, most alike first; reads and embeds every crop."""
        likeness = {
            entry.id: embedder.similarity(embedder.embed(self.crop(entry), entry.face_in_crop), wanted)
            for entry in self
        }
        ordered = sorted(self, key=lambda entry: -likeness[entry.id])
        return Faceset(self.root, self.info, ordered, self.sources)

    def hash(self) -> str:
        """Return the hash of the faces (crops, places, meshes, identities), whatever their order: SHA-256, hex."""
        lines = sorted(entry.to_line(self.info.size) for entry in self)
        digest = hashlib.sha256(f"{SCHEMA} {self.info.size} {self.info.alignment}\n".encode())
        for line in lines:
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    def verify(self) -> None:
        """Check every crop's digest, and the faceset's hash where it is finished.

        Raises:
            FacesetError: a crop is missing or was changed, or the manifest was.
        """
        for entry in self:
            path = self.root / entry.crop
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
                raise FacesetError(f"{path} must be as it was extracted, but is missing or changed. Extract anew.")
        if self.info.hash and self.hash() != self.info.hash:
            raise FacesetError(f"{self.root / MANIFEST} must match {INDEX}, but was changed. Extract anew.")


def read_info(root: Path) -> FacesetInfo:
    """Read faceset.json.

    Raises:
        FacesetError: missing, damaged, or of another schema or alignment.
    """
    path = root / INDEX
    try:
        values = json.loads(path.read_bytes())
        found = (values["schema"], values["alignment"])
        info = FacesetInfo(
            int(values["size"]),
            str(values["extension"]),
            int(values["alignment"]),
            dict(values["options"]),
            bool(values["is_finished"]),
            str(values["hash"]),
        )
    except FileNotFoundError:
        raise FacesetError(
            f"{root} must be a faceset, but has no {INDEX}. Make one: python -m training.extract."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FacesetError(f"{path} must describe a faceset, but is damaged ({error!r}). Extract anew.") from error
    if found != (SCHEMA, ALIGNMENT_VERSION):
        raise FacesetError(
            f"{root} must have schema and alignment {SCHEMA}, {ALIGNMENT_VERSION}, but has {found[0]}, {found[1]}. "
            "Extract anew into another folder."
        )
    return info


def read_sources(root: Path) -> dict[str, Source]:
    """Read the journal: sources by id, in the order they were begun. A torn last line counts as not written."""
    sources: dict[str, Source] = {}
    for line in _whole_lines(root / JOURNAL):
        try:
            values = json.loads(line)
            sources[values["id"]] = Source(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise FacesetError(f"{root / JOURNAL} must list sources, but is damaged ({error!r}).") from error
    return sources


def read_entries(root: Path, size: int, sources: Mapping[str, Source]) -> Iterator[FaceEntry]:
    """Read the manifest's faces whose chunks are done.

    Raises:
        FacesetError: a line other than the last is damaged.
    """
    for number, line in enumerate(_whole_lines(root / MANIFEST), 1):
        try:
            entry = FaceEntry.from_line(line, size)
        except ValueError as error:
            path = root / MANIFEST
            raise FacesetError(f"{path} must hold a face in line {number}, but does not ({error}).") from error
        source = sources.get(entry.source)
        if source is not None and entry.chunk < source.chunks:
            yield entry


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Return a file's lines that end in a line break; none where there is no file."""
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
