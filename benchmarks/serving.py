"""The serving tier on loopback: `python -m benchmarks.serving` prints one JSON object.

Overhead: what a request costs beyond the bare model call, for raw bytes and for JSON, in
turn with that call. Overload: goodput and waits at one, two, four and ten times the
peak, and the order of a stream's pictures at two times of it. Delay: frames per second through a client with several
requests in flight, with the embedded model and with a network 40 ms away. Path: the same for the app's whole path,
camera frame to shown frame, and the largest difference between its pixels, crops sent raw. Peers (`--peers`): faces a
second of 16 callers, beside the same bundle behind LitServe and behind plain FastAPI, in turn.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.harness.delayed import delayed
from benchmarks.harness.load import Outcome, closed_loop, http_request, open_loop
from benchmarks.harness.machine import machine
from benchmarks.harness.moving_face import frames
from benchmarks.harness.peer_servers import FORM_FIELD, KINDS
from benchmarks.harness.ports import free_port
from benchmarks.harness.remote_path import compare_pixels, compare_rates, stream
from benchmarks.harness.sent_faces import sent_faces
from benchmarks.harness.serving_process import OUR_SERVER, ROOT, SDK_SERVER, running, serving
from liveframe.model import BatchModel
from liveframe.remote.client import LocalClient, RemoteClient, RemotePolicy
from liveframe.remote.picture import Encoding
from liveframe.remote.transport import Transport
from liveframe.remote.wire import MEDIA_TYPE, batch_from_json, batch_to_json, encode_batch
from serving.vertex.client import RemoteModel, RemoteSettings
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.swap.renderer import AsyncBatchModel
from understudy.swap.served import crop_model, far_renderer
from understudy.swap.swapper import FaceSwapper

Batch = NDArray[np.uint8]
Call = Callable[[Batch], Batch]
SIZE = (640, 480)
PICTURES = 90
_CALLERS = 16
_ENCODINGS = {"raw": Encoding.RAW, "jpeg": Encoding.JPEG}
_BOUNDARY = "understudy-face"


def measure_overhead(url: str, model: BatchModel, rounds: int) -> dict[str, dict[str, float]]:
    """Time the bare model and every way to the served one, in turn, one crop a call.

    Returns:
        By way: median wait, what it adds to the bare call of the same round (median and 10th percentile), and what
        it adds in processor time of client and server together, in ms.
    """
    crops = smooth_crops(model.spec.input_shape, 4)[:, None]
    encodings = {"raw": Encoding.RAW, "jpeg": Encoding.JPEG, "webp": Encoding.WEBP}
    policies = {name: RemotePolicy(deadline_s=9, encoding=encoding) for name, encoding in encodings.items()}
    clients = {name: RemoteClient(f"{url}/predict", model.spec, policy) for name, policy in policies.items()}
    ways: dict[str, Call] = {name: client.predict for name, client in clients.items()}
    transport = Transport(f"{url}/predict")
    ways["json_base64"] = lambda batch: _ask_json(transport, batch)
    bare_ms: list[float] = []
    waits_ms: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 5):
        batch = crops[index % len(crops)]
        bare = _timed(model.predict, batch)
        times = {name: _timed(call, batch) for name, call in ways.items()}
        if index >= 5:
            bare_ms.append(bare)
            for name, value in times.items():
                waits_ms[name].append(value)
    cpu_ms = {name: _cpu_ms(call, crops[0], rounds // 2) for name, call in {"bare": model.predict, **ways}.items()}
    for client in clients.values():
        client.close()
    transport.close()
    added = {name: np.array(values) - np.array(bare_ms) for name, values in waits_ms.items()}
    figures = {
        name: {
            "p50_ms": _round(np.median(waits_ms[name])),
            "added_p50_ms": _round(np.median(values)),
            "added_p10_ms": _round(np.percentile(values, 10)),
            "added_cpu_ms": _round(cpu_ms[name] - cpu_ms["bare"]),
        }
        for name, values in added.items()
    }
    bare_figures = {"p50_ms": _round(np.median(bare_ms)), "cpu_ms": _round(cpu_ms["bare"])}
    return {"bare": bare_figures, **figures, "json_to_raw": _ratios(figures["json_base64"], figures["raw"])}


def _ratios(above: dict[str, float], below: dict[str, float]) -> dict[str, float]:
    return {name: _round(above[name] / max(1e-3, below[name])) for name in above}


def _cpu_ms(call: Call, batch: Batch, rounds: int) -> float:
    """Processor time of one call, here and in the server's process together: what a busy machine does not blur."""
    processes = [psutil.Process(), *psutil.Process().children()]
    before_s = sum(sum(process.cpu_times()[:2]) for process in processes)
    for _ in range(rounds):
        call(batch)
    after_s = sum(sum(process.cpu_times()[:2]) for process in processes)
    return (after_s - before_s) / rounds * 1e3


