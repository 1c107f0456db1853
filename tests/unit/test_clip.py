"""Clips and photos of every kind come out upright, BGR and 8 bits."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image as Pictures

from liveframe.frame import Image
from tests.support.real_faces import write_clip
from understudy.media.clip import describe, find_media, read_frames, read_photo
from understudy.media.guard import MediaError, MediaLimits


def corner_picture(height: int = 64, width: int = 96) -> Image:
    """Return a gray picture whose top left quarter is red (BGR)."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 2, : width // 2] = (0, 0, 255)
    return image


def write_picture(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def test_clip_gives_frames_with_index_and_time(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [np.full((64, 96, 3), 20 * i, np.uint8) for i in range(8)], fps=4)
    frames = list(read_frames(clip))
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 4 for i in range(8)])
    assert [int(frame.image.mean()) for frame in frames] == pytest.approx([20 * i for i in range(8)], abs=4)


def test_every_and_start_keep_indices_and_times(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [corner_picture()] * 10, fps=10)
    frames = list(read_frames(clip, every=3, start=4))
    assert [(frame.index, round(frame.time_s, 3)) for frame in frames] == [(6, 0.6), (9, 0.9)]


def test_uneven_frame_times_are_kept(tmp_path: Path) -> None:
    path, ticks = tmp_path / "vfr.mkv", [0, 40, 400, 440, 1000]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(corner_picture(), format="bgr24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert [frame.time_s for frame in read_frames(path)] == pytest.approx([t / 1000 for t in ticks], abs=2e-3)


@pytest.mark.parametrize("size", [(65, 97), (63, 33)])
def test_clip_of_odd_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(corner_picture(*size), format="bgr24")))
        container.mux(stream.encode(None))
    [frame] = read_frames(path)
    np.testing.assert_array_equal(frame.image, corner_picture(*size))


def test_sideways_phone_clip_comes_out_upright(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", [corner_picture()] * 2)
    [first, *_] = read_frames(with_rotation(plain, tmp_path / "turned.mp4"))
    # The stored picture is 96x64 with its red corner top left; a quarter turn clockwise brings it top right.
    assert first.image.shape == (96, 64, 3)
    assert first.image[10, 54, 2] > 200 and first.image[10, 54, 0] < 60
    assert first.image[10, 10] == pytest.approx([128, 128, 128], abs=8)


def with_rotation(source: Path, out: Path) -> Path:
    """Rewrite an MP4's track matrix to ask players for a quarter turn clockwise, as phones do."""
    content = bytearray(source.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes into the box
    matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    out.write_bytes(content)
    return out


def test_transparent_picture_lies_on_white(tmp_path: Path) -> None:
    image = np.dstack([corner_picture(), np.full((64, 96), 255, np.uint8)])
    image[:, 48:, 3] = 0
    photo = read_photo(write_picture(tmp_path / "a.png", image))
    assert photo.shape == (64, 96, 3) and (photo[:, 48:] == 255).all() and (photo[0, 0] == (0, 0, 255)).all()


def test_gray_picture_has_three_channels(tmp_path: Path) -> None:
    photo = read_photo(write_picture(tmp_path / "a.png", np.full((31, 17), 77, np.uint8)))
    assert photo.shape == (31, 17, 3) and (photo == 77).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, channels: int) -> None:
    deep = np.full((20, 30, channels), 100 * 257, np.uint16).squeeze()
    photo = read_photo(write_picture(tmp_path / "a.png", deep))
    assert photo.shape == (20, 30, 3) and photo == pytest.approx(np.full((20, 30, 3), 100), abs=1)


def test_photo_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Pictures.Exif()
    exif[0x0112] = 6  # stored on its side: players turn it clockwise
    Pictures.fromarray(corner_picture()[..., ::-1]).save(tmp_path / "a.jpg", exif=exif, quality=95)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.shape == (96, 64, 3)
    assert photo[10, 54, 2] > 200 and photo[10, 10] == pytest.approx([128, 128, 128], abs=8)


def test_photo_reads_as_a_clip_of_one_frame(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", corner_picture())
    [frame] = read_frames(path)
    assert (frame.index, frame.time_s) == (0, 0.0) and (frame.image == corner_picture()).all()
    assert list(read_frames(path, start=1)) == []


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a clip")
    (tmp_path / "empty.jpg").touch()
    write_picture(tmp_path / "torn.png", corner_picture())
    torn = (tmp_path / "torn.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(torn[: len(torn) - 40])
    for name in ("text.mp4", "empty.jpg", "torn.png", "missing.jpg"):
        with pytest.raises(MediaError, match=name):
            list(read_frames(tmp_path / name))


def test_clip_whose_index_is_cut_off_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(20)]
    whole = write_clip(tmp_path / "whole.mp4", noise).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the index at the end is gone
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        list(read_frames(tmp_path / "cut.mp4"))


def test_limits_are_checked_before_decoding(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "large.png", corner_picture())
    with pytest.raises(MediaError, match=r"large\.png.*96x64"):
        read_photo(path, MediaLimits(max_image_pixels=1000))
    assert describe(path).width == 96


def test_folders_are_searched_in_order_and_hidden_files_passed_over(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.png", "in/a.png", ".hidden.png"):
        write_picture(tmp_path / name, corner_picture())
    found = [path.relative_to(tmp_path).as_posix() for path in find_media([tmp_path, tmp_path / "b.png"])]
    assert found == ["b.png", "in/a.png", "b.png"]
    with pytest.raises(MediaError, match="nowhere"):
        list(find_media([tmp_path / "nowhere"]))
