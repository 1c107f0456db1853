"""The Open Inference Protocol v2 (REST, with Triton's binary tensors) over an Exchange, free of any web framework.

`/v2`, `/v2/health/live|ready`, `/v2/models/{variant}`, its `/ready` and `/infer`: what Triton, KServe, Seldon and
MLServer speak, so that their clients find a persona like any other model. One model a variant; its version is the
bundle's. Tensors go as JSON numbers or, far cheaper, as bytes behind the JSON.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import WireError
from liveframe.model import BatchSpec, TensorSpec, are_complete
from serving.server.body import read_json
from serving.server.exchange import DEADLINE_HEADER, Exchange, Reply

Tensor = NDArray[np.generic]

HEADER_LENGTH = "Inference-Header-Content-Length"
_JSON = "application/json"
_BYTES = "application/octet-stream"
# The protocol's names of what our models take and give.
_TYPES: Mapping[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
_NAMES = {"uint8": "UINT8", "float32": "FP32"}
_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")
_MOST_TENSORS = 8
_MOST_VALUES = 250_000  # a crop of 256 px as numbers; larger tensors come as bytes


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed request.

    Attributes:
        id: the client's own name for it; comes back with the answer.
        tensors: by name, in the order given; read-only where they are bytes of the body.
        outputs: names that are wanted; empty for all.
        binary: names of outputs that shall be bytes.
        is_all_binary: whether all shall.
        timeout_ms: how long the answer is worth having; None where the client does not say.
    """

    id: str
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    binary: frozenset[str]
    is_all_binary: bool
    timeout_ms: float | None


