"""Memory that is kept between frames: what is asked for anew every time costs page faults, and peaks."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """Arrays by name, reused from call to call. Not thread-safe: one per session."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, str], NDArray[Any]] = {}

    def bytes(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return memory of that shape, uint8; its content is undefined, and lasts until the name is asked for again."""
        return self._of(name, shape, np.dtype(np.uint8))

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return memory of that shape, float32, as `bytes`."""
        return self._of(name, shape, np.dtype(np.float32))

    def _of(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size, key = prod(shape), (name, dtype.str)
        kept = self._memory.get(key)
        if kept is None or kept.size < size:
            kept = self._memory[key] = np.empty(size * 5 // 4, dtype)
        return kept[:size].reshape(shape)
