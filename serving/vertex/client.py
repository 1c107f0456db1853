"""The app's way to a remote model: where it is served, and Google's default credentials for it.

`UNDERSTUDY_ENDPOINT` names it: `projects/P/locations/R/endpoints/ID` on Vertex AI, or the
http(s) URL of a predict route (`python -m serving.local_server`). Crops go by `rawPredict`.
"""

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from liveframe.errors import ModelError
from liveframe.model import BatchModel, BatchSpec
from liveframe.remote.client import Authorize, RemoteClient, RemotePolicy
from liveframe.remote.fallback import FallbackModel, FallbackPolicy

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


def predict_url(settings: RemoteSettings, authorize: Authorize | None) -> str:
    """Return the URL to post crops to; asks Vertex AI for a dedicated endpoint's DNS name unless it is known.

    Raises:
        ModelError: the endpoint is neither a URL nor a resource name, or Vertex AI does not know it.
    """
    if settings.endpoint.startswith(("http://", "https://")):
        return settings.endpoint
    match = _NAME.fullmatch(settings.endpoint)
    if match is None:
        raise ModelError(
            "UNDERSTUDY_ENDPOINT must be projects/P/locations/R/endpoints/ID or the URL of a predict route, "
            f"but is {settings.endpoint!r:.120}. `python -m serving.deploy status` prints the name."
        )
    base = settings.api_endpoint.rstrip("/") or f"https://{match[1]}-aiplatform.googleapis.com"
    host = settings.dns or _dedicated_dns(base, settings.endpoint, authorize)
    origin = f"{base.split('://')[0]}://{host}" if host else base
    return f"{origin}/v1/{settings.endpoint}:rawPredict"


def open_remote(
    settings: RemoteSettings,
    spec: BatchSpec,
    variant: str = "",
    policy: RemotePolicy | None = None,
    authorize: Authorize | None = None,
) -> RemoteClient:
    """Open the client of the remote model. Takes a second where the DNS name is looked up.

    Args:
        settings: where it is.
        spec: of the bundle that is served there.
        variant: which persona; "" for the bundle's first.
        policy: limits; the settings' deadline with the defaults, where left out.
        authorize: gives the Authorization header; for Vertex AI a TokenProvider where left out.

    Raises:
        ModelError: the endpoint or the credentials cannot be found.
    """
    is_on_vertex = not settings.endpoint.startswith(("http://", "https://"))
    if authorize is None and is_on_vertex:
        authorize = TokenProvider()
    parameters = {"variant": variant} if variant else None
    limits = policy or RemotePolicy(deadline_s=settings.deadline_ms / 1e3)
    return RemoteClient(predict_url(settings, authorize), spec, limits, authorize, parameters)


class RemoteModel(FallbackModel):
    """The remote model with the embedded one behind it: a renderer for FaceSwapper. Owns its client."""

    def __init__(self, settings: RemoteSettings, local: BatchModel, variant: str = "") -> None:
        """Open the client; see `open_remote`.

        Args:
            settings: where the remote model is, and the deadline past which the embedded one answers.
            local: warm, of the same bundle.
            variant: which persona.
        """
        self.client = open_remote(settings, local.spec, variant)
        super().__init__(self.client, local, FallbackPolicy(deadline_s=settings.deadline_ms / 1e3))

    def close(self, timeout_s: float = 2.0) -> bool:
        """Hang up and end the threads; True if they ended in time. The embedded model stays open."""
        self.client.close()
        return super().close(timeout_s)


def _dedicated_dns(base: str, name: str, authorize: Authorize | None) -> str:
    """Ask for a dedicated endpoint's DNS name; "" for a shared endpoint."""
    import requests

    headers = {"Authorization": authorize()} if authorize else {}
    try:
        answer = requests.get(f"{base}/v1/{name}", headers=headers, timeout=_LOOKUP_TIMEOUT_S)
    except requests.RequestException as error:
        raise ModelError(
            f"Vertex AI cannot be reached at {base} ({type(error).__name__}). Check the network."
        ) from error
    if answer.status_code != 200:
        raise ModelError(
            f"Vertex AI must know {name}, but answered {answer.status_code}. "
            "Check UNDERSTUDY_ENDPOINT and the account's role (aiplatform.user)."
        )
    return str(answer.json().get("dedicatedEndpointDns", ""))


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
