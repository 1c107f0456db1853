"""A one-shot swap in its frame: the driver's pixels bent to the persona's shape, the painted face laid over them."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.driver import Driver
from understudy.swap.one_shot import CONTROL_PX, DriverFace, Target, enlarged_over
from understudy.swap.scratch import Scratch
from understudy.swap.shape import FIELD_GRID, NO_MAP, Field, Identity, bending, moved, shape_model
from understudy.vision.align import align
from understudy.vision.face import Face, Matrix, Points
from understudy.vision.iris import EyePair

# A field that moves nothing by more than this, px of the control crop, is none.
_STILL_PX = 0.05


class Prepared(NamedTuple):
    """What a renderer is sent for one face, and what putting its answer back needs.

    Attributes:
        driver: the crop, bent, and its points.
        target: the rectangle of the frame that is painted.
        left, top: where that rectangle lies, frame px.
        bent: the rectangle whose pixels move, and by how much; None: none do.
    """

    driver: DriverFace
    target: Target
    left: int
    top: int
    bent: Bent | None


class Bent(NamedTuple):
    """A rectangle of the frame and the field that bends it.

    Attributes:
        target: its size, and how it lies in the crop.
        left, top: where it lies, frame px.
        shift: float32 [64, 64, 2], by how much pixels move, frame px.
    """

    target: Target
    left: int
    top: int
    shift: Field


def prepare(image: NDArray[np.uint8], driver: Driver, wanted: Identity, shape: float) -> Prepared | None:
    """Cut a driver's face out, bent towards a persona's shape; None where no part of it lies in the frame.

    Args:
        image: uint8 [H, W, 3], BGR; left as it is.
        driver: the face, and whose it is.
        wanted: float32 [I], the persona's identity.
        shape: how far the shape goes over: 0 leaves the driver's, 1 is the persona's.
    """
    face: Face = driver.face
    aligned = align(image, face, CONTROL_PX)
    to_crop = aligned.frame_to_crop
    mesh, eyes, crop, field = aligned.mesh, driver.eyes.moved(to_crop), aligned.crop, None
    if shape * driver.confidence > 0:
        change = shape_model().displacement(aligned.mesh, driver.identity, wanted)
        field = bending(aligned.mesh, change * np.float32(shape * driver.confidence), CONTROL_PX)
        if float(np.abs(field).max()) < _STILL_PX:
            field = None
        else:
            mesh = moved(mesh, field, CONTROL_PX)
            lids = moved(eyes.lids.reshape(-1, 2), field, CONTROL_PX).reshape(eyes.lids.shape)
            eyes = EyePair(moved(eyes.irises, field, CONTROL_PX), lids, eyes.open_at)
            crop = _bent(crop, field)
    to_frame = np.asarray(cv2.invertAffineTransform(to_crop.astype(np.float64)), np.float64)
    painted = _rectangle(mesh[:, :2], to_crop, to_frame, image.shape)
    if painted is None:
        return None
    bent = None
    if field is not None:
        whole = _rectangle(_CORNERS, to_crop, to_frame, image.shape)
        assert whole is not None  # the painted rectangle lies in it
        bent = Bent(*whole, np.asarray(field @ to_frame[:, :2].T.astype(np.float32), np.float32))
    return Prepared(DriverFace(crop, mesh, eyes), *painted, bent)


def lay_over(
    frame: NDArray[np.uint8], prepared: Prepared, painted: NDArray[np.uint8], strength: float, scratch: Scratch
) -> float:
    """Put a painted face into a frame.

    Args:
        frame: uint8 [H, W, 3], BGR: the result in the making, where the driver's pixels come from; written to.
        prepared: as the renderer got it.
        painted: uint8 [height, width, 4], BGR and opacity, as it answered.
        strength: 1 shows the persona, 0 the driver; between, a mix.

    Returns:
        The share of the rectangle that the persona hides, 0 to 1.
    """
    if prepared.bent is not None:
        _bend(frame, prepared.bent, strength, scratch)
    target, left, top = prepared.target, prepared.left, prepared.top
    part = frame[top : top + target.height, left : left + target.width]
    painted = painted[: part.shape[0], : part.shape[1]]
    flat, deep = part.shape[:2], part.shape
    opacity = cv2.extractChannel(painted, 3, scratch.bytes("shown", flat))
    opaque = cv2.threshold(opacity, _OPAQUE, 255, cv2.THRESH_BINARY, scratch.bytes("opaque", flat))[1]
    hidden = cv2.countNonZero(opaque) / opacity.size
    if strength < 1:
        opacity = cv2.convertScaleAbs(opacity, opacity, alpha=strength)
    weight = cv2.merge([opacity, opacity, opacity], scratch.bytes("weight", deep))
    face = cv2.cvtColor(painted, cv2.COLOR_BGRA2BGR, scratch.bytes("face", deep))
    face = cv2.multiply(face, weight, face, 1 / 255)
    weight = cv2.bitwise_not(weight, weight)
    rest = cv2.multiply(part, weight, weight, 1 / 255)
    cv2.add(face, rest, part)
    return hidden


# Below this the face under the mask can be recognised.
_OPAQUE = 178


def _bend(frame: NDArray[np.uint8], bent: Bent, strength: float, scratch: Scratch) -> None:
    """Bend a rectangle of a frame, in place; pixels that do not move stay bit for bit."""
    grid = bent.target.to_crop.astype(np.float64) * (FIELD_GRID / CONTROL_PX)
    grid[:, 2] += (FIELD_GRID / CONTROL_PX - 1) / 2
    width, height = bent.target.width, bent.target.height
    shift = bent.shift * np.float32(strength) if strength < 1 else bent.shift
    at = enlarged_over(shift, grid, bent.target, scratch, cv2.BORDER_CONSTANT)
    np.subtract(np.arange(bent.left, bent.left + width, dtype=np.float32), at[..., 0], out=at[..., 0])
    np.subtract(np.arange(bent.top, bent.top + height, dtype=np.float32)[:, None], at[..., 1], out=at[..., 1])
    part = frame[bent.top : bent.top + height, bent.left : bent.left + width]
    out = scratch.bytes("bent", (height, width, 3))
    moved_part = cv2.remap(frame, at, NO_MAP, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE)
    part[:] = moved_part[: part.shape[0], : part.shape[1]]


def _grid(width: int, height: int, left: int, top: int) -> NDArray[np.float32]:
    out = np.empty((height, width, 2), np.float32)
    out[..., 0] = np.arange(left, left + width, dtype=np.float32)
    out[..., 1] = np.arange(top, top + height, dtype=np.float32)[:, None]
    return out


def _bent(crop: NDArray[np.uint8], field: Field) -> NDArray[np.uint8]:
    side = crop.shape[0]
    at = _grid(side, side, 0, 0) - cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.remap(crop, at, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


_CORNERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32) * np.float32(CONTROL_PX - 1)


def _rectangle(
    points: Points, to_crop: Matrix, to_frame: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[Target, int, int] | None:
    """Return the frame's part around points of the crop, with its left and top; None where they lie outside.

    Sides are even, so a rectangle may reach one pixel over the frame's edge.
    """
    found = points @ to_frame[:, :2].T + to_frame[:, 2]
    left, top = np.maximum(np.floor(found.min(0)).astype(int), 0).tolist()
    right, bottom = np.minimum(np.ceil(found.max(0)).astype(int) + 1, [shape[1], shape[0]]).tolist()
    if right <= left or bottom <= top:
        return None
    matrix = to_crop.copy()
    matrix[:, 2] += to_crop[:, :2] @ np.array([left, top], np.float32)
    width, height = (right - left + 1) // 2 * 2, (bottom - top + 1) // 2 * 2
    return Target(matrix, width, height), left, top
