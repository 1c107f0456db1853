"""Uploads are decoded in a child that can be killed, and that may take no more than its share."""

import io
import struct
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pictures

from understudy.media.guard import (
    MIB,
    MediaError,
    MediaLimits,
    check_media,
    read_upload_frames,
    read_upload_image,
    vet_upload,
)

FRAMES = 12


def write_clip(path: Path, sizes: tuple[tuple[int, int], ...] = ((64, 48),), codec: str = "libx264") -> Path:
    """Write FRAMES frames per size into one stream; a second size changes the stream in the middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=sizes[0][0], height=sizes[0][1], pix_fmt="yuv420p")
        for part, (width, height) in enumerate(sizes):
            coder = av.CodecContext.create(codec, "w") if part else stream.codec_context
            if part:
                coder.width, coder.height, coder.pix_fmt, coder.time_base = width, height, "yuv420p", Fraction(1, 25)
            for index in range(FRAMES):
                pixels = np.full((height, width, 3), 10 * index, np.uint8)
                pixels[: height // 2] = 255 - 10 * index
                frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
                frame.pts, frame.time_base = part * FRAMES + index, Fraction(1, 25)
                for packet in coder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
            for packet in coder.encode(None):
                packet.stream = stream
                container.mux(packet)
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4")])
def test_good_clip_is_counted_and_read(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, codec=codec)
    assert vet_upload(path).frames == FRAMES
    frames = list(read_upload_frames(path))
    assert [image.shape for _, image in frames] == [(48, 64, 3)] * FRAMES
    assert frames[-1][0] == pytest.approx((FRAMES - 1) / 25, abs=0.02)
    assert abs(int(frames[0][1][0, 0, 0]) - 255) < 12


def test_header_of_a_clip_is_checked_without_a_child(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    info = check_media(path)
    assert (info.kind, info.width, info.height, info.is_video) == ("mp4", 64, 48, True)
    with pytest.raises(MediaError, match=r"at most 3071 pixels, but declares 64x48"):
        check_media(path, MediaLimits(max_frame_pixels=64 * 48 - 1))
    with pytest.raises(MediaError, match=r"at most 5 frames"):
        check_media(path, MediaLimits(max_frames=5))
    with pytest.raises(MediaError, match=r"must last at most 0 s"):
        check_media(path, MediaLimits(max_seconds=0.1))


def test_rotated_clip_comes_upright(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    raw = bytearray(path.read_bytes())
    quarter_turn = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # as phones write it
    at = raw.index(b"tkhd") + 44
    raw[at : at + len(quarter_turn)] = quarter_turn
    path.write_bytes(bytes(raw))
    with closing(read_upload_frames(path)) as frames:
        _, image = next(frames)
    assert image.shape == (64, 48, 3)
    # Turned clockwise, as players show it: the bright top half comes to the right.
    assert image[:, -20:].mean() > 200 > 60 > image[:, :20].mean()


def test_picture_with_orientation_and_transparency_comes_upright_on_white(tmp_path: Path) -> None:
    turned = Pictures.new("RGB", (40, 20), "black")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=exif)
    assert read_upload_image(tmp_path / "a.jpg").shape == (40, 20, 3)
    Pictures.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_upload_image(tmp_path / "a.png").min() == 255


def test_stream_that_grows_in_the_middle_is_stopped_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.webm", sizes=((64, 48), (640, 480)), codec="libvpx")
    limits = MediaLimits(max_frame_pixels=64 * 48)
    assert check_media(path, limits).width == 64
    with pytest.raises(MediaError, match="640x480"):
        vet_upload(path, limits)


def test_length_is_counted_not_believed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.webm", codec="libvpx")
    assert check_media(path, MediaLimits(max_frames=5)).frames == 0
    with pytest.raises(MediaError, match="at most 5 frames"):
        vet_upload(path, MediaLimits(max_frames=5))


def test_decoder_that_wants_too_much_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Pictures.new("RGB", (6000, 6000)).save(path)
    assert path.stat().st_size < MIB
    with pytest.raises(MediaError, match=r"memory"):
        read_upload_image(path, MediaLimits(max_memory_bytes=400 * MIB))


def test_decoder_out_of_time_is_killed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="took too long"):
        vet_upload(path, MediaLimits(max_wait_s=0.02))
    assert not any("media.decode" in " ".join(child.cmdline()) for child in psutil.Process().children())


def test_closing_the_iterator_ends_the_child(tmp_path: Path) -> None:
    with closing(read_upload_frames(write_clip(tmp_path / "a.mp4"))) as frames:
        next(frames)
        assert any("media.decode" in " ".join(child.cmdline()) for child in psutil.Process().children())
    assert not any("media.decode" in " ".join(child.cmdline()) for child in psutil.Process().children())


@pytest.mark.parametrize("task", [vet_upload, read_upload_image, lambda path: list(read_upload_frames(path))])
def test_broken_content_is_refused_by_every_door(tmp_path: Path, task: Callable[[Path], object]) -> None:
    broken = tmp_path / "a.png"
    buffer = io.BytesIO()
    Pictures.effect_noise((64, 64), 90).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[200:260] = bytes(60)
    broken.write_bytes(bytes(raw))
    with pytest.raises(MediaError, match=r"a\.png"):
        task(broken)


def test_mp4_that_points_at_another_file_reads_nothing_of_it(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    raw = path.read_bytes()
    at = raw.index(b"url \x00\x00\x00\x01") - 4
    secret = b"/etc/passwd\x00"
    entry = struct.pack(">I", 12 + len(secret)) + b"url \x00\x00\x00\x00" + secret
    grown = raw[:at] + entry + raw[at + 12 :]
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        where = grown.index(box) - 4
        size = struct.unpack_from(">I", grown, where)[0] + len(secret)
        grown = grown[:where] + struct.pack(">I", size) + grown[where + 4 :]
    (tmp_path / "b.mp4").write_bytes(grown)
    assert vet_upload(tmp_path / "b.mp4").frames == FRAMES  # its own samples, not the other file's bytes


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(1, 60))
def test_mutated_clips_are_decoded_or_refused_but_never_crash(tmp_path: Path, seed: int, flips: int) -> None:
    source = tmp_path / "source.mp4"
    raw = bytearray((source if source.exists() else write_clip(source)).read_bytes())
    random = np.random.default_rng(seed)
    for at in random.integers(16, len(raw), flips):
        raw[at] = random.integers(0, 256)
    path = tmp_path / "fuzz.mp4"
    path.write_bytes(bytes(raw))
    limits = MediaLimits(max_frame_pixels=256 * 256, max_frames=100, max_wait_s=20)
    refusal = None
    try:
        assert 0 < vet_upload(path, limits).frames <= 100
    except MediaError as error:
        refusal = str(error)
    assert refusal is None or refusal.endswith(".")
