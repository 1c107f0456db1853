"""Pictures at an address, for OBS: motion JPEG over the app's own port, off by default, for this machine alone."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from liveframe.gate import Shown
from ui.relay.websocket import encode_jpeg
from ui.session.outputs import Outputs
from ui.session.viewer import ViewerRegistry

PATH = "/out/{token}.mjpg"
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_BOUNDARY = "understudy"
_LOOK_EVERY_S = 0.015


async def stream_pictures(request: Request, registry: ViewerRegistry) -> Response:
    """Send what one viewer is shown, as long as their address stands.

    Only programs of this machine are answered, and no proxy's: whoever may read is decided here, not by a password.
    """
    is_near = request.client is not None and request.client.host in _LOOPBACK
    token = request.path_params["token"]
    outputs = next((each.outputs for each in registry.viewers() if each.outputs.token == token), None)
    if not is_near or "x-forwarded-for" in request.headers or "forwarded" in request.headers or outputs is None:
        return PlainTextResponse("There are no pictures here. Open the address on the Live page anew.", 404)
    return StreamingResponse(_parts(outputs, token), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")


async def _parts(outputs: Outputs, token: str) -> AsyncIterator[bytes]:
    last: Shown | None = None
    while outputs.token == token:
        shown = outputs.newest()
        if shown is None or shown is last:
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        last = shown
        jpeg = await asyncio.to_thread(encode_jpeg, shown.image)
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        yield head.encode() + jpeg + b"\r\n"