class OpenInference:
    """Answers the routes under `/v2`.

    Args:
        exchange: does the work, within its own limits.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def answer(self, method: str, path: str, headers: Mapping[str, str], stream: AsyncIterable[bytes]) -> Reply:
        """Answer one request.

        Args:
            method: GET or POST.
            path: from `/v2` on, without a query.
            headers: names in lower case.
            stream: the body as it arrives.
        """
        if path == "/v2/health/live":
            return Reply(200, {"Content-Type": _JSON}, b"{}")
        if path == "/v2/health/ready":
            return self._ready()
        if not self._exchange.is_healthy:
            return _refusal(503, "The bundle is not loaded, or the server is shutting down.")
        if path == "/v2":
            return _json(self._server())
        match = _MODEL.fullmatch(path)
        if match is None or method != ("POST" if match["verb"] == "/infer" else "GET"):
            return _refusal(404, f"{method} {path[:80]} is not a route of the Open Inference Protocol v2 here.")
        bundle = self._exchange.routine.bundle
        if match["name"] not in bundle.variants or match["version"] not in (None, bundle.version):
            return _refusal(404, f"The model must be one of {', '.join(bundle.variants)}, version {bundle.version}.")
        if match["verb"] != "/infer":
            return self._ready() if match["verb"] else _json(self._metadata(match["name"]))
        asked, length = headers.get(DEADLINE_HEADER), headers.get(HEADER_LENGTH.lower())
        reply = await self._exchange.guarded(asked, headers, stream, partial(self._infer, match["name"], length))
        if reply.status == 200:
            return reply
        return Reply(reply.status, {**reply.headers, "Content-Type": _JSON}, _error(reply.body.decode()))

    def _ready(self) -> Reply:
        is_ready = self._exchange.is_healthy
        return Reply(200 if is_ready else 503, {"Content-Type": _JSON}, b"{}" if is_ready else _error("not loaded"))

    def _server(self) -> dict[str, Any]:
        return {
            "name": "understudy",
            "version": self._exchange.routine.bundle.version,
            "extensions": ["binary_tensor_data"],
        }

    def _metadata(self, variant: str) -> dict[str, Any]:
        bundle, spec = self._exchange.routine.bundle, self._exchange.routine.model(variant).spec
        return {
            "name": variant,
            "versions": [bundle.version],
            "platform": "onnxruntime_onnx",
            "inputs": [_described(port) for port in inputs_of(spec)],
            "outputs": [_described(output_of(spec))],
            "parameters": {"bundle": bundle.digest},
        }

    async def _infer(self, variant: str, header_length: str | None, body: bytes, deadline_s: float) -> Reply:
        request = parse_infer(body, header_length)
        if request.timeout_ms is not None:
            deadline_s = min(deadline_s, time.monotonic() + request.timeout_ms / 1e3)
        spec = self._exchange.routine.model(variant).spec
        given = _checked(request.tensors, spec)
        wanted = output_of(spec).name
        if unknown := set(request.outputs) - {wanted}:
            raise WireError(f"The outputs must be of {wanted}, but {', '.join(sorted(unknown))} was asked for.")
        crops = cast(NDArray[np.uint8], given.pop(spec.input_name))
        extras = cast(dict[str, NDArray[np.float32]], given)
        answer = await self._exchange.predict(variant, crops, extras, deadline_s)
        return self._written(variant, request, wanted, answer)

    def _written(self, variant: str, request: InferRequest, name: str, answer: NDArray[np.uint8]) -> Reply:
        bundle = self._exchange.routine.bundle
        output: dict[str, Any] = {"name": name, "datatype": "UINT8", "shape": list(answer.shape)}
        document = {
            "model_name": variant,
            "model_version": bundle.version,
            "parameters": {"bundle": bundle.digest},
            "outputs": [output],
            **({"id": request.id} if request.id else {}),
        }
        if not (request.is_all_binary or name in request.binary):
            output["data"] = answer.ravel().tolist()
            return Reply(200, self._exchange.named(_JSON), json.dumps(document).encode())
        content = answer.tobytes()
        output["parameters"] = {"binary_data_size": len(content)}
        head = json.dumps(document).encode()
        return Reply(200, {**self._exchange.named(_BYTES), HEADER_LENGTH: str(len(head))}, head + content)


def inputs_of(spec: BatchSpec) -> tuple[TensorSpec, ...]:
    """Return what a model takes, by name: its crops, then the tensors that accompany them."""
    return (TensorSpec(spec.input_name, "uint8", spec.input_shape), *spec.extras)


def output_of(spec: BatchSpec) -> TensorSpec:
    """Return what a model answers."""
    return TensorSpec(spec.output_name, "uint8", spec.output_shape)


def _described(port: TensorSpec) -> dict[str, Any]:
    return {"name": port.name, "datatype": _NAMES[port.dtype], "shape": [-1, *port.shape]}


def parse_infer(body: bytes, header_length: str | None) -> InferRequest:
    """Read the body of an infer request.

    Args:
        body: JSON, and behind it the bytes of the tensors that have a `binary_data_size`.
        header_length: the header that tells how long the JSON is; None where there is nothing but JSON.

    Raises:
        WireError: anything about it is wrong; says what.
    """
    if header_length is not None and not (header_length.isdecimal() and int(header_length) <= len(body)):
        raise WireError(f"{HEADER_LENGTH} must be from 0 to {len(body)}, but is {header_length!r:.40}.")
    length = len(body) if header_length is None else int(header_length)
    fields = _object(read_json(body[:length], _MOST_VALUES), "The body")
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= _MOST_TENSORS:
        raise WireError(f'"inputs" must be a list of 1 to {_MOST_TENSORS} tensors. Check the request.')
    tensors: dict[str, Tensor] = {}
    at = length
    for entry in inputs:
        name, tensor, at = _tensor(_object(entry, "An input"), body, at)
        if name in tensors:
            raise WireError(f"Every input must have a name of its own, but {name!r:.60} stands twice.")
        tensors[name] = tensor
    if at != len(body):
        raise WireError(f"The body must have {at} bytes by its header, but has {len(body)}. Send it again.")
    outputs = [_object(entry, "An output") for entry in fields.get("outputs") or []]
    parameters = _object(fields.get("parameters") or {}, '"parameters"')
    return InferRequest(
        id=str(fields.get("id", ""))[:128],
        tensors=tensors,
        outputs=tuple(str(output.get("name", "")) for output in outputs),
        binary=frozenset(str(output.get("name")) for output in outputs if _wants_binary(output)),
        is_all_binary=parameters.get("binary_data_output") is True,
        timeout_ms=_timeout_ms(parameters.get("timeout")),
    )


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{what} must be a JSON object. Check the request.")
    return cast(Mapping[str, Any], value)


def _wants_binary(output: Mapping[str, Any]) -> bool:
    return _object(output.get("parameters") or {}, "An output's parameters").get("binary_data") is True


def _timeout_ms(value: Any) -> float | None:
    """Read Triton's `timeout`, in microseconds."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise WireError(f"A timeout must be a number of microseconds above 0, but is {value!r:.40}.")
    return value / 1e3


