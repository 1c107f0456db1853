"""A one-shot persona far away: what an endpoint serves, what it is sent for a face, and what is made of its answer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError
from liveframe.model import BatchModel, BatchSpec, TensorSpec, check_batch, completed
from understudy.bundle.bundle import MAX_BATCH, Bundle
from understudy.swap.driver import DriverBook
from understudy.swap.frame_painter import Prepared
from understudy.swap.one_shot import CONTROL_PX, DriverFace, Mixer, OneShotRenderer, PaintOptions, Target
from understudy.swap.renderer import (
    AnyRenderer,
    AsyncBatchModel,
    Painted,
    PaintedRegion,
    ReferenceSet,
    Shares,
    Swap,
    answer_of,
    decided,
    with_eyes,
)
from understudy.swap.scratch import Scratch
from understudy.swap.settings import SwapSettings
from understudy.vision.align import mean_mesh
from understudy.vision.face import MESH_POINTS, Face, resized_mesh
from understudy.vision.iris import EyePair, IrisModel
from understudy.vision.mesh import FaceMesh
from understudy.vision.reference import ReferenceFace

Tensors = Mapping[str, NDArray[np.float32]]

# Side of the picture that is answered, px: faces of up to 720p cameras are painted in it as they are embedded. A larger
# one is painted as large as this, and enlarged where it is shown.
ANSWER_PX = 320
_LIDS = 16
# What comes beside a crop. All zero, or left out: the mesh is looked for in the crop, and all of it painted.
_EXTRAS = (
    TensorSpec("mesh", "float32", (MESH_POINTS, 3), is_optional=True),  # px of the crop
    # Right and left eye: iris, 16 points of the lids (px of the crop), and from which opening on it counts as open.
    TensorSpec("eyes", "float32", (2, 1 + _LIDS + 1, 2), is_optional=True),
    # What is painted: its px -> px of the crop (2 x 3, row by row), width, height.
    TensorSpec("target", "float32", (8,), is_optional=True),
    TensorSpec("options", "float32", (3,), is_optional=True),  # own eyes, own mouth, leave out what the network sees
    TensorSpec("references", "float32", (2, 2), is_optional=True),  # which, and how much of it; a share of 0: none
)
_FAR_PX = 8 * CONTROL_PX  # no point of a face that lies in a crop is farther from it
_FITS = 2
_MESH_PX = 256  # the crop's side when a mesh is looked for in it


class ServedOneShot:
    """A one-shot persona as an endpoint plays it: crop, mesh and target in, swap and opacity out. Thread-safe.

    It is stateless. What a stream knows (the driver's bones, where he looks, which reference is nearest) comes with the
    crop, which is bent already, so that the pixels are those of the embedded persona (`OneShotAway` sends it). A crop
    alone is swapped, too: its mesh and eyes are found here, and the face keeps its shape.

    Args:
        references: the persona's pictures and meshes, at least one.
        mixer: the bundle's network.
        threads: cores that one call uses.
    """

    spec = BatchSpec((CONTROL_PX, CONTROL_PX, 3), (ANSWER_PX, ANSWER_PX, 4), MAX_BATCH, _EXTRAS)

    def __init__(self, references: Sequence[ReferenceFace], mixer: Mixer, threads: int = 1) -> None:
        self._painters = [OneShotRenderer(*with_eyes(each), mixer) for each in references]
        self._mesh, self._irises = FaceMesh(threads), IrisModel(threads)

    def predict(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Swap crops: uint8 [N, 128, 128, 3] BGR -> uint8 [N, 320, 320, 4], BGR and opacity.

        Args:
            batch: aligned crops, bent to the persona's shape or not.
            **extras: as `spec.extras` names them. What is painted lies at the left and the top of the answer; around it
                the answer is empty.

        Raises:
            FrameError: the batch or a tensor has another shape or dtype, or impossible values.
            ModelError: the network failed.
        """
        check_batch(batch, self.spec, extras)
        tensors = completed(self.spec, len(batch), extras)
        self.check(**tensors)
        out = np.zeros((len(batch), *self.spec.output_shape), np.uint8)
        for index, crop in enumerate(batch):
            driver, target, options, shares = self._read(crop, {name: all_[index] for name, all_ in tensors.items()})
            swap = decided(self._painters, shares, driver, target, options)(Scratch())
            out[index, : target.height, : target.width] = swap
        return out

    def check(self, **extras: NDArray[np.float32]) -> None:
        """See `liveframe.model.CheckedModel`."""
        points = np.concatenate([extras["mesh"].reshape(-1), extras["eyes"].reshape(-1)])
        if points.size and float(np.abs(points).max()) > _FAR_PX:
            raise FrameError(f"mesh and eyes must lie within {_FAR_PX} px of the crop. Send the crop's own px.")
        for target in extras["target"]:
            width, height = target[6:].tolist()
            turned = float(np.linalg.det(target[:6].reshape(2, 3)[:, :2].astype(np.float64)))
            is_even = width % 2 == height % 2 == 0
            if target.any() and not (2 <= min(width, height) <= max(width, height) <= ANSWER_PX and is_even and turned):
                raise FrameError(
                    f"target must be a matrix that can be turned round and even sides of 2 to {ANSWER_PX} px, "
                    f"but is {target.tolist()}."
                )
        indices, shares = extras["references"][..., 0], extras["references"][..., 1]
        if not np.isin(indices, np.arange(len(self._painters))).all() or shares.min() < 0 or shares.max() > 1:
            raise FrameError(
                f"references must be places from 0 to {len(self._painters) - 1} with shares from 0 to 1, but are "
                f"{extras['references'].tolist()}."
            )

    def _read(self, crop: NDArray[np.uint8], tensors: Tensors) -> tuple[DriverFace, Target, PaintOptions, Shares]:
        if tensors["mesh"].any():
            eyes = tensors["eyes"]
            right, left = eyes[:, -1, 0].tolist()
            driver = DriverFace(crop, tensors["mesh"], EyePair(eyes[:, 0], eyes[:, 1:-1], (right, left)))
        else:
            driver = self._found(crop)
        whole = cv2.getRotationMatrix2D((0, 0), 0, CONTROL_PX / ANSWER_PX)
        whole[:, 2] = (CONTROL_PX / ANSWER_PX - 1) / 2
        target = Target(np.asarray(whole, np.float32), ANSWER_PX, ANSWER_PX)
        if (given := tensors["target"]).any():
            target = Target(given[:6].reshape(2, 3), int(given[6]), int(given[7]))
        own_eyes, own_mouth, is_bare = (bool(each) for each in tensors["options"])
        shares: Shares = [(int(index), float(share)) for index, share in tensors["references"] if share > 0]
        return driver, target, PaintOptions(own_eyes, own_mouth, not is_bare), shares or [(0, 1.0)]

    def _found(self, crop: NDArray[np.uint8]) -> DriverFace:
        """Look for mesh and eyes in an aligned crop."""
        large = np.asarray(cv2.resize(crop, (_MESH_PX, _MESH_PX), interpolation=cv2.INTER_CUBIC), np.uint8)
        mesh = mean_mesh() * np.float32(_MESH_PX)  # aligned crops have it about there
        for _ in range(_FITS):
            mesh, _ = self._mesh.fit(large, mesh)
        zoom = CONTROL_PX / _MESH_PX
        to_crop = np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2]], np.float32)
        eyes = self._irises.both(large, mesh).moved(to_crop)
        return DriverFace(crop, resized_mesh(mesh, zoom), eyes)


