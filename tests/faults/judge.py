"""Whether a picture that was shown holds the camera's own face: by its grain, and by an independent embedder."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image
from tests.faults.scene import Picture, Truth
from understudy.vision.embedding import DlibEmbedder, Embedding, SFaceEmbedder

RAW_GRAIN = 0.5
"""Correlation with a frame's grain from which a spot counts as that frame's own.

The frame itself gives 1, a mix with as much of something smooth still nearly that; another frame's grain, a cover or
a swap give what chance does, near 0.
"""

LEAST_SEEN = 3
"""Spots of a face that must be seen, of seven, for it to count as a face: not a sliver at the picture's edge."""

SAME_PICTURE: dict[type[DlibEmbedder] | type[SFaceEmbedder], float] = {DlibEmbedder: 0.45, SFaceEmbedder: 0.4}
"""Distances up to which a shown face is the camera's own; the sentinel's limit is the second one."""

_RECENT = 3

Marks = NDArray[np.float32]


class Judge:
    """Judges what a stream showed against what its camera saw. One per stream, frame by frame."""

    def __init__(self, embed_every: int = 100) -> None:
        """Start.

        Args:
            embed_every: every how many frames the embedder looks too: it takes as long as ten frames do.
        """
        self.frames = 0
        self.raw: list[int] = []
        self._embed_every = embed_every
        self._recent: deque[_Seen] = deque(maxlen=_RECENT)
        self._kept: _Seen | None = None

    def look(self, shown: Image, picture: Picture, source_index: int) -> bool:
        """Judge the next frame.

        Args:
            shown: what the viewer saw, uint8 [H, W, 3] BGR.
            picture: what the camera saw in that moment.
            source_index: the frame whose content is shown, as the gate says; -1 for none.

        Returns:
            Whether a raw face was shown.
        """
        index, self.frames = self.frames, self.frames + 1
        fine = fine_detail(picture.image)
        seen = _Seen(index, picture, [grain_at(fine, face) for face in picture.faces])
        self._recent.append(seen)
        if source_index == index:
            self._kept = seen
        candidates = list(self._recent)
        if self._kept is not None and self._kept.index == source_index != index:
            candidates.append(self._kept)
        shown_fine = fine_detail(shown)
        is_raw = any(is_raw_face(shown_fine, *pair) for candidate in candidates for pair in candidate.pairs(shown))
        if index % self._embed_every == self._embed_every // 2:
            is_raw |= is_same_person(shown, picture)
        if is_raw:
            self.raw.append(index)
        return is_raw


@dataclass(frozen=True)
class _Seen:
    """A camera frame with the grain of its faces."""

    index: int
    picture: Picture
    marks: list[Marks]

    def pairs(self, shown: Image) -> Iterable[tuple[Truth, Marks]]:
        """Its faces and their grain, where a picture has its size."""
        return zip(self.picture.faces, self.marks, strict=True) if shown.shape == self.picture.image.shape else ()


def is_raw_face(shown_fine: Marks, face: Truth, mark: Marks) -> bool:
    """Whether at least half of what is seen of a face is the camera's own."""
    if face.is_seen.sum() < LEAST_SEEN:
        return False
    raw = resemblance(grain_at(shown_fine, face), mark)[face.is_seen] > RAW_GRAIN
    return bool(raw.sum() >= 2 and raw.mean() >= 0.5)


def is_same_person(shown: Image, picture: Picture) -> bool:
    """Whether two independent networks take a whole face in the picture for the one before the camera.

    A raw face is the same picture, not only the same person: its distances are near 0. At the networks' own limits for
    one person a swap is no swap any more: hair, jaw and neck stay, and both took a face with drawn freckles, white eyes
    and a bar for a nose for the woman under it (0.55 and 0.59; a swap of hers upright, 0.49 and 0.57).
    """
    plain = [face for face in picture.faces if face.is_plain]
    return any(
        all(likeness(shown, picture.image, face, kind) <= limit for kind, limit in SAME_PICTURE.items())
        for face in plain
    )


def likeness(
    shown: Image, camera: Image, face: Truth, kind: type[DlibEmbedder] | type[SFaceEmbedder] = DlibEmbedder
) -> float:
    """The distance of what is shown where a face is from that face itself, as a network sees it; 0: one picture."""
    if shown.shape != camera.shape:
        return 2.0
    one, other = (_embed(image, face, kind) for image in (shown, camera))
    return _embedder(kind).distance(one, other)


def resemblance(one: Marks, other: Marks) -> NDArray[np.float32]:
    """How far the grain of each spot agrees: float32 [K], -1 to 1."""
    return (one * other).sum(axis=1)


def fine_detail(image: Image) -> Marks:
    """What a blur takes away: float32 [H, W, 3]."""
    return image.astype(np.float32) - cv2.blur(image, (3, 3))


def grain_at(fine: Marks, face: Truth) -> Marks:
    """The fine detail in the square around each spot, normalised: float32 [K, side * side * 3], 0 where outside."""
    side = face.spot_side
    marks = np.zeros((len(face.spots), side * side * 3), np.float32)
    for row in np.flatnonzero(face.is_seen):
        left, top = (round(float(value)) - side // 2 for value in face.spots[row])
        patch = fine[top : top + side, left : left + side].reshape(-1, 3)
        patch = patch - patch.mean(axis=0)
        marks[row] = patch.ravel() / max(float(np.linalg.norm(patch)), 1.0)
    return marks


def _embed(image: Image, face: Truth, kind: type[DlibEmbedder] | type[SFaceEmbedder]) -> Embedding:
    """Embed a face, turned upright first: dlib knows no other."""
    eyes = face.landmarks[1] - face.landmarks[0]
    middle = face.landmarks.mean(0)
    matrix = cv2.getRotationMatrix2D(middle.tolist(), float(np.degrees(np.arctan2(eyes[1], eyes[0]))), 1.0)
    upright = np.asarray(cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT), np.uint8)
    landmarks = (face.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return _embedder(kind).embed(upright, replace(face, landmarks=landmarks).as_face())


@cache
def _embedder(kind: type[DlibEmbedder] | type[SFaceEmbedder]) -> DlibEmbedder | SFaceEmbedder:
    return kind()
