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


def first_model(bundle: str) -> Any:
    """Return what plays a bundle's first persona on crops."""
    opened = Bundle.load(Path(bundle))
    return crop_model(opened, opened.personas[0].name)


def encoded(swaps: NDArray[np.uint8], asked: WireBatch) -> bytes:
    """Return an answer as our server writes it."""
    mask = Encoding.PNG if asked.encoding is Encoding.PNG else Encoding.JPEG
    return encode_batch(swaps, asked.encoding, mask, QUALITY)


def _serve_fastapi(bundle: str, port: int) -> None:
    """Read the body, run the model on a thread of the pool, answer."""
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool

    app, model = FastAPI(), first_model(bundle)

    def answered(body: bytes) -> bytes:
        batch = decode_batch(body, LIMITS)
        return encoded(model.predict(batch.images, **batch.extras), batch)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return Response(await run_in_threadpool(answered, await request.body()), media_type=MEDIA_TYPE)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def _serve_litserve(bundle: str, port: int) -> None:
    """Serve by LitServe, a worker for each core."""
    import litserve

    from benchmarks.harness.litserve_peer import FaceApi

    api = FaceApi(max_batch_size=_BATCH, batch_timeout=_BATCH_S)
    api.bundle = bundle
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


def main(arguments: list[str]) -> None:
    """Serve."""
    kind, path, port = arguments
    {"fastapi": _serve_fastapi, "litserve": _serve_litserve}[kind](path, int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
