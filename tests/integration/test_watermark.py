"""The watermark outlives the codecs and scalings that recordings go through."""

import io
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from understudy.provenance.watermark import Watermark
from understudy.provenance.watermark_detector import detect
from understudy.watermark import main

Picture = NDArray[np.uint8]
FRAMES = 60


@pytest.fixture(scope="module")
def scene(astronaut: Picture) -> list[Picture]:
    """Two seconds of a 480p camera that drifts over a portrait."""
    large = cv2.resize(astronaut, (760, 760), interpolation=cv2.INTER_CUBIC)
    waves = [(round(60 + 50 * np.sin(i / 9)), round(100 + 90 * np.cos(i / 13))) for i in range(FRAMES)]
    return [np.ascontiguousarray(large[y : y + 480, x : x + 640]) for x, y in waves]


def recode(frames: list[Picture], codec: str, form: str, options: dict[str, str]) -> list[Picture]:
    """Encode at 500 kbit/s and decode again."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *frames[0].shape[:2], "yuv420p", 500_000
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


H264 = ("libx264", "mp4", {"preset": "veryfast"})
VP8 = ("libvpx", "webm", {"deadline": "realtime", "cpu-used": "8"})


@pytest.mark.parametrize("code", [H264, VP8], ids=["h264", "vp8"])
@pytest.mark.parametrize("size", [(640, 480), (320, 180)], ids=["480p", "180p"])
def test_it_is_found_after_500_kbit_and_rescaling(
    scene: list[Picture], code: tuple[str, str, dict[str, str]], size: tuple[int, int]
) -> None:
    mark = Watermark(payload=0xCAFE)
    received = recode([mark(frame.copy()) for frame in scene], *code)
    found = detect([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in received])
    assert found.is_found and found.payload == 0xCAFE


@pytest.mark.parametrize("code", [H264, VP8], ids=["h264", "vp8"])
def test_it_is_found_where_all_is_out_of_focus(scene: list[Picture], code: tuple[str, str, dict[str, str]]) -> None:
    """Where it is faint everywhere."""
    mark = Watermark(payload=0xCAFE)
    blurred = [np.asarray(cv2.GaussianBlur(frame, (0, 0), 4), np.uint8) for frame in scene]
    found = detect(recode([mark(frame) for frame in blurred], *code))
    assert found.is_found and found.payload == 0xCAFE


@pytest.mark.parametrize("code", [H264, VP8], ids=["h264", "vp8"])
def test_coding_alone_makes_no_watermark(scene: list[Picture], code: tuple[str, str, dict[str, str]]) -> None:
    assert not detect(recode(scene, *code)).is_found


def test_command_finds_it_in_a_recording(
    tmp_path: Path, scene: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    mark, clip = Watermark(payload=0x0123), tmp_path / "recording.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=30, width=640, height=480, pix_fmt="yuv420p")
        stream.bit_rate = 500_000
        for image in scene:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(mark(image.copy()), format="bgr24")))
        container.mux(stream.encode(None))
    assert main(["detect", str(clip), "--frames", "30"]) == 0
    assert "recording.mp4: watermarked, payload 0123" in capsys.readouterr().out
