"""What is let in: pictures and clips are judged by their first bytes and their header before anything decodes them.

Two doors:

- `check_media` for files that the operator names on the command line: first bytes against the extension,
  then the header's pixels, frames and seconds, in this process, in milliseconds.
- `vet_upload`, `read_upload_image`, `read_upload_frames` for files that a stranger sends: the same, but every
  library that parses the file runs in a child process (`understudy.media.decode`) with memory and time limits,
  no secrets in its environment and no right to write a file. A child that hangs, grows or crashes is a refusal.
"""

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from liveframe.frame import Image
from understudy.media.decode import probe
from understudy.media.limits import (
    EXTENSIONS,
    IMAGE_EXTENSIONS,
    MIB,
    TRUSTED_LIMITS,
    UPLOAD_LIMITS,
    VIDEO_EXTENSIONS,
    MediaError,
    MediaInfo,
    MediaLimits,
)

__all__ = [
    "IMAGE_EXTENSIONS",
    "TRUSTED_LIMITS",
    "UPLOAD_LIMITS",
    "VIDEO_EXTENSIONS",
    "MediaError",
    "MediaInfo",
    "MediaLimits",
    "check_first_bytes",
    "check_media",
    "probe_upload",
    "read_upload_frames",
    "read_upload_image",
    "vet_upload",
]

_HEAD_BYTES = 4096
_ZIP_TAIL_BYTES = 65_557  # an end-of-central-directory record and its longest comment
_SCRIPT_MARKS = (b"<script", b"<html", b"<!doctype", b"<?php", b"<svg", b"%pdf-")
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_OLD_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_TRANSPORT_PACKET_BYTES = (188, 192, 204)


def check_media(path: Path, limits: MediaLimits = TRUSTED_LIMITS) -> MediaInfo:
    """Judge a trusted file by its first bytes and header; nothing is decoded but a clip's first frames.

    Args:
        path: a picture or clip that the operator named.
        limits: what is too large.

    Returns:
        What its header declares.

    Raises:
        MediaError: missing, empty, of an unknown or other kind than its name says, also something else
            (a polyglot), too large, or unreadable.
    """
    kind = check_first_bytes(path, limits)
    return probe(path, kind, limits)


def vet_upload(path: Path, limits: MediaLimits = UPLOAD_LIMITS) -> MediaInfo:
    """Decode an untrusted file from end to end in a limited child and say what it holds.

    Args:
        path: where the upload was written, under the extension its sender gave it.
        limits: what is too large.

    Returns:
        The kind and the *counted* frames. From here on the file may be read like a trusted one.

    Raises:
        MediaError: the file is refused.
    """
    with closing(_ask_child(path, limits, "vet")) as answers:
        for header, _ in answers:
            if "info" in header:
                return _read_info(header["info"], path)
    raise MediaError(f"'{path.name}' could not be decoded. Save it again as JPEG, PNG or MP4 (H.264).")


def read_upload_image(path: Path, limits: MediaLimits = UPLOAD_LIMITS) -> Image:
    """Decode an untrusted picture in a limited child.

    Returns:
        uint8 [H, W, 3] BGR, upright (EXIF orientation applied), transparency laid on white.

    Raises:
        MediaError: the file is refused, or is a clip.
    """
    with closing(_ask_child(path, limits, "image")) as answers:
        for _, image in answers:
            if image is not None:
                return image
    raise MediaError(f"'{path.name}' holds no picture. Choose a JPEG or PNG file.")


def probe_upload(path: Path, limits: MediaLimits = UPLOAD_LIMITS) -> MediaInfo:
    """Tell what an untrusted file's header declares; it is read in a limited child, and nothing is decoded.

    Raises:
        MediaError: the file is refused.
    """
    with closing(_ask_child(path, limits, "probe")) as answers:
        header, _ = next(answers)
        return _read_info(header.get("info"), path)


def read_upload_frames(
    path: Path, limits: MediaLimits = UPLOAD_LIMITS, from_s: float = 0.0
) -> Generator[tuple[float, Image]]:
    """Decode an untrusted clip in a limited child, frame by frame.

    Args:
        path: where the upload was written.
        limits: what is too large.
        from_s: frames before that many seconds may be left out where the clip's index allows it.

    Yields:
        (seconds from the clip's start, uint8 [H, W, 3] BGR upright). Close the generator (contextlib.closing)
        to end the child early.

    Raises:
        MediaError: the file is refused; frames before the fault have been given by then.
    """
    with closing(_ask_child(path, limits, "frames", from_s)) as answers:
        for header, image in answers:
            if image is not None:
                yield float(header["time_s"]), image


