"""The plain metadata that says "made with AI": an XMP packet with IPTC's DigitalSourceType.

Sites and picture tools read it without knowing C2PA. It is put in before signing, so that the signature covers it.
XMP Specification Part 3: JPEG APP1, PNG iTXt, a `uuid` box in MP4 and QuickTime; WebP has a chunk for it.
"""

import struct
import zlib
from uuid import UUID

from understudy.media.limits import CLIP_RESULTS, EXTENSIONS

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_JPEG_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_SIGNATURE_BYTES = 8
_MP4_UUID = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}" xmp:CreatorTool="Understudy"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()


def with_metadata(content: bytes, suffix: str) -> bytes:
    """Return a file that we wrote with the packet put in; one that has it already comes back as it is.

    Args:
        content: a whole JPEG, PNG, WebP, MP4 or QuickTime file.
        suffix: its extension, in lower case.

    Raises:
        ValueError: another kind of file.
    """
    if _PACKET in content:
        return content
    if suffix in EXTENSIONS["jpeg"] and content.startswith(b"\xff\xd8"):
        return _into_jpeg(content)
    if suffix == ".png" and content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _into_png(content)
    if suffix == ".webp" and content[8:12] == b"WEBP":
        return _into_webp(content)
    if suffix in CLIP_RESULTS and content[4:8] == b"ftyp":
        box = b"uuid" + _MP4_UUID + _PACKET
        return content + struct.pack(">I", 4 + len(box)) + box
    raise ValueError(
        f"metadata goes into JPEG, PNG, WebP, MP4 and MOV files, but this is no {suffix or 'named kind of'} file"
    )


def _into_jpeg(content: bytes) -> bytes:
    """Put the packet after the start of image, and after a JFIF header, which wants to be first."""
    at = 2
    if content[at : at + 2] == b"\xff\xe0":
        at += 2 + struct.unpack_from(">H", content, at + 2)[0]
    segment = _JPEG_HEAD + _PACKET
    return content[:at] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + content[at:]


def _into_png(content: bytes) -> bytes:
    """Put the packet after the header chunk."""
    at = _PNG_SIGNATURE_BYTES + 12 + struct.unpack_from(">I", content, _PNG_SIGNATURE_BYTES)[0]
    data = b"XML:com.adobe.xmp\0\0\0\0\0" + _PACKET
    chunk = struct.pack(">I", len(data)) + b"iTXt" + data + struct.pack(">I", zlib.crc32(b"iTXt" + data))
    return content[:at] + chunk + content[at:]


def _into_webp(content: bytes) -> bytes:
    """Put the packet at the end, and the extended header that announces it at the start."""
    first, body = content[12:16], content[12:]
    if first == b"VP8X":
        extended = bytearray(body[:18])
    else:
        if first == b"VP8L":
            bits = int.from_bytes(content[21:25], "little")
            width, height, flags = bits & 0x3FFF, bits >> 14 & 0x3FFF, (bits >> 28 & 1) << 4
            size = (width, height)  # less one each, as the extended header has them
        else:
            size = tuple((int.from_bytes(content[at : at + 2], "little") & 0x3FFF) - 1 for at in (26, 28))
            flags = 0
        sides = b"".join(side.to_bytes(3, "little") for side in size)
        extended = bytearray(b"VP8X" + struct.pack("<IB3x", 10, flags) + sides)
        body = bytes(extended) + body
    extended[8] |= 0x04
    chunk = b"XMP " + struct.pack("<I", len(_PACKET)) + _PACKET + b"\0" * (len(_PACKET) % 2)
    whole = b"WEBP" + bytes(extended) + body[18:] + chunk
    return b"RIFF" + struct.pack("<I", len(whole)) + whole
