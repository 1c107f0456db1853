"""Pictures as other programs send them: base64 in lines and in the URL's alphabet, EXIF turns in whole frames."""

import base64
import io

import numpy as np
import pytest
from PIL import Image as Pictures

from liveframe.remote.picture import decode_picture
from liveframe.remote.wire import read_base64


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1000, 49152, 49153, 200_000])
def test_base64_of_any_dialect_is_read(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    written = [
        base64.b64encode(data).decode(),
        base64.encodebytes(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        base64.encodebytes(data).decode().replace("\n", "\r\n"),
    ]
    assert all(read_base64(text) == data for text in written)


@pytest.mark.parametrize(
    "text", ["QQ==QQ==", "Q", "Q=", "QQ==" + "\n" * 70_000 + "QQ==", "Ä" * 4, "QQ!=", "A" * 65_535 + "!"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ase64|adding|ascii|characters|Incorrect"):
        read_base64(text)


def test_whole_frames_are_turned_as_exif_says_and_crops_are_not() -> None:
    exif = Pictures.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 250
    buffer = io.BytesIO()
    Pictures.fromarray(pixels).save(buffer, "JPEG", exif=exif, quality=95)
    upright = decode_picture(buffer.getvalue(), 100, is_upright=True)
    assert upright.shape == (60, 40, 3)
    assert upright[5].mean() > 240 and upright[-5].mean() < 15
    assert decode_picture(buffer.getvalue(), 100).shape == (40, 60, 3)
