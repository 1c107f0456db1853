"""Clips and photos to a faceset.

    python -m training.extract CLIP_OR_FOLDER... --out FACESET

Finds every face, checks it against dlib, tells people apart, and writes crops, a manifest and a contact sheet.
May be killed at any moment: the same command goes on after the last whole chunk, and gives the same faceset.
"""

import argparse
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm import tqdm

from liveframe.errors import LiveframeError
from training.data.cluster_people import tell_apart
from training.data.face_sheets import write_sheets
from training.data.find_faces import FaceFinder, FindOptions, Found
from training.data.read_sources import Chunk, ReadPlan
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import FacesetError, FacesetInfo, Source
from understudy.faceset.writer import FacesetWriter
from understudy.media.clip import find_media

_COMMIT_FRAMES = 64  # photos are chunks of one frame: the disk is waited for once for so many
OTHER_PEOPLE = "other people"


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """What to extract, and how.

    Attributes:
        paths: clips, photos and folders of them.
        out: the faceset's directory.
        find: which faces are worth keeping.
        every: look at every so-many-th frame of a clip.
        identity: "all", "largest" (the person with the most faces), or a person's number.
        workers: threads that analyse, besides the one that decodes and writes.
        is_quiet: no progress bars.
    """

    paths: tuple[Path, ...]
    out: Path
    find: FindOptions = field(default_factory=FindOptions)
    every: int = 1
    identity: str = "all"
    workers: int = 2
    is_quiet: bool = False

    @property
    def info(self) -> FacesetInfo:
        """What the faceset must have been begun with for this extraction to go on with it."""
        find = self.find
        options: dict[str, Any] = {
            "every": self.every,
            "identity": self.identity,
            "max_faces": find.max_faces,
            "min_eye_px": find.min_eye_px,
            "min_sharpness": find.min_sharpness,
            "max_disagreement": find.max_disagreement,
            "max_outside": find.max_outside,
        }
        return FacesetInfo(find.size, find.extension, options=options)


@dataclass(slots=True)
class Summary:
    """What an extraction did.

    Attributes:
        kept: faces in the faceset.
        frames: frames that this run looked at.
        skipped: files that gave nothing (or not all), each in a sentence.
        left_out: faces dropped so far, by reason.
        identities: faces by identity.
    """

    kept: int = 0
    frames: int = 0
    skipped: list[str] = field(default_factory=list[str])
    left_out: Counter[str] = field(default_factory=Counter[str])
    identities: dict[int, int] = field(default_factory=dict[int, int])

    def lines(self) -> list[str]:
        """Return the summary as sentences, one a line."""
        people = ", ".join(f"{number}: {faces}" for number, faces in list(self.identities.items())[:8])
        more = f" and {len(self.identities) - 8} more" if len(self.identities) > 8 else ""
        dropped = ", ".join(f"{number} {reason}" for reason, number in self.left_out.most_common())
        lines = [f"{self.kept} faces of {len(self.identities)} people (person: faces) {people}{more}"]
        return lines + ([f"left out: {dropped}"] if dropped else [])


def extract(options: ExtractOptions) -> Summary:
    """Extract faces into a faceset, or go on with one.

    Raises:
        FacesetError: no face was found in any file, or the faceset cannot be written or continued.
        MediaError: a path does not exist.
    """
    plan = ReadPlan(find_media(options.paths), options.every)
    with FacesetWriter(options.out, options.info) as writer:
        frames = _find_all(plan, options, writer)
        if not writer.info.is_finished and len(writer.faceset()):
            _choose_people(options, writer)
            write_sheets(writer.finish())
        faceset = writer.faceset()
    left_out = sum((Counter(source.left_out) for source in faceset.sources.values()), Counter[str]())
    empty = _without_faces(faceset.sources.values(), {entry.source for entry in faceset})
    summary = Summary(len(faceset), frames, plan.skipped + empty, left_out, faceset.identities)
    if not faceset:
        raise FacesetError(_why_empty(options, plan, summary))
    return summary


class _Commits:
    """Gathers finished chunks and commits them together. Used by the writing thread."""

    def __init__(self, writer: FacesetWriter) -> None:
        self._writer = writer
        self._sources: dict[str, Source] = {}
        self._faces: list[tuple[FaceEntry, bytes]] = []
        self._frames = 0
        self.frames = 0

    def add(self, chunk: Chunk, found: Found) -> None:
        before = self._sources.get(chunk.source.id) or self._writer.sources.get(chunk.source.id)
        left_out = Counter(before.left_out if before else {}) + found.left_out
        self._sources[chunk.source.id] = replace(chunk.source, left_out=dict(left_out))
        self._faces += found.faces
        self._frames += found.frames
        self.frames += found.frames
        if self._frames >= _COMMIT_FRAMES:
            self.flush()

    def flush(self) -> None:
        if self._sources:
            self._writer.commit(self._sources.values(), self._faces)
        self._sources, self._faces, self._frames = {}, [], 0


def _find_all(plan: ReadPlan, options: ExtractOptions, writer: FacesetWriter) -> int:
    """Run finders in threads, while this thread decodes before them and writes behind them, in order."""
    find = _finders(options)
    waiting: deque[tuple[Chunk, Future[Found]]] = deque()
    commits = _Commits(writer)
    bar = tqdm(total=plan.frames, unit="frame", desc="finding faces", disable=options.is_quiet, smoothing=0.05)

    def take() -> None:
        chunk, future = waiting.popleft()
        commits.add(chunk, future.result())
        bar.update(len(chunk.frames) + chunk.skipped_frames)

    with ThreadPoolExecutor(options.workers) as pool, bar, closing(plan.chunks(writer.sources)) as chunks:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(find, chunk)))
            if len(waiting) > options.workers:
                take()
        while waiting:
            take()
    commits.flush()
    return commits.frames


