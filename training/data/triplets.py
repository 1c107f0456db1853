"""Inverted pairs for the mixing network: the target is a real picture, the swap onto it is made backwards.

    uv run python -m training.data.triplets --drivers FACES CLIPS --out work/triplets --count 20000

After ReliableSwap (Yuan et al. 2023, arXiv:2306.05356), simplified for mesh warps. A real picture T of X is the right
answer. The fake driver D is T with somebody else's face Y on it; the reference R is X in another pose, expression and
light (another frame of X's clip, or T laid onto a stranger's mesh and lit anew). From D and from R on D's mesh the
network shall find T again. Both D and T get the same hands, hair, microphones and spectacles, whose place is known: so
opacity has a target, and the network cannot lower its loss by letting the driver through.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.drivers import (
    CANVAS_PX,
    DriverCrops,
    DriverFinder,
    DriversError,
    collect,
    list_drivers,
    open_crops,
)
from training.data.read_sources import file_digest
from understudy.faceset.faceset import FacesetError
from understudy.jobs.atomic_file import write_json
from understudy.media.guard import VIDEO_EXTENSIONS
from understudy.swap.mesh_warp import Mask, ReferenceFace, ReferenceWarp
from understudy.swap.one_shot import CONTROL_PX, cropped_light, soft_coverage
from understudy.vision.face import Crop, Points
from understudy.vision.mesh import INNER_MOUTH, LEFT_EYE, RIGHT_EYE

SIDE = CONTROL_PX
# BGR of the driver, BGR of the reference on his mesh, where it covers, BGR of the target, the opacity to reach.
CHANNELS = 11
Rng = np.random.Generator
_BLOCK = 64


class _Face(NamedTuple):
    """A crop at the network's size, uint8 [S, S, 3], BGR, and its mesh, px."""

    image: Crop
    mesh: Points


class _Layer(NamedTuple):
    """Something before the face: colour float32 [S, S, 3], and how much it hides, float32 [S, S, 1], 0 to 1."""

    colour: NDArray[np.float32]
    alpha: NDArray[np.float32]


