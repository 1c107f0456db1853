"""The WebSocket relay on a real local server, without a browser."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from benchmarks.harness.waiting import PATIENT, wait_until
from liveframe.frame import Frame, FrameResult, Image
from liveframe.pipeline import FramePipeline
from ui.relay.websocket import REPLACED, SUBPROTOCOL, decode_jpeg, encode_jpeg, relay_frames
from ui.session.viewer import Choices, Viewer, ViewerRegistry
from understudy.swap.swapper import SwapSettings

CHOICES = Choices(SwapSettings("ada"), is_mirrored=False)


@dataclass
class InvertingModel:
    """A face-less model: what the app relays need not know faces."""

    applied: list[SwapSettings] = field(default_factory=list)

    def warm_up(self) -> None: ...

    def open_session(self) -> "InvertingModel":
        return self

    def apply(self, settings: SwapSettings) -> None:
        self.applied.append(settings)

    def process(self, frame: Frame) -> FrameResult:
        return FrameResult(np.asarray(255 - frame.image, np.uint8), frame.index, 1, 1)

    def close(self) -> None: ...


class FarModel(InvertingModel):
    """One far away, whose first frames are answered only once three of them are on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.begun: list[int] = []
        self.under_way = self.most = 0

    def begin(self, frame: Frame) -> Callable[[], FrameResult]:
        with self.changed:
            self.begun.append(frame.index)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.changed.notify_all()
        return lambda: self._finish(frame)

    def _finish(self, frame: Frame) -> FrameResult:
        with self.changed:
            assert self.changed.wait_for(lambda: self.most >= 3, 30), "frames must overlap"
            self.under_way -= 1
        return self.process(frame)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer over a frame than its deadline, and an older picture stands in: wait longer."""
    monkeypatch.setattr("ui.session.viewer.FramePipeline", partial(FramePipeline, policy=PATIENT))


@pytest.fixture
def registry() -> ViewerRegistry:
    return ViewerRegistry(most=2)


@pytest.fixture
def viewer(registry: ViewerRegistry) -> Iterator[Viewer]:
    viewer = admitted(registry)
    yield viewer
    registry.leave(viewer)


@pytest.fixture
def address(registry: ViewerRegistry) -> Iterator[str]:
    """A server with the route that `app.py` mounts."""

    async def frames(ws: WebSocket) -> None:
        await relay_frames(ws, registry)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = Starlette(routes=[WebSocketRoute("/frames", frames)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        wait_until(lambda: server.started)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/frames"
        server.should_exit = True
        thread.join(10)


def admitted(registry: ViewerRegistry, model: InvertingModel | None = None) -> Viewer:
    viewer = registry.admit(model or InvertingModel(), CHOICES)
    wait_until(lambda: viewer.pipeline.session is not None)
    return viewer


@pytest.fixture
def dial(address: str) -> Iterator[Callable[[str], ClientConnection]]:
    """Connect with a token."""
    with ExitStack() as stack:

        def call(token: str) -> ClientConnection:
            return stack.enter_context(connect(address, subprotocols=[SUBPROTOCOL, token]))  # type: ignore[list-item]

        yield call


def grey(level: int, size: tuple[int, int] = (120, 160)) -> bytes:
    return encode_jpeg(np.full((*size, 3), level, np.uint8))


def test_each_frame_is_answered_in_order_by_what_the_pipeline_shows(
    viewer: Viewer, dial: Callable[[str], ClientConnection]
) -> None:
    connection = dial(viewer.token)
    for level in (40, 90, 140, 190):
        connection.send(grey(level))
        image = decode_jpeg(bytes(connection.recv(timeout=30)))
        assert image.shape == (120, 160, 3)
        assert image.mean() == pytest.approx(255 - level, abs=2)
    assert viewer.stream is not None
    wait_until(lambda: viewer.stream.counts().shown == 4)
    assert viewer.pipeline.stats().swapped == 4


def test_two_frames_may_be_under_way(viewer: Viewer, dial: Callable[[str], ClientConnection]) -> None:
    connection = dial(viewer.token)
    connection.send(grey(40))
    connection.send(grey(90))
    answers = [decode_jpeg(bytes(connection.recv(timeout=30))).mean() for _ in range(2)]
    assert answers == pytest.approx([215, 165], abs=2)


def test_frames_for_a_model_far_away_overlap_and_are_answered_in_order(
    registry: ViewerRegistry, dial: Callable[[str], ClientConnection]
) -> None:
    model = FarModel()
    viewer = admitted(registry, model)
    assert viewer.in_flight == 3
    connection = dial(viewer.token)
    for level in (40, 90, 140):
        connection.send(grey(level))
    means = [decode_jpeg(bytes(connection.recv(timeout=30))).mean() for _ in range(3)]
    assert means == pytest.approx([215, 165, 115], abs=2)
    assert model.most == 3 and model.begun == sorted(model.begun)
    registry.leave(viewer)


@pytest.mark.parametrize("token", ["guessed", "x" * 4_000])
def test_unknown_token_is_refused_before_the_socket_is_accepted(
    viewer: Viewer, dial: Callable[[str], ClientConnection], token: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(token)
    assert refused.value.response.status_code == 403


def test_frame_that_is_no_jpeg_is_answered_by_a_slate_and_counted(
    viewer: Viewer, dial: Callable[[str], ClientConnection]
) -> None:
    connection = dial(viewer.token)
    connection.send(grey(90))
    connection.recv(timeout=30)
    connection.send(b"not a picture")
    image = decode_jpeg(bytes(connection.recv(timeout=30)))
    assert image.shape == (120, 160, 3)
    assert np.median(image) < 60
    assert viewer.stream is not None
    assert "must be a JPEG" in viewer.stream.counts().last_fault
    connection.send(grey(90))
    assert decode_jpeg(bytes(connection.recv(timeout=30))).mean() == pytest.approx(165, abs=2)


def test_second_connection_of_a_viewer_replaces_the_first(
    viewer: Viewer, dial: Callable[[str], ClientConnection]
) -> None:
    first = dial(viewer.token)
    first.send(grey(90))
    first.recv(timeout=30)
    second = dial(viewer.token)
    with pytest.raises(ConnectionClosed) as closed:
        first.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == REPLACED
    second.send(grey(90))
    assert decode_jpeg(bytes(second.recv(timeout=30))).mean() == pytest.approx(165, abs=2)


def test_viewer_who_leaves_is_disconnected_and_their_threads_end(
    registry: ViewerRegistry, address: str, dial: Callable[[str], ClientConnection]
) -> None:
    before = threading.active_count()
    viewer = admitted(registry)
    connection = dial(viewer.token)
    connection.send(grey(90))
    connection.recv(timeout=30)
    registry.leave(viewer)
    with pytest.raises(ConnectionClosed):
        connection.recv(timeout=30)
    connection.close()
    wait_until(lambda: threading.active_count() <= before)
    assert registry.find(viewer.token) is None


def test_streams_take_places_not_pages_and_a_stopped_one_makes_room(
    registry: ViewerRegistry, dial: Callable[[str], ClientConnection]
) -> None:
    viewers = [admitted(registry) for _ in range(4)]  # two more pages than places
    streams = [dial(viewer.token) for viewer in viewers[:3]]
    answers = [middle(exchange(stream, grey(90))) for stream in streams]
    assert abs(answers[0] - 165) < 8 and abs(answers[1] - 165) < 8
    assert answers[2] < 80  # the slate that says that all places are taken
    assert [registry.is_full_for(viewer) for viewer in viewers] == [False, False, True, True]
    streams[0].close()
    wait_until(lambda: abs(middle(exchange(streams[2], grey(90))) - 165) < 8)
    for viewer in viewers:
        registry.leave(viewer)
    assert len(registry) == 0


def exchange(stream: ClientConnection, jpeg: bytes) -> Image:
    """Send a frame; returns the picture that comes back."""
    stream.send(jpeg)
    return decode_jpeg(bytes(stream.recv(timeout=30)))


def middle(picture: Image) -> float:
    return float(np.median(picture))


def test_huge_jpeg_is_refused_by_its_header() -> None:
    small = grey(0, (16, 16))
    at = small.index(b"\xff\xc0") + 5
    huge = small[:at] + (60_000).to_bytes(2, "big") * 2 + small[at + 4 :]
    with pytest.raises(ValueError, match="1 to 1920 px a side, but is 60000 x 60000"):
        decode_jpeg(huge)


@pytest.mark.parametrize("cut", [0, 1, 2, 10, 20])
def test_cut_off_jpeg_is_an_error_not_a_crash(cut: int) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        decode_jpeg(grey(0)[:cut])
