"""The two seams: what the app relays (FrameModel) and what is served (BatchModel)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError
from liveframe.frame import Frame, FrameResult


@runtime_checkable
class FrameSession(Protocol):
    """One viewer's stream through a model: stateful (tracks, filters), not thread-safe.

    The pipeline calls `process` from one worker thread, frame by frame in rising index;
    indices may skip (dropped frames). `close` comes once, after the last `process`,
    perhaps from another thread; a closed session is never used again.
    """

    def process(self, frame: Frame) -> FrameResult:
        """Answer one frame; the result has the frame's index and size and shares no memory with it.

        Raises:
            LiveframeError: the frame could not be processed; the stream goes on with the next.
        """
        ...

    def close(self) -> None:
        """Free what the session holds. Safe to call twice."""
        ...


@runtime_checkable
class SplitSession(FrameSession, Protocol):
    """A session whose answers have a slow middle, such as a network call, that other frames need not wait for.

    The pipeline then calls `begin` instead of `process`, on one thread, and the callables it
    returned on a second thread, in the order of their frames and one at a time; `begin` of
    the next frame overlaps with them. So what `begin` and the second halves share needs care.
    `close` comes after the last second half.
    """

    def begin(self, frame: Frame) -> Callable[[], FrameResult]:
        """Do the first half and start the slow part.

        Returns:
            The second half: waits for the slow part and gives the frame's result, as `process`
            would. It bounds its own wait. It may raise as `process` does.
        """
        ...


@runtime_checkable
class FrameModel(Protocol):
    """What the app relays. Shared by all viewers; immutable after `warm_up`; thread-safe."""

    def warm_up(self) -> None:
        """Load and run once, so that the first frame is as fast as the next. Idempotent.

        Raises:
            ModelError: the model cannot run here; says why.
        """
        ...

    def open_session(self) -> FrameSession:
        """Start one viewer's stream. Cheap: milliseconds, no file is read."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor, without the batch axis.

    Attributes:
        name: by which it is handed over and sent.
        dtype: "uint8" or "float32".
        shape: of one item.
        is_optional: whether it may be left out; the model then gets zeros.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Shapes that a BatchModel takes and gives, without the batch axis.

    Attributes:
        input_shape: (H, W, C) of one input, uint8; C=3 is BGR.
        output_shape: (H2, W2, C2) of one output, uint8; C2=4 is BGR and mask.
        max_batch: the largest batch that one call takes.
        extras: tensors that accompany every picture (float32), such as the mesh of the face in it; each is a keyword
            of `predict`.
        input_name, output_name: what protocols that name tensors call the pictures.
    """

    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    max_batch: int = 16
    extras: tuple[TensorSpec, ...] = ()
    input_name: str = "crop"
    output_name: str = "swap"


@runtime_checkable
class BatchModel(Protocol):
    """What is served: stateless and thread-safe, so that an endpoint may autoscale."""

    spec: BatchSpec

    def predict(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Answer a batch: uint8 [N, *input_shape] -> uint8 [N, *output_shape], same order.

        Args:
            batch: the pictures.
            **extras: what `spec.extras` names, float32 [N, ...] each.

        Raises:
            FrameError: the batch has another shape or dtype, or more than max_batch items.
            ModelError: the model failed.
        """
        ...


@runtime_checkable
class CheckedModel(BatchModel, Protocol):
    """A BatchModel that refuses values, too. It is asked before a request joins others in a batch."""

    def check(self, **extras: NDArray[np.float32]) -> None:
        """Refuse tensors that no picture can have.

        Args:
            **extras: what `spec.extras` names, float32 [N, ...] each.

        Raises:
            FrameError: says what they must be.
        """
        ...


def are_complete(names: Collection[str], ports: Collection[TensorSpec]) -> bool:
    """Whether tensors of these names are all that the ports need, and nothing else."""
    return {port.name for port in ports if not port.is_optional} <= set(names) <= {port.name for port in ports}


def completed(spec: BatchSpec, count: int, extras: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the tensors beside `count` pictures, with zeros for the optional ones that are left out."""
    left_out = (port for port in spec.extras if port.is_optional and port.name not in extras)
    return {**extras, **{port.name: np.zeros((count, *port.shape), np.float32) for port in left_out}}


def check_batch(
    batch: NDArray[np.uint8], spec: BatchSpec, extras: Mapping[str, NDArray[np.float32]] | None = None
) -> None:
    """Refuse a batch that a model's spec does not allow.

    Raises:
        FrameError: another dtype or shape, more than spec.max_batch items, or other tensors beside it.
    """
    given = extras or {}
    if not are_complete(given, spec.extras):
        wanted = ", ".join(port.name for port in spec.extras) or "nothing"
        raise FrameError(f"batch must come with {wanted}, but came with {', '.join(given) or 'nothing'}.")
    for port in spec.extras:
        if port.name not in given:
            continue
        tensor = given[port.name]
        if tensor.dtype != np.float32 or tensor.shape != (len(batch), *port.shape):
            raise FrameError(
                f"{port.name} must be float32 [{len(batch)}, {', '.join(map(str, port.shape))}], "
                f"but got {tensor.dtype} {list(tensor.shape)}."
            )
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != spec.input_shape:
        raise FrameError(
            f"batch must be uint8 [N, {', '.join(map(str, spec.input_shape))}], "
            f"but got {batch.dtype} {list(batch.shape)}. Resize the crops first."
        )
    if not 1 <= len(batch) <= spec.max_batch:
        raise FrameError(f"batch must hold 1 to {spec.max_batch} items, but got {len(batch)}. Split it.")
