"""The classic recipe: two or more facesets, one shared encoder (deepfakes, 2017).

Every decoder learns to undo a random warp of its own person's faces; the shared encoder, with a dense
bottleneck, learns what they have in common. A swap is one person's latent through another's decoder.
Kept for those who want a person's own texture, or a `.dfm` to take along: it needs a day where the one-shot recipe
needs a photo.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.drivers import CROP_PX
from training.data.face_maps import attention_map, face_mask
from understudy.consent.check import check, read_record
from understudy.consent.same_person import check_faceset
from understudy.consent.trust_store import TrustStore
from understudy.faceset.faceset import Faceset, FacesetError
from understudy.vision.reference import ReferenceFace

Picture = NDArray[np.uint8]


class Facesets:
    """Facesets by persona.

    Each faceset's folder holds its person's consent record, `consent.json`.

    Args:
        roots: a faceset's folder by persona name.

    Raises:
        FacesetError: there is none at a path, or it has fewer than 8 faces.
    """

    def __init__(self, roots: Mapping[str, str]) -> None:
        self.by_name = {name: Faceset.open(Path(root)) for name, root in roots.items()}
        for name, faceset in self.by_name.items():
            if len(faceset) < 8:
                raise FacesetError(f"{roots[name]} must have at least 8 faces, but has {len(faceset)}. Extract more.")

    @property
    def personas(self) -> list[str]:
        """The personas' names."""
        return list(self.by_name)

    @property
    def count(self) -> int:
        """How many faces there are in all."""
        return sum(len(faceset) for faceset in self.by_name.values())

    def faces(self, name: str) -> list[tuple[Picture, Picture]]:
        """Return a persona's faces, uint8 [CROP_PX, CROP_PX, 3], and maps, uint8 [CROP_PX, CROP_PX, 2]."""
        return [_face(self.by_name[name], entry) for entry in self.by_name[name]]

    def check_consent(self, name: str, trust: Path) -> None:
        """Refuse a faceset whose person's consent does not cover its files, or that shows somebody else.

        Raises:
            understudy.consent.record.ConsentError: the record is missing, expired, revoked or does not fit.
        """
        faceset = self.by_name[name]
        record = read_record(faceset.root / "consent.json")
        check(record, "train", TrustStore(trust).read(), faces=source_digests(faceset), persona=name)
        check_faceset(faceset, record)

    def consent_path(self, name: str) -> Path:
        """Where a persona's consent record lies."""
        return self.by_name[name].root / "consent.json"

    def still(self, name: str) -> ReferenceFace:
        """Return a persona's look: its sharpest nearly frontal face."""
        return best_stills(self.by_name[name], 1)[0]

    def source_digests(self) -> list[str]:
        """Return the SHA-256 of the files that the faces come from."""
        return sorted({digest for faceset in self.by_name.values() for digest in source_digests(faceset)})

    def digest(self) -> str:
        """Return the SHA-256 of the facesets' hashes."""
        parts = [f"{name}={faceset.hash()}" for name, faceset in sorted(self.by_name.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def source_digests(faceset: Faceset) -> list[str]:
    """Return the SHA-256 of the files that a faceset's faces come from."""
    return sorted(source.sha256 for source in faceset.sources.values())


def best_stills(faceset: Faceset, count: int) -> list[ReferenceFace]:
    """Return a person's best looks: the sharpest frontal face first, then those least like the ones before.

    Args:
        faceset: of one person.
        count: how many at most.
    """
    entries = sorted(faceset, key=lambda e: -e.sharpness / (1 + (abs(e.pose.yaw) + abs(e.pose.pitch)) / 10))
    sharp = entries[: max(count, len(entries) // 2)]
    chosen = [0]
    shapes = np.stack([entry.mesh[:, :2].ravel() for entry in sharp])
    nearest = np.full(len(sharp), np.inf)
    while len(chosen) < min(count, len(sharp)):
        nearest = np.minimum(nearest, np.linalg.norm(shapes - shapes[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    scale = np.float32(CROP_PX / faceset.info.size)
    return [ReferenceFace(resized(faceset.crop(sharp[i]), CROP_PX), sharp[i].mesh * scale) for i in chosen]


class ClassicBatches:
    """Batches per persona: a warped face in, the face itself wanted. The same step gives the same batch."""

    def __init__(self, config: Any, facesets: Facesets) -> None:
        self.config = config
        self._faces = {name: facesets.faces(name) for name in facesets.personas}
        self.validation = np.arange(min(config.validation, *(len(faces) for faces in self._faces.values())))

    def batch(self, step: int) -> tuple[dict[str, NDArray[np.float32]], dict[str, Picture]]:
        """Give, by persona, inputs float32 [B, I, I, 3] 0..1 and targets uint8 [B, O, O, 5]."""
        rng = np.random.default_rng((self.config.seed, step))
        made = {
            name: [_warped(rng, *faces[i]) for i in rng.integers(len(faces), size=self.config.batch)]
            for name, faces in self._faces.items()
        }
        return self._stack(made)

    def validation_batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, NDArray[np.float32]], dict[str, Picture]]:
        """Return rows without warp or turn, as `batch`."""
        return self._stack(
            {name: [(faces[i][0], np.dstack(faces[i])) for i in rows] for name, faces in self._faces.items()}
        )

    def _stack(self, made: dict[str, list[tuple[Picture, Picture]]]) -> Any:
        size = self.config.size
        faces = {
            name: np.stack([resized(face, size.input_px) for face, _ in rows]).astype(np.float32) / 255
            for name, rows in made.items()
        }
        return faces, {n: np.stack([resized(wanted, size.output_px) for _, wanted in rows]) for n, rows in made.items()}


def _face(faceset: Faceset, entry: Any) -> tuple[Picture, Picture]:
    """Return a face, uint8 [CROP_PX, CROP_PX, 3], and its maps, uint8 [CROP_PX, CROP_PX, 2]: mask, attention."""
    mesh = entry.mesh * np.float32(CROP_PX / faceset.info.size)
    return resized(faceset.crop(entry), CROP_PX), np.dstack([face_mask(mesh, CROP_PX), attention_map(mesh, CROP_PX)])


def _warped(rng: Generator, face: Picture, maps: Picture) -> tuple[Picture, Picture]:
    """Turn and mirror a face with its maps, and warp the input alone."""
    matrix = cv2.getRotationMatrix2D((CROP_PX / 2, CROP_PX / 2), rng.uniform(-10, 10), rng.uniform(0.95, 1.05))
    matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * CROP_PX
    both = np.dstack([face, maps])
    both = cv2.warpAffine(both, matrix, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if rng.random() < 0.5:
        both = cv2.flip(both, 1)
    both = np.asarray(both, np.uint8)
    return random_warp(rng, np.ascontiguousarray(both[..., :3])), both


def resized(image: Picture, side: int) -> Picture:
    """Average a picture down to another side: uint8 [S, S, C] -> [side, side, C], of any number of channels."""
    if image.shape[0] == side:
        return image
    parts = (image[..., :3], image[..., 3:]) if image.shape[2] > 4 else (image,)  # as many channels as cv2 takes
    return np.dstack([cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts])


def random_warp(rng: Generator, image: Picture, sigma: float = 5 / 160) -> Picture:
    """Move a 5 x 5 grid of control points at random and the picture with them.

    The grid is interpolated between its corners' true places: cv2.resize of so coarse a grid is centred
    half a cell off and would shrink inputs by a quarter against their targets.

    Args:
        rng: the source of chance.
        image: uint8 [S, S, 3], BGR; left as it is.
        sigma: how far points move, standard deviation, share of the side; 0 gives the image back.
    """
    side = image.shape[0]
    at = np.linspace(0, 4, side, dtype=np.float32)
    where_x, where_y = np.meshgrid(at, at)
    regular = np.linspace(0, side - 1, 5, dtype=np.float32)
    grid = np.stack(np.meshgrid(regular, regular), axis=-1) + rng.normal(0, sigma * side, (5, 5, 2)).astype(np.float32)
    dense = cv2.remap(grid.astype(np.float32), where_x, where_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.remap(image, dense, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)  # type: ignore
