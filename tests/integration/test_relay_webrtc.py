"""The WebRTC relay with both ends in this process: a camera peer, streamlit-webrtc's worker, no browser."""

import asyncio
import fractions
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, TypeVar

import av
import cv2
import numpy as np
import pytest
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.codecs import CODECS, get_encoder, h264, vpx
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from streamlit.runtime import Runtime
from streamlit_webrtc.relay import get_global_relay
from streamlit_webrtc.webrtc import WebRtcMode, WebRtcWorker

from benchmarks.harness import barcode
from liveframe.frame import Image
from tests.support.one_at_a_time import OneAtATime
from ui.relay.aiortc_tuning import (
    LARGEST_BITRATE,
    START_BITRATE,
    PromptJitterBuffer,
    QuickVp8Encoder,
    UnbufferedRelay,
    install_unbuffered_relay,
    raise_bitrates,
    tune,
)
from ui.relay.i420 import frame_from_image, image_from_frame
from ui.relay.webrtc import CameraStream

T = TypeVar("T")
SIZE = (240, 320)
RELEVANT = {
    "mode",
    "rtc_configuration",
    "sink_video_track",
    "player_factory",
    "async_processing",
    "video_receiver_size",
    "audio_receiver_size",
    "sendback_video",
    "sendback_audio",
}
LOCAL = RTCConfiguration(iceServers=[])


class BarcodeCamera(VideoStreamTrack):
    """A camera at 30 fps whose frames carry their number in the bottom strip, over grey."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = frame_from_image(barcode.drawn(np.full((*SIZE, 3), 90, np.uint8), self.sent % (barcode.LARGEST + 1)))
        frame.pts, frame.time_base = pts, time_base
        self.sent += 1
        return frame


@pytest.fixture(autouse=True)
def own_main_loop() -> Iterator[None]:
    """A loop for this thread: streamlit-webrtc would make one here and leave it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def worker_for(stream: CameraStream, loop: asyncio.AbstractEventLoop) -> WebRtcWorker:
    """The worker that `webrtc_streamer` makes from the arguments that the page gives it."""
    unused = dict.fromkeys(
        parameter.name
        for parameter in signature(WebRtcWorker).parameters.values()
        if parameter.default is Parameter.empty and parameter.name not in RELEVANT
    )
    return WebRtcWorker(
        mode=WebRtcMode.SENDRECV,
        rtc_configuration=LOCAL,
        sink_video_track=stream.sink,
        player_factory=lambda: stream,
        async_processing=True,
        video_receiver_size=4,
        audio_receiver_size=4,
        sendback_video=True,
        sendback_audio=False,
        loop=loop,
        relay=UnbufferedRelay(),
        **unused,
    )


async def offer_camera(camera: MediaStreamTrack) -> tuple[RTCPeerConnection, asyncio.Queue[MediaStreamTrack]]:
    peer = RTCPeerConnection(LOCAL)
    returned: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
    peer.on("track", returned.put_nowait)
    peer.addTrack(camera)
    await peer.setLocalDescription(await peer.createOffer())
    return peer, returned


def relay_frames(stream: CameraStream, count: int, camera: BarcodeCamera | None = None) -> list[av.VideoFrame]:
    """Send a camera through streamlit-webrtc's worker and a stream; collect what comes back."""
    raise_bitrates()
    with running_loop() as loop:

        def wait_for(coroutine: Coroutine[Any, Any, T], timeout_s: float = 20) -> T:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout_s)

        peer, returned = wait_for(offer_camera(camera or BarcodeCamera()))
        worker = worker_for(stream, loop)
        answer = worker.process_offer(peer.localDescription.sdp, peer.localDescription.type, timeout=10)
        wait_for(peer.setRemoteDescription(RTCSessionDescription(answer.sdp, answer.type)))

        async def collect() -> list[av.VideoFrame]:
            track = await returned.get()
            return [await track.recv() for _ in range(count)]

        frames = wait_for(collect())
        worker.stop()
        wait_for(peer.close())
        wait_for(wait_until(lambda: stream.is_ended and stream.video.readyState == "ended"))
        assert wait_for(left_over_tasks()) == []
    return frames


