"""Varying pairs: one similarity and one light for input and target, faults of a camera for the input alone."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.pairs import CANVAS_PX, CROP_PX

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far pairs are varied.

    Attributes:
        turn_deg: largest turn, degrees.
        shrink, grow: smallest and largest scale.
        shift: largest shift, share of the crop.
        flip: chance of mirroring.
        colour: chance of another light (gamma, gain per channel), input and target alike.
        light: how far that light is from the driver's own, where 1 is a room's lamps; more also learns faces that a
            beauty filter or a bright window has washed out.
        faults: chance of blur, noise, JPEG or fewer pixels, input alone.
        occluders: chance of something in front of the face; the mask is zero there.
    """

    turn_deg: float = 10.0
    shrink: float = 0.88
    grow: float = 1.08
    shift: float = 0.04
    flip: float = 0.5
    colour: float = 0.5
    light: float = 1.0
    faults: float = 0.5
    occluders: float = 0.3


def augment(
    rng: Generator, driver: Picture, maps: Picture, targets: list[Picture], how: Augmentation, strange: Picture
) -> tuple[Picture, list[Picture]]:
    """Vary one driver and its targets.

    Args:
        rng: the source of chance.
        driver: uint8 [CANVAS_PX, CANVAS_PX, 3], BGR.
        maps: uint8 [CANVAS_PX, CANVAS_PX, 2]: mask, attention.
        targets: each uint8 [CANVAS_PX, CANVAS_PX, 3], BGR.
        how: how far.
        strange: another driver, whose skin may come in front as a hand would.

    Returns:
        The input, uint8 [CROP_PX, CROP_PX, 3], and each target, uint8 [CROP_PX, CROP_PX, 5]:
        BGR, mask, attention.
    """
    matrix, flip = _similarity(rng, how), rng.random() < how.flip
    light = _light(rng, how.light) if rng.random() < how.colour else None
    face = _apply(driver, matrix, flip, light, cv2.BORDER_REFLECT_101)
    mask, attention = cv2.split(_apply(maps, matrix, flip, None, cv2.BORDER_CONSTANT))
    if rng.random() < how.occluders:
        face, hidden = occlude(rng, face, mask, strange)
        mask = cv2.subtract(mask, hidden)
    wanted = [
        np.dstack([_apply(target, matrix, flip, light, cv2.BORDER_REFLECT_101), mask, attention]) for target in targets
    ]
    if rng.random() < how.faults:
        face = camera_faults(rng, face)
    return face, wanted


