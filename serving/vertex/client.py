"""The app's way to a remote model: where it is served, and Google's default credentials for it.

`UNDERSTUDY_ENDPOINT` names it: `projects/P/locations/R/endpoints/ID` on Vertex AI, or the
http(s) URL of a predict route (`python -m serving.local_server`). Crops go by `rawPredict`.
"""

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from liveframe.errors import ModelError
from liveframe.model import BatchModel, BatchSpec
from liveframe.remote.client import Authorize, RemoteClient, RemotePolicy
from liveframe.remote.fallback import FallbackModel, FallbackPolicy
from understudy.any_bundle import open_servable
from understudy.bundle.bundle import BundleError

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_NAME = re.compile(r"projects/[a-z0-9:.-]+/locations/([a-z0-9-]+)/endpoints/[0-9]+")
_LOOKUP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Where the remote model is.

    Attributes:
        endpoint: resource name of a Vertex AI endpoint, or a predict route's URL; empty: there is none.
        dns: the dedicated endpoint's DNS name; empty: looked up.
        api_endpoint: base URL of the Vertex AI API; empty: Google's, for the region.
        deadline_ms: how long a frame waits for its answer.
    """

    endpoint: str = ""
    dns: str = ""
    api_endpoint: str = ""
    deadline_ms: float = 150.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read UNDERSTUDY_ENDPOINT, UNDERSTUDY_ENDPOINT_DNS, UNDERSTUDY_API and UNDERSTUDY_REMOTE_DEADLINE_MS.

        Raises:
            ValueError: the deadline is no number.
        """
        variables = os.environ if environment is None else environment
        text = variables.get("UNDERSTUDY_REMOTE_DEADLINE_MS", "") or "150"
        try:
            deadline_ms = float(text)
        except ValueError as error:
            raise ValueError(f"UNDERSTUDY_REMOTE_DEADLINE_MS must be a number, but is {text!r}. Correct it.") from error
        return cls(
            endpoint=variables.get("UNDERSTUDY_ENDPOINT", ""),
            dns=variables.get("UNDERSTUDY_ENDPOINT_DNS", ""),
            api_endpoint=variables.get("UNDERSTUDY_API", ""),
            deadline_ms=deadline_ms,
        )

    @property
    def is_on(self) -> bool:
        """Whether a remote model is named at all."""
        return bool(self.endpoint)


class TokenProvider:
    """Gives `Bearer ...` from Google's default credentials, for RemoteClient. Thread-safe.

    A token that nears its end is renewed on a thread beside, so that no frame waits for it.
    """

    def __init__(self, credentials: Any = None) -> None:
        """Take credentials.

        Args:
            credentials: google.auth credentials; None for the default ones.

        Raises:
            ModelError: there are none on this machine.
        """
        self._credentials: Any = credentials if credentials is not None else _default_credentials()
        self._lock = threading.Lock()
        self._renewing: threading.Thread | None = None

    def __call__(self) -> str:
        """Return the Authorization header's value.

        Raises:
            google.auth.exceptions.GoogleAuthError: a token cannot be had.
        """
        from google.auth.credentials import TokenState

        state = self._credentials.token_state
        if state is TokenState.INVALID:
            self._renew()
        elif state is TokenState.STALE and (self._renewing is None or not self._renewing.is_alive()):
            self._renewing = threading.Thread(target=self._renew_quietly, name="token", daemon=True)
            self._renewing.start()
        return f"Bearer {self._credentials.token}"

    def _renew(self) -> None:
        import requests
        from google.auth.credentials import TokenState
        from google.auth.transport.requests import Request

        with self._lock, requests.Session() as session:
            if self._credentials.token_state is not TokenState.FRESH:
                self._credentials.refresh(Request(session))

    def _renew_quietly(self) -> None:
        from contextlib import suppress

        from google.auth.exceptions import GoogleAuthError

        with suppress(GoogleAuthError):  # the old token still works; the next call tries again
            self._renew()


