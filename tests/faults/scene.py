"""A camera whose truth is known: public-domain heads move through a room, and every frame has a grain of its own.

The grain is what a real sensor adds. Here it is also each frame's fingerprint: a pixel that carries a frame's grain
came from that frame, whatever was painted over it or mixed into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image
from tests.support.real_faces import SHARED, astronaut, astronaut_face
from understudy.media.clip import read_frames
from understudy.vision.align import similarity, transform
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face, Matrix, Points
from understudy.vision.mesh import FaceMesh

HEIGHT, WIDTH = 240, 320
_SPRITE = np.s_[30:230, 120:320]
_SPRITE_SIDE = 200
ASTRONAUT = "astronaut"
_GRAIN = 4.0  # standard deviation, levels
_GRAIN_SPARE = 97


@dataclass(frozen=True)
class Head:
    """Where one head is: its middle and its side in shares of the picture's height, and how it is turned.

    x counts from the left edge in heights too, so that shapes stay when pictures grow. The person is the astronaut,
    or whoever a clip of ../shared shows, by its name.
    """

    x: float = WIDTH / HEIGHT / 2
    y: float = 0.5
    side: float = 0.75
    angle_deg: float = 0.0
    is_mirrored: bool = False
    person: str = ASTRONAUT


@dataclass(frozen=True)
class Truth:
    """One face as it truly is in a frame.

    Attributes:
        landmarks: float32 [5, 2], frame px: eyes, nose tip, mouth corners, as `Face` has them.
        spots: float32 [K, 2], frame px: places of the face that every swap replaces whole.
        is_seen: bool [K], which spots are in the picture and not hidden.
        spot_side: px, how large a square around a spot may be looked at.
        is_plain: whether nothing of the face is hidden or out of the picture.
    """

    landmarks: Points
    spots: Points
    is_seen: NDArray[np.bool_]
    spot_side: int
    is_plain: bool

    def as_face(self) -> Face:
        """The same in the product's terms, for an embedder."""
        low, high = self.landmarks.min(0), self.landmarks.max(0)
        reach = (high - low).max() * 0.6
        return Face(np.concatenate([low - reach, high + reach]).astype(np.float32), 1.0, self.landmarks)


@dataclass(frozen=True)
class Picture:
    """One camera frame, uint8 [H, W, 3] BGR, and the faces that are truly in it."""

    image: Image
    faces: tuple[Truth, ...]


# Mesh points under the middle of any mask, away from the eyes and the inner mouth, which an instant persona keeps.
_SPOTS = (9, 195, 5, 36, 266, 205, 425)
_EYES = ((33, 133), (362, 263))
_NOSE_AND_MOUTH = (1, 61, 291)


class Camera:
    """Takes pictures of heads in a room; no two with the same grain. Not thread-safe."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def take(
        self, *heads: Head, hand: tuple[float, float, float] | None = None, size: tuple[int, int] = (HEIGHT, WIDTH)
    ) -> Picture:
        """Take a picture.

        Args:
            heads: the last one stands in front.
            hand: x, y and radius of what is held before the heads, in heights; None for nothing.
            size: height and width, px.
        """
        image = _room(*size).copy()
        hidden: list[NDArray[np.uint8]] = []
        places: list[Points] = []
        for head in heads:
            matrix = _placed(head, size[0])
            hidden.append(_paste(image, head, matrix))
            places.append(_moved(head, matrix))
        covers = [np.zeros(size, np.uint8) for _ in heads]
        for behind in range(len(heads)):
            for front in hidden[behind + 1 :]:
                covers[behind] |= front
        if hand is not None:
            mask = np.zeros(size, np.uint8)
            x, y, radius = (round(value * size[0]) for value in hand)
            cv2.ellipse(mask, (x, y), (radius, int(radius * 1.3)), 0, 0, 360, 255, -1)
            image[mask > 0] = (120, 150, 190)
            covers = [cover | mask for cover in covers]
        seen = zip(places, covers, heads, strict=True)
        truths = tuple(_truth(mesh, cover, size, head.is_mirrored) for mesh, cover, head in seen)
        return Picture(self._with_grain(image), truths)

    def turned(self, picture: Picture, quarters: int) -> Picture:
        """The same scene by a camera that lies on its side: turned counter-clockwise by quarters."""
        faces = tuple(_turned(face, picture.image.shape[:2], quarters) for face in picture.faces)
        return Picture(np.ascontiguousarray(np.rot90(picture.image, quarters)), faces)

    def _with_grain(self, image: Image) -> Image:
        height, width = image.shape[:2]
        top, left = self._rng.integers(0, _GRAIN_SPARE, 2)
        grain = _grain(height + _GRAIN_SPARE, width + _GRAIN_SPARE)[top : top + height, left : left + width]
        return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), np.uint8)


@cache
def _room(height: int, width: int) -> Image:
    coarse = np.random.default_rng(0).integers(90, 140, (9, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@cache
def _grain(height: int, width: int) -> NDArray[np.int16]:
    return np.random.default_rng(1).normal(0, _GRAIN, (height, width, 3)).round().astype(np.int16)


@cache
def _sprite(person: str, is_mirrored: bool) -> tuple[Image, NDArray[np.uint8]]:
    """The head, a little softer than the grain, and its outline."""
    head = cv2.GaussianBlur(astronaut()[_SPRITE] if person == ASTRONAUT else _fitted(person), (0, 0), 0.7)
    side = _SPRITE_SIDE
    outline = np.zeros((side, side), np.uint8)
    cv2.ellipse(outline, (side // 2, int(side * 0.46)), (side // 3, int(side * 0.45)), 0, 0, 360, 255, -1)
    outline = cv2.GaussianBlur(outline, (0, 0), 3)
    if is_mirrored:
        return np.ascontiguousarray(head[:, ::-1]), np.ascontiguousarray(outline[:, ::-1])
    return np.asarray(head, np.uint8), np.asarray(outline, np.uint8)


@cache
def _filmed(person: str) -> tuple[Image, Points, Matrix]:
    """A clip's first frame, its face's mesh, and the matrix that lays that face where the astronaut's is."""
    image = next(read_frames(SHARED / "clips" / f"{person}.mp4")).image
    mesh = FaceMesh().refine(image, FaceDetector().detect(image)[0]).mesh
    assert mesh is not None
    place = similarity(mesh[list(_SPOTS), :2], _astronaut_mesh()[list(_SPOTS)])
    return image, mesh[:, :2], place


