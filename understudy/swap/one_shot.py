"""One-shot swap: a persona's photo on a driver's face, in the driver's pose, expression, gaze and light. No training.

What is decided is decided coarsely, on a 128 px crop: where each pixel comes from, how it is lit, how opaque it is.
What is painted is painted once, at the frame's own resolution: detail is the photo's, occluders are the driver's. A
small mixing network (`Mixer`) only says how opaque; after HDRnet (Gharbi et al. 2017,
arXiv:1707.02880) it never paints, so it cannot blur, and hardly flickers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.gaze import Eyes, Irises, moved_irises
from understudy.swap.mesh_warp import Map, Mask, ReferenceFace, ReferenceWarp, oval_area
from understudy.swap.relight import GAINS, LIGHT_GRID, Light, Lighting, Relight, lift_shares, quotient
from understudy.swap.scratch import Scratch
from understudy.swap.skin import skin_at_edge
from understudy.vision.face import Matrix, Points
from understudy.vision.iris import EyePair
from understudy.vision.mesh import INNER_MOUTH, LEFT_EYE, OUTER_MOUTH, RIGHT_EYE

# Side of the crop on which a swap is decided, px.
CONTROL_PX = 128
# The mask ends so far inside the mesh's edge, and is so soft there, px of that crop.
_EDGE_PX = 5
_SOFT_PX = 1.5
# What the network is nearly sure of is so: a tenth of the driver through all of the face is a tenth of his identity.
_SURE = (0.2, 0.8)
# The inner mouth's edge, share of the mouth's width.
_LIP_SOFT = 0.02
# A shut eye's lids with their folds: how much wider and taller than the open eye, and how soft the edge is.
_SOCKET, _SOCKET_SOFT = (1.3, 1.9), 0.09
# An iris' radius with its edge, by the eye's width.
_IRIS = 0.3
# Less colour than this in the driver's picture is taken out of the persona, too.
_COLOURFUL = 0.97
# What a step of a gain in a byte is worth: no tone's is larger than 255 of them.
_GAIN_STEP = GAINS[1] / 255
# Levels below which nothing needs to be added.
_LEAST_LIFT = 1.0


Grid = TypeVar("Grid", NDArray[np.float32], NDArray[np.uint8])


class Mixer(Protocol):
    """Says how to mix: the network. Thread-safe."""

    def mix(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return opacity, float32 [N, 128, 128], 0 to 1.

        Args:
            inputs: float32 [N, 128, 128, 7], 0 to 1: driver BGR, lit reference BGR, soft coverage.
        """
        ...


@dataclass(frozen=True, slots=True)
class DriverFace:
    """What a renderer is told about a driver's face; small enough to send.

    Attributes:
        crop: uint8 [128, 128, 3], BGR, aligned (and bent to the persona's shape, where that is wanted).
        mesh: float32 [468, 3], px of the crop.
        eyes: irises and lids, px of the crop; None: eyes look as in the photo, lids are the mesh's.
    """

    crop: NDArray[np.uint8]
    mesh: Points
    eyes: EyePair | None = None

    @property
    def lidded(self) -> Points:
        """The mesh with the finer lids, shut where the driver's are: float32 [468, 3], px of the crop."""
        return self.mesh if self.eyes is None else self.eyes.shut().on(self.mesh)


class Target(NamedTuple):
    """Where a swap is painted: a rectangle of the frame.

    Attributes:
        to_crop: float32 [2, 3], px of the rectangle -> px of the crop.
        width, height: of the rectangle, px; even.
    """

    to_crop: Matrix
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PaintOptions:
    """What of the driver stays.

    Attributes:
        own_eyes: the driver's own eyes instead of the persona's.
        own_mouth: the driver's whole mouth, lips included, instead of the inner mouth alone.
        keep_occluders: what the network sees before the face (hands, hair, spectacles) stays before it.
    """

    own_eyes: bool = False
    own_mouth: bool = False
    keep_occluders: bool = True


