"""A batch of pictures, and tensors that accompany them, to request bytes and back.

Layout, little-endian: a 16-byte header

    4s magic "LFRB" | u8 version | u8 encoding | u8 mask encoding | u8 channels (1, 3, 4)
    u16 count | u16 height | u16 width | u16 zero

then per item u32 length of the picture, u32 length of the mask (0 unless 4 channels and
encoded), and then all pictures and masks, item by item. RAW items are uint8 [H, W, C]
with the mask inside. Nothing may follow in version 1. In version 2 named float32 tensors
[count, ...] do, each

    u8 length of its name (ASCII) | u8 axes after the first | 2 bytes zero | u32 each axis | name | its numbers
"""

import base64
import binascii
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import WireError
from liveframe.remote.picture import Encoding, decode_picture, encode_picture

MEDIA_TYPE = "application/vnd.liveframe.batch"
PLAIN, ACCOMPANIED = 1, 2  # versions; bodies without tensors stay what they always were
_EXTRA = struct.Struct("<BBH")
_MOST_EXTRAS, _MOST_AXES = 8, 4
Extras = Mapping[str, NDArray[np.float32]]
_MAGIC = b"LFRB"
_HEADER = struct.Struct("<4sBBBBHHHH")
_LENGTHS = struct.Struct("<II")
_CHANNELS = (1, 3, 4)
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n\f\v"
_PART = 1 << 16  # characters of base64 that are read at once


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What a parser accepts.

    Attributes:
        max_bytes: of one body.
        max_count: pictures in one batch.
        max_side: height and width of a picture, px.
        max_pixels: of all pictures of a batch together.
    """

    max_bytes: int = 8 * 1024 * 1024
    max_count: int = 64
    max_side: int = 1024
    max_pixels: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WireBatch:
    """A batch as it came, and how it was written, so that the answer can be written alike.

    Attributes:
        images: uint8 [N, H, W, C]; may be read-only and share the body's memory.
        encoding: of the pictures.
        mask_encoding: of the fourth channel; RAW where there is none.
        extras: the tensors that accompany them, float32 [N, ...] by name; may be read-only, too.
    """

    images: NDArray[np.uint8]
    encoding: Encoding
    mask_encoding: Encoding
    extras: Extras = field(default_factory=dict[str, NDArray[np.float32]])


def encode_batch(
    batch: NDArray[np.uint8],
    encoding: Encoding = Encoding.JPEG,
    mask_encoding: Encoding = Encoding.PNG,
    quality: int = 90,
    extras: Extras | None = None,
) -> bytes:
    """Write a batch.

    Args:
        batch: uint8 [N, H, W, C]; C is 1 (grey), 3 (BGR) or 4 (BGR and mask).
        encoding: of the pictures; RAW writes all channels as they are.
        mask_encoding: of the fourth channel, where `encoding` is not RAW.
        quality: 1 to 100, for JPEG and WEBP.
        extras: tensors that accompany the pictures, float32 [N, ...] by name.

    Returns:
        The body of a request or an answer.

    Raises:
        WireError: the batch cannot be written.
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] not in _CHANNELS or 0 in batch.shape:
        raise WireError(f"batch must be uint8 [N, H, W, 1|3|4], but got {batch.dtype} {list(batch.shape)}. Convert it.")
    count, height, width, channels = batch.shape
    if max(count, height, width) > 0xFFFF:
        raise WireError(f"batch must measure at most 65535 a side, but got {list(batch.shape)}. Split it.")
    is_raw = encoding is Encoding.RAW
    mask_encoding = mask_encoding if channels == 4 and not is_raw else Encoding.RAW
    tail = _write_extras(extras, count) if extras else b""
    version = ACCOMPANIED if tail else PLAIN
    header = _HEADER.pack(_MAGIC, version, encoding, mask_encoding, channels, count, height, width, 0)
    if is_raw:
        return b"".join([header, _LENGTHS.pack(height * width * channels, 0) * count, batch.tobytes(), tail])
    pictures: list[bytes] = []
    masks: list[bytes] = []
    for item in batch:
        colour = np.ascontiguousarray(item[..., :3]) if channels >= 3 else np.ascontiguousarray(item[..., 0])
        pictures.append(encode_picture(colour, encoding, quality))
        has_mask = channels == 4
        masks.append(encode_picture(np.ascontiguousarray(item[..., 3]), mask_encoding, quality) if has_mask else b"")
    pairs = list(zip(pictures, masks, strict=True))
    lengths = [_LENGTHS.pack(len(picture), len(mask)) for picture, mask in pairs]
    return b"".join([header, *lengths, *(part for pair in pairs for part in pair), tail])


