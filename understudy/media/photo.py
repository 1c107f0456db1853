"""Photos: read upright, in sRGB and 8 bits whatever they were; written without a word about who took them."""

import io
import re
import struct
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from liveframe.frame import Image
from understudy.media.limits import ANIMATION_KINDS, IMAGE_KINDS, TRUSTED_LIMITS, MediaError, MediaInfo, MediaLimits

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FORMATS = {
    "jpeg": ("JPEG",),  # also MPO: several pictures, of which the first is the photo
    "png": ("PNG",),
    "webp": ("WEBP",),
    "bmp": ("BMP",),
    "heic": ("HEIF",),
    "avif": ("AVIF",),
    "gif": ("GIF",),
    "animated png": ("PNG",),
    "animated webp": ("WEBP",),
}
_BROKEN = (OSError, ValueError, SyntaxError, struct.error, IndexError, EOFError, RuntimeError)
_JPEG_QUALITY = 95


@contextmanager
def _opened(path: Path, kind: str, limits: MediaLimits) -> "Generator[Picture]":
    """Open a picture, by the library for its kind alone, and judge what it declares."""
    from PIL import Image as Pictures

    if kind == "heic":
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pictures.DecompressionBombWarning)  # our own limits are asked
            picture = Pictures.open(path, formats=_FORMATS[kind])
    except Pictures.DecompressionBombError as error:
        declared = int(next(iter(re.findall(r"\d+", str(error))), "0"))
        raise MediaError(_too_many_pixels(path, f"{declared} of them", limits.max_image_pixels)) from error
    except _BROKEN as error:
        raise MediaError(f"'{path.name}' has a broken {kind} header ({error}). Save it again as JPEG.") from error
    with picture:
        check_pixels(path, picture.width, picture.height, limits.max_image_pixels)
        yield picture


def _too_many_pixels(path: Path, declared: str, most: int) -> str:
    return f"'{path.name}' must hold at most {most} pixels, but declares {declared}. Shrink it."


def check_pixels(path: Path, width: int, height: int, most: int) -> None:
    """Refuse a size.

    Raises:
        MediaError: no pixels, or more than `most`.
    """
    if not (width > 0 and height > 0):
        raise MediaError(f"'{path.name}' must have pixels, but declares {width}x{height}. Save it again.")
    if width * height > most:
        raise MediaError(_too_many_pixels(path, f"{width}x{height}", most))


def probe_picture(path: Path, kind: str, limits: MediaLimits) -> MediaInfo:
    """Read the header of a picture or an animation; nothing is decoded but an animation's times.

    Raises:
        MediaError: broken or too large.
    """
    is_animation = kind in ANIMATION_KINDS
    most = limits if not is_animation else MediaLimits(max_image_pixels=limits.max_frame_pixels)
    with _opened(path, kind, most) as picture:
        if not is_animation:
            return MediaInfo(kind, picture.width, picture.height)
        try:
            frames = int(getattr(picture, "n_frames", 1))
        except _BROKEN as error:
            raise MediaError(f"'{path.name}' is broken inside ({error}). Save it again from its source.") from error
        return MediaInfo(kind, picture.width, picture.height, frames)


def decode_image(path: Path, kind: str, limits: MediaLimits) -> Image:
    """Decode a picture.

    Returns:
        uint8 [H, W, 3] BGR, upright (EXIF), in sRGB (its colour profile applied), transparency laid on white, 16 bits
        brought to 8. Of several pictures in one file, the first.

    Raises:
        MediaError: a clip, broken, or too large.
    """
    if kind not in IMAGE_KINDS:
        raise MediaError(f"'{path.name}' must be a picture, but is a clip. Choose a JPEG or PNG file.")
    with _opened(path, kind, limits) as picture:
        try:
            return _bgr(path, picture)
        except _BROKEN as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(f"'{path.name}' is broken inside ({error}). Save it again from its source.") from error


def decode_animation(path: Path, kind: str, limits: MediaLimits) -> "Iterator[tuple[Image, int]]":
    """Decode a GIF, an animated PNG or an animated WebP.

    Yields:
        (uint8 [H, W, 3] BGR, transparency laid on white; milliseconds that it stays).

    Raises:
        MediaError: broken or too large; frames before the break have been given.
    """
    from PIL import ImageSequence

    most = MediaLimits(max_image_pixels=limits.max_frame_pixels)
    with _opened(path, kind, most) as picture:
        try:
            for page in ImageSequence.Iterator(picture):
                page.load()  # only then is its time known
                stays_ms = round(float(page.info.get("duration") or 100))
                yield _on_white(page), max(stays_ms, 10)
        except _BROKEN as error:
            raise MediaError(f"'{path.name}' is broken inside ({error}). Save it again from its source.") from error


def animation_times_ms(path: Path, kind: str) -> list[int]:
    """Tell how long each frame of an animation stays, in milliseconds.

    Raises:
        MediaError: broken or too large.
    """
    return [stays_ms for _, stays_ms in decode_animation(path, kind, TRUSTED_LIMITS)]


def _bgr(path: Path, opened: "Picture") -> Image:
    from PIL import ImageOps

    if opened.mode.startswith(("I", "F")):
        return _deep_gray(path, opened)
    return _on_white(_in_srgb(ImageOps.exif_transpose(opened)))


def _on_white(picture: "Picture") -> Image:
    from PIL import Image as Pictures

    if picture.mode != "RGB":
        rgba = picture.convert("RGBA")
        picture = Pictures.alpha_composite(Pictures.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])


def _in_srgb(picture: "Picture") -> "Picture":
    """Apply the picture's colour profile; one that is broken, or not for its channels, is ignored, as viewers do."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    from PIL import ImageCms

    alpha = picture.getchannel("A") if picture.mode in ("RGBA", "LA") else None
    flat = picture.convert("RGB") if picture.mode in ("RGBA", "P") else picture
    flat = flat.convert("L") if flat.mode == "LA" else flat
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(flat, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    if turned is None:
        return picture
    if alpha is not None:
        turned.putalpha(alpha)
    return turned


def _deep_gray(path: Path, picture: "Picture") -> Image:
    """Read gray of more than 8 bits, which Pillow would clip instead of scale."""
    raw = np.asarray(picture)
    if raw.dtype.kind == "f":
        raise MediaError(f"'{path.name}' must have whole numbers for pixels, but has fractions. Save it with 8 bits.")
    steps = 257 if picture.mode.startswith("I") and (raw.max(initial=0) > 255 or "16" in picture.mode) else 1
    return np.repeat(np.clip(raw // steps, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def write_photo(path: Path, image: Image) -> None:
    """Write a photo; nothing of where it came from goes with it.

    Args:
        path: ends in one of `PHOTO_SUFFIXES`; replaced where it exists.
        image: uint8 [H, W, 3] BGR.

    Raises:
        OSError: it cannot be written.
    """
    options: dict[str, Any] = {
        ".png": {"format": "PNG", "compress_level": 4},
        ".webp": {"format": "WEBP", "quality": _JPEG_QUALITY, "method": 4},
    }.get(path.suffix.lower(), {"format": "JPEG", "quality": _JPEG_QUALITY, "subsampling": 0})
    from PIL import Image as Pictures

    Pictures.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).save(path, **options)