def _ask_json(transport: Transport, batch: Batch) -> Batch:
    body = json.dumps(batch_to_json(batch)).encode()
    headers = {"Content-Type": "application/json; deadline-ms=9000"}
    answer = transport.post(body, headers, time.monotonic() + 9)
    if answer.status != 200:
        raise RuntimeError(f"The server answered {answer.status}: {answer.body[:200]!r}")
    return batch_from_json(json.loads(answer.body), "predictions")


def measure_overload(url: str, bundle: Bundle, seconds: float, deadline_ms: float) -> dict[str, object]:
    """Find the peak by closed loops, then send up to ten times of it in open loops.

    Returns:
        By load: sent, good (200 within the deadline), refused, and the longest waits as shares of the deadline.
    """
    crops, tensors = sent_faces(bundle, 1)
    body = encode_batch(crops, Encoding.JPEG, extras=tensors)
    patient = http_request(f"{url}/predict", body, f"{MEDIA_TYPE}; deadline-ms=5000")
    urgent = http_request(f"{url}/predict", body, f"{MEDIA_TYPE}; deadline-ms={deadline_ms:.0f}")
    asyncio.run(closed_loop(url, patient, 4, 0.5))
    peak = max(_goodput(asyncio.run(closed_loop(url, patient, callers, seconds)), seconds, 5e3) for callers in (8, 16))
    loads: dict[str, object] = {"peak_hz": _round(peak), "deadline_ms": deadline_ms}
    for share in (0.5, 1.0, 2.0, 4.0, 10.0):
        outcomes = asyncio.run(open_loop(url, urgent, peak * share, seconds))
        loads[f"{share:g}x"] = _load_figures(outcomes, seconds, deadline_ms, peak)
    return loads


def measure_order(url: str, bundle: Bundle, seconds: float, rate_hz: float, deadline_ms: float) -> dict[str, object]:
    """Stream a face through the server, which alone can paint it, while others send `rate_hz` requests.

    Returns:
        What the stream showed (`remote_path.Stream`), and how many of the others' requests were refused.
    """
    name = bundle.personas[0].name
    model = crop_model(bundle, name)
    crops, tensors = sent_faces(bundle, 1)
    body = encode_batch(crops, Encoding.JPEG, extras=tensors)
    request = http_request(f"{url}/predict", body, f"{MEDIA_TYPE}; deadline-ms={deadline_ms:.0f}")
    policy = RemotePolicy(deadline_s=deadline_ms / 1e3)
    with RemoteClient(f"{url}/predict", model.spec, policy) as client, ThreadPoolExecutor(1) as others:
        swapper = _swapper(bundle, client)
        swapper.warm_up()
        load = others.submit(lambda: asyncio.run(open_loop(url, request, rate_hz, seconds + 2)))
        shown = stream(swapper, frames(None, *SIZE, PICTURES), seconds)
        refused = sum(outcome.status == 429 for outcome in load.result())
    return {**asdict(shown), "others_refused": refused}