def _write_extras(extras: Extras, count: int) -> bytes:
    parts: list[bytes] = []
    for name, tensor in extras.items():
        is_named = name.isascii() and 1 <= len(name) <= 0xFF
        if not is_named or tensor.dtype != np.float32 or tensor.shape[:1] != (count,) or tensor.ndim > _MOST_AXES + 1:
            raise WireError(f"{name!r:.40} must be float32 [{count}, ...], but is {tensor.dtype} {list(tensor.shape)}.")
        axes = tensor.shape[1:]
        parts += [_EXTRA.pack(len(name), len(axes), 0), struct.pack(f"<{len(axes)}I", *axes), name.encode()]
        parts.append(np.ascontiguousarray(tensor, "<f4").tobytes())
    return b"".join(parts)


def decode_batch(body: bytes | memoryview, limits: WireLimits | None = None) -> WireBatch:
    """Read a batch.

    Args:
        body: a request's or an answer's whole body.
        limits: what to accept.

    Returns:
        The batch.

    Raises:
        WireError: anything about the body is wrong; says what.
    """
    limits = limits or WireLimits()
    view = memoryview(body)
    if len(view) > limits.max_bytes:
        raise WireError(f"A body must have at most {limits.max_bytes} bytes, but has {len(view)}. Send fewer pictures.")
    if len(view) < _HEADER.size:
        raise WireError(f"A body must have a header of {_HEADER.size} bytes, but has {len(view)}. Send it again.")
    version, encoding, mask_encoding, shape = _read_header(view, limits)
    lengths, end = _read_lengths(view, shape[0])
    extras = _read_extras(view[end:], shape[0]) if version == ACCOMPANIED else {}
    if version == PLAIN and end != len(view):
        raise WireError(f"A body must have {end} bytes by its table, but has {len(view)}. Send it again.")
    if encoding is Encoding.RAW:
        images = _read_raw(view, lengths, shape)
    else:
        images = _read_encoded(view, lengths, shape, mask_encoding, limits)
    return WireBatch(images, encoding, mask_encoding, extras)


def peek_encoding(body: bytes) -> Encoding | None:
    """Return how a batch's pictures are written without reading them; None where it is no batch of a known kind."""
    is_batch = len(body) >= _HEADER.size and body[:4] == _MAGIC and body[5] in set(Encoding)
    return Encoding(body[5]) if is_batch else None


def _read_header(view: memoryview, limits: WireLimits) -> tuple[int, Encoding, Encoding, tuple[int, int, int, int]]:
    magic, version, encoding, mask_encoding, channels, count, height, width, zero = _HEADER.unpack_from(view)
    if magic != _MAGIC or zero != 0:
        raise WireError(f"A body must start with {_MAGIC!r}, but starts with {magic!r}. Is it a liveframe batch?")
    if version not in (PLAIN, ACCOMPANIED):
        raise WireError(f"A body must be of version 1 or 2, but is of version {version}. Update the older side.")
    if encoding not in set(Encoding) or mask_encoding not in set(Encoding) or channels not in _CHANNELS:
        raise WireError(
            f"Encodings {encoding}, {mask_encoding} with {channels} channels are unknown. Update this side."
        )
    if not 1 <= count <= limits.max_count:
        raise WireError(f"A batch must hold 1 to {limits.max_count} pictures, but holds {count}. Split it.")
    if not (1 <= height <= limits.max_side and 1 <= width <= limits.max_side):
        raise WireError(f"A picture must measure 1 to {limits.max_side} px a side, but is {width} x {height}.")
    if count * height * width > limits.max_pixels:
        raise WireError(
            f"A batch must have at most {limits.max_pixels} px, but has {count * height * width}. Split it."
        )
    return version, Encoding(encoding), Encoding(mask_encoding), (count, height, width, channels)