class OneShotAway:
    """A one-shot persona that is painted by an endpoint: `Renderer`. What the stream knows is applied here.

    Args:
        model: serves the persona (`ServedOneShot`), from far away.
        references: the same that it has: faces are bent to them, and the nearest is named to it.
    """

    is_remote = True

    def __init__(self, model: AsyncBatchModel, references: Sequence[ReferenceFace]) -> None:
        self._model = model
        self._references = ReferenceSet([with_eyes(each)[0] for each in references])

    def begin(
        self, image: NDArray[np.uint8], faces: Sequence[Face], settings: SwapSettings, book: DriverBook
    ) -> Callable[[], list[Painted]]:
        """See `Renderer`."""
        found = self._references.prepare(image, faces, settings, book, self)
        most = self._model.spec.max_batch
        parts = [found[first : first + most] for first in range(0, len(found), most)]
        requests = [_request(part, settings.painting()) for part in parts]
        answers = [self._model.submit(crops, **tensors) for crops, tensors in requests]

        def finish() -> list[Painted]:
            swaps = [swap for answer in answers for swap in answer_of(answer)]
            return [
                PaintedRegion(each, partial(_enlarged, swap, each.target))
                for (each, _), swap in zip(found, swaps, strict=True)
            ]

        return finish


def _request(part: Sequence[tuple[Prepared, Shares]], options: PaintOptions) -> tuple[NDArray[np.uint8], Tensors]:
    """Return the crops of faces, uint8 [N, 128, 128, 3], and what comes beside them."""
    eyes = np.zeros((len(part), 2, 1 + _LIDS + 1, 2), np.float32)
    references = np.zeros((len(part), 2, 2), np.float32)
    for index, (prepared, shares) in enumerate(part):
        seen = prepared.driver.eyes
        assert seen is not None  # `prepare` finds them
        eyes[index, :, 0], eyes[index, :, 1:-1], eyes[index, :, -1, 0] = seen.irises, seen.lids, seen.open_at
        references[index, : len(shares)] = shares
    targets = [_fitted(prepared.target) for prepared, _ in part]
    how = [options.own_eyes, options.own_mouth, not options.keep_occluders]
    return np.stack([prepared.driver.crop for prepared, _ in part]), {
        "mesh": np.stack([prepared.driver.mesh for prepared, _ in part]),
        "eyes": eyes,
        "target": np.array([[*each.to_crop.ravel(), each.width, each.height] for each in targets], np.float32),
        "options": np.array([how] * len(part), np.float32),
        "references": references,
    }