def _fitted(person: str) -> Image:
    image, _, place = _filmed(person)
    return np.asarray(cv2.warpAffine(image, place, (_SPRITE_SIDE, _SPRITE_SIDE), borderMode=cv2.BORDER_REFLECT))


def _astronaut_mesh() -> Points:
    mesh = astronaut_face().mesh
    assert mesh is not None
    return mesh[:, :2] - np.array([_SPRITE[1].start, _SPRITE[0].start], np.float32)


def _placed(head: Head, height: int) -> Matrix:
    """Sprite px -> frame px."""
    zoom = head.side * height / _SPRITE_SIDE
    middle = _SPRITE_SIDE / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), head.angle_deg, zoom)
    matrix[:, 2] += np.array([head.x, head.y]) * height - middle
    return matrix.astype(np.float32)


def _paste(image: Image, who: Head, matrix: Matrix) -> NDArray[np.uint8]:
    """Put the head into the picture, in place; returns where it hides what is behind it, 255 or 0."""
    size = image.shape[1::-1]
    head, outline = (cv2.warpAffine(part, matrix, size) for part in _sprite(who.person, who.is_mirrored))
    weight = outline.astype(np.float32) / np.float32(255)
    image[:] = cv2.blendLinear(head, image, weight, 1 - weight)
    return np.where(outline > 8, 255, 0).astype(np.uint8)


def _moved(who: Head, matrix: Matrix) -> Points:
    """The mesh of a head, float32 [468, 2], frame px."""
    points = _astronaut_mesh()
    if who.person != ASTRONAUT:
        _, mesh, place = _filmed(who.person)
        points = transform(mesh, place)
    if who.is_mirrored:
        points = np.stack([_SPRITE_SIDE - 1 - points[:, 0], points[:, 1]], axis=1)
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def _truth(mesh: Points, cover: NDArray[np.uint8], size: tuple[int, int], is_mirrored: bool) -> Truth:
    landmarks = np.stack([*(mesh[list(eye)].mean(0) for eye in _EYES), *mesh[list(_NOSE_AND_MOUTH)]])
    if is_mirrored:  # its right eye is the other one
        landmarks = landmarks[[1, 0, 2, 4, 3]]
    side = max(8, int(np.linalg.norm(landmarks[0] - landmarks[1]) * 0.3))
    spots = mesh[list(_SPOTS)]
    is_seen = np.array([_is_seen(spot, side, cover) for spot in spots])
    inside = (mesh > 1).all() and (mesh < np.array(size[::-1]) - 2).all()
    x, y, width, height = cv2.boundingRect(mesh)
    is_free = not cover[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)].any()
    return Truth(landmarks.astype(np.float32), spots, is_seen, side, bool(inside) and is_free)


def _is_seen(spot: Points, side: int, cover: NDArray[np.uint8]) -> bool:
    """Whether the square around a spot is in the picture, and nothing is in front of it."""
    left, top = (round(float(value)) - side // 2 for value in spot)
    if left < 1 or top < 1 or left + side > cover.shape[1] - 1 or top + side > cover.shape[0] - 1:
        return False
    return not cover[top - 1 : top + side + 1, left - 1 : left + side + 1].any()


def _turned(face: Truth, size: Sequence[int], quarters: int) -> Truth:
    """A face in a picture of that size (height, width) that np.rot90 has turned."""
    height, width = size
    landmarks, spots = face.landmarks, face.spots
    for _ in range(quarters % 4):
        landmarks, spots = (np.stack([part[:, 1], width - 1 - part[:, 0]], axis=1) for part in (landmarks, spots))
        height, width = width, height
    return Truth(landmarks.astype(np.float32), spots.astype(np.float32), face.is_seen, face.spot_side, face.is_plain)
