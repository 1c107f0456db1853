"""An imperceptible, keyed mark in the luminance of live frames, which recordings keep when metadata is stripped.

Additive spread spectrum (Cox et al. 1997, doi:10.1109/83.650120) on a grid of 40 x 30 cells in *normalised* frame
coordinates, so that it survives rescaling, dropped frames and other frame rates with no synchronisation. A cell's
chip is a 2 x 2 checker, which cancels in smooth content. A third of the chips say "present"; the rest carry 16 bits.
It survives accidents (codecs, rescaling, mirroring, a small crop), not adversaries: see docs/trust.md.

`python -m understudy.watermark detect CLIP` looks for it in a recording.
"""

import argparse
import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
AMPLITUDE = 2.0
_CACHED_SIZES = 6
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
        """Give the grid that says a payload: float32 [60, 80], two by two chips a cell."""
        bits = [1.0] + [1.0 if payload >> bit & 1 else -1.0 for bit in range(PAYLOAD_BITS)]
        cells = (self.signs * np.asarray(bits, np.float32)[self.groups]).reshape(GRID_HEIGHT, GRID_WIDTH)
        return np.kron(cells, np.asarray([[1, -1], [-1, 1]], np.float32)).astype(np.float32)


def payload_of(digest: str) -> int:
    """Give the 16 bits that stand for a bundle's digest (hex), to tell which version made a recording."""
    return int(hashlib.sha256(digest.encode()).hexdigest()[:4], 16)


class Watermark:
    """Paints the mark into a picture, in place. A `liveframe.gate.Paint`; thread-safe; 42 dB; about 0.1 ms at 480p.

    Args:
        key: whoever has it can find the mark, and remove it.
        payload: 0 to 65535, for one `payload_of` the bundle's digest.
        amplitude: root mean square of what is added, in levels.
    """

    def __init__(self, key: bytes = DEFAULT_KEY, payload: int = 0, amplitude: float = AMPLITUDE) -> None:
        if not 0 <= payload < 1 << PAYLOAD_BITS:
            raise ValueError(f"A payload must be from 0 to {(1 << PAYLOAD_BITS) - 1}, but got {payload}.")
        if not 0 < amplitude <= 16:
            raise ValueError(f"An amplitude must be above 0 and at most 16 levels, but got {amplitude}.")
        self._chips = Code.of(key).chips(payload)
        self._amplitude = amplitude
        self._layers: dict[tuple[int, ...], tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
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
        plus, minus = self._layer(pixels.shape, amplitude)
        cv2.add(pixels, plus, dst=pixels)
        cv2.subtract(pixels, minus, dst=pixels)
        return pixels

    def _layer(self, shape: tuple[int, ...], amplitude: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        with self._lock:
            layer = self._layers.get(shape)
            if layer is None:
                if len(self._layers) >= _CACHED_SIZES:
                    self._layers.clear()
                layer = self._layers[shape] = _render(self._chips, shape, amplitude)
            return layer


def _render(
    chips: NDArray[np.float32], shape: tuple[int, ...], amplitude: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the grid at one frame size, dithered to whole levels: what to add, and what to subtract."""
    levels = cv2.resize(chips, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    levels *= amplitude / max(float(np.sqrt(np.mean(levels**2))), 1e-6)
    whole = np.rint(levels + np.random.default_rng(0).random(levels.shape, np.float32) - np.float32(0.5))
    if len(shape) == 3:
        whole = np.repeat(whole[..., None], 3, axis=2)
    return np.maximum(whole, 0).astype(np.uint8), np.maximum(-whole, 0).astype(np.uint8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="understudy.watermark", description="Look for the watermark in recordings.")
    commands = parser.add_subparsers(dest="command", required=True)
    detect = commands.add_parser("detect", help="exit status 0: found; 1: not found; 2: could not be read")
    detect.add_argument("clip", type=Path, help="a recording or a picture")
    detect.add_argument("--key-file", type=Path, help="the operator's secret key; the public one where left out")
    detect.add_argument("--frames", type=int, default=60, help="how many to look at, spread over the clip (60)")
    detect.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    from understudy.media_guard import MediaError
    from understudy.watermark_detector import detect_file

    options = _parser().parse_args(arguments)
    try:
        key = options.key_file.read_bytes().strip() if options.key_file else DEFAULT_KEY
        found = detect_file(options.clip, key, options.frames)
    except (MediaError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found.to_json() | {"clip": str(options.clip)}))
    else:
        print(f"{options.clip.name}: {found.describe()}")
    return 0 if found.is_found else 1


if __name__ == "__main__":
    sys.exit(main())
