"""A local server of the Vertex AI v1 REST surface that the SDK calls, strict where Google is.

Bodies are parsed into Google's own protocol buffers (an unknown field is refused), names,
labels, aliases, traffic splits and autoscaling targets are checked, operations are not done
at the first poll, and predict and rawPredict are forwarded to model servers on loopback.
"""

import base64
import http.client
import itertools
import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from google.cloud import aiplatform_v1 as v1

SHARED_LIMIT_BYTES = 1_500_000
DEDICATED_LIMIT_BYTES = 10_000_000
METRICS = {
    "aiplatform.googleapis.com/prediction/online/cpu/utilization",
    "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle",
    "aiplatform.googleapis.com/prediction/online/request_count",
}
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_ALIAS = re.compile(r"-?[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."


class RefusalError(Exception):
    """What Google would answer instead of doing it."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


@dataclass
class Operation:
    """A long-running operation; done once it was polled `polls_left` times."""

    name: str
    polls_left: int
    response: dict[str, Any]
    effect: Callable[[], None] = lambda: None

    def to_dict(self) -> dict[str, Any]:
        if self.polls_left > 0:
            return {"name": self.name, "metadata": {"@type": _TYPE + "DeployModelOperationMetadata"}}
        self.effect()
        return {"name": self.name, "done": True, "response": self.response}


@dataclass
class VertexState:
    """What the server knows; tests read it and set faults in it."""

    parent: str = "projects/demo/locations/europe-west4"
    polls: int = 2
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)  # resumable uploads: id -> the object's name
    backends: dict[str, tuple[str, int]] = field(default_factory=dict)  # model version id -> model server
    operations: dict[str, Operation] = field(default_factory=dict)
    faults: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # verb -> statuses to answer first
    calls: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)  # issued by /token
    dns: str = ""  # of dedicated endpoints: this server under another name
    served: Counter[str] = field(default_factory=Counter)
    ids: Any = field(default_factory=lambda: itertools.count(1001))
    lock: threading.RLock = field(default_factory=threading.RLock)


class VertexServer:
    """The server, open inside a `with`."""

    def __init__(self) -> None:
        self.state = VertexState()
        handler = type("BoundHandler", (VertexHandler,), {"state": self.state})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.state.dns = f"localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "VertexServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class VertexHandler(BaseHTTPRequestHandler):
    """Routes one request."""

    state: VertexState
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        verb = path.rsplit(":", 1)[-1] if ":" in path else f"{self.command} {path.rsplit('/', 2)[-2]}"
        self.state.calls.append((self.command, path))
        try:
            if self.state.faults[verb]:
                code = self.state.faults[verb].pop(0)
                raise RefusalError(code, {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}[code], "Try again later.")
            if verb in ("predict", "rawPredict"):
                self._forward(path, verb, body)
            elif path == "/token":
                self.state.tokens.append(f"token-{next(self.state.ids)}")
                self._send(200, {"access_token": self.state.tokens[-1], "expires_in": 3600, "token_type": "Bearer"})
            elif path.startswith(("/upload/storage/", "/download/storage/", "/storage/")):
                self._store(path, body)
            else:
                with self.state.lock:
                    self._send(200, Control(self.state).answer(self.command, path, self.path, body))
        except RefusalError as error:
            refusal = {"error": {"code": error.code, "message": error.message, "status": error.status}}
            self._send(error.code, refusal)

    def _forward(self, path: str, verb: str, body: bytes) -> None:
        name = path.removeprefix("/v1/").rsplit(":", 1)[0]
        endpoint = self.state.endpoints.get(name)
        if endpoint is None:
            raise RefusalError(404, "NOT_FOUND", f"Endpoint {name} is not found.")
        is_dedicated = bool(endpoint.get("dedicatedEndpointEnabled"))
        host = self.headers.get("Host", "")
        if is_dedicated and host != endpoint["dedicatedEndpointDns"]:
            raise RefusalError(400, "FAILED_PRECONDITION", f"Dedicated Endpoint cannot be accessed through {host!r}.")
        limit = DEDICATED_LIMIT_BYTES if is_dedicated else SHARED_LIMIT_BYTES
        if len(body) > limit:
            raise RefusalError(413, "INVALID_ARGUMENT", f"Request payload exceeds {limit} bytes.")
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.state.tokens:
            raise RefusalError(401, "UNAUTHENTICATED", "Request is missing required authentication credential.")
        deployed = self._pick(endpoint)
        headers = {
            k: v for k, v in self.headers.items() if k.lower() not in ("host", "authorization", "content-length")
        }
        connection = http.client.HTTPConnection(*self.state.backends[deployed["modelVersionId"]], timeout=30)
        connection.request("POST", "/predict", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = ("content-type", "retry-after", "x-")
        passed = {key: value for key, value in answer.getheaders() if key.lower().startswith(kept)}
        connection.close()
        if verb == "predict" and answer.status == 200:
            merged = {**json.loads(content), "deployedModelId": deployed["id"], "model": deployed["model"]}
            self._send(200, {**merged, "modelVersionId": deployed["modelVersionId"]})
        else:
            self._send_bytes(answer.status, content, {**passed, "X-Vertex-AI-Deployed-Model-Id": deployed["id"]})

    def _pick(self, endpoint: dict[str, Any]) -> dict[str, Any]:
        """Choose the deployed model that lags furthest behind its share: an exact, repeatable split."""
        with self.state.lock:
            split = {key: share for key, share in endpoint.get("trafficSplit", {}).items() if share}
            if not split:
                raise RefusalError(400, "FAILED_PRECONDITION", "The endpoint has no traffic split.")
            chosen = min(split, key=lambda key: (self.state.served[key] + 1) / split[key])
            self.state.served[chosen] += 1
            return next(entry for entry in endpoint["deployedModels"] if entry["id"] == chosen)

    def _store(self, path: str, body: bytes) -> None:
        """Cloud Storage: one object in one multipart request, listing, reading."""
        if self.command == "GET":
            self._read_object(path)
            return
        bucket = path.split("/b/")[1].split("/")[0]
        query = parse_qs(urlsplit(self.path).query)
        if query.get("uploadType") == ["resumable"]:
            self._store_resumable(bucket, query, body)
            return
        head, _, rest = body.partition(b"\r\n\r\n")
        boundary = body.split(b"\r\n", 1)[0]
        meta, _, tail = rest.partition(b"\r\n" + boundary)
        content = tail.partition(b"\r\n\r\n")[2].rsplit(b"\r\n" + boundary, 1)[0]
        assert b"application/json" in head, "multipart upload must begin with JSON"
        name = json.loads(meta)["name"]
        self._keep(bucket, name, content)

    def _store_resumable(self, bucket: str, query: dict[str, list[str]], body: bytes) -> None:
        """A session names the object, then one PUT brings it whole."""
        if self.command == "POST":
            session = str(next(self.state.ids))
            self.state.sessions[session] = json.loads(body)["name"]
            where = f"http://{self.headers['Host']}{self.path}&upload_id={session}"
            self._send_bytes(200, b"{}", {"Content-Type": "application/json", "Location": where})
            return
        assert self.headers["Content-Range"] == f"bytes 0-{len(body) - 1}/{len(body)}", self.headers["Content-Range"]
        self._keep(bucket, self.state.sessions.pop(query["upload_id"][0]), body)

    def _keep(self, bucket: str, name: str, content: bytes) -> None:
        self.state.objects[f"{bucket}/{name}"] = content
        crc32c = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        self._send(200, {"name": name, "bucket": bucket, "size": str(len(content)), "crc32c": crc32c})

    def _read_object(self, path: str) -> None:
        bucket, _, rest = path.split("/b/")[1].partition("/o")
        name = rest.removeprefix("/")
        if name and f"{bucket}/{name}" in self.state.objects:
            self._send_bytes(200, self.state.objects[f"{bucket}/{name}"], {"Content-Type": "application/zip"})
        elif "/o" in path.split("/b/")[1]:
            prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
            keys = [key.removeprefix(f"{bucket}/") for key in self.state.objects]
            items = [{"name": key, "bucket": bucket} for key in keys if key.startswith(prefix)]
            self._send(200, {"kind": "storage#objects", "items": items})
        else:
            self._send(200, {"name": bucket, "location": "EUROPE-WEST4"})

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send_bytes(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the base class's names


class Control:
    """The control plane: models, endpoints, operations."""

    def __init__(self, state: VertexState) -> None:
        self.state = state

    def answer(self, method: str, path: str, target: str, body: bytes) -> dict[str, Any]:
        """Answer one call.

        Raises:
            RefusalError: Google would refuse it.
        """
        name = path.removeprefix("/ui/" if "/operations/" in path else "/v1/")  # the SDK polls under /ui/
        if not name.startswith(self.state.parent):
            raise RefusalError(403, "PERMISSION_DENIED", f"{name} is not within {self.state.parent}.")
        query = parse_qs(urlsplit(target).query)
        if method == "GET":
            return self._get(name, query)
        if method == "PATCH":
            return self._patch(name, query, body)
        if method == "DELETE":
            self._endpoint(name)
            if self.state.endpoints[name].get("deployedModels"):
                raise RefusalError(400, "FAILED_PRECONDITION", "The endpoint still has deployed models.")
            operation = self._new_operation("type.googleapis.com/google.protobuf.Empty", {}, max(1, self.state.polls))
            operation.effect = lambda: self.state.endpoints.pop(name, None) and None
            return operation.to_dict()
        base, _, verb = name.partition(":")
        actions = {"upload": self._upload, "deployModel": self._deploy, "undeployModel": self._undeploy}
        if verb == "mergeVersionAliases":
            return self._merge_aliases(base, body)
        if verb in actions:
            return actions[verb](base, body)
        if name == f"{self.state.parent}/endpoints":
            return self._create_endpoint(body)
        raise RefusalError(404, "NOT_FOUND", f"{method} {name} is not part of this API.")

    def _get(self, name: str, query: dict[str, list[str]]) -> dict[str, Any]:
        if "/operations/" in name:
            operation = self.state.operations[name[name.index("/operations/") :]]
            operation.polls_left -= 1
            return operation.to_dict()
        if name.endswith(":listVersions"):
            return {"models": self.state.versions[name.removesuffix(":listVersions")]}
        if name.endswith(("/models", "/endpoints")):
            kind = name.rsplit("/", 1)[1]
            held = [v[-1] for v in self.state.versions.values()] if kind == "models" else self.state.endpoints.values()
            match = re.fullmatch(r'display_name="(.+)"', query.get("filter", [""])[0])
            return {kind: [r for r in held if match is None or r["displayName"] == match[1]]}
        return self._version(name) if "/models/" in name else self._endpoint(name)

    def _upload(self, _: str, body: bytes) -> dict[str, Any]:
        request = _parse(v1.UploadModelRequest, body)
        model = json.loads(body)["model"]
        parent = json.loads(body).get("parentModel", "")
        container = request.model.container_spec
        _require(bool(request.model.display_name), "display_name is required.")
        _require("-docker.pkg.dev/" in container.image_uri, f"Image {container.image_uri!r} must lie in a registry.")
        _require(request.model.artifact_uri.startswith("gs://"), "artifact_uri must be a Cloud Storage path.")
        _require(container.predict_route.startswith("/") and container.health_route.startswith("/"), "Bad routes.")
        _require(len(container.ports) == 1, "Exactly one port is served.")
        for key, value in dict(request.model.labels).items():
            _require(bool(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)), f"Invalid label {key}={value}.")
        for alias in request.model.version_aliases:
            _require(bool(_ALIAS.fullmatch(alias)), f"Invalid alias {alias!r}.")
        if parent and parent not in self.state.versions:
            raise RefusalError(404, "NOT_FOUND", f"Model {parent} is not found.")
        name = parent or f"{self.state.parent}/models/{next(self.state.ids)}"
        versions = self.state.versions.setdefault(name, [])
        aliases = list(request.model.version_aliases)
        if not versions and "default" not in aliases:
            aliases.append("default")
        for version in versions:
            version["versionAliases"] = [alias for alias in version["versionAliases"] if alias not in aliases]
        number = str(len(versions) + 1)
        added = {**model, "name": name, "versionId": number, "versionAliases": aliases}
        versions.append({**added, "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"]})
        return self._operation("UploadModelResponse", {"model": name, "modelVersionId": number})

    def _create_endpoint(self, body: bytes) -> dict[str, Any]:
        request = _parse(v1.Endpoint, body)
        _require(bool(request.display_name), "display_name is required.")
        number = next(self.state.ids)
        endpoint = {**json.loads(body), "name": f"{self.state.parent}/endpoints/{number}"}
        if request.dedicated_endpoint_enabled:
            endpoint["dedicatedEndpointDns"] = self.state.dns
        self.state.endpoints[endpoint["name"]] = endpoint
        return self._operation("Endpoint", {"name": endpoint["name"]})

    def _deploy(self, name: str, body: bytes) -> dict[str, Any]:
        request = _parse(v1.DeployModelRequest, body)
        endpoint = self._endpoint(name)
        version = self._version(request.deployed_model.model)
        _check_resources(request.deployed_model.dedicated_resources)
        number = str(next(self.state.ids))
        present = {entry["id"] for entry in endpoint.get("deployedModels", [])}
        split = dict(request.traffic_split) or ({"0": 100} if not present else {})
        _require(sum(split.values()) in (0, 100), f"The traffic split must sum to 100, got {split}.")
        _require(set(split) <= present | {"0"}, f"The traffic split names unknown models: {split}.")
        deployed = json.loads(body)["deployedModel"]
        entry = {**deployed, "id": number, "modelVersionId": version["versionId"], "model": version["name"]}
        entry["createTime"] = f"2026-01-01T00:00:{len(self.state.operations):02d}Z"
        endpoint.setdefault("deployedModels", []).append(entry)
        if split:
            endpoint["trafficSplit"] = {number if key == "0" else key: share for key, share in split.items()}
        return self._operation("DeployModelResponse", {"deployedModel": entry})

    def _undeploy(self, name: str, body: bytes) -> dict[str, Any]:
        request = _parse(v1.UndeployModelRequest, body)
        endpoint = self._endpoint(name)
        split = dict(request.traffic_split) or endpoint.get("trafficSplit", {})
        others = [entry for entry in endpoint["deployedModels"] if entry["id"] != request.deployed_model_id]
        _require(len(others) < len(endpoint["deployedModels"]), f"No deployed model {request.deployed_model_id}.")
        has_traffic = split.get(request.deployed_model_id, 0) > 0
        _require(not (has_traffic and others), "The deployed model still receives traffic.")
        endpoint["deployedModels"] = others
        endpoint["trafficSplit"] = {k: v for k, v in split.items() if k != request.deployed_model_id}
        return self._operation("UndeployModelResponse", {})

    def _patch(self, name: str, query: dict[str, list[str]], body: bytes) -> dict[str, Any]:
        request = _parse(v1.Endpoint, body)
        endpoint = self._endpoint(name)
        if query.get("updateMask") == ["labels"]:
            for key, value in dict(request.labels).items():
                _require(bool(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)), f"Bad label {key}={value}.")
            endpoint["labels"] = dict(request.labels)
            return endpoint
        _require(query.get("updateMask") == ["trafficSplit"], f"Only labels or the split are updated, got {query}.")
        split = dict(request.traffic_split)
        present = {entry["id"] for entry in endpoint.get("deployedModels", [])}
        _require(sum(split.values()) == 100 and set(split) <= present, f"Bad traffic split {split}.")
        endpoint["trafficSplit"] = split
        return endpoint

    def _merge_aliases(self, name: str, body: bytes) -> dict[str, Any]:
        request = _parse(v1.MergeVersionAliasesRequest, body)
        version = self._version(name)
        for alias in request.version_aliases:
            _require(bool(_ALIAS.fullmatch(alias)), f"Invalid alias {alias!r}.")
            for other in self.state.versions[version["name"]]:
                other["versionAliases"] = [held for held in other["versionAliases"] if held != alias]
            version["versionAliases"].append(alias)
        return version

    def _endpoint(self, name: str) -> dict[str, Any]:
        if name not in self.state.endpoints:
            raise RefusalError(404, "NOT_FOUND", f"Endpoint {name} is not found.")
        return self.state.endpoints[name]

    def _version(self, name: str) -> dict[str, Any]:
        base, _, wanted = name.partition("@")
        for version in self.state.versions.get(base, []):
            if version["versionId"] == wanted or (wanted or "default") in version["versionAliases"]:
                return version
        raise RefusalError(404, "NOT_FOUND", f"Model {name} is not found.")

    def _operation(self, kind: str, response: dict[str, Any]) -> dict[str, Any]:
        return self._new_operation(_TYPE + kind, response, self.state.polls).to_dict()

    def _new_operation(self, kind: str, response: dict[str, Any], polls: int) -> Operation:
        name = f"{self.state.parent}/operations/{next(self.state.ids)}"
        operation = Operation(name, polls, {"@type": kind, **response})
        self.state.operations[name[name.index("/operations/") :]] = operation
        return operation


def _check_resources(resources: Any) -> None:
    _require(bool(resources.machine_spec.machine_type), "machine_type is required.")
    _require(1 <= resources.min_replica_count <= resources.max_replica_count, "Bad replica counts.")
    for metric in resources.autoscaling_metric_specs:
        _require(metric.metric_name in METRICS, f"Unknown metric {metric.metric_name!r}.")
        _require(metric.target >= 1, f"Bad target {metric.target}.")
    machine, gpu = resources.machine_spec.machine_type, resources.machine_spec.accelerator_type.name
    fits = {"NVIDIA_L4": "g2-", "NVIDIA_TESLA_T4": "n1-", "ACCELERATOR_TYPE_UNSPECIFIED": ""}.get(gpu)
    _require(fits is not None and machine.startswith(fits), f"{gpu} is not available on {machine}.")
    has_duty_cycle = any("duty_cycle" in metric.metric_name for metric in resources.autoscaling_metric_specs)
    _require(not has_duty_cycle or resources.machine_spec.accelerator_count > 0, "Duty cycle needs an accelerator.")


def _parse(kind: Any, body: bytes) -> Any:
    """Parse a body into Google's message, refusing unknown fields as Google does."""
    try:
        return kind.from_json(body.decode(), ignore_unknown_fields=False)
    except Exception as error:
        raise RefusalError(400, "INVALID_ARGUMENT", f"Invalid JSON payload received: {error}") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RefusalError(400, "INVALID_ARGUMENT", message)