def _tensor(entry: Mapping[str, Any], body: bytes, at: int) -> tuple[str, Tensor, int]:
    """Read one tensor; returns its name, itself, and where the next one's bytes begin."""
    name: Any = entry.get("name")
    kind: Any = entry.get("datatype")
    shape: Any = entry.get("shape")
    if not isinstance(name, str) or not name:
        raise WireError("An input must have a name. Check the request.")
    if kind not in _TYPES:
        raise WireError(f"The datatype of {name!r:.60} must be one of {', '.join(_TYPES)}, but is {kind!r:.40}.")
    if not _is_shape(shape):
        raise WireError(f"The shape of {name!r:.60} must be 1 to 5 numbers above 0, but is {shape!r:.80}.")
    dtype, count = _TYPES[kind], math.prod(shape)
    parameters = _object(entry.get("parameters") or {}, "An input's parameters")
    size = parameters.get("binary_data_size")
    if size is None:
        return name, _from_numbers(entry.get("data"), dtype, shape, name), at
    if size != count * dtype.itemsize or at + size > len(body):
        raise WireError(
            f"{name!r:.60} of shape {shape} must have {count * dtype.itemsize} bytes, but has {size!r:.40}."
        )
    return name, np.frombuffer(body, dtype, count, at).reshape(shape), at + size


def _is_shape(shape: Any) -> bool:
    is_list = isinstance(shape, list) and 1 <= len(cast(Sequence[Any], shape)) <= 5
    return is_list and all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 1 << 20 for n in shape)


def _from_numbers(data: Any, dtype: np.dtype[Any], shape: Sequence[int], name: str) -> Tensor:
    try:
        values = np.asarray(data, np.float64)
        if values.size != math.prod(shape):
            raise ValueError(f"it has {values.size} numbers, not {math.prod(shape)}")
        if dtype.kind == "u" and not (np.all(values >= 0) and np.all(values <= 255) and np.all(values % 1 == 0)):
            raise ValueError("some are not whole numbers from 0 to 255")
        return values.astype(dtype).reshape(shape)
    except (ValueError, TypeError) as error:
        raise WireError(f'"data" of {name!r:.60} must hold the numbers of its shape, but {error}.') from error


def _checked(tensors: Mapping[str, Tensor], spec: BatchSpec) -> dict[str, Tensor]:
    """Check that the tensors are what a model takes, all for the same number of crops."""
    ports = {port.name: port for port in inputs_of(spec)}
    if not are_complete(tensors, ports.values()):
        raise WireError(f"The inputs must be {', '.join(ports)}, but are {', '.join(sorted(tensors))[:200]}.")
    counts = {tensor.shape[0] for tensor in tensors.values()}
    for name, tensor in tensors.items():
        port = ports[name]
        if tensor.dtype != np.dtype(port.dtype) or tensor.shape[1:] != port.shape or len(counts) != 1:
            raise WireError(
                f"{name} must be {_NAMES[port.dtype]} [N, {', '.join(map(str, port.shape))}], the same N for all, "
                f"but is {tensor.dtype} {list(tensor.shape)}."
            )
    return dict(tensors)


def _json(document: Mapping[str, Any]) -> Reply:
    return Reply(200, {"Content-Type": _JSON}, json.dumps(document).encode())


def _refusal(status: int, sentence: str) -> Reply:
    return Reply(status, {"Content-Type": _JSON}, _error(sentence))


def _error(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode()
