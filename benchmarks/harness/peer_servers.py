"""The same bundle behind other servers: `python -m benchmarks.harness.peer_servers fastapi|litserve BUNDLE PORT`.

Each in the way that its own documentation shows for bytes in and bytes out, on as many threads as ours.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, WireBatch, decode_batch, encode_batch
from serving.server.routine import LIMITS, QUALITY
from understudy.bundle.bundle import Bundle
from understudy.swap.served import crop_model

KINDS = ("fastapi", "litserve")
FORM_FIELD = "face"
_BATCH, _BATCH_S = 4, 0.003  # as ours


def _model(bundle: str) -> Any:
    opened = Bundle.load(Path(bundle))
    return crop_model(opened, opened.personas[0].name)


def _encoded(swaps: NDArray[np.uint8], asked: WireBatch) -> bytes:
    mask = Encoding.PNG if asked.encoding is Encoding.PNG else Encoding.JPEG
    return encode_batch(swaps, asked.encoding, mask, QUALITY)


def _serve_fastapi(bundle: str, port: int) -> None:
    """Read the body, run the model on a thread of the pool, answer."""
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool

    app, model = FastAPI(), _model(bundle)

    def answered(body: bytes) -> bytes:
        batch = decode_batch(body, LIMITS)
        return _encoded(model.predict(batch.images, **batch.extras), batch)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return Response(await run_in_threadpool(answered, await request.body()), media_type=MEDIA_TYPE)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def _serve_litserve(bundle: str, port: int) -> None:
    """Take a form's file, batch what waits, answer."""
    import litserve
    from fastapi import Request, Response

    class Api(litserve.LitAPI):
        def setup(self, device: str) -> None:
            self.model = _model(bundle)

        def decode_request(self, request: Request) -> WireBatch:
            return decode_batch(request[FORM_FIELD].file.read(), LIMITS)  # type: ignore[index]

        def batch(self, inputs: list[WireBatch]) -> list[WireBatch]:
            return inputs

        def predict(self, inputs: list[WireBatch]) -> list[bytes]:
            crops = np.concatenate([each.images for each in inputs])
            extras = {name: np.concatenate([each.extras[name] for each in inputs]) for name in inputs[0].extras}
            swaps = self.model.predict(crops, **extras)
            ends = np.cumsum([len(each.images) for each in inputs])
            return [_encoded(part, each) for part, each in zip(np.split(swaps, ends[:-1]), inputs, strict=True)]

        def unbatch(self, output: list[bytes]) -> list[bytes]:
            return output

        def encode_response(self, output: bytes) -> Response:
            return Response(output, media_type=MEDIA_TYPE)

    api = Api(max_batch_size=_BATCH, batch_timeout=_BATCH_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    kind, path, port = sys.argv[1:]
    {"fastapi": _serve_fastapi, "litserve": _serve_litserve}[kind](path, int(port))
