"""What the app sends to an endpoint for a face."""

from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.moving_face import frames
from liveframe.frame import Frame
from liveframe.model import BatchModel
from liveframe.remote.client import LocalClient
from understudy.bundle.bundle import Bundle
from understudy.swap.served import Tensors, crop_model, far_renderer
from understudy.swap.settings import SwapSettings
from understudy.swap.swapper import FaceSwapper


class _Recorder(LocalClient):
    """A model behind a client's calls that keeps what it is sent."""

    def __init__(self, model: BatchModel) -> None:
        super().__init__(model)
        self.sent: list[tuple[NDArray[np.uint8], Tensors]] = []

    def submit(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> Future[NDArray[np.uint8]]:
        """Keep a batch, and answer it."""
        self.sent.append((batch, extras))
        return super().submit(batch, **extras)


def sent_faces(bundle: Bundle, count: int) -> tuple[NDArray[np.uint8], Tensors]:
    """Return what an endpoint of a bundle is sent for the astronaut in a 480p frame, so many times.

    Returns:
        Crops, uint8 [count, S, S, 3], BGR, and the tensors beside them, float32 [count, ...] by name.
    """
    name = bundle.personas[0].name
    with _Recorder(crop_model(bundle, name)) as recorder:
        swapper = FaceSwapper(bundle, SwapSettings(name), renderers={name: far_renderer(bundle, name, recorder)})
        swapper.warm_up()
        session = swapper.open_session()
        for index, picture in enumerate(frames(None, 640, 480, 5)):
            session.process(Frame(picture, index, index / 30))
        session.close()
    crops, tensors = recorder.sent[-1]
    return np.repeat(crops, count, axis=0), {name: np.repeat(each, count, axis=0) for name, each in tensors.items()}
