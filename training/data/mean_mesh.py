"""Make understudy/vision/mean_mesh.npy: the mean face that every crop is aligned to.

    uv run python -m training.data.mean_mesh FOLDER_OF_FACES understudy/vision/mean_mesh.npy

It was made once from 600 machine-made faces; remaking it moves every crop and so invalidates
facesets and bundles (bump understudy.vision.align.ALIGNMENT_VERSION).
"""

import argparse
import random
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from understudy.vision.align import similarity, transform
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Points
from understudy.vision.mesh import FACE_OVAL, FaceMesh

# Margins around the face oval in the crop: more below, where an open mouth moves the chin.
_TOP, _BOTTOM = 0.075, 0.125


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=int, default=600)
    args = parser.parse_args()
    meshes = _meshes(args.folder, args.faces)
    np.save(args.out, in_unit_crop(symmetric(procrustes_mean(meshes))))


def _meshes(folder: Path, limit: int) -> list[Points]:
    detector, mesh = FaceDetector(), FaceMesh()
    paths = sorted(folder.rglob("*.jpg"))
    random.Random(1).shuffle(paths)
    meshes: list[Points] = []
    for path in tqdm(paths[:limit], unit="face"):
        image = cv2.imread(str(path))
        faces = detector.detect(image)
        face = mesh.refine(image, faces[0]) if faces else None
        if face is not None and face.mesh is not None and face.presence > 0.9:
            meshes.append(face.mesh)
    return meshes


def procrustes_mean(meshes: list[Points], rounds: int = 5) -> Points:
    """Return the generalised Procrustes mean (Gower 1975): float32 [468, 3], at the size of the first mesh."""
    mean = meshes[0]
    for _ in range(rounds):
        mean = np.mean([transform(m, similarity(m[:, :2], mean[:, :2])) for m in meshes], axis=0).astype(np.float32)
    return mean


def symmetric(mesh: Points) -> Points:
    """Return the mean of a mesh and its mirror image, upright; float32 [468, 3]."""
    oval = mesh[list(FACE_OVAL), :2]
    top, chin = oval[0], oval[len(oval) // 2]
    angle = np.arctan2(chin[0] - top[0], chin[1] - top[1])
    cos, sin = np.cos(angle), np.sin(angle)
    upright = mesh.copy()
    upright[:, :2] = (mesh[:, :2] - mesh[:, :2].mean(0)) @ np.array([[cos, sin], [-sin, cos]])
    upright[:, 0] -= (upright[list(FACE_OVAL), 0].min() + upright[list(FACE_OVAL), 0].max()) / 2
    for _ in range(5):  # the twin of a point is better known the more symmetric the mesh is
        mirrored = upright * np.array([-1, 1, 1], np.float32)
        twin = np.linalg.norm(mirrored[None, :, :2] - upright[:, None, :2], axis=2).argmin(1)
        back = similarity(mirrored[twin, :2], upright[:, :2])
        upright = (upright + transform(mirrored[twin], back)) / 2
        upright[:, 0] -= (upright[twin, 0] + upright[:, 0]).mean() / 2
    return upright.astype(np.float32)


def in_unit_crop(mesh: Points) -> Points:
    """Place a mesh in the unit crop: the face oval's height fills all but the margins."""
    oval = mesh[list(FACE_OVAL), :2]
    low, high = oval.min(0), oval.max(0)
    scale = (1 - _TOP - _BOTTOM) / (high[1] - low[1])
    placed = mesh * scale
    placed[:, 0] += 0.5 - (low[0] + high[0]) / 2 * scale
    placed[:, 1] += _TOP - low[1] * scale
    return placed.astype(np.float32)


if __name__ == "__main__":
    main()
