"""Table 5, serving: our model server on loopback, from its start to requests in batches.

Closed loops of two callers, one after the other for every batch size and encoding, in rounds. How the server holds
out above its peak, and what a slow network costs, is in `benchmarks.serving`.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.load import Outcome, closed_loop, http_request
from benchmarks.harness.sent_faces import sent_faces
from benchmarks.harness.serving_process import serving
from benchmarks.harness.timing import Figures, Plan, rows, spread
from liveframe.errors import ModelError
from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, batch_to_json, encode_batch
from understudy.bundle.bundle import Bundle
from understudy.swap.served import Tensors

BATCHES = (1, 4, 16)
CALLERS = 2
PATIENCE_MS = 5000


@dataclass(frozen=True, slots=True)
class Request:
    """One row's request.

    Attributes:
        faces: how many crops it holds.
        content: the whole HTTP request.
    """

    faces: int
    content: bytes


def table(plan: Plan) -> Figures:
    """Start the server on the bundle, and load it."""
    sent = sent_faces(Bundle.load(plan.bundle), max(BATCHES))
    began_s = time.perf_counter()
    with serving(str(plan.bundle.resolve())) as url:
        healthy_s = time.perf_counter() - began_s
        requests = _requests(f"{url}/predict", *sent)
        first = _load(url, requests["raw_batch_1"], 0.2, callers=1)[0]
        start = {"healthy_s": round(healthy_s, 2), "first_answer_s": round(healthy_s + first.wait_s, 2)}
        outcomes = {name: list[Outcome]() for name in requests}
        seconds = plan.pick(1, 4) / 2
        for _ in range(plan.pick(1, 5)):
            for name, request in requests.items():
                outcomes[name] += _load(url, request, seconds)
    figures = rows("cold_start", start)
    for name, request in requests.items():
        figures |= rows(name, _figures(outcomes[name], request.faces))
    ratios = {
        "json_to_raw_wait": figures["json_batch_1.wait_p50_ms"] / figures["raw_batch_1.wait_p50_ms"],
        "batch_16_to_1_faces": figures["raw_batch_16.faces_per_s"] / figures["raw_batch_1.faces_per_s"],
    }
    return figures | rows("ratio", {name: round(value, 3) for name, value in ratios.items()})


def _requests(url: str, crops: NDArray[np.uint8], tensors: Tensors) -> dict[str, Request]:
    def request(count: int, encoding: Encoding) -> Request:
        beside = {name: each[:count] for name, each in tensors.items()}
        return _request(url, encode_batch(crops[:count], encoding, extras=beside), MEDIA_TYPE, count)

    made = {f"raw_batch_{count}": request(count, Encoding.RAW) for count in BATCHES}
    made["jpeg_batch_1"] = request(1, Encoding.JPEG)
    body = json.dumps(batch_to_json(crops[:1])).encode()
    return made | {"json_batch_1": _request(url, body, "application/json", 1)}


def _request(url: str, body: bytes, media_type: str, count: int) -> Request:
    return Request(count, http_request(url, body, f"{media_type}; deadline-ms={PATIENCE_MS}"))


def _load(url: str, request: Request, seconds: float, callers: int = CALLERS) -> list[Outcome]:
    """Keep requests in flight for some seconds; returns the answers, in the order that they came.

    Raises:
        ModelError: not one was answered.
    """
    outcomes = asyncio.run(closed_loop(f"{url}/predict", request.content, callers, seconds))
    good = [outcome for outcome in outcomes if outcome.status == 200]
    if not good:
        statuses = sorted({outcome.status for outcome in outcomes})
        raise ModelError(f"The server must answer a request for {request.faces} faces with 200, but gave {statuses}.")
    return good


def _figures(outcomes: Sequence[Outcome], faces_each: int) -> Figures:
    """Sum up a row; rates by Little's law: callers over the mean wait."""
    waits_ms = [outcome.wait_s * 1e3 for outcome in outcomes]
    rate_hz = CALLERS / float(np.mean(waits_ms)) * 1e3
    return {"requests_per_s": round(rate_hz, 2), "faces_per_s": round(rate_hz * faces_each, 2)} | spread(
        "wait", waits_ms
    )