def _finders(options: ExtractOptions) -> Callable[[Chunk], Found]:
    """Return a function for the pool's threads that lends each call a finder of its own."""
    idle: SimpleQueue[FaceFinder] = SimpleQueue()
    for _ in range(options.workers):
        idle.put(FaceFinder(options.find))

    def find(chunk: Chunk) -> Found:
        finder = idle.get()
        try:
            return finder.find(chunk.frames, chunk.source.id, chunk.source.name, chunk.source.chunks - 1)
        finally:
            idle.put(finder)

    return find


def _choose_people(options: ExtractOptions, writer: FacesetWriter) -> None:
    """Give every face its identity, and drop those of people who are not wanted."""
    with tqdm(unit="face", desc="telling people apart", disable=options.is_quiet) as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        entries = tell_apart(writer.faceset(), options.workers, on_step)
    wanted = {"all": None, "largest": 0}.get(options.identity, options.identity)
    kept = [entry for entry in entries if wanted is None or entry.identity == int(wanted)]
    if not kept:
        people = len({entry.identity for entry in entries})
        raise FacesetError(f"--identity must be below {people}, the people found, but got {options.identity}.")
    writer.rewrite(kept)
    others = Counter(entry.source for entry in entries) - Counter(entry.source for entry in kept)
    counted = [(writer.sources[source], number) for source, number in others.items()]
    writer.commit([replace(s, left_out={**s.left_out, OTHER_PEOPLE: number}) for s, number in counted], [])


def _without_faces(sources: Iterable[Source], with_faces: set[str]) -> list[str]:
    """Name the sources that gave no face, or broke off."""
    sentences: list[str] = []
    for source in sources:
        if source.note:
            sentences.append(source.note)
        elif source.id not in with_faces:
            reasons = ", ".join(f"{number} {reason}" for reason, number in source.left_out.items())
            sentences.append(f"'{source.name}' has no face to keep ({reasons or 'none was seen'}).")
    return sentences


def _why_empty(options: ExtractOptions, plan: ReadPlan, summary: Summary) -> str:
    paths = ", ".join(str(path) for path in options.paths[:3])
    if not plan.files and not summary.skipped:
        return f"{paths} must hold clips or photos, but hold no file. Check the path."
    reasons = ", ".join(f"{number} {reason}" for reason, number in summary.left_out.most_common())
    why = f"faces seen, but all left out: {reasons}" if reasons else "no face was seen"
    unread = f"; {len(plan.skipped)} files could not be read" if plan.skipped else ""
    return (
        f"{paths} must show at least one usable face, but gave none ({why}{unread}). "
        "Choose other clips, or lower --min-sharpness and --min-eye-px."
    )


def _parser() -> argparse.ArgumentParser:
    find = FindOptions()
    parser = argparse.ArgumentParser(prog="python -m training.extract", description="Clips and photos to a faceset.")
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="CLIP_OR_FOLDER", help="clips, photos, and folders of them")
    add("--out", type=Path, required=True, metavar="FACESET", help="the faceset to make or go on with")
    add("--size", type=int, default=find.size, help="side of the crops, px (%(default)s)")
    add("--format", choices=["jpg", "png"], default="jpg", help="of the crops (%(default)s)")
    add("--every", type=int, default=1, metavar="N", help="look at every Nth frame of a clip (%(default)s)")
    add("--max-faces", type=int, default=find.max_faces, metavar="N", help="of one frame, the largest; 0 for all (0)")
    add("--min-eye-px", type=float, default=find.min_eye_px, help="least outer-eye distance, px (%(default)s)")
    add("--min-sharpness", type=float, default=find.min_sharpness, help="least variance of Laplacian (%(default)s)")
    add("--identity", default="all", help="all, largest (the person with most faces), or a person's number (all)")
    add("--workers", type=int, default=2, help="threads that analyse (%(default)s)")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def parse_options(arguments: Sequence[str] | None = None) -> ExtractOptions:
    """Read the command line; ends the process with exit code 2 and a sentence where it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    extensions = {"jpg": ".jpg", "png": ".png"}
    for name, least in (("size", 64), ("every", 1), ("max_faces", 0), ("workers", 1)):
        if getattr(given, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be {least} or more, but got {getattr(given, name)}.")
    if given.identity not in ("all", "largest") and not given.identity.isdecimal():
        parser.error(f"--identity must be all, largest or a number, but got {given.identity!r}.")
    find = FindOptions(given.size, extensions[given.format], given.max_faces, given.min_eye_px, given.min_sharpness)
    return ExtractOptions(tuple(given.paths), given.out, find, given.every, given.identity, given.workers, given.quiet)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0 done, 1 nothing usable or a fault that the sentence on stderr names, 2 wrong options."""
    options = parse_options(arguments)
    try:
        summary = extract(options)
    except LiveframeError as error:
        print(f"training.extract: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training.extract: stopped. The same command goes on where it was.", file=sys.stderr)
        return 130
    for sentence in summary.skipped:
        print(f"skipped: {sentence}", file=sys.stderr)
    print("\n".join([*summary.lines(), f"look at {options.out / 'sheet.jpg'}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