async def wait_until(is_true: Callable[[], bool], timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_true():
            await asyncio.sleep(0.01)


async def left_over_tasks() -> list[str]:
    """Tasks of ours or of the relay that outlive a stream."""
    for _ in range(50):
        mine = [
            repr(task) for task in asyncio.all_tasks() if "_take_frames" in repr(task) or "__run_track" in repr(task)
        ]
        if not mine:
            return []
        await asyncio.sleep(0.02)
    return mine


def inverted(image: Image, captured_s: float) -> Image:
    return np.asarray(255 - image, np.uint8)


def unchanged(image: Image, captured_s: float) -> Image:
    return np.array(image)


def test_every_returned_frame_is_shown_and_none_is_the_raw_camera() -> None:
    frames = relay_frames(CameraStream(OneAtATime(inverted)), 40)
    levels = [float(image_from_frame(frame)[: -barcode.HEIGHT - 20].mean()) for frame in frames]
    assert min(levels) > 150, "a frame at the camera's level of 90 left unprocessed"


def test_frames_come_back_in_order_without_repeats_and_keep_their_timing() -> None:
    frames = relay_frames(CameraStream(OneAtATime(unchanged)), 40)
    numbers = [number for frame in frames if (number := barcode.read(image_from_frame(frame))) is not None]
    assert len(numbers) == len(frames)
    assert all(later > earlier for earlier, later in pairwise(numbers)), numbers
    per_frame = (frames[-1].pts - frames[0].pts) / (numbers[-1] - numbers[0])
    assert per_frame * float(frames[0].time_base) == pytest.approx(1 / 30, rel=0.02)


def test_slow_showing_drops_old_frames_and_does_not_queue() -> None:
    camera = BarcodeCamera()
    lags: list[int] = []

    def slow(image: Image, captured_s: float) -> Image:
        threading.Event().wait(0.1)
        number = barcode.read(image)
        assert number is not None
        lags.append(camera.sent - number)
        return np.array(image)

    stream = CameraStream(OneAtATime(slow))
    relay_frames(stream, 20, camera)
    counts = stream.counts()
    assert counts.dropped > 0
    assert counts.received <= counts.shown + counts.dropped + 2, "frames wait somewhere"
    growth = float(np.median(lags[-5:]) - np.median(lags[5:10]))
    assert growth < 10, f"a queue would have grown by 20 frames: {lags}"


class FarHandler:
    """A model far away, whose first frames are answered only once three of them are on their way."""

    in_flight = 3

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.under_way = self.most = 0

    def begin(self, image: Image, captured_s: float) -> Callable[[], Image]:
        with self.changed:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.changed.notify_all()
        return lambda: self._finish(image)

    def _finish(self, image: Image) -> Image:
        threading.Event().wait(0.05)
        with self.changed:
            assert self.changed.wait_for(lambda: self.most >= self.in_flight, 10), "frames must overlap"
            self.under_way -= 1
        return np.array(image)


def test_frames_for_a_model_far_away_overlap_and_come_back_in_order() -> None:
    handler = FarHandler()
    stream = CameraStream(handler)
    frames = relay_frames(stream, 20)
    numbers = [barcode.read(image_from_frame(frame)) for frame in frames]
    assert None not in numbers and stream.counts().faults == 0 and handler.most == handler.in_flight
    assert all(later > earlier for earlier, later in pairwise(numbers)), numbers
    assert all(later.pts > earlier.pts for earlier, later in pairwise(frames))


def test_exception_is_covered_by_a_slate_and_reported() -> None:
    def failing(image: Image, captured_s: float) -> Image:
        raise ValueError("the model broke")

    stream = CameraStream(OneAtATime(failing))
    frames = relay_frames(stream, 10)
    for frame in frames:
        image = image_from_frame(frame)
        assert image.shape[:2] == SIZE
        assert np.median(image) < 60, "only the dark slate may be shown"
    assert stream.counts().faults >= 10
    assert stream.counts().last_fault == "ValueError: the model broke"


def test_answer_of_another_size_is_covered() -> None:
    stream = CameraStream(OneAtATime(lambda image, captured_s: np.ascontiguousarray(image[::2, ::2])))
    frames = relay_frames(stream, 3)
    assert {(frame.height, frame.width) for frame in frames} == {SIZE}
    assert stream.counts().faults >= 3


def test_closed_stream_ends_its_track_and_its_thread() -> None:
    before = threading.active_count()
    stream = CameraStream(OneAtATime(inverted))
    relay_frames(stream, 3)
    stream.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before
    with pytest.raises(MediaStreamError):
        asyncio.run(stream.video.recv())


def test_stream_closed_before_its_start_gives_no_frame() -> None:
    stream = CameraStream(OneAtATime(inverted))
    stream.close()
    assert stream.is_ended
    with pytest.raises(MediaStreamError):
        asyncio.run(stream.video.recv())


@pytest.mark.parametrize("size", [(480, 640), (242, 322), (241, 321)])
def test_i420_round_trip_agrees_with_pyav(size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(3).integers(40, 215, (6, 8, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    frame = frame_from_image(image)
    assert (frame.height, frame.width, frame.format.name) == (*size, "yuv420p")
    assert np.abs(image_from_frame(frame).astype(int) - image).mean() < 3
    assert np.abs(frame.to_ndarray(format="bgr24").astype(int) - image).mean() < 3


# ---------------------------------------------------------------- what breaks when a library changes


def test_streamlit_webrtc_takes_our_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "instance", classmethod(lambda cls: RUNTIME))
    install_unbuffered_relay()
    first = get_global_relay()
    install_unbuffered_relay()
    assert isinstance(first, UnbufferedRelay)
    assert get_global_relay() is first


RUNTIME = SimpleNamespace()


def test_subscriber_of_our_relay_waits_for_the_newest_frame_only() -> None:
    async def latest_of(count: int) -> int:
        frames: asyncio.Queue[int] = asyncio.Queue()

        class Source(MediaStreamTrack):
            kind = "video"

            async def recv(self) -> int:
                return await frames.get()

        subscriber = UnbufferedRelay().subscribe(Source())
        for number in range(count):
            frames.put_nowait(number)
        first = await subscriber.recv()
        await asyncio.sleep(0.05)
        latest = first if first == count - 1 else await subscriber.recv()
        subscriber.stop()
        return latest

    async def run() -> int:
        latest = await latest_of(5)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return latest

    assert asyncio.run(run()) == 4


def test_raised_bitrates_reach_the_encoders_and_the_answer() -> None:
    raise_bitrates()
    for encoder in (vpx.Vp8Encoder(), h264.H264Encoder()):
        assert encoder.target_bitrate == START_BITRATE
        encoder.target_bitrate = 10 * LARGEST_BITRATE
        assert encoder.target_bitrate == LARGEST_BITRATE
    vp8 = next(codec for codec in CODECS["video"] if codec.mimeType == "video/VP8")
    assert int(vp8.parameters["x-google-start-bitrate"]) * 1000 == START_BITRATE


def packet(number: int, timestamp: int, data: bytes, is_last: bool = False) -> RtpPacket:
    made = RtpPacket(sequence_number=number, timestamp=timestamp, marker=int(is_last))
    made._data = data  # type: ignore[attr-defined]
    return made


def test_picture_leaves_with_its_last_packet_not_with_the_next_ones_first() -> None:
    buffer = PromptJitterBuffer(capacity=16, is_video=True)
    assert buffer.add(packet(7, 0, b"a"))[1] is None
    _, frame = buffer.add(packet(8, 0, b"b", is_last=True))
    assert frame is not None and (frame.data, frame.timestamp) == (b"ab", 0)
    assert buffer.add(packet(9, 0, b""))[1] is None, "padding is no picture"
    assert buffer.add(packet(11, 3000, b"d", is_last=True))[1] is None, "a packet is missing"
    _, frame = buffer.add(packet(10, 3000, b"c"))
    assert frame is not None and (frame.data, frame.timestamp) == (b"cd", 3000)


def test_aiortc_makes_its_buffers_and_encoders_of_our_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "instance", classmethod(lambda cls: RUNTIME))
    tune()
    receiver = RTCRtpReceiver("video", SimpleNamespace(state="new"))  # type: ignore[arg-type]
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, PromptJitterBuffer)  # type: ignore[attr-defined]
    vp8 = next(codec for codec in CODECS["video"] if codec.mimeType == "video/VP8")
    assert isinstance(get_encoder(vp8), QuickVp8Encoder)


def test_quick_encoder_keeps_its_codec_until_size_or_bitrate_change() -> None:
    encoder, decoder = QuickVp8Encoder(), vpx.Vp8Decoder()
    coarse = np.random.default_rng(3).integers(40, 215, (6, 8, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    codecs: list[object] = []
    for number in range(4):
        frame = frame_from_image(image)
        frame.pts, frame.time_base = 3000 * number, fractions.Fraction(1, 90_000)
        encoder.target_bitrate = 1_000_000 if number < 3 else 2_000_000
        payloads, _ = encoder.encode(frame)
        data = b"".join(vpx.vp8_depayload(payload) for payload in payloads)
        (shown,) = decoder.decode(JitterFrame(data, 3000 * number))
        assert np.abs(shown.to_ndarray(format="bgr24").astype(int) - image).mean() < 4
        assert encoder.codec is not None and not encoder.codec.options, "what libvpx does not know is left over"
        codecs.append(encoder.codec)
    assert codecs[0] is codecs[2] and codecs[3] is not codecs[2]


def test_time_base_is_a_fraction_that_frames_accept() -> None:
    frame = frame_from_image(np.zeros((*SIZE, 3), np.uint8))
    frame.pts, frame.time_base = 3000, fractions.Fraction(1, 90_000)
    assert frame.time == pytest.approx(1 / 30)
