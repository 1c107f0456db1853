"""A gallery of strangers to retrieve a persona from: every face picture of a folder, embedded once."""

import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.observer import Observer
from understudy.consent.private_file import write_private
from understudy.media.guard import IMAGE_EXTENSIONS, MediaError
from understudy.vision.embedding import Embedding

# Bumped when embeddings change: other weights, another alignment.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Distractors:
    """Strangers.

    Attributes:
        names: the pictures' names in their folder.
        embeddings: float32 [N, D] by embedder, in the order of the names.
    """

    names: tuple[str, ...]
    embeddings: Mapping[str, NDArray[np.float32]]

    def without(self, embedding: Embedding, least: float) -> "Distractors":
        """Return those that are not another picture of a person by SFace.

        Args:
            embedding: float32 [128], SFace's, unit length.
            least: the cosine from which a picture is the same one, or of the same person.
        """
        kept = np.flatnonzero(self.embeddings["sface"] @ embedding < least)
        return Distractors(
            tuple(self.names[i] for i in kept), {name: rows[kept] for name, rows in self.embeddings.items()}
        )


def default_cache() -> Path:
    """Where embeddings of galleries are kept: `~/.cache/understudy/galleries`."""
    return Path.home() / ".cache" / "understudy" / "galleries"


def embed_folder(folder: Path, observer: Observer, cache: Path | None = None, is_quiet: bool = False) -> Distractors:
    """Embed the largest face of every picture in a folder and the folders in it.

    The first time takes about 0.1 s a picture; then a file in the cache (for its owner alone) answers, by the
    pictures' bytes: one changed picture costs one picture.

    Args:
        folder: of pictures; those without a clear face are left out.
        observer: who finds and embeds the faces.
        cache: where embeddings are kept; `default_cache()` where None.
        is_quiet: whether to show no progress.

    Raises:
        MediaError: the folder is missing or holds no face.
    """
    from tqdm import tqdm

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file())
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    file = (cache or default_cache()) / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.npz"
    names = [embedder.name for embedder in observer.embedders]
    known = _read(file, names)
    bar = tqdm(paths, desc=f"gallery {folder.name}", unit="face", disable=is_quiet, file=sys.stderr)
    rows = {
        digest: known[digest] if digest in known else _embed(path, observer)
        for path, digest in zip(bar, digests, strict=True)
    }
    if rows.keys() != known.keys():
        _write(file, rows, names)
    found = [(path, rows[digest]) for path, digest in zip(paths, digests, strict=True) if rows[digest]]
    if not found:
        raise MediaError(f"A gallery must hold pictures of faces, but none was found in {folder}. Check --gallery.")
    return Distractors(
        tuple(str(path.relative_to(folder)) for path, _ in found),
        {name: np.stack([row[name] for _, row in found]) for name in names},
    )


def _embed(path: Path, observer: Observer) -> Mapping[str, Embedding]:
    """Embed a picture's largest face; empty where there is none."""
    image = cv2.imread(str(path))
    face = observer.find(np.asarray(image, np.uint8)) if image is not None else None
    if image is None or face is None or face.mesh is None:
        return {}
    return observer.embed(np.asarray(image, np.uint8), face.mesh)


def _read(file: Path, names: Sequence[str]) -> dict[str, Mapping[str, Embedding]]:
    """Return what is known by digest; nothing where the cache is missing, damaged or of another version."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as data:
            if int(data["version"]) != _VERSION:
                return {}
            has_face = data["has_face"]
            columns = {name: data[name] for name in names}
            return {
                str(digest): {name: rows[i] for name, rows in columns.items()} if has_face[i] else {}
                for i, digest in enumerate(data["digests"])
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _write(file: Path, rows: Mapping[str, Mapping[str, Embedding]], names: Sequence[str]) -> None:
    some = next((row for row in rows.values() if row), {})
    empty = {name: np.zeros_like(some.get(name, np.zeros(1, np.float32))) for name in names}
    buffer = io.BytesIO()
    columns = {name: np.stack([row.get(name, empty[name]) for row in rows.values()]) for name in names}
    has_face = np.array([bool(row) for row in rows.values()])
    np.savez(buffer, version=_VERSION, digests=np.array(list(rows)), has_face=has_face, allow_pickle=False, **columns)
    write_private(file, buffer.getvalue())
