"""The WebSocket relay: JPEG frames over the app's own port, for networks that let no UDP through.

The browser (`camera_worker.js`) opens the socket with its viewer's token, and sends one JPEG a
message, a few of them unanswered at most. Each is answered by one JPEG, in order: what the
viewer's pipeline shows. Frames never travel through Streamlit's own messages, which would
run the page again.
"""

import asyncio
import contextlib
import logging
import threading
import time

import cv2
from starlette.websockets import WebSocket, WebSocketDisconnect

from liveframe.cover import slate
from liveframe.errors import WireError
from liveframe.frame import Image
from liveframe.remote.picture import decode_picture
from ui.relay.frame_executor import FrameExecutor
from ui.session.stream import FAULT_SENTENCE, FrameHandler, StreamCounts
from ui.session.viewer import ViewerRegistry

SUBPROTOCOL = "understudy.frames"
MOST_FRAME_BYTES = 2_000_000
LONGEST_SIDE = 1920  # px
JPEG_QUALITY = 85
REPLACED = 4409  # a close code of our own

_log = logging.getLogger(__name__)


class SocketStream:
    """One WebSocket's frames (a `ui.session.stream.Stream`).

    `run` lives on the server's event loop. Frames are taken in on one thread of this stream's
    own, in their order, and waited for on others; the rest may be called from any thread.
    """

    def __init__(self, socket: WebSocket, handler: FrameHandler) -> None:
        self._socket = socket
        self._line = FrameExecutor(handler, "socket-stream")
        self._loop = asyncio.get_running_loop()
        self._under_way: asyncio.Queue[asyncio.Future[bytes]] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._lock = threading.Lock()
        self._received = self._shown = self._faults = 0
        self._last_fault = ""
        self._last_s = time.monotonic()
        self._size = (480, 640)
        self.is_ended = False

    async def run(self) -> None:
        """Answer frames in their order until either side ends the connection."""
        halves = [self._loop.create_task(half()) for half in (self._take_frames, self._send_answers)]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_ended = True
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            self._line.close()

    async def _take_frames(self) -> None:
        """Take frames in while the model has room for them; the others wait in the browser."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, KeyError):  # gone, closed, or no protocol of ours
            while not self.is_ended:
                while self._received - self._shown >= self._line.room:
                    self._has_room.clear()
                    await self._has_room.wait()
                jpeg = await self._socket.receive_bytes()
                arrived_s = time.monotonic()
                with self._lock:
                    self._received, self._last_s = self._received + 1, arrived_s
                self._under_way.put_nowait(self._start(jpeg, arrived_s))

    async def _send_answers(self) -> None:
        """Send what may be shown, oldest frame first."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone, or closed under our hands
            while True:
                answer = await self._under_way.get()
                await self._socket.send_bytes(await asyncio.shield(answer))  # what has begun is finished
                self._shown += 1
                self._has_room.set()

    def _start(self, jpeg: bytes, arrived_s: float) -> "asyncio.Future[bytes]":
        """Show one frame on this stream's threads; a slate where that raises."""
        answer = self._line.start(lambda: (self._decode(jpeg), arrived_s), encode_jpeg, self._slate)
        return asyncio.wrap_future(answer, loop=self._loop)

    def _decode(self, jpeg: bytes) -> Image:
        image = decode_jpeg(jpeg)
        self._size = (image.shape[0], image.shape[1])
        return image

    def _slate(self, error: Exception) -> bytes:
        """Count what went wrong, and cover the frame."""
        with self._lock:
            self._faults += 1
            self._last_fault = f"{type(error).__name__}: {error}"[:300]
            is_first = self._faults == 1
        if is_first:
            _log.error("A frame could not be shown and was covered.", exc_info=error)
        return encode_jpeg(slate(*self._size, FAULT_SENTENCE))

    def counts(self) -> StreamCounts:
        """Count what went through; the browser drops frames itself, so none are dropped here."""
        with self._lock:
            idle_s = time.monotonic() - self._last_s
            return StreamCounts(self._received, self._shown, 0, self._faults, self._last_fault, idle_s)

    def close(self) -> None:
        """End the connection. Safe from any thread, and twice."""
        if not self.is_ended:
            self.is_ended = True
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the connection with it
                self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._hang_up()))

    async def _hang_up(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # closed already
            await self._socket.close(REPLACED)


async def relay_frames(socket: WebSocket, registry: ViewerRegistry) -> None:
    """Serve one WebSocket: find the viewer by the token that the handshake carries, then relay.

    The token is offered as a subprotocol, beside ours: so it is checked before the socket is accepted, and no message
    of a stranger is read. No cookie is: another site's page gains nothing by opening this socket.
    """
    viewer = next((seen for token in socket.scope["subprotocols"][1:2] if (seen := registry.find(token))), None)
    if viewer is None:
        await socket.close()  # before it is accepted: HTTP 403
        return
    await socket.accept(SUBPROTOCOL)
    stream = SocketStream(socket, viewer)
    viewer.attach(stream)
    await stream.run()


def decode_jpeg(jpeg: bytes) -> Image:
    """Decode a camera's JPEG.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        WireError: it is no JPEG, or larger or costlier than a camera's frame may be. Nothing is decoded before its
            header was read.
    """
    if len(jpeg) > MOST_FRAME_BYTES or jpeg[:2] != b"\xff\xd8":
        raise WireError(f"A frame must be a JPEG of at most {MOST_FRAME_BYTES} bytes, but has {len(jpeg)}. Dropped.")
    return decode_picture(jpeg, LONGEST_SIDE)


def encode_jpeg(image: Image) -> bytes:
    """Encode uint8 [H, W, 3] BGR as JPEG."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
