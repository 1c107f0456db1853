"""Numbers in pictures: a strip of black and white cells that survives a video codec, and tells when it did not."""

import numpy as np

from liveframe.frame import Image

BITS = 10  # then as many cells again, inverted: a strip that was covered or torn does not agree with itself
CELLS = 2 * BITS
LARGEST = (1 << BITS) - 1
HEIGHT = 24


def drawn(image: Image, number: int) -> Image:
    """Return a copy of uint8 [H, W, 3] with `number` (0 to 1023) in a strip across its bottom."""
    marked = np.array(image)
    cell = image.shape[1] // CELLS
    marked[-HEIGHT:] = 0
    for place, is_white in enumerate(_cells(number)):
        if is_white:
            marked[-HEIGHT:, place * cell : (place + 1) * cell] = 255
    return marked


def read(image: Image) -> int | None:
    """Read the number off a picture uint8 [H, W, 3]; None where there is none."""
    cell = image.shape[1] // CELLS
    rows = image[-3 * HEIGHT // 4 : -HEIGHT // 4, :, 1]
    cells = [rows[:, p * cell + cell // 4 : (p + 1) * cell - cell // 4].mean() > 127 for p in range(CELLS)]
    number = int("".join("1" if is_white else "0" for is_white in cells[:BITS]), 2)
    return number if cells == _cells(number) else None


def _cells(number: int) -> list[bool]:
    bits = [bool(number >> (BITS - 1 - place) & 1) for place in range(BITS)]
    return bits + [not bit for bit in bits]
