"""Drivers: real and machine-made faces out of pictures, clips and facesets, cut out with a margin and kept on disk.

A folder of flat arrays, written face by face, so that an interrupted run resumes and memory stays flat:

    crops.u8       uint8 [N, 288, 288, 3], BGR: aligned crops of 256 px with a margin
    meshes.f32     float32 [N, 468, 3], px of those
    drivers.jsonl  one line a face: file, frame index, clip (its number, -1 for a picture of its own)
    plain.npy      bool [N]: nothing stands before the eyes (training.data.spectacles)
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from understudy.faceset.faceset import Faceset
from understudy.media.clip import read_frames
from understudy.media.guard import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, MediaError
from understudy.vision.align import align, crop_matrix, transform
from understudy.vision.detect import FaceDetector
from understudy.vision.face import MESH_POINTS, AlignedFace, Face, Matrix, Points
from understudy.vision.mesh import FaceMesh

# The crop proper is 256 px; the canvas around it leaves room to turn, shift and shrink it.
CROP_PX = 256
MARGIN_PX = 16
CANVAS_PX = CROP_PX + 2 * MARGIN_PX
_LEAST_PRESENCE = 0.8
_CROP_BYTES, _MESH_BYTES = CANVAS_PX * CANVAS_PX * 3, MESH_POINTS * 3 * 4


class DriversError(RuntimeError):
    """Drivers cannot be found, or a folder holds others."""


@dataclass(frozen=True, slots=True)
class DriverCrops:
    """Faces as they lie on disk, mapped.

    Attributes:
        crops: uint8 [N, 288, 288, 3], BGR.
        meshes: float32 [N, 468, 3], px of the crops.
        clips: int [N], which clip a face is from; -1: a picture of its own.
        is_plain: bool [N], whether nothing stands before the eyes.
        digest: SHA-256 of where they came from.
        sources: (file, frame index) of each.
    """

    crops: NDArray[np.uint8]
    meshes: NDArray[np.float32]
    clips: NDArray[np.intp]
    is_plain: NDArray[np.bool_]
    digest: str
    sources: list[tuple[str, int]]


class DriverFinder:
    """Finds the largest face of a picture: aligned, or on a canvas."""

    def __init__(self) -> None:
        self._detector, self._mesh = FaceDetector(), FaceMesh()

    def largest_face(self, image: NDArray[np.uint8]) -> Face | None:
        """Return the largest face with its mesh; None where no face is clear."""
        faces = self._detector.detect(image)
        face = self._mesh.refine(image, faces[0]) if faces else None
        return face if face is not None and face.mesh is not None and face.presence > _LEAST_PRESENCE else None

    def aligned(self, image: NDArray[np.uint8], size: int = CROP_PX) -> AlignedFace | None:
        """Return the largest face aligned, `size` px wide; None where no face is clear."""
        face = self.largest_face(image)
        return align(image, face, size) if face is not None else None

    def canvas(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Points] | None:
        """Return the face on its canvas, uint8 [288, 288, 3], and its mesh there; None where no face is clear."""
        face = self.largest_face(image)
        if face is None or face.mesh is None:
            return None
        matrix = canvas_matrix(face.mesh)
        flags = cv2.INTER_AREA if np.hypot(*matrix[0, :2]) < 1 else cv2.INTER_CUBIC
        warped = cv2.warpAffine(image, matrix, (CANVAS_PX, CANVAS_PX), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(warped, np.uint8), transform(face.mesh, matrix)


def canvas_matrix(mesh: Points) -> Matrix:
    """Return the matrix frame -> canvas: the 256 px crop with its margin, float32 [2, 3]."""
    matrix = crop_matrix(mesh, CROP_PX)
    matrix[:, 2] += MARGIN_PX
    return matrix


def list_drivers(inputs: Sequence[Path], frames_per_clip: int, pictures: int) -> list[tuple[Path, int]]:
    """Return (file, frame index) of every driver: pictures spread over folders, frames over clips and facesets.

    Args:
        inputs: pictures, clips, facesets (`training.extract`), or folders of any of them.
        frames_per_clip: at most.
        pictures: at most; small folders give all of theirs.

    Raises:
        DriversError: an input does not exist.
        FacesetError: a faceset is damaged.
    """
    for given in inputs:
        if not given.exists():
            raise DriversError(f"{given} must be a picture, a clip or a folder, but there is none. Check --drivers.")
    facesets = [given for given in inputs if (given / "faceset.json").is_file()]
    others = [given for given in inputs if given not in facesets]
    paths = sorted(path for given in others for path in ([given] if given.is_file() else given.rglob("*")))
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() in IMAGE_EXTENSIONS and not (path.parent / "faceset.json").is_file():
            by_folder.setdefault(path.parent, []).append(path)
    drivers = [(path, 0) for path in _spread(list(by_folder.values()), pictures)]
    for path in paths:
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            count = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
            indices = np.unique(np.linspace(0, max(0, count - 1), frames_per_clip).astype(int))
            drivers += [(path, int(index)) for index in indices]
    return drivers + [driver for given in facesets for driver in _faceset_drivers(given, frames_per_clip)]


def _faceset_drivers(root: Path, frames_per_clip: int) -> list[tuple[Path, int]]:
    by_file: dict[str, set[int]] = {}
    for entry in Faceset.open(root):
        by_file.setdefault(entry.name, set()).add(entry.frame_index)
    drivers: list[tuple[Path, int]] = []
    for file, found in sorted(by_file.items()):
        places = np.linspace(0, len(found) - 1, min(frames_per_clip, len(found))).round().astype(int)
        drivers += [(Path(file), sorted(found)[place]) for place in places]
    return drivers


def _spread(folders: list[list[Path]], limit: int) -> list[Path]:
    """Take from small folders all, from large ones no more than an equal share of what is left."""
    taken: list[Path] = []
    for left, folder in zip(range(len(folders), 0, -1), sorted(folders, key=len), strict=True):
        share = (limit - len(taken)) // left
        taken += random.Random(9).sample(folder, min(share, len(folder)))
    return taken


def collect(drivers: Sequence[tuple[Path, int]], out: Path, finder: DriverFinder) -> int:
    """Find each driver's face and append it to a folder; what is there already is not looked for again.

    Unreadable files are named on stderr and skipped; pictures without a clear face are left out.

    Args:
        drivers: (file, frame index), frames of one clip together.
        out: the folder.
        finder: finds the faces.

    Returns:
        How many faces the folder holds.

    Raises:
        DriversError: there is no face at all.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = _whole_lines(out)
    tried = {(str(line["file"]), int(line["frame"])) for line in lines}
    clips = {str(line["file"]): int(line["clip"]) for line in lines if line["clip"] >= 0}
    left = [driver for driver in drivers if (str(driver[0]), driver[1]) not in tried]
    with (
        (out / "crops.u8").open("ab") as crops,
        (out / "meshes.f32").open("ab") as meshes,
        (out / "drivers.jsonl").open("a") as index,
    ):
        for (file, frame), image in tqdm(_read(left), total=len(left), desc="drivers", unit="face"):
            found = finder.canvas(image)
            clip = clips.setdefault(str(file), len(clips)) if file.suffix.lower() in VIDEO_EXTENSIONS else -1
            if found is not None:
                crops.write(found[0].tobytes())
                meshes.write(found[1].astype(np.float32).tobytes())
                crops.flush(), meshes.flush()
            line = {"file": str(file), "frame": frame, "clip": clip, "has_face": found is not None}
            index.write(json.dumps(line) + "\n")  # last: what it names is on disk
            index.flush()
    count = sum(bool(line["has_face"]) for line in _whole_lines(out))
    if not count:
        raise DriversError("drivers must show faces, but none was found. Check --drivers.")
    return count


