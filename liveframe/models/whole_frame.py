"""Any BatchModel of pictures as a FrameModel: the frame is its one subject."""

import time

import cv2
import numpy as np

from liveframe.errors import FrameError
from liveframe.frame import Frame, FrameResult
from liveframe.model import BatchModel


class BatchFrameModel:
    """Relays whole frames through a BatchModel, here or behind a client. Thread-safe if the model is.

    Frames are resized to the model's input and its output back to the frame's size.
    """

    def __init__(self, model: BatchModel) -> None:
        """Wrap a model that gives 3 channels (BGR) for 3."""
        spec = model.spec
        if spec.input_shape[2] != 3 or spec.output_shape[2] != 3:
            raise FrameError(
                f"A whole-frame model must map BGR to BGR, but maps {spec.input_shape} to {spec.output_shape}. "
                "Relay a face model through FaceSwapper."
            )
        self._model = model

    def warm_up(self) -> None:
        """Run once on a grey frame."""
        self._model.predict(np.full((1, *self._model.spec.input_shape), 128, np.uint8))

    def open_session(self) -> "BatchFrameSession":
        """Start a stream; nothing is kept between frames."""
        return BatchFrameSession(self._model)


class BatchFrameSession:
    """One viewer's stream through a BatchModel."""

    def __init__(self, model: BatchModel) -> None:
        self._model = model

    def process(self, frame: Frame) -> FrameResult:
        """Answer one frame with the model's picture, at the frame's size."""
        started_s = time.perf_counter()
        height, width = self._model.spec.input_shape[:2]
        small = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
        out = self._model.predict(np.asarray(small, np.uint8)[None])[0]
        size = (frame.image.shape[1], frame.image.shape[0])
        image = np.asarray(cv2.resize(out, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        if image is out:
            image = out.copy()
        stages_ms = {"model": (time.perf_counter() - started_s) * 1e3}
        return FrameResult(image, frame.index, subjects_found=1, subjects_done=1, stages_ms=stages_ms)

    def close(self) -> None:
        """Free nothing: the model is shared."""
