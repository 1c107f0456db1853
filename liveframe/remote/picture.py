"""One picture to bytes and back. The size is read from the bytes and checked before anything is decoded."""

import struct
import zlib
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import WireError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_CORE = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_MOST_EXIF_BYTES = 64 * 1024  # which way is up
_MOST_CHUNKS = 10_000  # encoders write one for every 8 KB
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_JPEG_SCAN = b"\xff\xda"
_MOST_SCANS = 32  # encoders write 1, or 10 where progressive; each costs a pass over the picture, and may be empty
_PART = 1 << 16  # bytes: they stay in the processor's cache
_MOST_SEGMENTS = 1000  # before the picture; a large colour profile takes 255


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
    if data[:1] == _PNG_START[:1]:
        data = _png_core(memoryview(data))
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


def _png_core(view: memoryview) -> bytes:
    """Leave of a PNG what its pixels need: texts and profiles inflate to a thousand times their size, one by one."""
    if view[24] > 8:
        raise WireError(f"A PNG must have at most 8 bits a channel, but has {view[24]}. Encode it anew.")
    parts = [bytes(view[: len(_PNG_START)])]
    at = len(_PNG_START)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(view):
            break
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        if kind in _PNG_CORE or (kind == b"eXIf" and end - at < _MOST_EXIF_BYTES):
            parts.append(bytes(view[at:end]))
        if kind == b"IEND" and end <= len(view):
            _check_inflated(view, b"".join(part[8:-4] for part in parts if part[4:8] == b"IDAT"))
            return b"".join(parts)
        at = end
    raise WireError(f"A PNG of {len(view)} bytes breaks off or has over {_MOST_CHUNKS} parts. Encode it anew.")


def _check_inflated(view: memoryview, data: bytes) -> None:
    """Refuse a PNG whose data goes on after its pixels: the decoder would inflate all of it.

    Raises:
        WireError: it does, or it breaks off.
    """
    width, height = struct.unpack_from(">II", view, 16)
    most = 2 * height * (1 + width * 4) + 4096  # four channels of 8 bits; passes of an interlaced one add some bytes
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(data, most)
    except zlib.error as error:
        raise WireError(f"A PNG of {len(view)} bytes is damaged: {error}. Send it again.") from error
    if not inflate.eof:
        raise WireError(f"A PNG of {len(view)} bytes holds more than its pixels, or breaks off. Encode it anew.")


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    """Walk a JPEG's segments to the frame header."""
    if bytes(view[-2:]) != b"\xff\xd9":
        raise WireError(f"A JPEG of {len(view)} bytes has no end. Send it again.")
    # Inside a scan no other byte than 0 or a restart marker follows 0xFF, so none is missed.
    if (scans := _count(np.frombuffer(view, np.uint8), *_JPEG_SCAN)) > _MOST_SCANS:
        raise WireError(f"A JPEG must have at most {_MOST_SCANS} scans, but has {scans}. Encode it as baseline.")
    at = 2
    for _ in range(_MOST_SEGMENTS):
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
    raise WireError(f"A JPEG must have at most {_MOST_SEGMENTS} segments before its picture. Encode it anew.")


def _count(codes: NDArray[np.uint8], first: int, second: int) -> int:
    """Count a pair of bytes, in parts and without the interpreter, so that others are answered meanwhile."""
    count = 0
    for start in range(0, len(codes), _PART):
        part = codes[start : start + _PART + 1]
        count += int(np.count_nonzero((part[:-1] == first) & (part[1:] == second)))
    return count


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