def plain(driver: Picture, maps: Picture, targets: list[Picture]) -> tuple[Picture, list[Picture]]:
    """Return a pair as it is, without the margin: for validation and previews. Shapes as `augment`."""
    inner = slice((CANVAS_PX - CROP_PX) // 2, (CANVAS_PX + CROP_PX) // 2)
    face = np.ascontiguousarray(driver[inner, inner])
    return face, [np.dstack([target[inner, inner], maps[inner, inner]]) for target in targets]


def resized(image: Picture, side: int) -> Picture:
    """Average a picture down to another side: uint8 [S, S, C] -> [side, side, C], of any number of channels."""
    if image.shape[0] == side:
        return image
    parts = (image[..., :3], image[..., 3:]) if image.shape[2] > 4 else (image,)  # as many channels as cv2 takes
    return np.dstack([cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts])


def _similarity(rng: Generator, how: Augmentation) -> NDArray[np.float64]:
    middle = CANVAS_PX / 2
    scale = rng.uniform(how.shrink, how.grow)
    matrix = cv2.getRotationMatrix2D((middle, middle), rng.uniform(-how.turn_deg, how.turn_deg), scale)
    reach = how.shift * CROP_PX
    matrix[:, 2] += CROP_PX / 2 - middle + rng.uniform(-reach, reach, 2)
    return matrix  # type: ignore[return-value]


def _light(rng: Generator, reach: float) -> Picture:
    """Return a lookup table, uint8 [1, 256, 3]: gamma and a gain per channel."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gain = rng.uniform(1 - 0.25 * reach, 1 + 0.15 * reach) * rng.uniform(1 - 0.08 * reach, 1 + 0.08 * reach, 3)
    table = ramp ** rng.uniform(0.75**reach, 1.35**reach) * gain.astype(np.float32)
    return np.clip(table * 255, 0, 255).astype(np.uint8)[None]


def _apply(image: Picture, matrix: Any, flip: bool, light: Picture | None, border: int) -> Picture:
    out = cv2.warpAffine(image, matrix, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=border)
    if flip:
        out = cv2.flip(out, 1)
    return cv2.LUT(out, light) if light is not None else out  # type: ignore[return-value]


def camera_faults(rng: Generator, image: Picture) -> Picture:
    """Blur, noise, JPEG artefacts, fewer pixels: one or two of them; a new array."""
    side = image.shape[0]
    for fault in rng.choice(4, size=rng.integers(1, 3), replace=False):
        if fault == 0:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.2))  # type: ignore[assignment]
        elif fault == 1:
            noise = rng.normal(0, rng.uniform(2, 10), (side // 2, side // 2, 3)).astype(np.float32)
            noisy = image + cv2.resize(noise, (side, side), interpolation=cv2.INTER_NEAREST)
            image = np.clip(noisy, 0, 255).astype(np.uint8)
        elif fault == 2:
            quality = int(rng.integers(25, 75))
            image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)  # type: ignore
        else:
            small = int(side / rng.uniform(2, 4.5))
            image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return image


# ---- things in front of a face ---------------------------------------------------------------------------------


def occlude(rng: Generator, face: Picture, mask: Picture, strange: Picture) -> tuple[Picture, Picture]:
    """Put a hand, a microphone, strands of hair or a slab in front of a face.

    Args:
        rng: the source of chance.
        face: uint8 [S, S, 3], BGR; left as it is.
        mask: uint8 [S, S]: where the face is.
        strange: uint8 [_, _, 3]: a picture of skin for hands.

    Returns:
        The face behind it, and where it is hidden: uint8 [S, S], 0 to 255, soft at the edge.
    """
    size = face.shape[0]
    shape = np.zeros((size, size), np.uint8)
    ys, xs = np.nonzero(mask > 128)
    if not len(ys):
        return face, shape
    at = int(rng.integers(len(ys)))
    draw = (_hand, _microphone, _hair, _slab)[rng.integers(4)]
    draw(rng, shape, (int(xs[at]), int(ys[at])))
    soft = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.8, 2.0))
    texture = _skin(rng, strange, size) if draw is _hand else _stuff(rng, strange, size, dark=draw is not _slab)
    alpha = soft.astype(np.float32) / 255
    return cv2.blendLinear(texture, face, alpha, 1 - alpha), soft  # type: ignore[return-value]


def _hand(rng: Generator, shape: Picture, at: tuple[int, int]) -> None:
    """Some parallel fingers and a palm."""
    size = shape.shape[0]
    angle, width = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.035, 0.06)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    for finger in range(rng.integers(1, 5)):
        start = np.array(at) + across * finger * width * rng.uniform(2.0, 2.4)
        end = start + along * size * rng.uniform(0.2, 0.4)
        cv2.line(shape, tuple(start.astype(int).tolist()), tuple(end.astype(int).tolist()), 255, int(width * 2))
    if rng.random() < 0.6:
        palm = np.array(at) + along * size * 0.35 + across * width * 2
        axes = (int(size * rng.uniform(0.12, 0.2)), int(size * rng.uniform(0.1, 0.16)))
        cv2.ellipse(shape, tuple(palm.astype(int).tolist()), axes, float(np.degrees(angle)), 0, 360, 255, -1)


def _microphone(rng: Generator, shape: Picture, at: tuple[int, int]) -> None:
    size = shape.shape[0]
    radius = int(size * rng.uniform(0.05, 0.11))
    cv2.circle(shape, at, radius, 255, -1)
    end = (int(at[0] + size * rng.uniform(-0.4, 0.4)), size)
    cv2.line(shape, at, end, 255, max(2, int(radius * rng.uniform(0.7, 1.3))))


def _hair(rng: Generator, shape: Picture, at: tuple[int, int]) -> None:
    size = shape.shape[0]
    for _ in range(rng.integers(3, 12)):
        x = at[0] + rng.normal(0, size * 0.08)
        steps = np.linspace(0, 1, 8)
        bend = rng.normal(0, size * 0.08) * np.sin(steps * np.pi * rng.uniform(0.5, 1.5))
        points = np.stack([x + bend + steps * rng.normal(0, size * 0.15), steps * size * rng.uniform(0.4, 1)], axis=1)
        cv2.polylines(shape, [points.astype(np.int32)], False, 255, int(rng.integers(1, 6)), cv2.LINE_AA)


def _slab(rng: Generator, shape: Picture, at: tuple[int, int]) -> None:
    """A cup, a phone, a sheet of paper."""
    size = shape.shape[0]
    box = (at, (size * rng.uniform(0.12, 0.4), size * rng.uniform(0.12, 0.4)), rng.uniform(0, 90))
    cv2.fillPoly(shape, [cv2.boxPoints(box).astype(np.int32)], 255)  # type: ignore[arg-type]


def _skin(rng: Generator, strange: Picture, size: int) -> Picture:
    """Return a cheek of somebody else, enlarged: what a hand's skin looks like."""
    height, width = strange.shape[:2]
    y, x = int(height * rng.uniform(0.45, 0.6)), int(width * rng.choice([0.28, 0.6]))
    patch = strange[y : y + height // 9, x : x + width // 9]
    patch = cv2.resize(patch, (size, size), interpolation=cv2.INTER_CUBIC)
    shade = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.8, 1.1), size, dtype=np.float32)
    return np.clip(patch * shade[None, :, None], 0, 255).astype(np.uint8)


def _stuff(rng: Generator, strange: Picture, size: int, *, dark: bool) -> Picture:
    """Return some texture: a piece of another picture, or noise, tinted."""
    if not dark and rng.random() < 0.5:
        y, x = rng.integers(0, strange.shape[0] // 2, 2)
        patch = strange[y : y + strange.shape[0] // 3, x : x + strange.shape[1] // 3]
        return cv2.resize(cv2.flip(patch, 0), (size, size), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
    colour = rng.uniform(5, 80 if dark else 250, 3)
    grain = cv2.resize(rng.normal(0, 18, (size // 4, size // 4)).astype(np.float32), (size, size))
    return np.clip(colour[None, None] + grain[..., None], 0, 255).astype(np.uint8)
