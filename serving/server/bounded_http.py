"""uvicorn's protocols with bounds: what a stranger may hold of a server before anybody knows them.

uvicorn waits for ever for the rest of a request's head, keeps any number of connections, and collects WebSocket
messages of any number of them before an application sees one. `bind` puts limits on all of that.
"""

import copy
import os
import signal
import threading
import time
from asyncio import TimerHandle, Transport
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
else:  # uvicorn's own choice: the fast parser where it is installed
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as HttpProtocol

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one server.

    Attributes:
        connections: open at once. A new one takes the place of the one that has been idle for longest; where none is
            idle it is refused with 503.
        sockets: WebSockets among them; further ones are refused with 503.
        head_s: from a connection's, or a kept connection's next request's, first moment to the end of its head.
        head_bytes: of a request's head.
        unread_s: how long a client may leave an answer unread.
        message_bytes: of a WebSocket message. Messages are never compressed.
        messages: other limits, by the end of the socket's path.
        unfinished_bytes: of the messages of all sockets that have not come wholly. Beyond it the socket that holds
            most of them is closed.
    """

    connections: int = 256
    sockets: int = 64
    head_s: float = 10.0
    head_bytes: int = 64 * 1024
    unread_s: float = 30.0
    message_bytes: int = 25 * 1024 * 1024
    messages: tuple[tuple[str, int], ...] = ()
    unfinished_bytes: int = 32 * 1024 * 1024


@dataclass(slots=True)
class _Unfinished:
    """Bytes of messages under way, by their socket."""

    most: int
    held: dict["BoundedSocket", int] = field(default_factory=dict["BoundedSocket", int])

    def add(self, socket: "BoundedSocket", count: int) -> None:
        """Count bytes that came; drop the sockets that hold most while all hold too many."""
        self.held[socket] = self.held.get(socket, 0) + count
        while sum(self.held.values()) > self.most:
            largest = max(self.held, key=self.held.__getitem__)
            del self.held[largest]
            largest.drop()


class BoundedSocket(WebSocketsSansIOProtocol):
    """One WebSocket. All of it runs on the server's event loop."""

    unfinished: ClassVar[_Unfinished]

    def data_received(self, data: bytes) -> None:
        """Read on, as far as all sockets together may."""
        self.unfinished.add(self, len(data))
        if not self.transport.is_closing():
            super().data_received(data)

    def drop(self) -> None:
        """End the connection and free what it holds: the objects wait in a circle for the garbage collector."""
        self.frames = []
        self.conn.reader.discard()
        self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        """Hand a whole message over: reading pauses until it is taken."""
        self.unfinished.held.pop(self, None)
        super().send_receive_event_to_app()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what it held."""
        self.unfinished.held.pop(self, None)
        self.drop()
        super().connection_lost(exc)


class BoundedHttp(HttpProtocol):
    """One connection. All of it runs on the server's event loop."""

    bounds: ClassVar[Bounds] = Bounds()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: TimerHandle | None = None
        self._unread_timer: TimerHandle | None = None
        self._head_bytes = 0
        self._idle_s = time.monotonic()

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a connection in, or refuse it."""
        has_room = len(self.connections) < self.bounds.connections or self._close_idlest()
        super().connection_made(transport)
        if has_room:
            self._await_head()
        else:
            self._refuse(_BUSY)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is too long, or too long under way, ends the connection."""
        if self._is_idle and self._head_timer is None:
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._is_idle or self.transport.get_protocol() is not self:
            self._head_bytes = 0
            self._head_timer = _cancelled(self._head_timer)
        elif self._head_bytes > self.bounds.head_bytes:
            self._refuse(_TOO_LARGE)

    def on_response_complete(self) -> None:
        """Note since when a kept connection is idle."""
        self._idle_s = time.monotonic()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._head_timer = _cancelled(self._head_timer)
        self._unread_timer = _cancelled(self._unread_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Return a client that does not read a while."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.bounds.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._unread_timer = _cancelled(self._unread_timer)
        super().resume_writing()

    def handle_websocket_upgrade(self, *arguments: Any) -> None:
        """Hand a WebSocket over, within its bounds, or refuse it."""
        if sum(not isinstance(other, BoundedHttp) for other in self.connections) >= self.bounds.sockets:
            self._refuse(_BUSY)
            return
        path = bytes(getattr(self, "url", b"") or self.scope.get("raw_path", b"")).partition(b"?")[0].decode("latin-1")
        limits = (size for end, size in self.bounds.messages if path.endswith(end))
        self.config = copy.copy(self.config)  # the socket's own: its protocol reads the limits from there
        self.config.ws_max_size = next(limits, self.bounds.message_bytes)
        self.config.ws_per_message_deflate = False
        super().handle_websocket_upgrade(*arguments)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered: its head has not come yet, or not wholly."""
        return not self.cycle or self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_s, self.transport.close)

    def _close_idlest(self) -> bool:
        """Make room for a new connection."""
        idle = [other for other in self.connections if isinstance(other, BoundedHttp) and other._is_idle]
        if not idle:
            return False
        idlest = min(idle, key=lambda other: other._idle_s)
        self.connections.discard(idlest)
        idlest.transport.abort()
        return True

    def _refuse(self, answer: bytes) -> None:
        self._head_timer = _cancelled(self._head_timer)
        self.transport.write(answer)
        self.transport.close()


def bind(config: uvicorn.Config, bounds: Bounds) -> None:
    """Put bounds on a server, before it accepts connections.

    Args:
        config: its configuration, which somebody else may have made.
        bounds: the limits.
    """
    if not config.loaded:
        config.load()
    unfinished = _Unfinished(bounds.unfinished_bytes)
    config.http_protocol_class = type("BoundedHttp", (BoundedHttp,), {"bounds": bounds})
    config.ws_protocol_class = type("BoundedSocket", (BoundedSocket,), {"unfinished": unfinished})


def _cancelled(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def end_within(limit_s: float) -> None:
    """End this process after a while if it has not ended by then: threads in native code end for nobody."""
    timer = threading.Timer(limit_s, os._exit, [128 + signal.SIGTERM])
    timer.daemon = True
    timer.start()
