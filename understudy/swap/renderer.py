"""What can paint a persona: a photo in one shot, a network on batches of crops, or any function on one crop."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import LateError, LiveframeError, ModelError
from liveframe.model import BatchModel
from understudy.bundle.bundle import Bundle
from understudy.draw.mesh_overlay import tinted
from understudy.swap.blend import Blender
from understudy.swap.driver import DriverBook
from understudy.swap.frame_painter import Prepared, lay_over, prepare
from understudy.swap.gaze import Irises
from understudy.swap.nearest import NearestReference, ReferenceChoice
from understudy.swap.one_shot import CONTROL_PX, DriverFace, Mixer, OneShotRenderer, PaintOptions, Target
from understudy.swap.own_personas import further_references
from understudy.swap.scratch import Scratch
from understudy.swap.settings import SwapSettings, View
from understudy.swap.shape import shape_model
from understudy.vision.align import align
from understudy.vision.face import MESH_POINTS, AlignedFace, Face
from understudy.vision.iris import iris_model
from understudy.vision.reference import ReferenceFace

Swap = NDArray[np.uint8]
# Which references paint a face, by their place, and how much of it each paints.
Shares = list[tuple[int, float]]
# Paints a face in that memory: uint8 [height, width, 4], BGR and opacity.
Paint = Callable[[Scratch], Swap]

# Remote clients keep shorter deadlines of their own; this one only guards against a client that forgot to.
_LONGEST_WAIT_S = 5.0


@runtime_checkable
class CropRenderer(Protocol):
    """Renders a persona into one crop. Thread-safe.

    Attributes:
        input_size: S, the side of the crops that it takes, px.
    """

    input_size: int

    def __call__(self, face: AlignedFace) -> Swap:
        """Return uint8 [R, R, 4], BGR and mask, of the crop uint8 [S, S, 3]; the crop stays as it is."""
        ...


@runtime_checkable
class AsyncBatchModel(BatchModel, Protocol):
    """A BatchModel that is far away: a batch is sent, and the caller goes on."""

    def submit(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> Future[NDArray[np.uint8]]:
        """Send a batch; the future gives what `predict` would give or raise, and bounds its own wait. Never blocks."""
        ...


class Painted(Protocol):
    """A face, painted, on its way back into its frame.

    Attributes:
        zoom: how much larger than its face it was painted: large for small faces.
    """

    zoom: float

    def lay(self, frame: NDArray[np.uint8], settings: SwapSettings, blender: Blender) -> float:
        """Put it into a frame, uint8 [H, W, 3], BGR, in place; return the share of its crop that it hides, 0 to 1."""
        ...


@runtime_checkable
class Renderer(Protocol):
    """Paints one persona. Shared by all streams; what a stream knows of its drivers comes with the call. Thread-safe.

    Attributes:
        is_remote: whether the work is done elsewhere, and the caller may go on meanwhile.
    """

    is_remote: bool

    def begin(
        self, image: NDArray[np.uint8], faces: Sequence[Face], settings: SwapSettings, book: DriverBook
    ) -> Callable[[], list[Painted]]:
        """Begin to paint faces of a frame; the callable gives one answer for each that lies in the frame, in order.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            faces: with their meshes.
            settings: what the viewer set.
            book: of this stream.

        Raises:
            LiveframeError: here or from the callable: the persona failed.
        """
        ...


class ReferenceSet:
    """A persona's references: what its faces are bent to, and which of them a face is painted from.

    Of several references each frame is painted from the nearest one (`understudy.swap.nearest`).

    Args:
        references: with finer lids (`with_eyes`), at least one.
    """

    def __init__(self, references: Sequence[ReferenceFace]) -> None:
        self._count = len(references)
        self._nearest = NearestReference(references, CONTROL_PX)
        identities = [shape_model().identify(each.mesh) for each in references]
        self._identity = np.asarray(np.mean(identities, axis=0), np.float32)

    def prepare(
        self, image: NDArray[np.uint8], faces: Sequence[Face], settings: SwapSettings, book: DriverBook, persona: object
    ) -> list[tuple[Prepared, Shares]]:
        """Prepare faces of a frame, those that lie in it; with what paints each.

        Args:
            image, faces, settings, book: as `Renderer.begin` gets them.
            persona: who plays: the renderer.
        """
        found: list[tuple[Prepared, Shares]] = []
        for driver in [book.look_up(image, face) for face in faces]:
            prepared = prepare(image, driver, self._identity, settings.shape)
            if prepared is not None:
                found.append((prepared, self._shares(prepared, book.choice(driver.face.track_id, persona))))
        return found

    def _shares(self, prepared: Prepared, choice: ReferenceChoice) -> Shares:
        return [(0, 1.0)] if self._count == 1 else choice.update(self._nearest.distances(prepared.driver.mesh))


class OneShotPersona:
    """A persona that needs no training: photos and the mixing network (`understudy.swap.one_shot`).

    Args:
        painters: its references, ready to paint.
    """

    is_remote = False

    def __init__(self, painters: Sequence[OneShotRenderer]) -> None:
        self._painters = tuple(painters)
        self._references = ReferenceSet([each.reference for each in painters])

    def begin(
        self, image: NDArray[np.uint8], faces: Sequence[Face], settings: SwapSettings, book: DriverBook
    ) -> Callable[[], list[Painted]]:
        """See `Renderer`."""
        found = self._references.prepare(image, faces, settings, book, self)

        def finish() -> list[Painted]:
            options = settings.painting()
            return _checked_call(
                lambda: [
                    PaintedRegion(each, decided(self._painters, shares, each.driver, each.target, options))
                    for each, shares in found
                ]
            )

        return finish


def decided(
    painters: Sequence[OneShotRenderer], shares: Shares, driver: DriverFace, target: Target, options: PaintOptions
) -> Paint:
    """Decide how a face is painted from one reference, or from two at once; what comes back paints it.

    Args:
        painters: of all references.
        shares: which of them paint, and how much.
        driver: the face.
        target: where.
        options: what of the driver stays.
    """
    parts = [(painters[index], painters[index].decide(driver, options), share) for index, share in shares]

    def paint(scratch: Scratch) -> Swap:
        painter, how, share = parts[0]
        swap = painter.paint_as(how, driver, target, options, scratch)
        for painter, how, other_share in parts[1:]:
            first = swap.copy()  # the other one is painted in the same memory
            other = painter.paint_as(how, driver, target, options, scratch)
            swap = np.asarray(cv2.addWeighted(first, share, other, other_share, 0), np.uint8)
        return swap

    return paint


T = TypeVar("T")


def _checked_call(call: Callable[[], T]) -> T:
    """Call, and tell of any failure in one way: a live stream must learn of it."""
    try:
        return call()
    except LiveframeError:
        raise
    except Exception as error:
        raise ModelError(f"The persona could not be rendered: {error}. Pick another persona.") from error


class PaintedRegion:
    """A one-shot persona's face, painted as it is laid into the frame: `Painted`.

    Args:
        prepared: the face.
        paint: paints it.
    """

    def __init__(self, prepared: Prepared, paint: Paint) -> None:
        self.zoom = float(np.hypot(*prepared.target.to_crop[:, 0]))
        self._prepared, self._paint = prepared, paint

    def lay(self, frame: NDArray[np.uint8], settings: SwapSettings, blender: Blender) -> float:
        """See `Painted`."""
        return _checked_call(lambda: self._lay(frame, settings, blender.scratch))

    def _lay(self, frame: NDArray[np.uint8], settings: SwapSettings, scratch: Scratch) -> float:
        swap = self._paint(scratch)
        swap = tinted(swap) if settings.view == View.MASK else swap
        return lay_over(frame, self._prepared, swap, settings.strength, scratch)


class PaintedCrop:
    """What a network painted in its crop: `Painted`."""

    def __init__(self, face: AlignedFace, swap: Swap) -> None:
        self.zoom = float(np.hypot(face.frame_to_crop[0, 0], face.frame_to_crop[1, 0])) / face.crop.shape[0]
        self._face, self._swap = face, swap

    def lay(self, frame: NDArray[np.uint8], settings: SwapSettings, blender: Blender) -> float:
        """See `Painted`."""
        blend = settings.blend()
        if settings.view == View.MASK:
            return blender.blend(frame, self._face, tinted(self._swap), replace(blend, colour_match=0.0))
        return blender.blend(frame, self._face, self._swap, blend)


class LoadedRenderer:
    """A network, or anything that renders crops, as a `Renderer`. Thread-safe as its renderer is.

    Args:
        renderer: who plays.

    Attributes:
        input_size: the side of the crops that it takes, px.
        is_remote: whether its batches are sent away, and answered while the caller goes on.
    """

    def __init__(self, renderer: BatchModel | CropRenderer) -> None:
        self._remote = renderer if isinstance(renderer, AsyncBatchModel) else None
        self.is_remote = self._remote is not None
        if isinstance(renderer, BatchModel):
            self.input_size = renderer.spec.input_shape[0]
            self._render = partial(_predict, renderer)
        else:
            self.input_size = renderer.input_size
            self._render = partial(_render, renderer)

    def begin(
        self, image: NDArray[np.uint8], faces: Sequence[Face], settings: SwapSettings, book: DriverBook
    ) -> Callable[[], list[Painted]]:
        """See `Renderer`."""
        crops = [align(image, face, self.input_size) for face in faces]
        answer = self.start(crops)
        return lambda: [PaintedCrop(crop, swap) for crop, swap in zip(crops, answer(), strict=True)]

    def render(self, faces: Sequence[AlignedFace]) -> list[Swap]:
        """Render faces, in as few batches as the renderer takes.

        Args:
            faces: aligned at the renderer's input size.

        Returns:
            uint8 [R, R, 4] for each, BGR and mask.

        Raises:
            LiveframeError: the renderer failed, or answered with something else.
        """
        try:
            swaps = self._render(faces)
        except LiveframeError:
            raise
        except Exception as error:  # a renderer may fail in any way; a live stream must learn of it in one
            raise ModelError(f"The persona could not be rendered: {error}. Pick another persona.") from error
        return _checked(swaps, len(faces))

    def start(self, faces: Sequence[AlignedFace]) -> Callable[[], list[Swap]]:
        """Begin to render faces; the callable that comes back returns what `render` would.

        A renderer far away is sent its batches at once. A renderer in this process waits for the call, so that the
        work is done on the thread that calls.
        """
        if self._remote is None:
            return partial(self.render, faces)
        futures = [self._remote.submit(batch) for batch in _batches(self._remote, faces)]
        return lambda: _checked([swap for future in futures for swap in answer_of(future)], len(faces))


AnyRenderer = Renderer | BatchModel | CropRenderer


def as_renderer(renderer: AnyRenderer) -> Renderer:
    """Return a network, or what renders crops, as a renderer; a renderer as it is."""
    return renderer if isinstance(renderer, Renderer) else LoadedRenderer(renderer)


def open_renderer(bundle: Bundle, name: str, threads: int = 1) -> Renderer:
    """Load what plays a bundle's persona and run it once; takes 10 to 300 ms.

    Raises:
        BundleError: no such persona, or the bundle is not what its manifest says.
        ModelError: it cannot run here.
    """
    if bundle.manifest.is_one_shot:
        return one_shot_persona(bundle.references(name), bundle.mixer(threads))
    network = bundle.swap_model(name, threads)
    network.predict(np.zeros((1, *network.spec.input_shape), np.uint8))
    return LoadedRenderer(network)


def one_shot_persona(references: Sequence[ReferenceFace], mixer: Mixer | None) -> OneShotPersona:
    """Make a persona of pictures: its eyes are found here. Needs no training; 30 ms a picture.

    Args:
        references: aligned pictures with their meshes, at least one.
        mixer: the network of a bundle; None: opaque wherever the mesh reaches.
    """
    return OneShotPersona([OneShotRenderer(*with_eyes(each), mixer) for each in references])


def photo_persona(folder: Path, bundle: Bundle, threads: int = 1) -> OneShotPersona:
    """Open a persona that the Studio made of a photo: `still.png`, an aligned picture, and `mesh.npy` beside it.

    Args:
        folder: the persona's; with further references of its clips, where they are in use.
        bundle: gives the mixing network; an autoencoder's bundle has none, and none is used.
        threads: cores that one call of the network uses.

    Raises:
        ModelError: the folder holds no such picture and mesh.
    """
    mixer = bundle.mixer(threads) if bundle.manifest.is_one_shot else None
    pictures = [(folder / "still.png", folder / "mesh.npy")]
    pictures += [(picture, picture.with_suffix(".npy")) for picture in further_references(folder)]
    return one_shot_persona([read_reference(*each) for each in pictures], mixer)


def read_reference(picture: Path, points: Path) -> ReferenceFace:
    """Read an aligned picture and its mesh.

    Raises:
        ModelError: one of them is not there, or is something else.
    """
    image = cv2.imread(str(picture))
    try:
        mesh = np.load(points, allow_pickle=False)
    except (OSError, ValueError):
        mesh = None
    if image is None or mesh is None or mesh.shape != (MESH_POINTS, 3):
        raise ModelError(
            f"{picture.parent} must hold {picture.name} and {points.name}, but does not. Make the persona again."
        )
    return ReferenceFace(np.asarray(image, np.uint8), mesh.astype(np.float32))


def with_eyes(reference: ReferenceFace) -> tuple[ReferenceFace, Irises]:
    """Return a reference with finer lids on its mesh, and its irises' centres, float32 [2, 2], px."""
    eyes = iris_model().both(reference.image, reference.mesh)
    return ReferenceFace(reference.image, eyes.on(reference.mesh)), eyes.irises


