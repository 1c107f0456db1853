"""What can play a persona: a network on batches of crops, or any function that renders one crop."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import LateError, LiveframeError, ModelError
from liveframe.model import BatchModel
from understudy.swap.skin_detail import SkinDetail
from understudy.vision.face import MESH_POINTS, AlignedFace
from understudy.vision.reenact import ReferenceFace, reenact

Swap = NDArray[np.uint8]

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

    def submit(self, batch: NDArray[np.uint8]) -> Future[NDArray[np.uint8]]:
        """Send a batch; the future gives what `predict` would give or raise, and bounds its own wait. Never blocks."""
        ...


Renderer = BatchModel | CropRenderer


class InstantPersona:
    """A persona with no training at all: its still, warped to the driver's mesh. About 10 ms a face.

    Args:
        still: the persona's look.
        input_size: side of the crops, px.
    """

    def __init__(self, still: ReferenceFace, input_size: int = 256) -> None:
        self.input_size = input_size
        self._still = still

    @classmethod
    def open(cls, folder: Path) -> "InstantPersona":
        """Read a look: `still.png`, an aligned picture, and `mesh.npy` beside it, as the Studio writes them.

        Raises:
            ModelError: there is none.
        """
        image = cv2.imread(str(folder / "still.png"))
        try:
            mesh = np.load(folder / "mesh.npy", allow_pickle=False)
        except (OSError, ValueError):
            mesh = None
        if image is None or mesh is None or mesh.shape != (MESH_POINTS, 3):
            raise ModelError(f"{folder} must hold still.png and mesh.npy, but does not. Make the persona again.")
        return cls(ReferenceFace(np.asarray(image, np.uint8), mesh.astype(np.float32)))

    def __call__(self, face: AlignedFace) -> Swap:
        """Return uint8 [S, S, 4], BGR and mask."""
        image, mask = reenact(self._still, face.crop, face.mesh)
        return np.asarray(cv2.merge([*cv2.split(image), mask]), np.uint8)


class LoadedRenderer:
    """A renderer made ready for the live loop: what kind it is, is asked once. Thread-safe as its renderer is.

    Args:
        renderer: who plays.
        skin_detail: the persona's fine structure, for a renderer that paints without it.

    Attributes:
        renderer: the same.
        skin_detail: the same; None where the renderer paints its own.
        is_aligned: whether what it paints lies on the driver's own eyes and mouth, as pairs and instant personas do.
        input_size: the side of the crops that it takes, px.
        is_remote: whether its batches are sent away, and answered while the caller goes on.
    """

    def __init__(self, renderer: Renderer, skin_detail: SkinDetail | None = None) -> None:
        self.renderer = renderer
        self.skin_detail = skin_detail if isinstance(renderer, BatchModel) else None
        self.is_aligned = self.skin_detail is not None or isinstance(renderer, InstantPersona)
        self._remote = renderer if isinstance(renderer, AsyncBatchModel) else None
        self.is_remote = self._remote is not None
        if isinstance(renderer, BatchModel):
            self.input_size = renderer.spec.input_shape[0]
            self._render = partial(_predict, renderer)
        else:
            self.input_size = renderer.input_size
            self._render = partial(_render, renderer)

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
        return lambda: _checked([swap for future in futures for swap in _answer(future)], len(faces))


def _answer(future: Future[NDArray[np.uint8]]) -> NDArray[np.uint8]:
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