@dataclass(frozen=True, slots=True)
class Served:
    """A model that an endpoint serves now.

    Attributes:
        settings: where; of one endpoint, its DNS name known.
        digest: the bundle's, or its first 12 hex digits.
        bundle_uri: the folder in Cloud Storage that the bundle lies in; "" where only the server has it.
    """

    settings: RemoteSettings
    digest: str
    bundle_uri: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What an endpoint serves, and what a share of the viewers gets instead.

    Attributes:
        stable: what everybody else gets.
        canary: the newer version beside it; None for none.
        percent: of the viewers who get the canary.
    """

    stable: Served
    canary: Served | None = None
    percent: int = 0

    def has_canary_for(self, viewer: str) -> bool:
        """Whether a viewer, named by anything that stays theirs, gets the canary: always the same answer."""
        bucket = int.from_bytes(hashlib.sha256(viewer.encode()).digest()[:4], "big") % 100
        return self.canary is not None and bucket < self.percent


def look_up(settings: RemoteSettings, authorize: Authorize | None = None) -> Fleet:
    """Ask what is served now. Takes up to seconds: call it from a thread of its own, again and again.

    Raises:
        ModelError: the endpoint cannot be asked, or serves nothing.
    """
    if settings.endpoint.startswith(("http://", "https://")):
        health = f"{settings.endpoint.rsplit('/', 1)[0]}/health"
        return Fleet(Served(settings, str(_get(health, None, health).get("digest", ""))))
    _check_name(settings.endpoint)
    resource = _get(f"{_api(settings)}/v1/{settings.endpoint}", authorize, settings.endpoint)
    stable = _served(settings, resource, authorize)
    labels: dict[str, str] = resource.get("labels", {})
    percent = int(labels.get("canary_percent", "0"))
    if not percent or "canary" not in labels:
        return Fleet(stable)
    beside = replace(settings, endpoint=f"{settings.endpoint.rsplit('/', 1)[0]}/{labels['canary']}", dns="")
    described = _get(f"{_api(beside)}/v1/{beside.endpoint}", authorize, beside.endpoint)
    return Fleet(stable, _served(beside, described, authorize), percent)


def _served(settings: RemoteSettings, resource: dict[str, Any], authorize: Authorize | None) -> Served:
    """Say which version gets an endpoint's traffic."""
    split: dict[str, int] = resource.get("trafficSplit", {})
    serving = [entry for entry in resource.get("deployedModels", []) if split.get(entry["id"])]
    if not serving:
        raise ModelError(f"{settings.endpoint} must serve a version, but serves none. Run `python -m serving.deploy`.")
    name = f"{serving[0]['model'].partition('@')[0]}@{serving[0]['modelVersionId']}"
    model = _get(f"{_api(settings)}/v1/{name}", authorize, name)
    dns = settings.dns or str(resource.get("dedicatedEndpointDns", ""))
    digest = str(model.get("labels", {}).get("bundle", ""))
    return Served(replace(settings, dns=dns), digest, str(model.get("artifactUri", "")))


def fetch_bundle(served: Served, cache: Path) -> Path:
    """Fetch the bundle that is served, once, and verify it: what the app names in marks is what answers.

    Args:
        served: of `look_up`.
        cache: where bundles are kept, by digest.

    Returns:
        The bundle's .zip.

    Raises:
        BundleError: it is not there, or not the one that the registry names.
    """
    from serving.storage import reader

    target = cache / f"{served.digest}.zip"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        part = cache / f".{secrets.token_hex(8)}.zip"
        part.write_bytes(reader(f"{served.bundle_uri.rstrip('/')}/bundle.zip")())
        os.replace(part, target)
    found = open_servable(target).digest
    if not served.digest or not found.startswith(served.digest):
        target.unlink()
        raise BundleError(
            f"{served.bundle_uri} must hold the bundle {served.digest or 'that its label names'}, "
            f"but holds {found[:12]}. Upload the version again."
        )
    return target