class TripletMaker:
    """Makes triplets; the same seed gives the same one. Not thread-safe.

    Args:
        faces: what to make them of.

    Raises:
        TripletError: they are all of one picture or one clip: there is nobody else to lay onto a face.
    """

    def __init__(self, faces: DriverCrops) -> None:
        self._faces = faces
        self._stills = np.flatnonzero((faces.clips < 0) & faces.is_plain)
        self._clips = np.flatnonzero((faces.clips >= 0) & faces.is_plain)
        self._all = np.concatenate([self._stills, self._clips])
        if len(self._stills) + len(np.unique(faces.clips[self._clips])) < 2:
            raise TripletError("Triplets must be made of two faces or more, but got one picture or clip. Add drivers.")
        self._by_clip = {
            int(clip): self._clips[faces.clips[self._clips] == clip] for clip in np.unique(faces.clips[self._clips])
        }

    def make(self, seed: int) -> NDArray[np.uint8]:
        """Return uint8 [128, 128, 11]: driver, reference on its mesh, coverage, target, wanted opacity."""
        rng = np.random.default_rng(seed)
        index = self._target(rng)
        target = self._cut(index, rng, 1.0)
        if rng.random() < 0.6:
            target = target._replace(image=_lit_anew(target.image, rng, 0.25))
        driver = self._fake_driver(target, index, rng)
        reference = self._reference(target, index, rng)
        warped, covered = laid(reference, _jittered(target.mesh, rng, 0.25))
        true, hidden = target.image, np.zeros((SIDE, SIDE, 1), np.float32)
        for chance, draw in self._occluders():
            if rng.random() < chance:
                layer = draw(target, rng)
                hidden = np.maximum(hidden, layer.alpha)
                true, driver = (_under(image, layer) for image in (true, driver))
        coverage = soft_coverage(covered)
        opacity = coverage * (1 - hidden[..., 0]) * (1 - _mouth(target.mesh))
        masks = (np.rint(mask * 255).astype(np.uint8) for mask in (coverage, opacity))
        coverage, opacity = masks
        return np.dstack((_camera(driver, rng), warped, coverage, true, opacity))

    def spectacled(self, rng: Rng) -> tuple[Crop, bool]:
        """Return a face, uint8 [128, 128, 3], on which spectacles may be drawn, and whether they are."""
        face = self._cut(int(rng.choice(self._all)), rng, 1.0)
        image, is_worn = face.image, bool(rng.random() < 0.5)
        for chance, draw in ((0.25, self._hair), (0.15, self._thing), (float(is_worn), self._plain_spectacles)):
            if rng.random() < chance:
                image = _under(image, draw(face, rng))
        return image, is_worn

    @staticmethod
    def _plain_spectacles(face: _Face, rng: Rng) -> _Layer:
        return _spectacles(face, rng, 1.0)

    def plainly_cut(self, index: int) -> Crop:
        """Return a face as it is: uint8 [128, 128, 3]."""
        return self._cut(index, np.random.default_rng(index), 0.0).image

    def _target(self, rng: Rng) -> int:
        is_from_clip = len(self._clips) > 0 and (len(self._stills) == 0 or rng.random() < 0.3)
        return int(rng.choice(self._clips if is_from_clip else self._stills))

    def _cut(self, index: int, rng: Rng, jitter: float) -> _Face:
        """Cut a face out of its margin, turned, shifted and scaled a little."""
        margin = CANVAS_PX / 2
        scale = SIDE / 256 * (1 + rng.normal(0, 0.03) * jitter)
        angle = np.degrees(rng.normal(0, 0.05) * jitter)
        matrix = cv2.getRotationMatrix2D((margin, margin), angle, scale)
        matrix[:, 2] += SIDE / 2 - margin + rng.normal(0, 1.5, 2) * jitter
        flags = cv2.INTER_AREA if jitter == 0 else cv2.INTER_LINEAR
        crop = cv2.GaussianBlur(self._faces.crops[index], (0, 0), 0.7)
        image = cv2.warpAffine(crop, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        mesh = self._faces.meshes[index].copy()
        mesh[:, :2] = mesh[:, :2] @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
        mesh[:, 2] *= scale
        return _Face(np.asarray(image, np.uint8), mesh.astype(np.float32))

    def _other(self, index: int, rng: Rng) -> int:
        """Return somebody else."""
        clip = self._faces.clips[index]
        while True:
            other = int(rng.choice(self._all))
            if other != index and not self._faces.clips[other] == clip >= 0:
                return other

    def _fake_driver(self, target: _Face, index: int, rng: Rng) -> Crop:
        """Return the target with somebody else's face on it, by one of several ways of swapping.

        Real drivers carry no seams: were all fakes made alike, the network would learn to look for theirs.
        """
        other = self._cut(self._other(index, rng), rng, 0.0)
        if rng.random() < 0.5:
            other = other._replace(image=_lit_anew(other.image, rng, 0.2))
        warped, covered = laid(other, _jittered(target.mesh, rng, 0.2))
        mask = soft_coverage(covered)
        if rng.random() < 0.5:
            mask = cv2.GaussianBlur(cv2.erode(mask, _disc(int(rng.integers(1, 9)))), (0, 0), rng.uniform(0.5, 3))
        lit = warped.astype(np.float32)
        if rng.random() < 0.85:
            lit = lit * cropped_light(target.image, warped, mask)
        keep = _mouth(target.mesh)
        if rng.random() < 0.4:
            keep = np.maximum(keep, _eyes(target.mesh))
        alpha = (mask * (1 - keep) * rng.uniform(0.9, 1.0))[..., None]
        return np.clip(lit * alpha + target.image * (1 - alpha), 0, 255).astype(np.uint8)

    def _reference(self, target: _Face, index: int, rng: Rng) -> _Face:
        clip = int(self._faces.clips[index])
        if clip >= 0:
            found = self._cut(int(rng.choice(self._by_clip[clip])), rng, 0.0)
            return found._replace(image=_lit_anew(found.image, rng, 0.3)) if rng.random() < 0.7 else found
        pose = self._cut(self._other(index, rng), rng, 0.0)
        image, covered = laid(target, pose.mesh)
        if rng.random() < 0.5:  # in the stranger's light, too
            image = np.clip(image * cropped_light(pose.image, image, soft_coverage(covered)), 0, 255).astype(np.uint8)
        return _Face(_lit_anew(image, rng, 0.35), _jittered(pose.mesh, rng, 0.2))

    def _occluders(self) -> tuple[tuple[float, Callable[[_Face, Rng], _Layer]], ...]:
        return ((0.35, self._thing), (0.35, self._hair), (0.35, _spectacles), (0.08, _microphone))

    def _thing(self, face: _Face, rng: Rng) -> _Layer:
        """A hand, an arm or anything else: strokes and ovals with somebody's skin, or any pattern, on them."""
        alpha = np.zeros((SIDE, SIDE), np.uint8)
        if rng.random() < 0.5:
            _draw_hand(alpha, rng)
        else:
            for _ in range(int(rng.integers(1, 3))):
                centre = (int(rng.integers(0, SIDE)), int(rng.integers(SIDE // 4, SIDE)))
                axes = (int(rng.integers(6, 30)), int(rng.integers(4, 16)))
                cv2.ellipse(alpha, centre, axes, float(rng.integers(0, 180)), 0, 360, (255,), -1, cv2.LINE_AA)
        texture = self._faces.crops[int(rng.integers(len(self._faces.crops)))]
        turned = cv2.getRotationMatrix2D((144, 144), float(rng.integers(0, 360)), rng.uniform(0.4, 2))
        turned[:, 2] += SIDE / 2 - 144
        colour = cv2.warpAffine(texture, turned, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        return _Layer(np.clip(colour * rng.uniform(0.6, 1.3, 3), 0, 255).astype(np.float32), _soft(alpha, rng))

    def _hair(self, face: _Face, rng: Rng) -> _Layer:
        """A fringe or a lock: what lies above the face, pulled down or in from the side over its edge."""
        fall, lean = rng.uniform(0.12, 0.4) * SIDE, rng.normal(0, 0.12) * SIDE
        shift = np.array([[1, 0, lean], [0, rng.uniform(1.0, 1.5), fall]], np.float32)
        colour = cv2.warpAffine(face.image, shift, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
        top = float(face.mesh[10, 1])  # where the forehead ends
        columns = np.linspace(0, 1, SIDE)
        line = top + fall * rng.uniform(0.4, 0.95) * np.abs(
            np.sin(np.pi * (columns * rng.uniform(0.5, 1.6) + rng.random()))
        )
        strands = cv2.GaussianBlur(rng.normal(0, 1, (1, SIDE)).astype(np.float32), (0, 0), rng.uniform(0.6, 2.0))[0]
        line = line + strands * fall * rng.uniform(0.1, 0.6)
        alpha = (np.arange(SIDE)[:, None] < line).astype(np.uint8) * np.uint8(255)
        if rng.random() < 0.4:  # a lock at the side, not all across
            edge = rng.uniform(0.2, 0.5) * SIDE
            keep = columns * SIDE < edge if rng.random() < 0.5 else columns * SIDE > SIDE - edge
            alpha[:, ~keep] = 0
            colour *= 1 if rng.random() < 0.5 else np.float32(rng.uniform(0.5, 0.9))
        return _Layer(colour, _soft(alpha, rng))


def laid(face: _Face, mesh: Points) -> tuple[Crop, Mask]:
    """Return a face on another mesh: uint8 [128, 128, 3] BGR, and where it covers, uint8 [128, 128], 255 or 0."""
    warp = ReferenceWarp(ReferenceFace(face.image, face.mesh), SIDE)
    positions, covered = warp.map(mesh)
    warped = cv2.cvtColor(warp.sampled(positions, 1.0), cv2.COLOR_BGRA2BGR)
    return np.asarray(cv2.bitwise_and(warped, warped, mask=covered), np.uint8), covered


# ---- light, camera, occluders -----------------------------------------------------------------------------------


def _lit_anew(image: Crop, rng: Rng, spread: float) -> Crop:
    """Light a picture by a smooth field, by channel, and bend its tones."""
    grid = rng.normal(0, spread, (3, 3, 1)) + rng.normal(0, 0.08, (3, 3, 3)) + rng.normal(0, 0.1)
    field = cv2.resize(grid.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    bright = np.clip(image * np.exp(np.clip(field, -1.2, 0.8)), 0, 255)
    return np.clip(255 * (bright / 255) ** np.exp(rng.normal(0, 0.12)), 0, 255).astype(np.uint8)


def _camera(image: Crop, rng: Rng) -> Crop:
    """Noise, blur and JPEG, as a driver's camera adds them."""
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.0)), np.uint8)
    if rng.random() < 0.5:
        image = np.clip(image + rng.normal(0, rng.uniform(1, 5), image.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return image


def _jittered(mesh: Points, rng: Rng, spread: float) -> Points:
    """Return a mesh as the mesh model would fit it another time: moved by a smooth field, px."""
    field = cv2.resize(rng.normal(0, spread, (4, 4, 2)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    at = np.clip(np.rint(mesh[:, :2]).astype(int), 0, SIDE - 1)
    out = mesh.copy()
    out[:, :2] += field[at[:, 1], at[:, 0]]
    return out


def _under(image: Crop, layer: _Layer) -> Crop:
    return np.clip(image * (1 - layer.alpha) + layer.colour * layer.alpha, 0, 255).astype(np.uint8)


def _soft(alpha: Mask, rng: Rng) -> NDArray[np.float32]:
    return cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.3, 0.9)).astype(np.float32)[..., None] / np.float32(255)


def _draw_hand(alpha: Mask, rng: Rng) -> None:
    """Draw a palm with fingers, entering from somewhere below or beside."""
    palm = np.array([rng.uniform(0, SIDE), rng.uniform(SIDE * 0.45, SIDE * 1.05)])
    size = rng.uniform(8, 18)
    cv2.circle(alpha, _at(palm), int(size), (255,), -1, cv2.LINE_AA)
    towards = np.arctan2(SIDE * 0.45 - palm[1], SIDE / 2 - palm[0]) + rng.normal(0, 0.5)
    for finger in range(int(rng.integers(2, 6))):
        angle = towards + (finger - 2) * rng.uniform(0.12, 0.3)
        tip = palm + size * rng.uniform(1.6, 2.8) * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(alpha, _at(palm), _at(tip), (255,), max(2, int(size * rng.uniform(0.28, 0.45))), cv2.LINE_AA)
    wrist = palm - size * 6 * np.array([np.cos(towards), np.sin(towards)])
    cv2.line(alpha, _at(palm), _at(wrist), (255,), int(size * 1.5), cv2.LINE_AA)


def _microphone(face: _Face, rng: Rng) -> _Layer:
    """A microphone before the mouth, and its stand or boom."""
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    mouth = face.mesh[list(INNER_MOUTH), :2].mean(0)
    head = mouth + rng.normal(0, 14, 2) + [0, rng.uniform(4, 22)]
    size = rng.uniform(4, 14)
    cv2.ellipse(alpha, _at(head), (int(size), int(size * rng.uniform(0.7, 1.4))), 0, 0, 360, (255,), -1, cv2.LINE_AA)
    end = (int(rng.integers(-20, SIDE + 20)), SIDE + 10)
    cv2.line(alpha, _at(head), end, (255,), max(1, int(size * rng.uniform(0.15, 0.8))), cv2.LINE_AA)
    grain = rng.normal(rng.uniform(15, 120), rng.uniform(2, 12), (SIDE, SIDE, 1))
    return _Layer(np.clip(grain * rng.uniform(0.9, 1.1, 3), 0, 255).astype(np.float32), _soft(alpha, rng))


def _spectacles(face: _Face, rng: Rng, faintest: float = 0.45) -> _Layer:
    """Spectacles on the mesh: wire or plastic, round or square, clear, mirroring or dark.

    Wire is thinner than a pixel here, and hides so much of one at least.
    """
    lens, frame = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    right, left = (face.mesh[list(ring), :2].mean(0) for ring in (RIGHT_EYE, LEFT_EYE))
    apart = float(np.linalg.norm(left - right)) + 1e-6
    along = (left - right) / apart
    down = np.array([-along[1], along[0]]) * apart * rng.uniform(0.0, 0.1)
    width, height = apart * rng.uniform(0.30, 0.42), apart * rng.uniform(0.20, 0.34)
    angle, thick = float(np.degrees(np.arctan2(along[1], along[0]))), int(rng.choice([1, 1, 1, 2, 2, 3]))
    is_square = rng.random() < 0.5
    for centre in (right + down, left + down):
        box = ((float(centre[0]), float(centre[1])), (float(2 * width), float(2 * height)), angle)
        if is_square:
            corners = np.rint(cv2.boxPoints(box) * 16).astype(np.int32)
            cv2.fillPoly(lens, [corners], (255,), cv2.LINE_AA, 4)
            cv2.polylines(frame, [corners], True, (255,), thick, cv2.LINE_AA, 4)
        else:
            cv2.ellipse(lens, box, (255,), -1, cv2.LINE_AA)
            cv2.ellipse(frame, box, (255,), thick, cv2.LINE_AA)
    cv2.line(frame, _at(right + down + along * width), _at(left + down - along * width), (255,), thick, cv2.LINE_AA)
    for centre, side, temple in ((right, -1, 234), (left, 1, 454)):
        hinge = centre + down + side * along * width
        cv2.line(frame, _at(hinge), _at(face.mesh[temple, :2] + down), (255,), thick, cv2.LINE_AA)
    colours = ((15, 15, 15), (40, 50, 80), (90, 100, 120), (160, 160, 165), (60, 40, 110))
    colour = np.float32(rng.choice(colours)) * np.float32(rng.uniform(0.5, 1.3))
    is_dark = rng.random() < 0.2
    glass = np.full((SIDE, SIDE, 3), rng.uniform(5, 60) if is_dark else rng.uniform(150, 255), np.float32)
    hides = rng.uniform(0.6, 0.97) if is_dark else max(0.0, rng.uniform(-0.1, 0.12))
    rim = _soft(frame, rng)
    if thick == 1:
        rim *= np.float32(rng.uniform(faintest, 1.0))
    if not is_dark and rng.random() < 0.35:  # a window mirrored in the lens
        gleam = np.zeros((SIDE, SIDE), np.uint8)
        cv2.line(gleam, _at(right + rng.normal(0, 4, 2)), _at(right + rng.normal(0, 8, 2)), (255,), 4, cv2.LINE_AA)
        cv2.line(gleam, _at(left + rng.normal(0, 4, 2)), _at(left + rng.normal(0, 8, 2)), (255,), 4, cv2.LINE_AA)
        clear = np.maximum(_soft(lens, rng) * np.float32(hides), _soft(cv2.min(gleam, lens), rng) * np.float32(0.8))
    else:
        clear = _soft(lens, rng) * np.float32(hides)
    return _Layer(glass * (1 - rim) + colour * rim, np.maximum(clear, rim))


def _mouth(mesh: Points) -> NDArray[np.float32]:
    return _filled(mesh, (INNER_MOUTH,))


def _eyes(mesh: Points) -> NDArray[np.float32]:
    return _filled(mesh, (RIGHT_EYE, LEFT_EYE))


def _filled(mesh: Points, rings: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for ring in rings:
        cv2.fillPoly(mask, [np.rint(mesh[list(ring), :2] * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32) / np.float32(255)


def _at(point: Any) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _disc(size: int) -> Mask:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


# ---- on disk ----------------------------------------------------------------------------------------------------


class TripletError(RuntimeError):
    """Triplets are missing, unfinished, or of another kind."""


@dataclass(frozen=True, slots=True)
class Triplets:
    """Triplets on disk, mapped.

    Attributes:
        rows: uint8 [N, 128, 128, 11], those that are written.
        digest: SHA-256 of the drivers that they were made of.
        sources: SHA-256 of the clips among them: what a model that learns from them must not be judged by.
    """

    rows: NDArray[np.uint8]
    digest: str
    sources: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> Triplets:
        """Map a folder's triplets.

        Raises:
            TripletError: there are none.
        """
        index = _index(folder)
        if not index or not index["done"]:
            raise TripletError(f"{folder} must hold triplets, but has none. Run training.data.triplets --out {folder}.")
        rows = np.load(folder / _ROWS, mmap_mode="r")
        return cls(rows[: int(index["done"])], str(index["digest"]), tuple(index.get("sources", ())))


_ROWS, _INDEX = "triplets.npy", "triplets.json"
_maker: TripletMaker | None = None


def make_triplets(
    drivers: Sequence[Path],
    out: Path,
    count: int,
    *,
    frames_per_clip: int = 120,
    pictures: int = 10_000,
    workers: int = 1,
    keep_spectacles: bool = False,
) -> Triplets:
    """Find the drivers' faces and make triplets of them; what is there already stays.

    Args:
        drivers: pictures, clips, facesets or their folders; empty where `out` holds their faces already.
        out: the folder.
        count: triplets to make.
        frames_per_clip: drivers of each clip, at most.
        pictures: drivers of pictures, at most.
        workers: processes.
        keep_spectacles: do not look for faces that wear them, which takes minutes.

    Raises:
        DriversError: there are no drivers, or none shows a face.
        FacesetError: a faceset is damaged.
        TripletError: `out` holds other triplets, or all drivers are of one picture or clip.
    """
    if drivers:
        collect(list_drivers(drivers, frames_per_clip, pictures), out / "drivers", DriverFinder())
    if not keep_spectacles and not (out / "drivers" / "plain.npy").is_file():
        from training.data.spectacles import mark_plain  # brings Keras: only where it is needed

        mark_plain(open_crops(out / "drivers"), out / "drivers")
    return write_triplets(out, count, workers)


def write_triplets(folder: Path, count: int, workers: int = 1) -> Triplets:
    """Make triplets of a folder's drivers, by seed 0 to count - 1; what is there already stays.

    Args:
        folder: `drivers/` in it holds the faces.
        count: how many.
        workers: processes.

    Raises:
        TripletError: the folder holds another number of triplets, or of other drivers.
        DriversError: there are no drivers.
    """
    faces = open_crops(folder / "drivers")
    index = _index(folder) or {"count": count, "done": 0, "digest": faces.digest, "sources": _clip_digests(faces)}
    if index["count"] != count or index["digest"] != faces.digest:
        raise TripletError(
            f"{folder} holds {index['count']} triplets of other drivers or another --count. Choose another --out, or "
            f"remove {folder / _ROWS} and {folder / _INDEX}."
        )
    TripletMaker(faces)  # refuses drivers that are too few, before any process starts
    path, is_new = folder / _ROWS, not (folder / _ROWS).is_file()
    shape = (count, SIDE, SIDE, CHANNELS)
    rows = np.lib.format.open_memmap(path, "w+" if is_new else "r+", np.uint8, None if not is_new else shape)
    done = 0 if is_new else int(index["done"])
    blocks = [(first, min(first + _BLOCK, count)) for first in range(done, count, _BLOCK)]
    with _mapped(folder, workers) as mapped, tqdm(total=count, initial=done, desc="triplets", unit="triplet") as bar:
        for (first, last), made in zip(blocks, mapped(_make, blocks), strict=True):
            rows[first:last] = made
            rows.flush()
            write_json(folder / _INDEX, index | {"done": last})
            bar.update(last - first)
    return Triplets.open(folder)


def _clip_digests(faces: DriverCrops) -> list[str]:
    files = {Path(file) for file, _ in faces.sources}
    return sorted({file_digest(f) for f in files if f.suffix.lower() in VIDEO_EXTENSIONS and f.is_file()})


@contextmanager
def _mapped(folder: Path, workers: int) -> Iterator[Callable[..., Any]]:
    """Open `map` over so many processes: over this one where one is enough."""
    if workers == 1:
        _start(folder)
        yield map
        return
    # Forked, a worker may wait for ever for a lock that a thread of OpenCV or tqdm held.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (folder,)) as pool:
        yield pool.map


def _start_worker(folder: Path) -> None:
    cv2.setNumThreads(1)
    _start(folder)


def _start(folder: Path) -> None:
    global _maker
    _maker = TripletMaker(open_crops(folder / "drivers"))


def _make(seeds: tuple[int, int]) -> NDArray[np.uint8]:
    assert _maker is not None
    return np.stack([_maker.make(seed) for seed in range(*seeds)])


def _index(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    return json.loads(path.read_text()) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 where there is nothing to make triplets of."""
    parser = argparse.ArgumentParser(
        prog="training.data.triplets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--drivers", type=Path, nargs="*", default=[], help="pictures, clips, facesets or their folders"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16_000, help="triplets to make (%(default)s)")
    parser.add_argument("--frames-per-clip", type=int, default=120, help="drivers of each clip (%(default)s)")
    parser.add_argument("--pictures", type=int, default=10_000, help="drivers of pictures, at most (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--keep-spectacles", action="store_true", help="do not look for faces that wear them")
    options = parser.parse_args(arguments)
    try:
        made = make_triplets(
            options.drivers,
            options.out,
            options.count,
            frames_per_clip=options.frames_per_clip,
            pictures=options.pictures,
            workers=options.workers,
            keep_spectacles=options.keep_spectacles,
        )
    except (DriversError, TripletError, FacesetError) as error:
        print(f"training.data.triplets: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(made.rows)} triplets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