def check_first_bytes(path: Path, limits: MediaLimits) -> str:
    """Tell the kind from the first bytes, with no library, and refuse what pretends or hides.

    Returns:
        The kind, as in `MediaInfo.kind`.

    Raises:
        MediaError: not a regular file, empty, too large, unknown, misnamed, or a polyglot.
    """
    if not path.is_file():
        raise MediaError(f"'{path.name}' must be a file, but there is none at {path}. Check the path.")
    size = path.stat().st_size
    if size > limits.max_bytes:
        have, most = size / MIB, limits.max_bytes / MIB
        raise MediaError(f"'{path.name}' must be at most {most:.0f} MB, but has {have:.0f} MB. Shorten or shrink it.")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, size - _ZIP_TAIL_BYTES))
        tail = file.read(_ZIP_TAIL_BYTES)
    kind = _kind_of(head)
    if kind is None:
        known = "JPEG, PNG, WebP, HEIC, AVIF, BMP, GIF, MP4, MOV, WebM, MKV, AVI, 3GP, TS or MPEG"
        raise MediaError(f"'{path.name}' must be {known}, but its first bytes are none of these. Convert it first.")
    if path.suffix.lower() not in EXTENSIONS[kind]:
        raise MediaError(
            f"'{path.name}' must end in {' or '.join(EXTENSIONS[kind])}, since its content is {kind}. "
            "Rename it, or export it again from its source."
        )
    _refuse_polyglot(path, head, tail)
    return kind


def _kind_of(head: bytes) -> str | None:
    """Name the container that the first bytes begin, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "animated png" if b"acTL" in head else "png"
    if head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"AVI "):
        is_animated = head[12:16] == b"VP8X" and head[20:21] > b"" and bool(head[20] & 2)
        return "avi" if head[8:12] == b"AVI " else "animated webp" if is_animated else "webp"
    if head.startswith(b"BM") and len(head) >= 26 and struct.unpack_from("<I", head, 14)[0] in (12, 40, 108, 124):
        return "bmp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    if head.startswith(b"\x1aE\xdf\xa3") and (b"webm" in head[:64] or b"matroska" in head[:64]):
        return "matroska"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    if _is_transport_stream(head):
        return "mpegts"
    return "mp4" if head[4:8] in _OLD_QUICKTIME_BOXES else None


def _kind_of_brands(head: bytes) -> str:
    """Tell pictures from clips by the brands of an ISO file: several may be named, the first one counts most."""
    size = min(max(16, int.from_bytes(head[:4], "big")), 256)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]
    if brands[0] in _AVIF_BRANDS or (brands[0] in _HEIC_BRANDS and _AVIF_BRANDS & set(brands)):
        return "avif"
    return "heic" if brands[0] in _HEIC_BRANDS else "mp4"


def _is_transport_stream(head: bytes) -> bool:
    """Whether a sync byte begins every one of the first packets (after a time code of four bytes, in .m2ts)."""
    return any(
        len(head) > start + 4 * step and all(head[start + number * step] == 0x47 for number in range(5))
        for step in _TRANSPORT_PACKET_BYTES
        for start in (0, 4)
    )


def _refuse_polyglot(path: Path, head: bytes, tail: bytes) -> None:
    """Refuse a file that is also a web page, a PDF or a zip (which readers look for at the end)."""
    start = head.lower()
    hidden = next((mark.decode() for mark in _SCRIPT_MARKS if mark in start), None)
    if hidden is None and _ends_as_zip(tail):
        hidden = "a zip archive"
    if hidden is not None:
        raise MediaError(
            f"'{path.name}' must be one kind of file, but it also holds {hidden}. Export it again from its source."
        )


def _ends_as_zip(tail: bytes) -> bool:
    """Whether the last bytes hold an end-of-central-directory record that points at a directory."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return False
    entries, directory_bytes = struct.unpack_from("<HI", tail, at + 10)
    directory = at - directory_bytes
    is_large = entries == 0xFFFF or directory < 0 or tail[max(0, at - 20) :].startswith(b"PK\x06\x07")
    return is_large or tail[directory : directory + 4] in (b"PK\x01\x02", b"PK\x05\x06")


