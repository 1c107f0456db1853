"""An imperceptible, keyed mark in the luminance of live frames, which recordings keep when metadata is stripped.

Additive spread spectrum (Cox et al. 1997, doi:10.1109/83.650120) on a grid of 40 x 30 cells in *normalised* frame
coordinates, so that it survives rescaling, dropped frames and other frame rates with no synchronisation. A cell's
chip is a 2 x 2 checker, which cancels in smooth content. A third of the chips say "present"; the rest carry 16 bits.
Eyes see it on smooth skin, on walls and on all that is out of focus; codecs erase it in texture: so it is strong where
texture hides it, and faint elsewhere.
It survives accidents (codecs, rescaling, mirroring, a small crop), not adversaries: see docs/trust.md.

`python -m understudy.watermark detect CLIP` looks for it in a recording.
"""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError
from liveframe.frame import Image

GRID_WIDTH = 40
GRID_HEIGHT = 30
PAYLOAD_BITS = 16
DEFAULT_KEY = b"understudy public watermark 1"
"""Public, so that anybody's Understudy finds anybody's mark. An operator may choose a secret one."""
AMPLITUDE = 2.4
_FAINTEST = 0.19  # of the amplitude, where nothing hides the mark: 0.6 levels, rms, once dithered
_DETAIL_SIZE = (640, 480)
_HIDING_SIZE = (160, 120)
_TEXTURE_LEVELS = (1.0, 2.5)  # of detail as coarse as the mark: below the first it hides nothing, from the second all
_MOST_LEVELS = 4  # that count in one place: an edge is no texture
_SHARP_SHARES = (0.08, 0.16)  # of detail that is a pixel fine: below the first all is out of focus, by 2 px or more
_TWO_CELLS = np.ones((5, 5), np.uint8)
_CACHED_SIZES = 4
_LUMA_GAIN = 219 / 255  # what a level of BGR is worth in a limited-range luma plane


