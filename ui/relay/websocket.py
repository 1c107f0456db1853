"""The WebSocket relay: JPEG frames over the app's own port, for networks that let no UDP through.

The browser (`camera_socket.js`) opens the socket, sends its viewer's token, then one JPEG a
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
import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from liveframe.cover import slate
from liveframe.errors import FrameError
from liveframe.frame import Image
from ui.relay.frame_executor import FrameExecutor
from ui.session.stream import FAULT_SENTENCE, FrameHandler, StreamCounts
from ui.session.viewer import ViewerRegistry

TOKEN_WAIT_S = 5.0
MOST_FRAME_BYTES = 2_000_000
LARGEST_PX = (1080, 1920)  # height, width
JPEG_QUALITY = 85
UNKNOWN_VIEWER = 4401  # close codes of our own
REPLACED = 4409

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
    """Serve one WebSocket: find the viewer by the token in the first message, then relay.

    No cookie is read, so another site's page gains nothing by opening this socket: without a
    token, which only the viewer's own page knows, it is closed.
    """
    await socket.accept()
    try:
        token = await asyncio.wait_for(socket.receive_text(), TOKEN_WAIT_S)
    except (TimeoutError, WebSocketDisconnect, RuntimeError, KeyError):
        token = ""
    viewer = registry.find(token)
    if viewer is None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone already
            await socket.close(UNKNOWN_VIEWER)
        return
    stream = SocketStream(socket, viewer)
    viewer.attach(stream)
    await stream.run()


def decode_jpeg(jpeg: bytes) -> Image:
    """Decode a camera's JPEG.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        FrameError: it is no JPEG, or larger than a camera's frame may be. Nothing is decoded before
            its header was read.
    """
    if len(jpeg) > MOST_FRAME_BYTES:
        raise FrameError(f"A frame must be at most {MOST_FRAME_BYTES} bytes, but has {len(jpeg)}. Lower the quality.")
    height, width = jpeg_size(jpeg)
    if not (0 < height <= LARGEST_PX[0] and 0 < width <= LARGEST_PX[1]):
        raise FrameError(f"A frame must be at most 1920x1080, but is {width}x{height}. Lower the camera's resolution.")
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise FrameError("A frame must be a JPEG, but could not be decoded. Dropped.")
    return np.asarray(image, np.uint8)


def encode_jpeg(image: Image) -> bytes:
    """Encode uint8 [H, W, 3] BGR as JPEG."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Read height and width off a JPEG's frame header (ITU-T T.81, B.2.2).

    Raises:
        FrameError: it is no JPEG, or has no frame header.
    """
    if jpeg[:2] != b"\xff\xd8":
        raise FrameError("A frame must be a JPEG, but does not start as one. Dropped.")
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(jpeg[at + 5 : at + 7], "big"), int.from_bytes(jpeg[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    raise FrameError("A JPEG must have a frame header, but this one has none. Dropped.")