def predict_url(settings: RemoteSettings, authorize: Authorize | None) -> str:
    """Return the URL to post crops to; asks Vertex AI for a dedicated endpoint's DNS name unless it is known.

    Raises:
        ModelError: the endpoint is neither a URL nor a resource name, or Vertex AI does not know it.
    """
    if settings.endpoint.startswith(("http://", "https://")):
        return settings.endpoint
    _check_name(settings.endpoint)
    base = _api(settings)
    host = settings.dns or str(
        _get(f"{base}/v1/{settings.endpoint}", authorize, settings.endpoint).get("dedicatedEndpointDns", "")
    )
    origin = f"{base.split('://')[0]}://{host}" if host else base
    return f"{origin}/v1/{settings.endpoint}:rawPredict"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ModelError(
            "UNDERSTUDY_ENDPOINT must be projects/P/locations/R/endpoints/ID or the URL of a predict route, "
            f"but is {name!r:.120}. `python -m serving.deploy status` prints the name."
        )


def _api(settings: RemoteSettings) -> str:
    """Return the base URL of Vertex AI's API for an endpoint's region."""
    match = _NAME.fullmatch(settings.endpoint)
    region = match[1] if match else ""
    return settings.api_endpoint.rstrip("/") or f"https://{region}-aiplatform.googleapis.com"


def open_remote(
    settings: RemoteSettings,
    spec: BatchSpec,
    variant: str = "",
    policy: RemotePolicy | None = None,
    authorize: Authorize | None = None,
    bundle: str = "",
) -> RemoteClient:
    """Open the client of the remote model. Takes a second where the DNS name is looked up.

    Args:
        settings: where it is.
        spec: of the bundle that is served there.
        variant: which persona; "" for the bundle's first.
        policy: limits; the settings' deadline with the defaults, where left out.
        authorize: gives the Authorization header; for Vertex AI a TokenProvider where left out.
        bundle: digest of the bundle that must answer; "" for any.

    Raises:
        ModelError: the endpoint or the credentials cannot be found.
    """
    is_on_vertex = not settings.endpoint.startswith(("http://", "https://"))
    if authorize is None and is_on_vertex:
        authorize = TokenProvider()
    parameters = {"variant": variant} if variant else None
    limits = policy or RemotePolicy(deadline_s=settings.deadline_ms / 1e3)
    return RemoteClient(predict_url(settings, authorize), spec, limits, authorize, parameters, bundle)


class RemoteModel(FallbackModel):
    """The remote model with the embedded one behind it: a renderer for FaceSwapper. Owns its client."""

    def __init__(self, settings: RemoteSettings, local: BatchModel, variant: str = "", bundle: str = "") -> None:
        """Open the client; see `open_remote`.

        Args:
            settings: where the remote model is, and the deadline past which the embedded one answers.
            local: warm, of the same bundle.
            variant: which persona.
            bundle: digest of the local bundle: an answer by another one counts as a failure. "" for any.
        """
        self.client = open_remote(settings, local.spec, variant, bundle=bundle)
        super().__init__(self.client, local, FallbackPolicy(deadline_s=settings.deadline_ms / 1e3))

    def close(self, timeout_s: float = 2.0) -> bool:
        """Hang up and end the threads; True if they ended in time. The embedded model stays open."""
        self.client.close()
        return super().close(timeout_s)


def _get(url: str, authorize: Authorize | None, name: str) -> dict[str, Any]:
    """Ask for a resource's JSON."""
    import requests

    headers = {"Authorization": authorize()} if authorize else {}
    try:
        answer = requests.get(url, headers=headers, timeout=_LOOKUP_TIMEOUT_S)
    except requests.RequestException as error:
        raise ModelError(f"{url} cannot be reached ({type(error).__name__}). Check the network.") from error
    if answer.status_code != 200:
        raise ModelError(
            f"Vertex AI must know {name}, but answered {answer.status_code}. "
            "Check UNDERSTUDY_ENDPOINT and the account's role (aiplatform.user)."
        )
    return answer.json()


def _default_credentials() -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except DefaultCredentialsError as error:
        raise ModelError(
            "Google's default credentials must exist on this machine, but do not. "
            "Run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS."
        ) from error
    return credentials
