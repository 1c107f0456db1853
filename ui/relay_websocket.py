"""The WebSocket relay: JPEG frames over the app's own port, for networks that let no UDP through.

The browser (`camera_socket.js`) opens the socket, sends its viewer's token, then one JPEG a
message, at most two of them unanswered. Each is answered by one JPEG, in order: what the
viewer's pipeline shows. Frames never travel through Streamlit's own messages, which would
run the page again.
"""

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from liveframe.cover import slate
from liveframe.errors import FrameError
from liveframe.frame import Image
from ui.stream import FAULT_SENTENCE, Show, StreamCounts
from ui.viewer import Seats

TOKEN_WAIT_S = 5.0
MOST_FRAME_BYTES = 2_000_000
LARGEST_PX = (1080, 1920)  # height, width
JPEG_QUALITY = 85
UNKNOWN_VIEWER = 4401  # close codes of our own
REPLACED = 4409

_log = logging.getLogger(__name__)


class SocketStream:
    """One WebSocket's frames (a `ui.stream.Stream`).

    `run` lives on the server's event loop, `show` on this stream's own thread; the rest may
    be called from any thread.
    """

    def __init__(self, socket: WebSocket, show: Show) -> None:
        self._socket = socket
        self._show = show
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, "socket-stream")
        self._lock = threading.Lock()
        self._received = self._shown = self._faults = 0
        self._last_fault = ""
        self._last_s = time.monotonic()
        self._size = (480, 640)
        self.is_ended = False

    async def run(self) -> None:
        """Answer frames until either side ends the connection."""
        try:
            while not self.is_ended:
                jpeg = await self._socket.receive_bytes()
                arrived_s = time.monotonic()
                with self._lock:
                    self._received, self._last_s = self._received + 1, arrived_s
                answer = await self._loop.run_in_executor(self._executor, self._answer, jpeg, arrived_s)
                await self._socket.send_bytes(answer)
                self._shown += 1
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass  # gone, closed under our hands, or not speaking the protocol
        finally:
            self.is_ended = True
            self._executor.shutdown(wait=False)

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

    def _answer(self, jpeg: bytes, arrived_s: float) -> bytes:
        """Show one frame on this stream's thread; a slate where that raises."""
        try:
            image = decode_jpeg(jpeg)
            self._size = (image.shape[0], image.shape[1])
            return encode_jpeg(self._show(image, arrived_s))
        except Exception as error:
            with self._lock:
                self._faults += 1
                self._last_fault = f"{type(error).__name__}: {error}"[:300]
                is_first = self._faults == 1
            if is_first:
                _log.exception("A frame could not be shown and was covered.")
            return encode_jpeg(slate(*self._size, FAULT_SENTENCE))


async def relay_frames(socket: WebSocket, seats: Seats) -> None:
    """Serve one WebSocket: find the viewer by the token in the first message, then relay.

    No cookie is read, so another site's page gains nothing by opening this socket: without a
    token, which only the viewer's own page knows, it is closed.
    """
    await socket.accept()
    try:
        token = await asyncio.wait_for(socket.receive_text(), TOKEN_WAIT_S)
    except (TimeoutError, WebSocketDisconnect, RuntimeError, KeyError):
        token = ""
    viewer = seats.find(token)
    if viewer is None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone already
            await socket.close(UNKNOWN_VIEWER)
        return
    stream = SocketStream(socket, viewer.show)
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