@dataclass(frozen=True, slots=True)
class Code:
    """What a key stands for.

    Attributes:
        signs: float32 [1200], -1 or 1, cell by cell, rows first.
        groups: int64 [1200]: 0 for a cell that says "present", else 1 + the bit that it carries.
    """

    signs: NDArray[np.float32]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, key: bytes) -> "Code":
        """Derive the code from a key of any length."""
        if not key:
            raise ValueError("A watermark key must have at least one byte, but is empty. Leave it out for the default.")
        seed = hmac.new(key, f"understudy-watermark-1/{GRID_WIDTH}x{GRID_HEIGHT}/{PAYLOAD_BITS}".encode(), "sha256")
        random = np.random.Generator(np.random.PCG64(int.from_bytes(seed.digest()[:16], "big")))
        cells = GRID_WIDTH * GRID_HEIGHT
        signs = (random.integers(0, 2, cells) * 2 - 1).astype(np.float32)
        groups = np.zeros(cells, np.int64)
        for bit, members in enumerate(np.array_split(random.permutation(cells)[cells // 3 :], PAYLOAD_BITS)):
            groups[members] = 1 + bit
        return cls(signs, groups)

    def chips(self, payload: int) -> NDArray[np.float32]:
        """Return the grid that says a payload: float32 [60, 80], two by two chips a cell."""
        bits = [1.0] + [1.0 if payload >> bit & 1 else -1.0 for bit in range(PAYLOAD_BITS)]
        cells = (self.signs * np.asarray(bits, np.float32)[self.groups]).reshape(GRID_HEIGHT, GRID_WIDTH)
        return np.kron(cells, np.asarray([[1, -1], [-1, 1]], np.float32)).astype(np.float32)


def payload_of(digest: str) -> int:
    """Return the 16 bits that stand for a bundle's digest (hex), to tell which version made a recording."""
    return int(hashlib.sha256(digest.encode()).hexdigest()[:4], 16)


Levels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Layer:
    """What is the same for every picture of one size, all uint8 [H, W]; no pixel has both a plus and a minus.

    Attributes:
        faint: levels to add and to subtract where the picture is smooth.
        strong: the same where detail hides them.
        threshold: chance, 0 to 254: a pixel gets the strong levels where its hiding place is above it.
    """

    faint: tuple[Levels, Levels]
    strong: tuple[Levels, Levels]
    threshold: Levels

    @classmethod
    def of(cls, chips: NDArray[np.float32], height: int, width: int, amplitude: float) -> "_Layer":
        """Draw the grid at a frame's size, dithered to whole levels: fractions count on average."""
        drawn = cv2.resize(chips, (width, height), interpolation=cv2.INTER_CUBIC)
        drawn *= amplitude / max(float(np.sqrt(np.mean(drawn**2))), 1e-6)
        chance = np.random.default_rng(0)
        dither = chance.random(drawn.shape, np.float32)
        threshold = chance.integers(0, 255, drawn.shape, np.uint8)

        def levels(share: float) -> tuple[Levels, Levels]:
            whole = np.floor(np.abs(drawn) * np.float32(share) + dither).astype(np.uint8)
            return np.where(drawn > 0, whole, np.uint8(0)), np.where(drawn < 0, whole, np.uint8(0))

        return cls(levels(_FAINTEST), levels(1.0), threshold)

    def chosen(self, hiding: Levels) -> Iterator[Levels]:
        """Return what to add, then what to subtract: uint8 [H, W].

        Args:
            hiding: uint8 [H, W], 255 where the strong levels are hidden for certain.
        """
        is_hidden = cv2.compare(hiding, self.threshold, cv2.CMP_GT)
        for faint, strong in zip(self.faint, self.strong, strict=True):
            yield np.asarray(cv2.max(faint, cv2.bitwise_and(strong, is_hidden)), np.uint8)


class Watermark:
    """Paints the mark into a picture, in place. A `liveframe.gate.Paint`; thread-safe.

    40.4 dB at least, some 50 on a face. About 1.2 ms at 480p.

    Args:
        key: whoever has it can find the mark, and remove it.
        payload: 0 to 65535, for one `payload_of` the bundle's digest.
        amplitude: root mean square of what is added where detail hides it, in levels; 0.17 of it where none does.
    """

    def __init__(self, key: bytes = DEFAULT_KEY, payload: int = 0, amplitude: float = AMPLITUDE) -> None:
        if not 0 <= payload < 1 << PAYLOAD_BITS:
            raise ValueError(f"A payload must be from 0 to {(1 << PAYLOAD_BITS) - 1}, but got {payload}.")
        if not 0 < amplitude <= 16:
            raise ValueError(f"An amplitude must be above 0 and at most 16 levels, but got {amplitude}.")
        self._chips = Code.of(key).chips(payload)
        self._amplitude = amplitude
        self._layers: dict[tuple[int, int, float], _Layer] = {}
        self._lock = threading.Lock()

    def __call__(self, image: Image) -> Image:
        """Mark a picture.

        Args:
            image: uint8 [H, W, 3], BGR, writable; changed in place.

        Returns:
            The same array.

        Raises:
            FrameError: not an image.
        """
        if image.ndim != 3 or image.shape[2] != 3:
            raise FrameError(f"A picture must be [H, W, 3], but got {list(image.shape)}. For luma use mark_luma.")
        return self._add(image, self._amplitude)

    def mark_luma(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mark the Y plane of an I420 frame, in place: uint8 [H, W]; the same array comes back.

        Raises:
            FrameError: not a plane.
        """
        if plane.ndim != 2:
            raise FrameError(f"A luma plane must be [H, W], but got {list(plane.shape)}. Hand in the Y plane alone.")
        return self._add(plane, self._amplitude * _LUMA_GAIN)

    def _add(self, pixels: NDArray[np.uint8], amplitude: float) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise FrameError(f"Pixels must be uint8 and some, but got {pixels.dtype} {list(pixels.shape)}.")
        height, width = pixels.shape[:2]
        hiding = cv2.resize(hiding_places(pixels), (width, height), interpolation=cv2.INTER_LINEAR)
        plus, minus = self._layer(height, width, amplitude).chosen(np.asarray(hiding, np.uint8))
        if pixels.ndim == 3:
            plus, minus = cv2.merge([plus] * 3), cv2.merge([minus] * 3)
        cv2.add(pixels, plus, dst=pixels)
        cv2.subtract(pixels, minus, dst=pixels)
        return pixels

    def _layer(self, height: int, width: int, amplitude: float) -> _Layer:
        size = (height, width, amplitude)
        with self._lock:
            layer = self._layers.get(size)
            if layer is None:
                if len(self._layers) >= _CACHED_SIZES:
                    self._layers.clear()
                layer = self._layers[size] = _Layer.of(self._chips, height, width, amplitude)
            return layer


def hiding_places(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tell where texture hides the mark: neither an edge does, nor a sensor's noise, nor the slopes of a blur.

    Args:
        pixels: uint8 [H, W, 3] BGR, or a luma plane [H, W].

    Returns:
        uint8 [120, 160]: 0 where the picture is smooth or out of focus, 255 where it hides the full amplitude.
    """
    small = cv2.resize(pixels, _DETAIL_SIZE, interpolation=cv2.INTER_LINEAR)
    luma = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) if small.ndim == 3 else small
    cells = cv2.resize(luma, _HIDING_SIZE, interpolation=cv2.INTER_AREA)
    detail = cv2.absdiff(cells, cv2.blur(cells, (5, 5)))
    texture = cv2.erode(_between(_around(np.minimum(detail, _MOST_LEVELS)), *_TEXTURE_LEVELS), _TWO_CELLS)
    eighths = cv2.convertScaleAbs(cv2.absdiff(luma, cv2.blur(luma, (3, 3))), alpha=8)
    fine = _around(cv2.resize(eighths, _HIDING_SIZE, interpolation=cv2.INTER_AREA)) / 8
    sharpness = _between(fine / (_around(detail) + 0.5), *_SHARP_SHARES)
    return np.asarray(255 * cv2.blur(texture, (3, 3)) * sharpness, np.uint8)


def _between(values: NDArray[Any], none: float, full: float) -> NDArray[np.float32]:
    """Scale values to 0 at `none` and 1 at `full`."""
    return np.asarray(((values - none) / (full - none)).clip(0, 1), np.float32)


def _around(levels: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of levels in some cells around each place."""
    return np.asarray(cv2.blur(levels.astype(np.float32), (5, 5)))