class Decision(NamedTuple):
    """How a face is painted.

    Attributes:
        positions: float32 [128, 128, 2], where each pixel of the crop comes from, px of the reference.
        scale: px of the reference a px of the crop.
        opacity: float32 [128, 128], 0 to 1.
        lighting: how the reference is lit (`Relight.lighting`).
        colour: how much of its colour it keeps, 0 to 1.
    """

    positions: Map
    scale: float
    opacity: NDArray[np.float32]
    lighting: Lighting
    colour: float


class OneShotRenderer:
    """Paints one persona. Read-only, and so thread-safe as its mixer is.

    Args:
        reference: the persona's picture and mesh.
        irises: float32 [2, 2], the reference's irises' centres, px of its picture; None: eyes are not turned.
        mixer: the network; None: opaque wherever the mesh reaches.
    """

    def __init__(self, reference: ReferenceFace, irises: Irises | None = None, mixer: Mixer | None = None) -> None:
        self.reference = reference
        self._mixer = mixer
        side = reference.image.shape[0]
        shown = cv2.resize(skin_at_edge(reference), (side, side), interpolation=cv2.INTER_LINEAR)
        self._eyes = None if irises is None else Eyes(reference, irises)
        painted = reference if self._eyes is None else ReferenceFace(self._eyes.whites, reference.mesh)
        self._warp = ReferenceWarp(painted, CONTROL_PX, np.rint(shown * 255).astype(np.uint8))
        self._area = oval_area(reference.mesh)

    def paint(
        self,
        driver: DriverFace,
        target: Target,
        options: PaintOptions | None = None,
        scratch: Scratch | None = None,
    ) -> NDArray[np.uint8]:
        """Paint the persona onto a driver's face.

        Args:
            driver: the face.
            target: where.
            options: what of the driver stays.
            scratch: memory to work in; the result lies in it, until it is worked in again. None: memory of its own.

        Returns:
            uint8 [height, width, 4], BGR and opacity.
        """
        chosen = options or PaintOptions()
        return self.paint_as(self.decide(driver, chosen), driver, target, chosen, scratch)

    def decide(self, driver: DriverFace, options: PaintOptions) -> Decision:
        """Decide how a face is painted, whatever its size: the half of `paint` that needs the network."""
        positions, covered = self._warp.map(driver.lidded)
        scale = float(np.sqrt(self._area / oval_area(driver.mesh)))  # reference px a crop px
        warped = cv2.cvtColor(self._warp.sampled(positions, scale), cv2.COLOR_BGRA2BGR)
        warped = np.asarray(cv2.bitwise_and(warped, warped, mask=covered), np.uint8)
        # Before the network sees it: an iris where the photo has none would be something before the face.
        self._look(warped, driver, driver.lidded, None, options)
        return Decision(positions, scale, *self._mixed(driver, warped, covered, options))

    def _look(
        self, face: NDArray[np.uint8], driver: DriverFace, mesh: Points, to_face: Matrix | None, options: PaintOptions
    ) -> None:
        """Lay a painted face's irises where the driver looks, in place; `mesh`, `to_face`: in px of the face."""
        if self._eyes is not None and not options.own_eyes:
            irises = None if driver.eyes is None else driver.eyes.irises
            if irises is not None and to_face is not None:
                irises = moved_irises(irises, to_face)
            self._eyes.look(face, mesh, irises)

    def _mixed(
        self, driver: DriverFace, warped: NDArray[np.uint8], covered: Mask, options: PaintOptions
    ) -> tuple[NDArray[np.float32], Lighting, float]:
        """Return opacity, float32 [128, 128], how the reference is lit, and the share of colour."""
        coverage = soft_coverage(covered)
        relight = Relight(driver.crop, warped)
        light = relight.quotient(coverage)
        opacity = coverage
        if self._mixer is not None:
            lit = lit_by(warped, relight.lighting(light))
            pictures = [each * np.float32(1 / 255) for each in (driver.crop, lit)]
            seen = self._mixer.mix(np.asarray(cv2.merge([*pictures, coverage]), np.float32)[None])
            low, high = _SURE
            shown = coverage * np.clip((seen[0] - low) * np.float32(1 / (high - low)), 0, 1)
            if self._eyes is not None and not options.own_eyes:
                _close_eyes(shown, driver.lidded)
            if options.keep_occluders:
                opacity = shown
            # What stands before the face must not light it.
            light = relight.quotient(shown)
        return opacity, relight.lighting(light), relight.saturation(light, coverage)

    def paint_as(
        self,
        how: Decision,
        driver: DriverFace,
        target: Target,
        options: PaintOptions,
        scratch: Scratch | None = None,
    ) -> NDArray[np.uint8]:
        """Paint as decided: the other half of `paint`, with its arguments and its result."""
        scratch = scratch or Scratch()
        to_crop = target.to_crop.astype(np.float64)
        zoom = float(np.sqrt(abs(np.linalg.det(to_crop[:, :2]))))  # crop px a target px
        positions = enlarged_over(how.positions, to_crop, target, scratch)
        face = self._warp.sampled(positions, how.scale * zoom, scratch)
        mesh, to_target = _onto(driver.lidded, target.to_crop), cv2.invertAffineTransform(to_crop)
        self._look(face, driver, mesh, np.asarray(to_target, np.float32), options)
        face = lit(face, how.lighting, target, scratch)
        flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (target.width, target.height)
        opacity = cv2.warpAffine(
            np.rint(how.opacity * 255).astype(np.uint8),
            to_crop,
            size,
            scratch.bytes("opacity", size[::-1]),
            flags,
            cv2.BORDER_CONSTANT,
        )
        shown = cv2.extractChannel(face, 3, scratch.bytes("shown", size[::-1]))
        opacity = np.asarray(cv2.multiply(opacity, shown, opacity, 1 / 255), np.uint8)
        rings = [OUTER_MOUTH if options.own_mouth else INNER_MOUTH]
        rings += [RIGHT_EYE, LEFT_EYE] if options.own_eyes else []
        for ring in rings:
            _cut_out(opacity, mesh[list(ring)], _LIP_SOFT)
        if driver.eyes is not None:  # a shut eye is the driver's: the photo has lashes where it needs a lid
            for ring, openness in zip((RIGHT_EYE, LEFT_EYE), driver.eyes.openness, strict=True):
                if openness < 1:
                    lids = _onto(driver.mesh[list(ring)], target.to_crop)
                    middle = lids.mean(0)
                    socket = cv2.convexHull(middle + (lids - middle) * np.array(_SOCKET, np.float32))[:, 0]
                    _cut_out(opacity, np.asarray(socket, np.float32), _SOCKET_SOFT, 1 - openness)
        if how.colour < _COLOURFUL:
            grey = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_BGRA2GRAY), cv2.COLOR_GRAY2BGRA)
            face = np.asarray(cv2.addWeighted(face, how.colour, grey, 1 - how.colour, 0), np.uint8)
        return np.asarray(cv2.insertChannel(opacity, face, 3), np.uint8)


