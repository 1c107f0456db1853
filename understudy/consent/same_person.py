"""Whether the faces of a faceset are the person whom a consent record covers, judged while the check runs.

The record lists files, not faces: a clip that it lists may show somebody else as well, who agreed to nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from liveframe.frame import Image
from understudy.consent.check import check_same_person, hash_files
from understudy.consent.record import ConsentRecord
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset
from understudy.media.limits import IMAGE_EXTENSIONS
from understudy.vision.detect import FaceDetector
from understudy.vision.embedding import Embedder, SFaceEmbedder
from understudy.vision.face import Face

SAMPLE = 24
_FRONTAL_DEG = 35.0  # farther turned, one person's embeddings scatter as two persons' do
_Shown = tuple[Image, Face]


def check_faceset(faceset: Faceset, record: ConsentRecord, embedder: Embedder | None = None) -> float:
    """Refuse a faceset that shows somebody else than the record's person; some 25 ms a face.

    The person is taken from pictures beside the faceset's manifest that the record lists (the persona's still, for
    one). Where there are none it is whom the sharpest frontal face shows: then the check is only that all faces are
    one person's. No embedding outlives the call.

    Args:
        faceset: whose sources the record lists (`understudy.consent.check`).
        record: the person's.
        embedder: SFace when left out.

    Returns:
        The share of the sampled faces that are the person's, 0 to 1.

    Raises:
        ConsentError: OTHER_PERSON when too few are, MISSING when there is nothing to compare.
        FacesetError: a crop is missing or damaged.
    """
    embedder = embedder or SFaceEmbedder()
    known = _listed_faces(faceset.root, record) or _sharpest(faceset)
    return check_same_person(
        known,
        [_shown(faceset, entry) for entry in _spread(_frontal(faceset), SAMPLE)],
        embed=lambda shown: embedder.embed(*shown),
        distance=embedder.distance,
        same_person=embedder.same_person,
    )


def _listed_faces(folder: Path, record: ConsentRecord) -> list[_Shown]:
    """Return the largest face of every picture in a folder that the record lists."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS)
    listed = [path for path in paths if hash_files([path])[0] in record.consent.reference]
    detector, shown = FaceDetector() if listed else None, list[_Shown]()
    for path in listed:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        faces = detector.detect(image.astype(np.uint8, copy=False)) if detector and image is not None else []
        shown += [(np.asarray(image, np.uint8), faces[0])] if faces else []
    return shown


def _sharpest(faceset: Faceset) -> list[_Shown]:
    """Return the sharpest face that looks about forward."""
    ranked = sorted(_frontal(faceset), key=lambda entry: -entry.sharpness)
    return [_shown(faceset, entry) for entry in ranked[:1]]


def _frontal(faceset: Faceset) -> list[FaceEntry]:
    """Return the faces that look about forward; all, where none does."""
    frontal = [e for e in faceset if max(abs(e.pose.yaw), abs(e.pose.pitch)) <= _FRONTAL_DEG]
    return frontal or list(faceset)


def _spread(entries: Sequence[FaceEntry], count: int) -> list[FaceEntry]:
    """Return so many entries at most, evenly from first to last."""
    places = np.linspace(0, len(entries) - 1, min(count, len(entries))).round().astype(int)
    return [entries[int(place)] for place in places]


def _shown(faceset: Faceset, entry: FaceEntry) -> _Shown:
    return faceset.crop(entry), entry.face_in_crop