def _fitted(target: Target) -> Target:
    """Return a target as large as the answer may be."""
    zoom = ANSWER_PX / max(target.width, target.height)
    if zoom >= 1:
        return target
    width, height = (max(2, int(side * zoom) // 2 * 2) for side in (target.width, target.height))
    scale = np.array([target.width / width, target.height / height], np.float32)
    matrix = target.to_crop.copy()
    matrix[:, 2] += target.to_crop[:, :2] @ ((scale - 1) / 2)
    matrix[:, :2] *= scale
    return Target(matrix, width, height)


def _enlarged(answer: Swap, target: Target, _: Scratch) -> Swap:
    """Return what was painted in an answer at its target's size."""
    sent = _fitted(target)
    swap = np.ascontiguousarray(answer[: sent.height, : sent.width])
    size = (target.width, target.height)
    return swap if swap.shape[1::-1] == size else np.asarray(cv2.resize(swap, size), np.uint8)


def crop_model(bundle: Bundle, name: str, threads: int = 1) -> BatchModel:
    """Return what plays a bundle's persona on aligned crops: its network, or its references and the mixing network.

    Args:
        bundle: verified.
        name: the persona.
        threads: cores that one call of `predict` uses.

    Raises:
        BundleError: no such persona, or the bundle is not what its manifest says.
    """
    if bundle.manifest.is_one_shot:
        return ServedOneShot(bundle.references(name), bundle.mixer(threads), threads)
    return bundle.swap_model(name, threads)


def far_renderer(bundle: Bundle, name: str, model: AsyncBatchModel) -> AnyRenderer:
    """Return what lets an endpoint paint a bundle's persona.

    Args:
        bundle: the one that it serves.
        name: the persona.
        model: asks it; its spec is `crop_model`'s.

    Raises:
        BundleError: no such persona, or the bundle is not what its manifest says.
    """
    return OneShotAway(model, bundle.references(name)) if bundle.manifest.is_one_shot else model
