"""Codecs, containers, sizes, parts: what is asked for is what comes out, or is refused before any work."""

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from liveframe.errors import LiveframeError
from tests.integration.test_convert_wild import CornerMarker
from tests.support.clips import add_sound, numbered, read_clip, read_number, read_sound, write_clip
from understudy.media.conversion import Conversion, convert
from understudy.media.encoding import Encoding, EncodingError

FRAMES = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    images = [numbered(number, 320, 192) for number in range(FRAMES)]
    write_clip(folder / "silent.mp4", images, [number / 10 for number in range(FRAMES)])
    return add_sound(folder / "silent.mp4", folder / "in.mp4", 2.0)


@pytest.mark.parametrize(
    ("name", "encoding", "codec", "sound"),
    [
        ("out.mp4", Encoding("hevc"), "hevc", "aac"),
        ("out.mp4", Encoding("av1"), "av1", "aac"),
        ("out.webm", Encoding(), "vp9", "opus"),
        ("out.webm", Encoding("av1"), "av1", "opus"),
        ("out.mov", Encoding("prores"), "prores", "aac"),
        ("out.m4v", Encoding("h264", is_hardware=True), "h264", "aac"),
    ],
)
def test_each_codec_in_its_containers(
    clip: Path, tmp_path: Path, name: str, encoding: Encoding, codec: str, sound: str
) -> None:
    report = convert(Conversion(clip, tmp_path / name, encoding=encoding, segment_frames=12), CornerMarker())
    images, times_s = read_clip(report.target)
    assert [read_number(image) for image in images] == list(range(FRAMES))
    assert times_s == pytest.approx([number / 10 for number in range(FRAMES)], abs=2e-3)
    with av.open(str(report.target)) as container:
        assert codec in container.streams.video[0].codec_context.codec.canonical_name
        assert container.streams.audio[0].codec_context.codec.canonical_name == sound
    assert len(read_sound(report.target)) > 80_000


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root is given real-time priority")
def test_no_encoder_takes_the_machine_for_itself(clip: Path, tmp_path: Path) -> None:
    """SVT-AV1 puts itself and its caller above every other process; what they start later inherits it."""
    before = os.sched_getscheduler(0)
    convert(Conversion(clip, tmp_path / "out.mp4", encoding=Encoding("av1"), segment_frames=12), CornerMarker())
    assert os.sched_getscheduler(0) == before == os.SCHED_OTHER


def test_gif_comes_out_in_time(clip: Path, tmp_path: Path) -> None:
    report = convert(Conversion(clip, tmp_path / "out.gif", segment_frames=12), CornerMarker())
    images, times_s = read_clip(report.target)
    assert [read_number(image) for image in images] == list(range(FRAMES))
    assert times_s == pytest.approx([number / 10 for number in range(FRAMES)], abs=0.011)


def test_quality_and_height_are_obeyed(clip: Path, tmp_path: Path) -> None:
    sizes: list[int] = []
    for quality in (20, 95):
        target = tmp_path / f"{quality}.mp4"
        report = convert(
            Conversion(clip.with_name("silent.mp4"), target, encoding=Encoding(quality=quality, height=96)),
            CornerMarker(),
        )
        assert read_clip(report.target)[0][0].shape == (96, 160, 3)
        sizes.append(target.stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize(
    ("name", "wish", "sentence"),
    [
        ("out.mov", {"codec": "vp9"}, "vp9 must go into .mp4, .webm, but OUT ends in .mov"),
        ("out.gif", {"codec": "h264"}, "h264 must go into"),
        ("out.mp4", {"codec": "divx"}, "must be one of h264"),
        ("out.mp4", {"quality": 0}, "from 1 to 100"),
        ("out.mp4", {"height": 5}, "from 16 to 8192"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    clip: Path, tmp_path: Path, name: str, wish: dict[str, int | str], sentence: str
) -> None:
    with pytest.raises(EncodingError, match=sentence):
        convert(Conversion(clip, tmp_path / name, encoding=Encoding(**wish)), CornerMarker())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_part_between_start_and_end_is_converted_with_its_sound(clip: Path, tmp_path: Path) -> None:
    conversion = Conversion(clip, tmp_path / "out.mp4", start_s=0.5, end_s=1.2, segment_frames=3)
    report = convert(conversion, CornerMarker())
    images, times_s = read_clip(report.target)
    assert [read_number(image) for image in images] == list(range(5, 12))
    assert times_s == pytest.approx([number / 10 for number in range(7)], abs=1e-3)
    assert len(read_sound(report.target)) == pytest.approx(0.7 * 44_100, abs=2_200)


def test_a_part_that_was_stopped_goes_on(clip: Path, tmp_path: Path) -> None:
    conversion, told = Conversion(clip, tmp_path / "out.mp4", start_s=0.5, segment_frames=4), list[object]()
    with pytest.raises(LiveframeError, match="Run the same command again"):
        convert(conversion, CornerMarker(), told.append, lambda: len(told) >= 9)
    report = convert(conversion, CornerMarker())
    assert report.resumed_frames == 9
    assert [read_number(image) for image in read_clip(report.target)[0]] == list(range(5, FRAMES))


def test_a_part_beyond_the_end_says_so(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(LiveframeError, match=r"lasts 2\.0 s"):
        convert(Conversion(clip, tmp_path / "out.mp4", start_s=7.0), CornerMarker())
    assert list(tmp_path.iterdir()) == []


def test_untouched_pictures_look_like_the_source(clip: Path, tmp_path: Path) -> None:
    report = convert(Conversion(clip, tmp_path / "out.mp4"), CornerMarker())
    before, after = (np.stack(read_clip(path)[0]).astype(int)[:, :160] for path in (clip, report.target))
    assert np.abs(before - after).mean() < 1.5
