"""Clips and photos in pieces of work that do not depend on where an earlier run stopped."""

import hashlib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from understudy.faceset.faceset import Source
from understudy.media.clip import ClipFrame, describe, read_frames
from understudy.media.guard import MediaError, MediaInfo

# A chunk is what one worker takes at a time, and what a kill can cost. Its bounds depend on the clip alone, so
# that a run that was killed and resumed cuts the same chunks.
_CHUNK_FRAMES = 64
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a source's work.

    Attributes:
        source: as it stands once the piece is done; its `left_out` is not counted yet.
        frames: to be looked at, in rising index; none where only the source's end is told.
        skipped_frames: frames of it that an earlier run did (for progress bars).
    """

    source: Source
    frames: list[ClipFrame]
    skipped_frames: int = 0


class ReadPlan:
    """Which files to read. Headers are read at once, frames when asked for.

    Args:
        files: clips and photos; what is neither is named in `skipped`.
        every: look at every so-many-th frame of a clip.

    Attributes:
        files: the readable files with what their headers say.
        skipped: a sentence for each file that is not read.
        frames: how many frames there are to look at, as the headers say.
    """

    def __init__(self, files: Iterable[Path], every: int = 1) -> None:
        self.files: list[tuple[Path, MediaInfo]] = []
        self.skipped: list[str] = []
        self._every = every
        for path in files:
            try:
                self.files.append((path, describe(path)))
            except (MediaError, OSError) as error:
                self.skipped.append(str(error))
        self.frames = sum(-(-max(info.frames, 1) // every) for _, info in self.files)

    def chunks(self, known: Mapping[str, Source]) -> Generator[Chunk, None, None]:
        """Return the work that is left.

        Args:
            known: sources by id, with what is done of them.
        """
        names: dict[str, Path] = {}
        for path, info in self.files:
            sha256 = file_digest(path)
            identifier = sha256[:12]
            if identifier in names:
                self.skipped.append(f"'{path}' has the same content as '{names[identifier]}': read once.")
                continue
            names[identifier] = path
            fresh = Source(identifier, str(path), sha256, "clip" if info.is_video else "photo")
            source = known.get(identifier, fresh)
            if not source.is_done:
                yield from self._chunks_of(path, source)

    def _chunks_of(self, path: Path, source: Source) -> Generator[Chunk, None, None]:
        """Cut one source into chunks; the last says that it is done, and what broke it off."""
        frames: list[ClipFrame] = []
        size, skipped, note = 0, source.frames, ""
        try:
            for frame in read_frames(path, self._every, source.next_index):
                if len(frames) >= _CHUNK_FRAMES or (frames and size + frame.image.nbytes > _CHUNK_BYTES):
                    source = self._after(source, frames)
                    yield Chunk(source, frames, skipped)
                    frames, size, skipped = [], 0, 0
                frames.append(frame)
                size += frame.image.nbytes
        except MediaError as error:
            note = str(error)
        yield Chunk(replace(self._after(source, frames), is_done=True, note=note), frames, skipped)

    def _after(self, source: Source, frames: list[ClipFrame]) -> Source:
        next_index = frames[-1].index + 1 if frames else source.next_index
        return replace(source, chunks=source.chunks + 1, frames=source.frames + len(frames), next_index=next_index)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
