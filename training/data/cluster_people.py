"""Telling people apart: which faces of a faceset show the same person.

dlib's resnet embeds a few good faces of each track. Tracks that follow on each other in place and time are joined
where the faces at the seam agree; what is left is gathered, the longest first, by the mean distance between faces
(average linkage: means of many faces would draw strangers in). Two faces of one frame are never one person.

Embeddings are biometric data: they live in memory here and are never written.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.find_faces import box_overlap
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset, FacesetError
from understudy.vision.embedding import DlibEmbedder, Embedding
from understudy.vision.face import Face

# Mean distance of two people's faces. Of one person's in five clips it is 0.22 to 0.45; machine-made strangers of
# one make come as near as 0.5, one pair in twenty.
_SAME_PERSON = 0.5
_FEW = 3  # faces embedded of each track
_SEAM_S = 0.5  # the longest gap in a track that goes on
_SEAM_OVERLAP = 0.3
_WORTH_A_PROCESS = 24  # embeddings; starting one takes as long

Vectors = dict[str, Embedding]
Faces = list[FaceEntry]
OnStep = Callable[[int, int], None]


def tell_apart(faceset: Faceset, workers: int = 2, on_step: OnStep = lambda done, total: None) -> Faces:
    """Give every face its identity: 0 for the person with the most faces, then 1, 2, ...

    Args:
        faceset: its crops are read.
        workers: processes that embed; dlib holds Python's lock, so threads would only take turns.
        on_step: called with (embedded so far, to embed).

    Returns:
        The faceset's entries in their order, with identities.

    Raises:
        FacesetError: a crop cannot be read.
    """
    tracks = _by_track(faceset)
    chosen = [entry for track in tracks for entry in _representatives(track)]
    vectors = _embed_all(faceset.root, chosen, workers, on_step)
    mixed = {track[0].track for track in tracks if _is_mixed(track, vectors)}
    rest = [entry for entry in faceset if entry.track in mixed and entry.id not in vectors]
    vectors |= _embed_all(faceset.root, rest, workers, on_step)
    pure = [part for track in tracks for part in (_split(track, vectors) if track[0].track in mixed else [track])]
    people = gather(join_seams(pure, vectors), vectors)
    numbers = {entry.id: number for number, person in enumerate(people) for entry in person}
    return [replace(entry, identity=numbers[entry.id]) for entry in faceset]


def join_seams(tracks: Iterable[Faces], vectors: Vectors) -> list[Faces]:
    """Join tracks of one clip where one goes on in the place of another that has just ended.

    Args:
        tracks: faces in rising frame index.
        vectors: embeddings by id of some faces of each track.

    Returns:
        Longer tracks.
    """
    chains: list[Faces] = []
    for track in sorted(tracks, key=lambda track: (track[0].source, track[0].frame_index, track[0].id)):
        before = next((chain for chain in reversed(chains) if _goes_on(chain, track, vectors)), None)
        if before is None:
            chains.append(list(track))
        else:
            before += track
    return chains


def gather(units: Iterable[Faces], vectors: Vectors, same_person: float = _SAME_PERSON) -> list[Faces]:
    """Merge tracks into people, the longest first; the result does not depend on the order given.

    Args:
        units: tracks, each of one person.
        vectors: embeddings by id of some faces of each.
        same_person: the largest mean distance between a track's faces and a person's.

    Returns:
        Each person's faces, the person with the most faces first.
    """
    people: list[Faces] = []
    frames: list[set[tuple[str, int]]] = []
    known, owners = np.empty((0, DlibEmbedder.dimensions), np.float32), np.empty(0, np.intp)
    for unit in sorted(units, key=lambda unit: (-len(unit), unit[0].id)):
        members = np.stack([vectors[entry.id] for entry in unit if entry.id in vectors])
        places = {(entry.source, entry.frame_index) for entry in unit}
        allowed = np.array([not (taken & places) for taken in frames], bool)
        person = _nearest(members, known, owners, allowed, same_person)
        if person < 0:
            person = len(people)
            people.append([])
            frames.append(set())
        people[person] += unit
        frames[person] |= places
        known, owners = np.concatenate([known, members]), np.append(owners, [person] * len(members))
    return sorted(people, key=lambda faces: (-len(faces), faces[0].id))


def _nearest(
    members: NDArray[np.float32],
    known: NDArray[np.float32],
    owners: NDArray[np.intp],
    allowed: NDArray[np.bool_],
    same_person: float,
) -> int:
    """Return the person nearest by mean distance, or -1 where none is near enough."""
    if not allowed.any():
        return -1
    distances = np.mean([np.linalg.norm(known - member, axis=1) for member in members], axis=0)
    means = np.bincount(owners, distances) / np.bincount(owners)
    means[~allowed] = np.inf
    best = int(np.argmin(means))
    return best if means[best] <= same_person else -1


def _by_track(faceset: Iterable[FaceEntry]) -> list[Faces]:
    tracks: defaultdict[str, Faces] = defaultdict(list)
    for entry in faceset:
        tracks[entry.track].append(entry)
    return list(tracks.values())


def _representatives(track: Faces) -> Faces:
    """Choose the most frontal face of the track's beginning, middle and end."""
    parts = np.array_split(np.arange(len(track)), min(_FEW, len(track)))
    return [min((track[i] for i in part), key=lambda e: abs(e.pose.yaw) + abs(e.pose.pitch)) for part in parts]