def open_crops(folder: Path) -> DriverCrops:
    """Map what `collect` wrote.

    Raises:
        DriversError: there is nothing.
    """
    lines = [line for line in _whole_lines(folder) if line["has_face"]] if folder.is_dir() else []
    if not lines:
        raise DriversError(f"{folder} must hold drivers' faces, but has none. Run training.data.triplets --drivers.")
    count = len(lines)
    plain = folder / "plain.npy"
    is_plain = np.load(plain) if plain.is_file() else np.ones(count, bool)
    sources = [(str(line["file"]), int(line["frame"])) for line in lines]
    return DriverCrops(
        np.memmap(folder / "crops.u8", np.uint8, "r", shape=(count, CANVAS_PX, CANVAS_PX, 3)),
        np.memmap(folder / "meshes.f32", np.float32, "r", shape=(count, MESH_POINTS, 3)),
        np.array([line["clip"] for line in lines], np.intp),
        is_plain if len(is_plain) == count else np.ones(count, bool),
        hashlib.sha256(json.dumps(sources).encode()).hexdigest(),
        sources,
    )


def _whole_lines(folder: Path) -> list[dict[str, object]]:
    """Return the index, and cut off what a killed run wrote beyond it."""
    path = folder / "drivers.jsonl"
    if not path.is_file():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines()]
    count = sum(bool(line["has_face"]) for line in lines)
    for file, size in (
        (path, len(whole)),
        (folder / "crops.u8", count * _CROP_BYTES),
        (folder / "meshes.f32", count * _MESH_BYTES),
    ):
        if file.is_file() and file.stat().st_size > size:
            os.truncate(file, size)
    return lines


def _read(drivers: Sequence[tuple[Path, int]]) -> Iterator[tuple[tuple[Path, int], NDArray[np.uint8]]]:
    """Read drivers in order, each clip once; unreadable ones are named on stderr and skipped."""
    by_file: dict[Path, set[int]] = {}
    for file, index in drivers:
        by_file.setdefault(file, set()).add(index)
    for file, wanted in by_file.items():
        if file.suffix.lower() in IMAGE_EXTENSIONS:
            image = cv2.imread(str(file))
            if image is None:
                print(f"{file}: skipped, it cannot be read as a picture.", file=sys.stderr)
                continue
            yield (file, 0), np.asarray(image, np.uint8)
            continue
        try:
            for index, frame in enumerate(read_frames(file)):
                if index in wanted:
                    yield (file, index), frame.image
                if index >= max(wanted):
                    break
        except MediaError as error:
            print(f"{file}: skipped: {error}", file=sys.stderr)