def answer_of(future: Future[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return what a model far away answers.

    Raises:
        LiveframeError: it failed, or takes too long.
    """
    try:
        return future.result(_LONGEST_WAIT_S)
    except LiveframeError:
        raise
    except TimeoutError as error:
        raise LateError(f"A persona must answer within {_LONGEST_WAIT_S} s, but did not. Pick another one.") from error
    except Exception as error:  # whatever a client's transport raises, cancellation included
        raise ModelError(f"The persona could not be rendered: {error}. Pick another persona.") from error


def _predict(model: BatchModel, faces: Sequence[AlignedFace]) -> list[Swap]:
    return [swap for batch in _batches(model, faces) for swap in model.predict(batch)]


def _render(renderer: CropRenderer, faces: Sequence[AlignedFace]) -> list[Swap]:
    return [renderer(face) for face in faces]


def _batches(model: BatchModel, faces: Sequence[AlignedFace]) -> list[NDArray[np.uint8]]:
    """Stack crops into batches that the model takes; a single one is only viewed."""
    most = model.spec.max_batch
    parts = [[face.crop for face in faces[first : first + most]] for first in range(0, len(faces), most)]
    return [part[0][None] if len(part) == 1 else np.stack(part) for part in parts]


def _checked(swaps: list[Swap], count: int) -> list[Swap]:
    if len(swaps) != count:
        raise ModelError(f"{count} crops must get {count} answers, but got {len(swaps)}. Check the model.")
    for swap in swaps:
        if swap.dtype != np.uint8 or swap.ndim != 3 or swap.shape[0] != swap.shape[1] or swap.shape[2] != 4:
            raise ModelError(
                f"A swap must be uint8 [R, R, 4], but got {swap.dtype} {list(swap.shape)}. Pick another persona."
            )
    return swaps