def lit(face: NDArray[np.uint8], lighting: Lighting, target: Target, scratch: Scratch) -> NDArray[np.uint8]:
    """Light a painted face.

    In bytes, which takes a third of what float32 does: a gain is off by 1/400 at most, a lift by half a level.

    Args:
        face: uint8 [H, W, 4], BGR and where it may be shown; written to.
        lighting: how.
        target: where it lies in the crop.
        scratch: memory to work in.

    Returns:
        uint8 [H, W, 4], in the face's own memory; its fourth channel is as it was.
    """
    grid = target.to_crop.astype(np.float64) * (LIGHT_GRID / CONTROL_PX)
    grid[:, 2] += (LIGHT_GRID / CONTROL_PX - 1) / 2
    shares = None
    if any(float(tone.lift.max()) > _LEAST_LIFT for tone in lighting.tones):
        shares = _lift_shares(face, lighting, grid, target, scratch)
    darkest: NDArray[np.uint8] | None = None
    for place, tone in reversed(list(enumerate(lighting.tones))):  # the first in the face's own memory, and so last
        gain = np.full((LIGHT_GRID, LIGHT_GRID, 4), 1 / _GAIN_STEP, np.float32)
        gain[..., :3] = tone.gain * np.float32(1 / _GAIN_STEP)
        into = face if place == 0 else scratch.bytes("flat", face.shape)
        toned = cv2.multiply(face, enlarged_over(_bytes(gain), grid, target, scratch), into, _GAIN_STEP)
        if shares is not None:
            toned = _lifted(np.asarray(toned, np.uint8), tone.lift, shares, grid, target, scratch)
        darkest = np.asarray(toned if darkest is None else cv2.min(toned, darkest, toned), np.uint8)
    assert darkest is not None  # there is always a tone
    return darkest