def measure_path(url: str, bundle: Bundle, seconds: float, rounds: int, delay_s: float) -> dict[str, float]:
    """Run the app's whole path with the embedded model and, as the app does, with the served one behind a slow network.

    Returns:
        `remote_path.compare_rates` (crops as JPEG), the share of crops that the embedded model had to stand in for,
        and `remote_path.compare_pixels` (crops raw).
    """
    name = bundle.personas[0].name
    pictures = frames(None, *SIZE, PICTURES)
    local = crop_model(bundle, name)
    embedded = FaceSwapper(bundle)
    with delayed(url, delay_s / 2) as far:
        remote = RemoteModel(RemoteSettings(f"{far}/predict"), local, name)
        rates = compare_rates(embedded, _swapper(bundle, remote), pictures, seconds, rounds)
        calls = remote.stats()
        remote.close()
        exact = RemotePolicy(deadline_s=4.0, encoding=Encoding.RAW)
        with RemoteClient(f"{far}/predict", local.spec, exact, parameters={"variant": name}) as client:
            pixels = compare_pixels(embedded, _swapper(bundle, client), pictures)
    share = calls.local_calls / max(1, calls.local_calls + calls.remote_calls)
    return {"delay_ms": delay_s * 1e3, **rates, "embedded_stood_in": _round(share), **pixels}


def measure_peers(path: Path, seconds: float, rounds: int) -> dict[str, object]:
    """Ask three servers of one bundle in turn, by 16 callers.

    Returns:
        By encoding and server: faces a second (median of the rounds); and ours by each peer's.
    """
    crops, tensors = sent_faces(Bundle.load(path), 1)
    bodies = {name: encode_batch(crops, encoding, extras=tensors) for name, encoding in _ENCODINGS.items()}
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in bodies}
    with contextlib.ExitStack() as stack:
        urls = {"ours": stack.enter_context(serving(str(path.resolve())))}
        for kind in KINDS:
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.harness.peer_servers", kind, str(path.resolve()), str(port)]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            urls[kind] = stack.enter_context(running(command, f"http://127.0.0.1:{port}", environment))
        for number in range(rounds + 1):  # the first one warms
            for name, body in bodies.items():
                for kind, url in urls.items():
                    request = http_request(f"{url}/predict", *_posted(kind, body))
                    outcomes = asyncio.run(closed_loop(url, request, _CALLERS, seconds))
                    rate = sum(outcome.status == 200 for outcome in outcomes) / seconds
                    if number:
                        rates[name].setdefault(kind, []).append(rate)
    figures: dict[str, object] = {}
    for name, found in rates.items():
        middle = {kind: float(np.median(values)) for kind, values in found.items()}
        ratios = {f"ours_to_{kind}": _round(middle["ours"] / max(middle[kind], 1e-3)) for kind in KINDS}
        figures[name] = {kind: _round(value) for kind, value in middle.items()} | ratios
    return {"callers": _CALLERS, **figures}


def _posted(kind: str, body: bytes) -> tuple[bytes, str]:
    """Return a body and its type as a server takes them: LitServe takes bytes as a form's file alone."""
    if kind != "litserve":
        return body, f"{MEDIA_TYPE}; deadline-ms=5000"
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{FORM_FIELD}"; filename="face"\r\n'
    part = f"{head}Content-Type: {MEDIA_TYPE}\r\n\r\n".encode() + body + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return part, f"multipart/form-data; boundary={_BOUNDARY}"


def _swapper(bundle: Bundle, model: AsyncBatchModel) -> FaceSwapper:
    """The bundle's first persona, painted far away."""
    name = bundle.personas[0].name
    return FaceSwapper(bundle, renderers={name: far_renderer(bundle, name, model)})


def _load_figures(outcomes: Sequence[Outcome], seconds: float, deadline_ms: float, peak: float) -> dict[str, object]:
    waits_ms = np.array([outcome.wait_s * 1e3 for outcome in outcomes])
    goodput = _goodput(outcomes, seconds, deadline_ms)
    statuses = [outcome.status for outcome in outcomes]
    return {
        "sent": len(outcomes),
        "statuses": {str(code): statuses.count(code) for code in sorted(set(statuses))},
        "goodput_hz": _round(goodput),
        "goodput_of_peak": _round(goodput / peak),
        "answered_late": int(sum(o.status == 200 and o.wait_s * 1e3 > deadline_ms for o in outcomes)),
        "any_late": int((waits_ms > deadline_ms).sum()),
        "wait_p50_ms": _round(np.median(waits_ms)),
        "wait_p99_ms": _round(np.percentile(waits_ms, 99)),
        "wait_max_ms": _round(waits_ms.max()),
        "generator_lag_p99_ms": _round(np.percentile([outcome.lag_s * 1e3 for outcome in outcomes], 99)),
    }


