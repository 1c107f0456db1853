"""What travels through a live pipeline: a camera frame in, a result out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError

Image = NDArray[np.uint8]
Box = NDArray[np.float32]
"""float32 [4], xyxy, px."""


def check_image(image: Image, what: str = "frame") -> None:
    """Refuse what is not an image.

    Args:
        image: uint8 [H, W, 3], BGR.
        what: how the error names the image.

    Raises:
        FrameError: the array has another shape or dtype, or no pixels.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{getattr(image, 'dtype', type(image).__name__)} {list(getattr(image, 'shape', []))}"
        raise FrameError(f"{what} must be uint8 [H, W, 3] BGR, but got {got}. Convert it before handing it on.")
    if 0 in image.shape:
        raise FrameError(f"{what} must have pixels, but got {list(image.shape)}. Check its source.")


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera frame.

    Attributes:
        image: uint8 [H, W, 3], BGR. Nobody writes to it: models return a new array.
        index: counts the frames of one stream from 0; gaps are dropped frames.
        captured_s: time.monotonic() when the frame arrived, in seconds.
    """

    image: Image
    index: int
    captured_s: float

    def __post_init__(self) -> None:
        check_image(self.image)


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What a model made of one frame.

    Attributes:
        image: uint8 [H, W, 3], BGR, the size of the frame it answers; shares no memory with it.
        index: the index of the frame it answers.
        subjects_found: how many subjects (faces, people) the model saw in the frame.
        subjects_done: how many of those it replaced. Fewer than found, or none found,
            means that the image may show what must not be seen: the gate covers it.
        stages_ms: milliseconds by stage, in the order they ran.
        note: a sentence for the viewer, empty when there is nothing to say.
        personas: names of those who were really painted into the image, each once; not of those who were chosen.
        regions: boxes of what was replaced, where the viewer wants the rest left as it is; None: all that was seen
            should have been replaced.
        is_mixed: whether so little was replaced, by the viewer's own choice, that who was filmed may be recognised.
    """

    image: Image
    index: int
    subjects_found: int
    subjects_done: int
    stages_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    note: str = ""
    personas: tuple[str, ...] = ()
    is_mixed: bool = False
    regions: tuple[Box, ...] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every subject seen was replaced, and at least one was."""
        return self.subjects_found > 0 and self.subjects_done >= self.subjects_found
