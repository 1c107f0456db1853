"""Files are judged by their first bytes and header, and refused with a sentence."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pictures

from understudy.media.guard import MediaError, MediaInfo, MediaLimits, check_media

SMALL = MediaLimits(max_bytes=200_000, max_image_pixels=64 * 64)


def picture_bytes(form: str, size: tuple[int, int] = (32, 24)) -> bytes:
    """Encode a small noisy picture; size is (width, height)."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Pictures.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def zip_bytes() -> bytes:
    """A zip archive with one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("run.sh", "echo")
    return buffer.getvalue()


def png_declaring(width: int, height: int) -> bytes:
    """A PNG whose header declares a size that its few bytes of data never fill."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animation_bytes(size: tuple[int, int]) -> bytes:
    """An animated WebP of two frames."""
    frames = [Pictures.new("RGB", size, colour) for colour in ("red", "green")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "form", "kind"),
    [("a.jpg", "JPEG", "jpeg"), ("a.JPEG", "JPEG", "jpeg"), ("a.png", "PNG", "png"), ("a.webp", "WEBP", "webp")],
)
def test_good_pictures_are_let_in_with_their_size(tmp_path: Path, name: str, form: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(picture_bytes(form))
    assert check_media(path) == MediaInfo(kind, 32, 24, 1, 0.0)


BAD_FILES = {
    "empty": ("a.png", b"", "first bytes are none of these"),
    "text": ("a.jpg", b"hello there, no picture here", "first bytes are none of these"),
    "playlist that names other files": ("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "first bytes are none"),
    "png named jpg": ("a.jpg", picture_bytes("PNG"), "must end in .png"),
    "jpeg named mp4": ("a.mp4", picture_bytes("JPEG"), "must end in .jpg or .jpeg"),
    "zip named png": ("a.png", zip_bytes(), "first bytes are none of these"),
    "jpeg and zip in one": ("a.jpg", picture_bytes("JPEG") + zip_bytes(), "also holds a zip archive"),
    "jpeg and web page in one": (
        "a.jpg",
        b"\xff\xd8\xff\xfe\x00\x20<script>alert(1)</script>    " + picture_bytes("JPEG")[2:],
        "also holds <script",
    ),
    "png and pdf in one": ("a.png", picture_bytes("PNG") + b"%PDF-1.4", "also holds %pdf-"),
    "too many bytes": ("a.png", picture_bytes("PNG") + bytes(300_000), "must be at most"),
    "too many pixels": ("a.png", picture_bytes("PNG", (65, 64)), "at most 4096 pixels, but declares 65x64"),
    "pixel bomb": ("a.png", png_declaring(20_000, 20_000), "must hold at most 4096 pixels"),
    "no pixels": ("a.png", png_declaring(0, 5), "a.png"),
    "header cut off": ("a.png", picture_bytes("PNG")[:20], "broken png header"),
    "animation of too many pixels": ("a.webp", animation_bytes((5000, 2000)), "must hold at most"),
    "mp4 without anything in it": ("a.mp4", struct.pack(">I", 16) + b"ftypisom" + bytes(4), "cannot be read as mp4"),
    "webm without anything in it": ("a.webm", b"\x1aE\xdf\xa3\x9f\x42\x82\x84webm", "a.webm"),
    "noise after an avi head": ("a.avi", b"RIFF\x00\x01\x00\x00AVI " + bytes(range(256)) * 4, "a.avi"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_with_a_sentence(tmp_path: Path, case: str) -> None:
    name, content, sentence = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        check_media(path, SMALL)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(MediaError, match="must be a file"):
            check_media(path)


def test_zip_mark_by_chance_in_the_last_bytes_is_no_polyglot(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(picture_bytes("JPEG") + b"PK\x05\x06" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 9, 0, 0, 0]) + bytes(6))
    assert check_media(path).kind == "jpeg"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_headers_are_read_or_refused_but_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    form, suffix = data.draw(st.sampled_from([("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("BMP", ".bmp")]))
    content = bytearray(picture_bytes(form))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 200)))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    refusal = None
    try:
        info = check_media(path, SMALL)
        assert 0 < info.width * info.height <= SMALL.max_image_pixels
    except MediaError as error:
        refusal = str(error)
    assert refusal is None or refusal.endswith(".")