def _read_lengths(view: memoryview, count: int) -> tuple[list[tuple[int, int]], int]:
    """Read the table of lengths, and check that the body holds what it says; returns also where that ends."""
    start = _HEADER.size + count * _LENGTHS.size
    if len(view) < start:
        raise WireError(f"A body of {len(view)} bytes breaks off in its table of {count} pictures. Send it again.")
    lengths: list[tuple[int, int]] = [
        _LENGTHS.unpack_from(view, _HEADER.size + k * _LENGTHS.size) for k in range(count)
    ]
    end = start + sum(picture + mask for picture, mask in lengths)
    if end > len(view):
        raise WireError(f"A body must have {end} bytes by its table, but has {len(view)}. Send it again.")
    return lengths, end


def _read_extras(view: memoryview, count: int) -> dict[str, NDArray[np.float32]]:
    """Read the tensors behind the pictures, to the body's very end."""
    extras: dict[str, NDArray[np.float32]] = {}
    while len(view):
        try:
            length, axes, zero = _EXTRA.unpack_from(view)
            shape = struct.unpack_from(f"<{min(axes, _MOST_AXES)}I", view, _EXTRA.size)
        except struct.error as error:
            raise WireError(f"A body breaks off in its tensors ({error}). Send it again.") from None
        start = _EXTRA.size + 4 * axes + length
        size = 4 * count * math.prod(shape)
        name = bytes(view[start - length : start]).decode("ascii", "replace")
        is_new = length > 0 and name.isascii() and name not in extras and len(extras) < _MOST_EXTRAS
        if zero or axes > _MOST_AXES or not is_new or not 0 < size <= len(view) - start:
            raise WireError(
                f"A tensor behind the pictures must have a name of its own and its bytes, but {name!r:.40} not."
            )
        extras[name] = np.frombuffer(view, "<f4", size // 4, start).reshape((count, *shape))
        view = view[start + size :]
    return extras


def _read_raw(view: memoryview, lengths: list[tuple[int, int]], shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """View the pixels where they lie."""
    count, height, width, channels = shape
    if any(pair != (height * width * channels, 0) for pair in lengths):
        raise WireError(f"A raw picture must have {height * width * channels} bytes and no mask. Send it again.")
    start = _HEADER.size + count * _LENGTHS.size
    return np.frombuffer(view, np.uint8, count * height * width * channels, start).reshape(shape)


def _read_encoded(
    view: memoryview,
    lengths: list[tuple[int, int]],
    shape: tuple[int, int, int, int],
    mask_encoding: Encoding,
    limits: WireLimits,
) -> NDArray[np.uint8]:
    """Decode pictures and masks."""
    count, height, width, channels = shape
    images = np.empty(shape, np.uint8)
    at = _HEADER.size + count * _LENGTHS.size
    for item, (picture, mask) in enumerate(lengths):
        if (mask > 0) != (channels == 4):
            raise WireError(f"Picture {item} must {'have a' if channels == 4 else 'have no'} mask. Send it again.")
        colour = decode_picture(view[at : at + picture], limits.max_side, is_grey=channels == 1)
        _check_size(colour, height, width, item)
        images[item, ..., : min(channels, 3)] = colour if channels >= 3 else colour[..., None]
        at += picture
        if channels == 4:
            images[item, ..., 3] = _read_mask(view[at : at + mask], mask_encoding, height, width, item, limits)
            at += mask
    return images


def _read_mask(
    data: memoryview, encoding: Encoding, height: int, width: int, item: int, limits: WireLimits
) -> NDArray[np.uint8]:
    if encoding is not Encoding.RAW:
        mask = decode_picture(data, limits.max_side, is_grey=True)
        _check_size(mask, height, width, item)
        return mask
    if len(data) != height * width:
        raise WireError(f"Mask {item} must have {height * width} bytes, but has {len(data)}. Send it again.")
    return np.frombuffer(data, np.uint8).reshape(height, width)


def _check_size(image: NDArray[np.uint8], height: int, width: int, item: int) -> None:
    if image.shape[:2] != (height, width):
        got = f"{image.shape[1]} x {image.shape[0]}"
        raise WireError(f"Picture {item} must be {width} x {height} as its header says, but is {got}. Send it again.")


# ---------------------------------------------------------------------- the same as JSON


def batch_to_json(
    batch: NDArray[np.uint8], key: str = "instances", encoding: Encoding = Encoding.PNG, quality: int = 90
) -> dict[str, list[dict[str, str]]]:
    """Write a batch as `{key: [{"b64": picture, "mask_b64": PNG}, ...]}`; `mask_b64` only with 4 channels.

    Args:
        batch: uint8 [N, H, W, 3] BGR, or [N, H, W, 4] BGR and mask.
        key: "instances" in a request, "predictions" in an answer.
        encoding: JPEG, WEBP or PNG.
        quality: 1 to 100, for JPEG and WEBP.

    Raises:
        WireError: the batch cannot be written.
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] not in (3, 4) or encoding is Encoding.RAW:
        raise WireError(
            f"A JSON batch must be encoded uint8 [N, H, W, 3|4], but got {batch.dtype} {list(batch.shape)}."
        )
    items: list[dict[str, str]] = []
    for image in batch:
        item = {"b64": _base64(encode_picture(np.ascontiguousarray(image[..., :3]), encoding, quality))}
        if image.shape[2] == 4:
            item["mask_b64"] = _base64(encode_picture(np.ascontiguousarray(image[..., 3]), Encoding.PNG))
        items.append(item)
    return {key: items}


def batch_from_json(
    document: Mapping[str, Any], key: str = "instances", limits: WireLimits | None = None
) -> NDArray[np.uint8]:
    """Read what `batch_to_json` writes.

    Args:
        document: parsed JSON; anything may come.
        key: "instances" in a request, "predictions" in an answer.
        limits: what to accept.

    Returns:
        uint8 [N, H, W, 3] BGR, or [N, H, W, 4] BGR and mask where every item has a mask.

    Raises:
        WireError: anything about the document is wrong; says what.
    """
    limits = limits or WireLimits()
    items = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(items, list) or not 1 <= len(items) <= limits.max_count:
        raise WireError(f'"{key}" must be a list of 1 to {limits.max_count} objects {{"b64": ...}}. Check the request.')
    images: list[NDArray[np.uint8]] = []
    pixels = 0
    for index, item in enumerate(items):
        images.append(_item_from_json(item, index, limits))
        pixels += images[-1].shape[0] * images[-1].shape[1]
        if pixels > limits.max_pixels:
            raise WireError(f"A batch must have at most {limits.max_pixels} px, but has more. Split it.")
    sizes = sorted({image.shape for image in images})
    if len(sizes) > 1:
        raise WireError(f"Pictures of one batch must be of one size, but are {sizes}. Send one request for each size.")
    return np.stack(images)


def _item_from_json(item: Any, index: int, limits: WireLimits) -> NDArray[np.uint8]:
    if not isinstance(item, Mapping) or not isinstance(item.get("b64"), str):
        raise WireError(f'Instance {index} must be an object with a base64 text in "b64". Check the request.')
    image = decode_picture(_unbase64(item["b64"], index, limits), limits.max_side)
    if "mask_b64" not in item:
        return image
    if not isinstance(item["mask_b64"], str):
        raise WireError(f'Instance {index} must have a base64 text in "mask_b64". Check the request.')
    mask = decode_picture(_unbase64(item["mask_b64"], index, limits), limits.max_side, is_grey=True)
    _check_size(mask, image.shape[0], image.shape[1], index)
    return np.dstack([image, mask])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def read_base64(text: str) -> bytes:
    """Read base64 as any program writes it: in lines, in the URL's alphabet, unpadded.

    It is read in parts: within one the interpreter serves no other thread, and megabytes would take tens of
    milliseconds.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    parts: list[bytes] = []
    rest, is_over = b"", False
    for start in range(0, len(text), _PART):
        time.sleep(0)  # others first
        part = text[start : start + _PART].encode("ascii")
        is_plain = not any(code in part for code in b"-_" + _SPACES)
        rest += part if is_plain else part.translate(_FROM_URL, _SPACES)
        if is_over and rest:
            break
        whole, rest = rest[: len(rest) // 4 * 4], rest[len(rest) // 4 * 4 :]
        parts.append(binascii.a2b_base64(whole, strict_mode=True))
        is_over |= whole.endswith(b"=")
    if is_over and rest:
        raise ValueError("data after its padding")
    return b"".join((*parts, binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True)))


def _unbase64(text: str, index: int, limits: WireLimits) -> bytes:
    if len(text) > limits.max_bytes * 7 // 5:  # four characters for three bytes, and line breaks
        raise WireError(f"Instance {index} must have at most {limits.max_bytes} bytes. Make the picture smaller.")
    try:
        return read_base64(text)
    except ValueError as error:
        raise WireError(f"Instance {index} is not base64 ({error}). Check the request.") from error
