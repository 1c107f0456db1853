"""A stand-in for Google's API on loopback: notes every call that the SDK makes and lets each succeed at once.

`--dry-run` runs the real code and the real SDK against it, so what is noted is what would be sent.
A read that repeats the call before it (the SDK's polling) is noted once.
"""

import base64
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google_crc32c import Checksum

_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."
_CREATED = "2026-01-09T00:00:00Z"


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call of the API.

    Attributes:
        method: HTTP verb.
        url: as it would go to Google.
        body: parsed JSON; for other content its type, size and SHA-256; None where there is none.
    """

    method: str
    url: str
    body: Any

    def to_json(self) -> str:
        """Return the call as one line of JSON."""
        return json.dumps({"method": self.method, "url": self.url, "body": self.body}, ensure_ascii=False)


class Rehearsal:
    """The stand-in, open inside a `with`; answers on 127.0.0.1 in a thread of its own.

    Args:
        project: named in what it answers.
        region: named in what it answers, and in the printed URLs.
        on_call: called for every call, from the server's thread.
        existing: a display name: an endpoint of that name stands already, with two versions, of which the newer one
            serves; and beside it a third one as a canary.
    """

    def __init__(
        self,
        project: str,
        region: str,
        on_call: Callable[[ApiCall], None],
        existing: str | None = None,
    ) -> None:
        self.parent = f"projects/{project}/locations/{region}"
        self.region = region
        self._on_call = on_call
        self._last: ApiCall | None = None
        self.resources: dict[str, dict[str, Any]] = {}
        self.ids = itertools.count(1)
        if existing is not None:
            self._seed(existing)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="rehearsal", daemon=True)

    def __enter__(self) -> "Rehearsal":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()

    def note(self, call: ApiCall) -> None:
        """Report a call, unless it is a read that repeats the one before."""
        if call.method != "GET" or call != self._last:
            self._on_call(call)
        self._last = call

    def new_name(self, kind: str) -> str:
        """Return a fresh resource name."""
        return f"{self.parent}/{kind}/{next(self.ids)}"

    def operation(self, kind: str, response: dict[str, Any]) -> dict[str, Any]:
        """Return a long-running operation that is done already."""
        answer = {"@type": _TYPE + kind, **response}
        return {"name": self.new_name("operations"), "done": True, "response": answer}

    def answer(self, call: ApiCall, path: str) -> dict[str, Any] | None:
        """Answer one control-plane call; None for what it does not know."""
        if call.method == "POST":
            return self._post(path, call.body or {})
        if call.method == "PATCH":
            self.resources[path].update(call.body)
            return self.resources[path]
        if call.method == "DELETE":
            self.resources.pop(path, None)
            return {"name": self.new_name("operations"), "done": True, "response": {"@type": _EMPTY}}
        if path in (f"{self.parent}/models", f"{self.parent}/endpoints"):
            kind = path.rsplit("/", 1)[1]
            wanted = re.search(r'display_name="([^"]+)"', unquote(call.url))
            held = [value for name, value in self.resources.items() if f"/{kind}/" in name]
            return {kind: [value for value in held if wanted is None or value.get("displayName") == wanted[1]]}
        if path.endswith(":listVersions"):
            return {"models": [{"name": path.partition(":")[0], "versionId": "2", "versionAliases": ["champion"]}]}
        return self.resources.get(path.split("@")[0])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        name, _, verb = path.partition(":")
        if verb == "upload":
            model = self._add("models", {"supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"], **body["model"]})
            model["versionId"] = "1"
            return self.operation("UploadModelResponse", {"model": model["name"], "modelVersionId": "1"})
        if path == f"{self.parent}/endpoints":
            return self.operation("Endpoint", {"name": self._add("endpoints", body)["name"]})
        if verb == "deployModel":
            entry = self._deploy(name, body["deployedModel"], "1", _CREATED)
            self.resources[name]["trafficSplit"] = {
                entry["id"] if key == "0" else key: share for key, share in body.get("trafficSplit", {}).items()
            }
            return self.operation("DeployModelResponse", {"deployedModel": entry})
        if verb == "undeployModel":
            left = [d for d in self.resources[name]["deployedModels"] if d["id"] != body["deployedModelId"]]
            self.resources[name]["deployedModels"] = left
            return self.operation("UndeployModelResponse", {})
        if verb == "mergeVersionAliases":
            return self.resources.get(name.split("@")[0])
        return None

    def _add(self, kind: str, resource: dict[str, Any]) -> dict[str, Any]:
        name = self.new_name(kind)
        self.resources[name] = {**resource, "name": name}
        return self.resources[name]

    def _deploy(self, endpoint: str, deployed: dict[str, Any], version: str, created: str) -> dict[str, Any]:
        entry = {**deployed, "id": str(next(self.ids)), "modelVersionId": version, "createTime": created}
        self.resources[endpoint].setdefault("deployedModels", []).append(entry)
        return entry

    def _seed(self, name: str) -> None:
        artifacts = {"artifactUri": "gs://demo/bundles/1"}
        model = self._add("models", {"displayName": name, "versionId": "1", "versionAliases": [], **artifacts})
        canary = self._add("endpoints", {"displayName": f"{name}-canary", "dedicatedEndpointEnabled": True})
        labels = {"canary": canary["name"].rsplit("/", 1)[1], "canary_percent": "10"}
        stable = self._add("endpoints", {"displayName": name, "dedicatedEndpointEnabled": True, "labels": labels})
        for endpoint, versions in ((stable, (1, 2)), (canary, (3,))):
            for version in versions:
                deployed = {"model": model["name"], "displayName": f"{name}-v{version}"}
                entry = self._deploy(endpoint["name"], deployed, str(version), f"2026-01-0{version}T00:00:00Z")
                endpoint["trafficSplit"] = {entry["id"]: 100}


_EMPTY = "type.googleapis.com/google.protobuf.Empty"


def _handler_for(rehearsal: Rehearsal) -> type[BaseHTTPRequestHandler]:
    """Make the request handler of one rehearsal."""

    class RehearsalHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet: the calls are what is printed."""

        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            if path.startswith(("/upload/", "/storage/")):
                self._store(content, path)
                return
            body = json.loads(content) if content else None
            call = ApiCall(self.command, f"https://{rehearsal.region}-aiplatform.googleapis.com{self.path}", body)
            rehearsal.note(call)
            answer = rehearsal.answer(call, path.removeprefix("/v1/"))
            self._send(200, answer) if answer is not None else self._send(
                404, {"error": {"code": 404, "message": path}}
            )

        def _store(self, content: bytes, path: str) -> None:
            """Take an object for Cloud Storage, in one piece or by a resumable session."""
            kind = self.headers.get("Content-Type", "")
            is_opening = (
                parse_qs(urlsplit(self.path).query).get("uploadType") == ["resumable"] and self.command == "POST"
            )
            if is_opening:
                opening = ApiCall(self.command, f"https://storage.googleapis.com{self.path}", json.loads(content))
                rehearsal.note(opening)
                self._send(200, {}, {"Location": f"{rehearsal.url}{self.path}&upload_id=1"})
                return
            facts = {"content_type": kind, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            rehearsal.note(
                ApiCall(self.command, f"https://storage.googleapis.com{self.path}", facts if content else None)
            )
            stored = {"name": path, "bucket": path, "size": str(len(content))}
            if self.command == "PUT":  # the client compares what arrived with what it sent
                stored["crc32c"] = base64.b64encode(Checksum(content).digest()).decode()
            self._send(200, stored)

        def _send(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            text = json.dumps(answer).encode()
            self.send_response(status)
            for key, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(text)),
                **(headers or {}),
            }.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 - the base class's names

    return RehearsalHandler
