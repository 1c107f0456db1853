"""The driver's light on the persona's face: a quotient image, coarse and by channel.

lit = warped x blur(driver) / blur(warped), after the quotient image (Shashua & Riklin-Raviv 2001): what is smooth in
the driver's face (light, shadow, the camera's colours) replaces what is smooth in the photo's; what is fine stays the
photo's. Blurs are normalised by where the face lies and is in sight, so that hair, hands and background give nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LIGHT_GRID = 32
# Width of the blur, share of the crop's side: finer would move the driver's features, coarser miss his shadows.
SIGMA = 0.1
LIMITS = (0.25, 4.0)
# As dark as this, nothing can be told from noise: both sides are lifted by it.
FLOOR = 1.5

# The least and the most contrast: more than the photo's own would multiply its grain and flicker (Kofi on single_face:
# 1.55 with 1.25, 1.47 with 1); dark features get theirs by `lift_shares`.
GAINS = (0.4, 1.0)
# A flatter tone that differs by less than this from the first one is left out.
_LEAST_BEND = 0.05
# The photo's highlights end here: cameras bend bright tones before they clip.
WHITE = 245.0

# How far around a highlight it is kept in room, px of half the crop.
AROUND = 9
_NEAR = np.ones((AROUND, AROUND), np.uint8)

Light = NDArray[np.float32]


class Tone(NamedTuple):
    """A light, split.

    Attributes:
        gain: float32 [32, 32, 3], by what the photo is multiplied.
        lift: float32 [32, 32, 3], levels that are added then.
    """

    gain: Light
    lift: Light


class Lighting(NamedTuple):
    """How a photo is lit: the darkest of its tones counts.

    Attributes:
        tones: one or two.
        smooth: float32 [32, 32, 1], the photo's own smooth tone, grey: what is darker is a brow, a lash, an iris, and
            gets less of a lift (`lift_shares`).
    """

    tones: list[Tone]
    smooth: Light


class Relight:
    """A driver's crop and a photo on its mesh, compared coarsely. Not thread-safe: one per face and frame.

    Args:
        driver: uint8 [S, S, 3], BGR, the driver's crop; S a multiple of 32.
        warped: uint8 [S, S, 3], BGR, the photo on the driver's mesh.
    """

    def __init__(self, driver: NDArray[np.uint8], warped: NDArray[np.uint8]) -> None:
        grid = (LIGHT_GRID, LIGHT_GRID)
        small = [cv2.resize(image, grid, interpolation=cv2.INTER_AREA) for image in (driver, warped)]
        self._sides = np.concatenate(small, axis=2, dtype=np.float32)
        # Highlights are narrow: looked for before the picture is made small.
        brightest = cv2.dilate(cv2.resize(warped, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), _NEAR)
        self._peaks = cv2.resize(brightest.max(2), grid, interpolation=cv2.INTER_AREA).astype(np.float32)

    def quotient(self, weight: NDArray[np.float32]) -> Light:
        """Return by what the warped photo must be multiplied to stand in the driver's light.

        Args:
            weight: float32 [S, S], 0 to 1: where both show a face.

        Returns:
            float32 [32, 32, 3], BGR, 0.25 to 4.
        """
        sides = (self._sides + np.float32(FLOOR)) * _shrunk(weight)[..., None]
        sides = cv2.GaussianBlur(sides, (0, 0), LIGHT_GRID * SIGMA, borderType=cv2.BORDER_CONSTANT)
        ratio = (sides[..., :3] + np.float32(1e-3)) / (sides[..., 3:] + np.float32(1e-3))
        return np.asarray(np.clip(ratio, *LIMITS), np.float32)

    def lighting(self, light: Light) -> Lighting:
        """Split a light into what multiplies and what is added; the darkest of the pictures so lit is right.

        The first tone keeps the contrast of dark skin in bright light. The second one, where it is needed, is flatter:
        the two meet in the photo's smooth tone, so what is darker (brows, lips) keeps the first one's contrast, and
        highlights, which would be cut off at white, get the second one's.

        Args:
            light: float32 [32, 32, 3].
        """
        smooth = cv2.GaussianBlur(self._sides[..., 3:], (0, 0), LIGHT_GRID * SIGMA)
        gain = np.minimum(light, np.float32(GAINS[1]))
        wanted = light * smooth
        room = (np.float32(WHITE) - wanted.max(2)) / np.maximum(self._peaks - smooth.max(2), 1)
        room = cv2.GaussianBlur(np.clip(room, *GAINS), (0, 0), LIGHT_GRID * SIGMA / 2)
        flat = np.minimum(gain, room[..., None])
        gains = [gain] if float((gain - flat).max()) < _LEAST_BEND else [gain, flat]
        tones = [Tone(each, np.asarray((light - each) * smooth, np.float32)) for each in gains]
        return Lighting(tones, np.asarray(cv2.cvtColor(smooth, cv2.COLOR_BGR2GRAY), np.float32)[..., None])

    def saturation(self, light: Light, weight: NDArray[np.float32]) -> float:
        """Return how much of the persona's own colour the driver's camera would show: 0 for a black-and-white one.

        Args:
            light: float32 [32, 32, 3], the light that the photo is shown in.
            weight: float32 [S, S], 0 to 1: where both show a face.

        Returns:
            0 to 1: a colourful driver adds no colour.
        """
        shown = _shrunk(weight)
        spreads: list[float] = []
        for side in (self._sides[..., :3], self._sides[..., 3:] * light):
            blue, green, red = cv2.split(side)
            spread = cv2.max(cv2.max(blue, green), red) - cv2.min(cv2.min(blue, green), red)
            spreads.append(float((spread * shown).sum()))
        return float(np.clip(spreads[0] / (spreads[1] + 1e-3), 0.0, 1.0))


def lift_shares(tone: Any) -> tuple[Any, Any]:
    """Return how much of a lift a pixel gets in its colour, and how much without.

    A lift moves one skin to another's tone. A black brow has no skin's tone: lifted, it is grey, and blue where skin
    gets paler. So what is darker than its neighbourhood gets less, down to none for black, and less of its colour.

    Args:
        tone: a pixel's grey by the smooth one about it, 0 to 1 (and 1 where it is brighter); any array, or Keras' own.
    """
    share = tone * (2 - tone)  # its slope is 0 at 1, and nowhere steep: skin keeps its contrast, and flickers less
    return share * tone, share * (1 - tone)


def quotient(driver: NDArray[np.uint8], warped: NDArray[np.uint8], weight: NDArray[np.float32]) -> Light:
    """Return `Relight.quotient` of two crops."""
    return Relight(driver, warped).quotient(weight)


def _shrunk(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(weight, (LIGHT_GRID, LIGHT_GRID), interpolation=cv2.INTER_AREA), np.float32)
