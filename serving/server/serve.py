"""Runs a server around an Exchange: bounded connections, answers for those who still listen, an end within 15 s."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import FrameType
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.server.bounded_http import Bounds, bind, end_within
from serving.server.exchange import Exchange, Reply

BOUNDS = Bounds(connections=512, sockets=0)
DRAIN_S = 8.0  # after SIGTERM, for requests under way
END_S = 6.0  # after that, for everything else; then the process is ended
SWITCH_S = 0.0001  # while a thread decodes, answers wait for the interpreter 5 ms at every step otherwise
GONE = 499  # the client closed the connection: nobody reads this


async def answer_request(
    request: Request, answer: Callable[[Mapping[str, str], AsyncIterator[bytes]], Coroutine[Any, Any, Reply]]
) -> Response:
    """Answer a request for as long as its client waits.

    A client that hangs up is not computed: what waits for it is dropped.

    Args:
        request: of any route.
        answer: gets its headers and its body.
    """
    is_read = asyncio.Event()
    answering = asyncio.ensure_future(answer(request.headers, _body(request, is_read)))
    watching = asyncio.ensure_future(_hang_up(request, is_read))
    try:
        await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            return Response(status_code=GONE)
        reply = answering.result()
        return Response(reply.body, reply.status, {**reply.headers, "X-Content-Type-Options": "nosniff"})
    finally:
        answering.cancel()
        watching.cancel()


async def _body(request: Request, is_read: asyncio.Event) -> AsyncIterator[bytes]:
    """Return the body; of a client that hangs up, what came."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        is_read.set()
        await asyncio.Event().wait()  # until whoever reads is cancelled
    is_read.set()


async def _hang_up(request: Request, is_read: asyncio.Event) -> None:
    """Wait until the client is gone."""
    await is_read.wait()
    while (await request.receive())["type"] != "http.disconnect":
        pass


class ExchangeServer(uvicorn.Server):
    """uvicorn's server, which on SIGTERM first lets an Exchange finish and refuse what is new."""

    def __init__(self, config: uvicorn.Config, exchange: Exchange) -> None:
        super().__init__(config)
        self._exchange = exchange
        self._drained_by_s = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first SIGTERM; at anything else, end."""
        if sig == signal.SIGTERM and not self._drained_by_s:
            self._drained_by_s = time.monotonic() + DRAIN_S
            self._exchange.drain()
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """End once nothing is under way, or it takes too long."""
        if self._drained_by_s and (not self._exchange.under_way or time.monotonic() > self._drained_by_s):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Close all; whoever does not read, and whatever thread hangs, is left behind."""
        end_within(END_S)
        await super().shutdown(sockets)


def serve(app: Any, exchange: Exchange, host: str, port: int, keep_alive_s: int = 75) -> None:
    """Serve an ASGI app until a signal.

    Args:
        app: it answers by `answer_request`.
        exchange: what the app answers with; loaded.
        host: address to listen at.
        port: to listen at.
        keep_alive_s: how long a connection stays open between two requests.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        ws="websockets-sansio",
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=int(END_S / 2),
    )
    bind(config, BOUNDS)
    sys.setswitchinterval(SWITCH_S)
    ExchangeServer(config, exchange).run()
