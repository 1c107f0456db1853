"""What stands before Streamlit: whom the app answers, what a page may load, and what a stranger may hold of it.

Streamlit accepts any Host by default, asks an outside address for its own name when a WebSocket comes from a foreign
origin, and serves figures and an API's description to everybody. Here such requests end before it sees them.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from serving.server.bounded_http import Bounds, bind, end_within

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

DRAIN_S = 8.0  # after SIGTERM, for answers under way
END_S = 5.0  # after that, for everything else; then the process is ended
HEALTH = "/_stcore/health"  # asked by machines, by whatever name
_CLOSED = ("/_stcore/metrics", "/_stcore/agent", "/_stcore/script-health-check")
_FRAMED = "/component/"  # shown inside our own page

# Nothing comes from, or goes to, anywhere but this server. The page's own code is made of blobs and inline parts.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
    )
)

_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware, the outermost of the app."""

    def __init__(self, app: App, hosts: Sequence[str], origins: Sequence[str], base: str, bounds: Bounds) -> None:
        """Guard an app.

        Args:
            app: what answers.
            hosts: names that the app answers to; `*.example.org` for all below one, `*` for any, which nobody should
                choose for a server that browsers reach directly (DNS rebinding).
            origins: pages of other origins that may use it, `https://example.org`.
            base: the path that all of the app's begin with, "" or "/app".
            bounds: of the server's connections.
        """
        self._app = app
        self._hosts = tuple(name.strip().lower().rstrip(".") for name in hosts)
        self._origins = frozenset(origin.strip().lower() for origin in origins)
        self._base = base.rstrip("/")
        self._bounds = bounds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer what may not pass; pass on the rest."""
        if scope["type"] == "lifespan":
            self._bound_server(receive)
            await self._app(scope, _ending(receive), send)
            return
        path = str(scope["path"]).removeprefix(self._base)
        refusal = self._refusal(path, _headers(scope))
        if scope["type"] == "websocket":
            await (_turn_away(receive, send) if refusal else self._app(scope, receive, send))
            return
        sending = _with_headers(send, "'self'" if path.startswith(_FRAMED) else "'none'")
        await (_refuse(sending, *refusal) if refusal else self._app(scope, receive, sending))

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why a request may not pass, as an HTTP status and a sentence."""
        if path == HEALTH:
            return None
        if path.startswith(_CLOSED):
            return 404, "There is nothing here."
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if not self._is_ours(host):
            names = ", ".join(self._hosts)
            return 403, (
                f"This app answers to {names}, but was asked as {host!r:.80}. "
                "Whoever runs it adds a name by --server.allowedHosts NAME."
            )
        if origin and urlsplit(origin).netloc != host and origin not in self._origins:
            return 403, (
                f"Pages of {origin!r:.80} may not use this app. "
                "Whoever runs it allows an origin by --server.corsAllowedOrigins ORIGIN."
            )
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return bool(name) and any(
            known in ("*", name) or (known.startswith("*.") and name.endswith(known[1:])) for known in self._hosts
        )

    def _bound_server(self, receive: Receive) -> None:
        """Put bounds on the server that runs this app: Streamlit makes its configuration and offers no way to set it.

        uvicorn asks the app to start before it opens its port, through a method of an object that knows the server's
        configuration.
        """
        config = getattr(getattr(receive, "__self__", None), "config", None)
        if isinstance(config, uvicorn.Config):
            bind(config, self._bounds)
            config.timeout_graceful_shutdown = int(DRAIN_S)
        else:
            _log.warning("The app does not run under uvicorn: connections and messages have that server's own limits.")


def _ending(receive: Receive) -> Receive:
    """Have the process end once its server has stopped, whatever a thread of it still waits for."""

    async def heard() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            end_within(END_S)
        return message

    return heard


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _with_headers(send: Send, ancestors: str) -> Send:
    """Add to every answer what a browser shall refuse on our behalf."""
    added = (
        (b"content-security-policy", f"{_POLICY}; frame-ancestors {ancestors}".encode()),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"referrer-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
    )
    names = {name for name, _ in added}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


async def _turn_away(receive: Receive, send: Send) -> None:
    """Refuse a WebSocket before it is accepted: the browser gets HTTP 403."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})