def _goodput(outcomes: Sequence[Outcome], seconds: float, deadline_ms: float) -> float:
    """Return answers within their deadline, per second of the time that they really took."""
    good = [outcome for outcome in outcomes if outcome.status == 200 and outcome.wait_s * 1e3 <= deadline_ms]
    return len(good) / seconds


def measure_delay(url: str, model: BatchModel, frames: int, delay_s: float) -> dict[str, float]:
    """Feed 30 crops a second to the embedded model, and to the served one behind a slow network.

    Returns:
        Frames per second of both, their ratio, and the largest difference of a pixel (raw encoding).
    """
    crop = smooth_crops(model.spec.input_shape, 1)
    policy = RemotePolicy(deadline_s=2.0, encoding=Encoding.RAW, max_in_flight=6)
    with delayed(url, delay_s / 2) as far, RemoteClient(f"{far}/predict", model.spec, policy) as client:
        difference = int(np.abs(client.predict(crop).astype(np.int16) - model.predict(crop)).max())
        remote = _paced(lambda: client.submit(crop), frames, in_flight=6)
        with LocalClient(model) as local:
            embedded = _paced(lambda: local.submit(crop), frames, in_flight=1)
    return {
        "delay_ms": delay_s * 1e3,
        "embedded_fps": _round(embedded),
        "remote_fps": _round(remote),
        "ratio": _round(remote / embedded),
        "largest_difference": difference,
    }


def _paced(submit: Callable[[], Future[Batch]], frames: int, in_flight: int) -> float:
    """Submit at 30 Hz, at most some at once, as a camera does; returns answers per second, errors not counted."""
    pending: list[Future[Batch]] = []
    start_s = time.perf_counter()
    good = 0
    for index in range(frames):
        time.sleep(max(0.0, start_s + index / 30 - time.perf_counter()))
        if len(pending) >= in_flight:
            good += _is_good(pending.pop(0))
        pending.append(submit())
    good += sum(_is_good(future) for future in pending)
    return good / (time.perf_counter() - start_s)


def _is_good(future: Future[Batch]) -> bool:
    return future.exception(10) is None


def smooth_crops(shape: tuple[int, int, int], count: int) -> Batch:
    """Return uint8 [count, *shape]: noise blurred into something as easy to encode as a face."""
    noise = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return np.stack([np.asarray(cv2.GaussianBlur(crop, (0, 0), 4), np.uint8) for crop in noise])


def _timed(call: Call, batch: Batch) -> float:
    start_s = time.perf_counter()
    call(batch)
    return (time.perf_counter() - start_s) * 1e3


def _round(value: object) -> float:
    return round(float(value), 3)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--deadline-ms", type=float, default=250.0)
    parser.add_argument("--parts", default="overhead,overload,delay,path", help="which to measure")
    parser.add_argument("--peers", action="store_true", help="measure LitServe and FastAPI beside ours, and no more")
    parser.add_argument("--sdk", action="store_true", help="start the SDK's own entry point instead of ours")
    options = parser.parse_args(arguments)
    bundle = Bundle.load(options.bundle)
    model = crop_model(bundle, bundle.personas[0].name)
    result: dict[str, object] = {"machine": machine(), "bundle": bundle.manifest.name, "crop": model.spec.input_shape}
    if options.peers:
        result["peers"] = measure_peers(options.bundle, options.seconds, 5)
        print(json.dumps(result, indent=2))
        return 0
    parts = options.parts.split(",")
    with serving(str(options.bundle.resolve()), SDK_SERVER if options.sdk else OUR_SERVER) as url:
        if "overhead" in parts:
            result["overhead"] = measure_overhead(url, model, options.rounds)
        if "overload" in parts:
            loads = measure_overload(url, bundle, options.seconds, options.deadline_ms)
            twice_hz = 2 * float(loads["peak_hz"])  # type: ignore[arg-type]
            loads["stream_at_2x"] = measure_order(url, bundle, options.seconds, twice_hz, options.deadline_ms)
            result["overload"] = loads
        if "delay" in parts:
            result["delay"] = measure_delay(url, model, 150, 0.04)
        if "path" in parts:
            result["path"] = measure_path(url, bundle, options.seconds, 5, 0.04)
    result["load_average_after"] = machine()["load_average"]
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
