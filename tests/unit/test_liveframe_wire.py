import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveframe.errors import WireError
from liveframe.remote.picture import Encoding, decode_picture, encode_picture, picture_size
from liveframe.remote.wire import WireLimits, batch_from_json, batch_to_json, decode_batch, encode_batch


def smooth_batch(count=2, height=24, width=32, channels=3):
    """Pictures without hard edges, all different, so that lossy codecs stay near."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [
        127 + 60 * np.sin(rows / 9 + item) + 50 * np.cos(columns / 11 + channel)
        for item in range(count)
        for channel in range(channels)
    ]
    return np.array(waves).reshape(count, channels, height, width).transpose(0, 2, 3, 1).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.PNG])
def test_exact_encodings_give_the_same_pixels_back(encoding, channels):
    batch = np.random.default_rng(0).integers(0, 256, (3, 20, 31, channels), np.uint8)
    back = decode_batch(encode_batch(batch, encoding))
    assert np.array_equal(back.images, batch) and back.encoding is encoding


@pytest.mark.parametrize("mask_encoding", list(Encoding))
@pytest.mark.parametrize("encoding", [Encoding.JPEG, Encoding.WEBP])
def test_lossy_encodings_stay_near_and_keep_the_mask(encoding, mask_encoding):
    batch = smooth_batch(channels=4)
    back = decode_batch(encode_batch(batch, encoding, mask_encoding, quality=95))
    assert back.mask_encoding is mask_encoding and back.images.shape == batch.shape
    difference = np.abs(back.images.astype(int) - batch)
    assert difference[..., :3].mean() < 6
    is_exact = mask_encoding in (Encoding.RAW, Encoding.PNG)
    assert difference[..., 3].max() == 0 if is_exact else difference[..., 3].mean() < 4


def test_a_face_of_128_px_and_its_answer_take_at_most_30_kb(astronaut):
    face = cv2.resize(astronaut[:256, 100:356], (128, 128), interpolation=cv2.INTER_AREA)
    assert len(encode_batch(face[None])) <= 30_000
    mask = cv2.GaussianBlur(
        cv2.ellipse(np.zeros((128, 128), np.uint8), (64, 64), (45, 60), 0, 0, 360, 255, -1), (0, 0), 5
    )
    assert len(encode_batch(np.dstack([face, mask])[None])) <= 30_000


@pytest.mark.parametrize("encoding", [Encoding.JPEG, Encoding.WEBP, Encoding.PNG])
def test_picture_size_is_read_without_decoding(encoding):
    for size in [(1, 1), (24, 32), (700, 3)]:
        data = encode_picture(np.zeros((*size, 3), np.uint8), encoding)
        assert picture_size(data) == size[::-1]


def test_lossless_webp_is_read():
    batch = smooth_batch(1)
    data = cv2.imencode(".webp", batch[0], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert data[12:16] == b"VP8L" and np.array_equal(decode_picture(data, 64), batch[0])


def test_picture_that_claims_to_be_huge_is_refused_undecoded():
    data = bytearray(encode_picture(np.zeros((8, 8, 3), np.uint8), Encoding.PNG))
    data[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(WireError, match="is 60000 x 60000"):
        decode_picture(bytes(data), 1024)


def test_rotation_in_metadata_is_ignored():
    image = smooth_batch(1, 16, 24)[0]
    data = encode_picture(image, Encoding.JPEG)
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (24, 16, 3)
    assert np.array_equal(decode_picture(turned, 64), decode_picture(data, 64))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda body: b"", "header of 16 bytes"),
        (lambda body: b"XXXX" + body[4:], "must start with"),
        (lambda body: body[:4] + b"\x09" + body[5:], "version 1 or 2, but is of version 9"),
        (lambda body: body[:5] + b"\x09" + body[6:], "unknown"),
        (lambda body: body[:7] + b"\x02" + body[8:], "unknown"),
        (lambda body: body[:8] + b"\0\0" + body[10:], "1 to 64 pictures, but holds 0"),
        (lambda body: body[:8] + b"\xff\xff" + body[10:], "but holds 65535"),
        (lambda body: body[:10] + b"\xff\xff" + body[12:], "1 to 1024 px"),
        (lambda body: body[:8] + b"\x40\0\0\x04\0\x04" + body[14:], "at most 16777216 px"),
        (lambda body: body[:14] + b"\x01\0" + body[16:], "must start with"),
        (lambda body: body[:20], "breaks off in its table"),
        (lambda body: body[:-1], "by its table"),
        (lambda body: body + b"\0", "by its table"),
        (lambda body: body[:12] + b"\x10\0" + body[14:], "as its header says"),
        (lambda body: body[:7] + b"\x04" + body[8:], "must have a mask"),
        (lambda body: body[:40] + bytes(len(body) - 40), "damaged|no end"),
        (lambda body: bytes(9 * 1024 * 1024), "at most 8388608 bytes"),
    ],
)
def test_spoilt_body_is_refused_with_a_sentence(spoil, sentence):
    body = encode_batch(smooth_batch())
    with pytest.raises(WireError, match=sentence):
        decode_batch(spoil(body))


def test_raw_body_of_the_wrong_length_is_refused():
    body = encode_batch(smooth_batch(1), Encoding.RAW)
    table = struct.pack("<II", 24 * 32 * 3 - 1, 1)
    with pytest.raises(WireError, match="raw picture must have 2304 bytes"):
        decode_batch(body[:16] + table + body[24:])


@pytest.mark.parametrize(
    "batch", [np.zeros((2, 3)), np.zeros((1, 4, 4, 2), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_what_is_no_batch_is_not_written(batch):
    with pytest.raises(WireError, match="batch must be uint8"):
        encode_batch(batch)


LIMITS = WireLimits(max_bytes=20_000, max_count=4, max_side=64)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), encoding=st.sampled_from(list(Encoding)), channels=st.sampled_from([1, 3, 4]))
def test_random_bytes_behind_a_valid_header_give_a_batch_or_a_wire_error(data, encoding, channels):
    head = encode_batch(smooth_batch(1, 8, 8, channels), encoding)[:16]
    for body in (data, head + data, head + struct.pack("<II", len(data), 0) + data):
        with contextlib.suppress(WireError):
            assert decode_batch(body, LIMITS).images.dtype == np.uint8


@settings(max_examples=150, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 60),
    encoding=st.sampled_from(list(Encoding)),
    channels=st.sampled_from([1, 3, 4]),
)
def test_damaged_body_gives_a_batch_of_the_claimed_shape_or_a_wire_error(flips, cut, encoding, channels):
    body = bytearray(encode_batch(smooth_batch(2, 12, 10, channels), encoding))
    for at, value in flips:
        body[at % len(body)] = value
    try:
        images = decode_batch(bytes(body[: len(body) - cut]), LIMITS).images
    except WireError:
        return
    assert images.ndim == 4 and len(images) <= 4 and max(images.shape[1:3]) <= 64


# ---------------------------------------------------------------------- JSON


@pytest.mark.parametrize("channels", [3, 4])
def test_json_gives_the_same_pixels_back(channels):
    batch = smooth_batch(channels=channels)
    document = batch_to_json(batch, "predictions")
    assert set(document["predictions"][0]) == ({"b64", "mask_b64"} if channels == 4 else {"b64"})
    assert np.array_equal(batch_from_json(document, "predictions"), batch)


GOOD = batch_to_json(smooth_batch(1))["instances"][0]["b64"]
OTHER_SIZE = batch_to_json(smooth_batch(1, 8, 8))["instances"][0]["b64"]


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], '"instances" must be a list'),
        ({}, '"instances" must be a list'),
        ({"instances": []}, "1 to 64"),
        ({"instances": [{"b64": GOOD}] * 65}, "1 to 64"),
        ({"instances": ["text"]}, "Instance 0 must be an object"),
        ({"instances": [{"b64": 7}]}, "Instance 0 must be an object"),
        ({"instances": [{"b64": GOOD}, {"b64": "not base64!"}]}, "Instance 1 is not base64"),
        ({"instances": [{"b64": "bm8gcGljdHVyZQ=="}]}, "must be JPEG, WebP or PNG"),
        ({"instances": [{"b64": GOOD}, {"b64": OTHER_SIZE}]}, "must be of one size|of one size"),
        ({"instances": [{"b64": GOOD, "mask_b64": OTHER_SIZE}]}, "as its header says"),
        ({"instances": [{"b64": GOOD, "mask_b64": None}]}, 'text in "mask_b64"'),
        ({"instances": [{"b64": "A" * 12_000_000}]}, "at most 8388608 bytes"),
    ],
)
def test_spoilt_json_is_refused_with_a_sentence(document, sentence):
    with pytest.raises(WireError, match=sentence):
        batch_from_json(document)
