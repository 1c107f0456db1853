"""A bundle behind LitServe; a module of its own, since its workers are started anew and import it."""

from typing import Any

import litserve
import numpy as np
from fastapi import Request, Response

from benchmarks.harness.peer_servers import FORM_FIELD, encoded, first_model
from liveframe.remote.wire import MEDIA_TYPE, WireBatch, decode_batch
from serving.server.routine import LIMITS


class FaceApi(litserve.LitAPI):
    """Takes a form's file, batches what waits, answers.

    Attributes:
        bundle: path of the bundle; set before the server runs.
    """

    bundle: str = ""

    def setup(self, device: str) -> None:
        """Load the model, in each worker."""
        self.model: Any = first_model(self.bundle)

    def decode_request(self, request: Request) -> WireBatch:
        """Read the form's file."""
        return decode_batch(request[FORM_FIELD].file.read(), LIMITS)  # type: ignore[index]

    def batch(self, inputs: list[WireBatch]) -> list[WireBatch]:
        """Leave requests as they are; `predict` joins them."""
        return inputs

    def predict(self, inputs: list[WireBatch]) -> list[bytes]:
        """Answer requests in one call of the model."""
        crops = np.concatenate([each.images for each in inputs])
        extras = {name: np.concatenate([each.extras[name] for each in inputs]) for name in inputs[0].extras}
        swaps = self.model.predict(crops, **extras)
        ends = np.cumsum([len(each.images) for each in inputs])
        return [encoded(part, each) for part, each in zip(np.split(swaps, ends[:-1]), inputs, strict=True)]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Leave answers as they are."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Answer in our own type."""
        return Response(output, media_type=MEDIA_TYPE)
