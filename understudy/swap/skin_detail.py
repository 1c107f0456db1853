"""A persona's fine structure: brows' hairs, lids, lips' edges, pores, which a small network paints too soft.

The network gives shape, light, colour and mask. What is finer comes from the persona's still: its high
frequencies (the detail bands of a Laplacian pyramid: Burt & Adelson 1983) are warped onto the driver's mesh
and added to what the network painted.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Points, resized_mesh
from understudy.vision.reenact import MeshWarp, ReferenceFace, driver_parts, main_triangles

Swap = NDArray[np.uint8]

# What is finer than this, in shares of the crop's side, comes from the still.
_FINE = 9 / 256
_NEUTRAL = 128
# The map is smooth within triangles: few of its pixels are enough.
_MAP_STEP = 4
_SMALLEST_PX = 32


class SkinDetail:
    """The fine structure of one still. Read-only, and so thread-safe.

    Args:
        still: the persona's look.
    """

    def __init__(self, still: ReferenceFace) -> None:
        self._side = still.image.shape[0]
        self._warp = MeshWarp(still.mesh, main_triangles())
        image = still.image.astype(np.float32)
        fine = image - cv2.GaussianBlur(image, (0, 0), self._side * _FINE)
        # Gaze and teeth are not the still's to give.
        kept = 1 - driver_parts(still.mesh, self._side)[..., None].astype(np.float32) / 255
        level = np.full((self._side, self._side, 4), _NEUTRAL, np.uint8)
        level[..., :3] = np.clip(np.rint(fine * kept) + _NEUTRAL, 0, 255)
        self._levels = [level]
        while self._levels[-1].shape[0] >= 2 * _SMALLEST_PX and self._levels[-1].shape[0] % 2 == 0:
            half = self._levels[-1].shape[0] // 2
            self._levels.append(np.asarray(cv2.resize(level, (half, half), interpolation=cv2.INTER_AREA), np.uint8))

    def added(self, swap: Swap, mesh: Points, amount: float) -> Swap:
        """Lay the fine structure over a swap.

        Args:
            swap: uint8 [R, R, 4], BGR and mask; left as it is.
            mesh: float32 [468, 3], the driver's, px of the swap.
            amount: 1 adds it as it is in the still, 0 nothing.

        Returns:
            uint8 [R, R, 4], BGR and the same mask.
        """
        size = swap.shape[0]
        level = min(self._levels, key=lambda level: abs(level.shape[0] - size))
        map_x, map_y, _ = self._warp.maps(resized_mesh(mesh, 1 / _MAP_STEP), size // _MAP_STEP)
        scale, whole = np.float32(level.shape[0] / self._side), (size, size)
        map_x, map_y = (cv2.resize(each * scale, whole, interpolation=cv2.INTER_LINEAR) for each in (map_x, map_y))
        border = (_NEUTRAL,) * 4
        fine = cv2.remap(level, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
        # The fourth channel is neutral everywhere: the mask stays.
        return np.asarray(cv2.addWeighted(swap, 1.0, fine, amount, -_NEUTRAL * amount, fine), np.uint8)