_Shares = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _lift_shares(
    face: NDArray[np.uint8], lighting: Lighting, grid: NDArray[np.float64], target: Target, scratch: Scratch
) -> _Shares:
    """Return how much of a lift each pixel gets, 255 for all: in colour, uint8 [H, W, 4], and without, [H, W]."""
    flat = face.shape[:2]
    smooth = enlarged_over(_bytes(lighting.smooth), grid, target, scratch)
    grey = cv2.cvtColor(face, cv2.COLOR_BGRA2GRAY, scratch.bytes("grey", flat))
    tone = cv2.divide(grey, smooth, grey, 255)
    coloured = cv2.LUT(tone, _LIFTS[0], scratch.bytes("coloured", flat))
    neutral = cv2.LUT(tone, _LIFTS[1], scratch.bytes("neutral", flat))
    return cast(_Shares, (cv2.merge([coloured] * 4, scratch.bytes("shares", face.shape)), neutral))


def _lifted(
    face: NDArray[np.uint8],
    lift: Light,
    shares: _Shares,
    grid: NDArray[np.float64],
    target: Target,
    scratch: Scratch,
) -> NDArray[np.uint8]:
    """Add a lift to a face, uint8 [H, W, 4], in place."""
    levels = np.zeros((LIGHT_GRID, LIGHT_GRID, 4), np.float32)
    levels[..., :3] = lift
    coloured, neutral = shares
    whole = enlarged_over(_bytes(levels), grid, target, scratch)
    cv2.add(face, cv2.multiply(whole, coloured, whole, 1 / 255), face)
    grey = np.asarray(cv2.cvtColor(lift, cv2.COLOR_BGR2GRAY), np.float32)[..., None]
    grey = enlarged_over(_bytes(grey), grid, target, scratch)
    grey = cv2.multiply(grey, neutral, scratch.bytes("grey lift", face.shape[:2]), 1 / 255)
    nothing = scratch.bytes("nothing", face.shape[:2])
    nothing[:] = 0
    return np.asarray(cv2.add(face, cv2.merge([grey, grey, grey, nothing]), face), np.uint8)


_LIFTS = [np.rint(share * 255).astype(np.uint8) for share in lift_shares(np.arange(256, dtype=np.float32) / 255)]


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def lit_by(warped: NDArray[np.uint8], lighting: Lighting) -> NDArray[np.uint8]:
    """Return a photo on its mesh, uint8 [128, 128, 3], in a light."""
    face = np.asarray(cv2.cvtColor(warped, cv2.COLOR_BGR2BGRA), np.uint8)
    whole = Target(np.eye(2, 3, dtype=np.float32), CONTROL_PX, CONTROL_PX)
    return np.asarray(cv2.cvtColor(lit(face, lighting, whole, Scratch()), cv2.COLOR_BGRA2BGR), np.uint8)


def soft_coverage(covered: Mask) -> NDArray[np.float32]:
    """Return where a mesh lets a swap reach: soft at its edge, float32 [128, 128], 0 to 1.

    Args:
        covered: uint8 [128, 128], 255 where the mesh lies, else 0.
    """
    inner = covered.copy()
    inner[0], inner[-1], inner[:, 0], inner[:, -1] = 0, 0, 0, 0  # a face cut off by the crop's edge ends softly, too
    inner = cv2.erode(inner, np.ones((_EDGE_PX, _EDGE_PX), np.uint8))
    return cv2.GaussianBlur(inner, (0, 0), _SOFT_PX).astype(np.float32) / np.float32(255)


