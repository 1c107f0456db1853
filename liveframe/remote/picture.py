"""One picture to bytes and back. The size is read from the bytes and checked before anything is decoded."""

import struct
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import WireError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


class Encoding(IntEnum):
    """How a picture's pixels are written. RAW, PNG are exact; JPEG and WEBP are smaller."""

    RAW = 0
    JPEG = 1
    WEBP = 2
    PNG = 3


def encode_picture(image: NDArray[np.uint8], encoding: Encoding, quality: int = 90) -> bytes:
    """Write one picture.

    Args:
        image: uint8 [H, W, 3] BGR, or [H, W] grey.
        encoding: how; RAW gives the bytes of the array, without its size.
        quality: 1 to 100, for JPEG and WEBP.

    Returns:
        The encoded bytes.

    Raises:
        WireError: OpenCV cannot encode it.
    """
    if encoding is Encoding.RAW:
        return image.tobytes()
    if encoding is Encoding.JPEG:
        name, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, *_FULL_COLOUR]
    elif encoding is Encoding.WEBP:
        name, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality]
    else:
        name, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]
    try:
        is_done, data = cv2.imencode(name, image, options)
    except cv2.error as error:
        raise WireError(f"A picture of {image.dtype} {list(image.shape)} cannot be encoded: {error.err}.") from error
    if not is_done:
        raise WireError(f"A picture of {image.dtype} {list(image.shape)} cannot be encoded as {encoding.name}.")
    return data.tobytes()


_FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def decode_picture(
    data: bytes | memoryview, max_side: int, *, is_grey: bool = False, is_upright: bool = False
) -> NDArray[np.uint8]:
    """Read a JPEG, WebP or PNG picture.

    Args:
        data: the encoded bytes.
        max_side: px; a picture that says it is larger is refused undecoded.
        is_grey: give one channel instead of three.
        is_upright: turn it as its EXIF data say; for whole frames of cameras. Crops and masks lie as they are.

    Returns:
        uint8 [H, W, 3] BGR, or [H, W] grey.

    Raises:
        WireError: unknown format, too large, or damaged.
    """
    width, height = picture_size(data)
    if not (0 < width <= max_side and 0 < height <= max_side):
        raise WireError(
            f"A picture must measure 1 to {max_side} px a side, but is {width} x {height}. Make it smaller."
        )
    flags = cv2.IMREAD_GRAYSCALE if is_grey else cv2.IMREAD_COLOR
    flags |= 0 if is_upright else cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise WireError(f"A picture of {len(data)} bytes is damaged: {error.err}. Send it again.") from error
    sizes = [(height, width), (width, height)] if is_upright else [(height, width)]
    if image is None or image.shape[:2] not in sizes:
        raise WireError(f"A picture of {len(data)} bytes is damaged. Send it again.")
    return np.asarray(image, np.uint8)


def picture_size(data: bytes | memoryview) -> tuple[int, int]:
    """Read width and height, in px, from an encoded picture's first bytes; decodes nothing.

    Raises:
        WireError: it is no JPEG, WebP (single picture) or PNG, or breaks off.
    """
    view = memoryview(data)
    head = bytes(view[:32])
    try:
        if head[:8] == _PNG_START and head[12:16] == b"IHDR":
            return struct.unpack_from(">II", view, 16)
        if head[:2] == b"\xff\xd8":
            return _jpeg_size(view)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp_size(head)
    except (struct.error, IndexError) as error:
        raise WireError(f"A picture of {len(view)} bytes breaks off in its header. Send it again.") from error
    raise WireError(f"A picture must be JPEG, WebP or PNG, but starts with {head[:4]!r}. Encode it first.")


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    """Walk a JPEG's segments to the frame header."""
    if bytes(view[-2:]) != b"\xff\xd9":
        raise WireError(f"A JPEG of {len(view)} bytes has no end. Send it again.")
    at = 2
    while True:
        if view[at] != 0xFF:
            raise WireError(f"A JPEG of {len(view)} bytes is damaged at byte {at}. Send it again.")
        marker = view[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", view, at + 5)
            return width, height
        elif 0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise WireError("A JPEG must be baseline or progressive. Encode it anew.")
        else:
            at += 2 + max(2, struct.unpack_from(">H", view, at + 2)[0])


def _webp_size(head: bytes) -> tuple[int, int]:
    """Read a WebP's first chunk: a single lossy or lossless picture, neither animation nor alpha."""
    kind = head[12:16]
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and head[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    raise WireError(f"A WebP must be a single picture without alpha, but holds {kind!r}. Encode it anew.")