def _is_mixed(track: Faces, vectors: Vectors) -> bool:
    """Whether a track's faces may not be one person's: it may have slipped from one face to another."""
    known = [vectors[entry.id] for entry in track if entry.id in vectors]
    return any(float(np.linalg.norm(a - b)) > DlibEmbedder.same_person for a in known for b in known)


def _split(track: Faces, vectors: Vectors) -> list[Faces]:
    """Divide a track, every face of it embedded, into one part for each person in it."""
    people = gather([[entry] for entry in track], vectors, DlibEmbedder.same_person)
    return [sorted(person, key=lambda entry: entry.frame_index) for person in people]


def _goes_on(chain: Faces, track: Faces, vectors: Vectors) -> bool:
    last, first = chain[-1], track[0]
    if last.source != first.source or not 0 < first.time_s - last.time_s <= _SEAM_S:
        return False
    if box_overlap(last.box, first.box) <= _SEAM_OVERLAP:
        return False
    ends = next(vectors[entry.id] for entry in reversed(chain) if entry.id in vectors)
    begins = next(vectors[entry.id] for entry in track if entry.id in vectors)
    return float(np.linalg.norm(ends - begins)) <= DlibEmbedder.same_person


def _embed_all(root: Path, entries: Sequence[FaceEntry], workers: int, on_step: OnStep) -> Vectors:
    """Embed crops, in processes of their own where there are enough."""
    jobs = [(str(root / entry.crop), entry.face_in_crop) for entry in entries]
    vectors: Vectors = {}
    if workers < 2 or len(jobs) < _WORTH_A_PROCESS:
        for done, (entry, job) in enumerate(zip(entries, jobs, strict=True), 1):
            vectors[entry.id] = _embed(job)
            on_step(done, len(jobs))
        return vectors
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, (entry, vector) in enumerate(zip(entries, pool.map(_embed, jobs, chunksize=8), strict=True), 1):
            vectors[entry.id] = vector
            on_step(done, len(jobs))
    return vectors


def _embed(job: tuple[str, Face]) -> Embedding:
    path, face = job
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise FacesetError(f"{path} must be a picture, but cannot be read. Run the extraction into a new folder.")
    return _embedder().embed(image.astype(np.uint8, copy=False), face)


@cache
def _embedder() -> DlibEmbedder:
    return DlibEmbedder()
