"""A persona as a BatchModel: what an endpoint serves, crop in, swap and opacity out."""

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError
from liveframe.model import BatchModel, BatchSpec, check_batch
from understudy.bundle.bundle import MAX_BATCH, Bundle
from understudy.swap.mesh_warp import ReferenceFace
from understudy.swap.one_shot import CONTROL_PX, DriverFace, Mixer, OneShotRenderer, Target
from understudy.swap.renderer import with_eyes
from understudy.vision.align import mean_mesh
from understudy.vision.face import resized_mesh
from understudy.vision.iris import EyePair, IrisModel
from understudy.vision.mesh import FaceMesh

# Crops are as large as the mesh model and the iris model need them; swaps come back as large.
CROP_PX = 256
_FITS = 2


class ServedOneShot:
    """A one-shot persona on aligned crops alone: mesh and eyes are found in the crop. Stateless and thread-safe.

    Without a stream nothing is known of the driver's bones, so the face keeps the driver's shape.

    Args:
        reference: the persona's picture and mesh.
        mixer: the bundle's network.
        threads: cores that one call uses.
    """

    spec = BatchSpec((CROP_PX, CROP_PX, 3), (CROP_PX, CROP_PX, 4), MAX_BATCH)

    def __init__(self, reference: ReferenceFace, mixer: Mixer, threads: int = 1) -> None:
        self._painter = OneShotRenderer(*with_eyes(reference), mixer)
        self._mesh, self._irises = FaceMesh(threads), IrisModel(threads)

    def predict(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Swap crops: uint8 [N, 256, 256, 3] BGR -> uint8 [N, 256, 256, 4], BGR and opacity; no extras.

        Raises:
            FrameError: the batch has another shape or dtype, or too many items.
            ModelError: the network failed.
        """
        check_batch(batch, self.spec, extras)
        if not len(batch):
            raise FrameError(f"A batch must be 1 to {self.spec.max_batch} crops, but got none. Send one.")
        return np.stack([self._swapped(crop) for crop in batch])

    def _swapped(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mesh = mean_mesh() * np.float32(CROP_PX)  # aligned crops have it about there
        for _ in range(_FITS):
            mesh, _ = self._mesh.fit(crop, mesh)
        zoom = CONTROL_PX / CROP_PX
        to_control = np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2]], np.float32)
        eyes: EyePair = self._irises.both(crop, mesh).moved(to_control)
        small = crop.reshape(CONTROL_PX, 2, CONTROL_PX, 2, 3).mean((1, 3))
        driver = DriverFace(np.rint(small).astype(np.uint8), resized_mesh(mesh, zoom), eyes)
        return self._painter.paint(driver, Target(to_control, CROP_PX, CROP_PX))


def crop_model(bundle: Bundle, name: str, threads: int = 1) -> BatchModel:
    """Return what plays a bundle's persona on aligned crops: its network, or its reference and the mixing network.

    Args:
        bundle: verified.
        name: the persona.
        threads: cores that one call of `predict` uses.

    Raises:
        BundleError: no such persona, or the bundle is not what its manifest says.
    """
    if bundle.manifest.is_one_shot:
        return ServedOneShot(bundle.still(name), bundle.mixer(threads), threads)
    return bundle.swap_model(name, threads)