def enlarged(light: Light) -> NDArray[np.float32]:
    """Return a light at the control crop's size: float32 [128, 128, 3]."""
    return np.asarray(cv2.resize(light, (CONTROL_PX, CONTROL_PX), interpolation=cv2.INTER_LINEAR), np.float32)


def cropped_light(
    driver: NDArray[np.uint8], warped: NDArray[np.uint8], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the quotient light of two control crops at their size: float32 [128, 128, 3]."""
    return enlarged(quotient(driver, warped, weight))


def enlarged_over(
    grid: Grid,
    to_grid: NDArray[np.float64],
    target: Target,
    scratch: Scratch,
    border: int = cv2.BORDER_REPLICATE,
) -> Grid:
    """Return what a grid holds, and is smooth, over a target: at half its size first, which takes half the time.

    Args:
        grid: float32 or uint8 [G, G, C].
        to_grid: float64 [2, 3], px of the target -> px of the grid.
        target: how large; its matrix is not used.
        scratch: where the result lies, until this is called again for as many channels of its kind.
        border: cv2's, for what lies outside the grid.

    Returns:
        As the grid, [height, width, C].
    """
    half = to_grid * 2
    half[:, 2] = to_grid[:, 2] + to_grid[:, :2].sum(1) / 2  # pixel i lies between pixels 2i and 2i + 1
    width, height, channels = target.width, target.height, grid.shape[2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    memory = scratch.bytes if grid.dtype == np.uint8 else scratch.floats
    coarse = memory(f"coarse{channels}", (height // 2, width // 2, channels))
    coarse = cv2.warpAffine(grid, half, (width // 2, height // 2), coarse, flags, border)
    whole = memory(f"whole{channels}", (height, width, channels))
    return cast(Grid, cv2.resize(coarse, (width, height), whole, interpolation=cv2.INTER_LINEAR))


def _close_eyes(shown: NDArray[np.float32], mesh: Points) -> None:
    """Fill holes as small as an iris inside the lids, in place: his own dark iris is nothing before the face."""
    for ring in (RIGHT_EYE, LEFT_EYE):
        lids = mesh[list(ring), :2]
        reach = max(2, round(_IRIS * float(np.ptp(lids[:, 0]))))
        left, top = np.maximum(lids.min(0).astype(int) - 2 * reach, 0)
        right, bottom = np.minimum(lids.max(0).astype(int) + 2 * reach + 1, CONTROL_PX)
        if right - left < 2 or bottom - top < 2:
            continue
        part = shown[top:bottom, left:right]
        inside = np.zeros(part.shape, np.uint8)
        cv2.fillPoly(inside, [np.rint((lids - [left, top]) * 16).astype(np.int32)], (255,), cv2.LINE_8, 4)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        closed = cv2.morphologyEx(part, cv2.MORPH_CLOSE, disc)
        np.copyto(part, closed, where=cv2.dilate(inside, np.ones((3, 3), np.uint8)) > 0)


def _onto(mesh: Points, to_crop: Matrix) -> Points:
    """Return a mesh of the crop in px of the target: float32 [468, 2]."""
    to_target = cv2.invertAffineTransform(to_crop.astype(np.float64))
    return np.asarray(mesh[:, :2] @ to_target[:, :2].T + to_target[:, 2], np.float32)


def _cut_out(opacity: Mask, points: Points, softness: float, share: float = 1.0) -> None:
    """Let the driver through inside a ring of points, in place; its edge is as soft as that share of its width."""
    sigma = max(0.6, float(np.ptp(points[:, 0])) * softness)
    reach = int(3 * sigma) + 2
    left, top = np.maximum((points.min(0) - reach).astype(int), 0)
    right, bottom = np.minimum((points.max(0) + reach + 1).astype(int), [opacity.shape[1], opacity.shape[0]])
    if right > left and bottom > top:
        hole = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(hole, [np.rint((points - [left, top]) * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
        hole = cv2.bitwise_not(cv2.convertScaleAbs(cv2.GaussianBlur(hole, (0, 0), sigma), alpha=share))
        part = opacity[top:bottom, left:right]
        part[:] = cv2.multiply(part, hole, scale=1 / 255)
