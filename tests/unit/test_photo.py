"""Photos of every kind come out upright, in sRGB; what is written names nobody."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures
from PIL import ImageCms
from pillow_heif import register_heif_opener

from liveframe.frame import Image
from understudy.media.clip import read_photo
from understudy.media.guard import TRUSTED_LIMITS, UPLOAD_LIMITS, MediaError, MediaLimits, check_media
from understudy.media.photo import write_photo

RED, GREEN = (200, 30, 30), (30, 200, 30)  # RGB


def picture(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (64, 48)) -> Pictures.Image:
    return Pictures.new("RGB", size, colour)


def swapping_profile() -> bytes:
    """A colour profile that is sRGB with red and green changed over."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = profile[:1024]
    red, green = table.index(b"rXYZ"), table.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def is_near(image: Image, colour_rgb: tuple[int, int, int], most: float = 6) -> bool:
    return bool(np.abs(image[..., ::-1].reshape(-1, 3).mean(axis=0) - colour_rgb).max() < most)


@pytest.mark.parametrize("name", ["a.heic", "a.avif", "a.webp", "a.png", "a.jpg"])
def test_kinds_are_read(tmp_path: Path, name: str) -> None:
    register_heif_opener()
    picture().save(tmp_path / name, quality=95)
    photo = read_photo(tmp_path / name)
    assert photo.shape == (48, 64, 3) and is_near(photo, RED)


def test_the_first_of_several_pictures_in_a_jpeg_is_the_photo(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture(GREEN)], quality=95)
    assert check_media(tmp_path / "a.jpg").frames == 1
    assert is_near(read_photo(tmp_path / "a.jpg"), RED)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_colour_profiles_are_applied(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name, quality=95, icc_profile=swapping_profile())
    assert is_near(read_photo(tmp_path / name), GREEN, 12)


def test_a_broken_colour_profile_is_ignored(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", quality=95, icc_profile=b"no profile at all")
    assert is_near(read_photo(tmp_path / "a.jpg"), RED)


def test_a_huge_photo_gets_one_sentence_with_its_size_and_the_limit(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for side, said in ((12_000, "12000x12000"), (20_000, "400000000")):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        path = tmp_path / "holiday.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b""))
        for limits in (TRUSTED_LIMITS, UPLOAD_LIMITS):
            with pytest.raises(MediaError) as caught:
                check_media(path, limits)
            sentence = str(caught.value)
            assert "'holiday.png'" in sentence and said in sentence and str(limits.max_image_pixels) in sentence
            assert "broken" not in sentence


def test_a_phones_format_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(500))
    with pytest.raises(MediaError, match=r"IMG_0001\.HEIC.*heic.*JPEG"):
        check_media(path)


def test_animations_have_limits_too(tmp_path: Path) -> None:
    pages = [picture(), picture(GREEN), picture()]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:])
    assert check_media(tmp_path / "a.gif").frames == 3
    with pytest.raises(MediaError, match="at most 2 frames"):
        check_media(tmp_path / "a.gif", MediaLimits(max_frames=2))
    with pytest.raises(MediaError, match="at most 100 pixels"):
        check_media(tmp_path / "a.gif", MediaLimits(max_frame_pixels=100))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_written_photos_come_back_and_name_nobody(tmp_path: Path, name: str) -> None:
    image = np.full((48, 64, 3), (30, 30, 200), np.uint8)
    write_photo(tmp_path / name, image)
    assert np.abs(read_photo(tmp_path / name).astype(int) - image).max() <= 4
    with Pictures.open(tmp_path / name) as written:
        assert not written.getexif() and "xmp" not in written.info