class _Budget:
    """Kills a child once the time spent waiting for it is used up. Used by one thread."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._left_s = seconds
        self.is_spent = False

    def _kill(self) -> None:
        self.is_spent = True
        self._process.kill()

    def read(self, stream: IO[bytes], size: int) -> bytes:
        """Return exactly `size` bytes, or fewer when the child ended."""
        timer = threading.Timer(max(self._left_s, 0.0), self._kill)
        started_s = time.monotonic()
        timer.start()
        try:
            return stream.read(size)
        finally:
            timer.cancel()
            self._left_s -= time.monotonic() - started_s


def _ask_child(
    path: Path, limits: MediaLimits, task: str, from_s: float = 0.0
) -> Generator[tuple[dict[str, Any], Image | None]]:
    """Run one task of `understudy.media.decode` and give its answers as (header, image or None).

    The child is not believed: sizes are checked again before memory is taken for them.
    """
    kind = check_first_bytes(path, limits)
    request = {"path": str(path.resolve()), "kind": kind, "task": task, "from_s": from_s, "limits": asdict(limits)}
    process = _start_child(json.dumps(request).encode())
    budget = _Budget(process, limits.max_wait_s)
    assert process.stdout is not None
    try:
        while True:
            header = _read_header(process.stdout, budget, path, process)
            if "refused" in header:
                raise MediaError(str(header["refused"]))
            image = _read_pixels(process.stdout, budget, header, limits, path) if "shape" in header else None
            yield header, image
            if header.get("end"):
                return
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _start_child(request: bytes) -> subprocess.Popen[bytes]:
    """Start the worker with no secrets in its environment, and hand it the request."""
    keep = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LANG", "LC_ALL")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "understudy.media.decode"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(request)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the child ended early; reading its answer tells why
    return process


def _read_header(stream: IO[bytes], budget: _Budget, path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read one answer's header, or say why there is none."""
    size = budget.read(stream, 4)
    length = struct.unpack("<I", size)[0] if len(size) == 4 else 0
    raw = budget.read(stream, length) if 0 < length <= 65_536 else b""
    if raw and len(raw) == length:
        return _parse_header(raw, path)
    if budget.is_spent:
        raise MediaError(f"'{path.name}' took too long to decode and was refused. Shorten it or lower its resolution.")
    raise MediaError(
        f"'{path.name}' could not be decoded within the memory limit, or broke its decoder "
        f"(exit {process.wait(timeout=5)}). Save it again as JPEG, PNG or MP4 (H.264)."
    )


def _parse_header(raw: bytes, path: Path) -> dict[str, Any]:
    """Parse what the child says; a child that was taken over gets no further than a refusal."""
    try:
        header = json.loads(raw)
        if isinstance(header, dict):
            shape = header.get("shape", [1, 1])
            if len(shape) == 2 and all(isinstance(v, int) for v in shape):
                return header
    except (ValueError, TypeError):
        pass
    raise MediaError(f"'{path.name}' broke its decoder, whose answer makes no sense. Save it again from its source.")


def _read_info(info: Any, path: Path) -> MediaInfo:
    try:
        return MediaInfo(
            str(info["kind"]), int(info["width"]), int(info["height"]), int(info["frames"]), float(info["seconds"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MediaError(f"'{path.name}' broke its decoder ({error}). Save it again from its source.") from error


def _read_pixels(stream: IO[bytes], budget: _Budget, header: dict[str, Any], limits: MediaLimits, path: Path) -> Image:
    """Read one image of the announced shape, once that shape is within the limits."""
    height, width = header["shape"]
    most = max(limits.max_image_pixels, limits.max_frame_pixels)
    if min(height, width) < 1 or height * width > most:
        raise MediaError(f"'{path.name}' must hold at most {most} pixels, but decodes to {width}x{height}. Shrink it.")
    raw = budget.read(stream, height * width * 3)
    if len(raw) != height * width * 3:
        raise MediaError(f"'{path.name}' stopped in the middle of a frame. Save it again from its source.")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3).copy()
