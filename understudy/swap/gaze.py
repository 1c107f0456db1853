"""The persona's eyes with the driver's gaze: irises are lifted off the photo once, and laid where the driver's are.

What lies inside the lids decides a fifth of who a recogniser sees, so the photo's own eyes are shown. Merely shifted,
an iris would smear in a far look: half of it is hidden in the photo, and the white that it uncovers was never seen. So
a reference's eyes are taken apart when it is loaded: the whites without an iris, and each iris whole, what the lids
hide of it guessed from its rings. Lids and whites follow the mesh; the iris lies where the iris model sees the driver's
(Ablavatski et al. 2020, arXiv:2006.11341), as wide as the eye says, under the lids.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.mesh_warp import Mask, ReferenceFace
from understudy.vision.face import Matrix, Points
from understudy.vision.mesh import LEFT_EYE, RIGHT_EYE

# Each eye: its ring of points, the outer and the inner corner.
EYES = ((RIGHT_EYE, 33, 133), (LEFT_EYE, 263, 362))
# An iris is 11.7 mm wide, an eye 30 mm: its radius by the eye's width, and within which limits a photo may say.
_RADIUS, _RADII = 0.2, (0.16, 0.24)
# Its texture reaches so far, in radii: whole within the first, gone beyond the second.
_WHOLE, _REACH = 1.06, 1.3
# White is painted over an iris whole within the first, not at all beyond the second.
_COVERED, _GONE = 1.1, 1.7
# So far inside the lids' edges, by the eye's width, a photo shows the eye itself and no lash.
_INSIDE = 0.03
# Whites are guessed from their neighbourhood, wide and low as eyes are: sigmas by the eye's width.
_WHITE_REACH = (0.3, 0.07)
# The lids' shadow on an eye: how dark at the edge, how far it reaches by the eye's width; the upper one's is deeper.
_SHADOW, _SHADOW_REACH, _DEEPER = 0.5, 0.08, 0.06
_FARTHEST = 0.6
_NARROWEST_PX = 4.0
_RINGS = 24

Irises = NDArray[np.float32]


class _Eye(NamedTuple):
    """One eye of a reference.

    Attributes:
        shares: float32 [16], by how much each point of its lids carries its iris along: their least-squares affine.
        across: float32 [2], from its outer to its inner corner, px of the picture.
        discs: uint8 [D, D, 4], the iris on its own, BGR and alpha, and its halves.
    """

    shares: NDArray[np.float32]
    across: Points
    discs: list[NDArray[np.uint8]]


class Eyes:
    """A reference's eyes, ready to look anywhere. Read-only, and so thread-safe.

    Args:
        reference: the picture and its mesh.
        irises: float32 [2, 2], its irises' centres, right and left, px of the picture.

    Attributes:
        whites: uint8 [S, S, 3], BGR: the picture without irises.
    """

    def __init__(self, reference: ReferenceFace, irises: Irises) -> None:
        self.whites = reference.image.copy()
        self._eyes: list[_Eye] = []
        for (ring, outer, inner), iris in zip(EYES, irises, strict=True):
            mesh = reference.mesh
            across = (mesh[inner, :2] - mesh[outer, :2]).astype(np.float32)
            lids = mesh[list(ring), :2].astype(np.float32)
            disc = _lift_iris(self.whites, lids, iris.astype(np.float32), float(np.hypot(*across)))
            discs = [disc, *(cv2.resize(disc, None, fx=f, fy=f, interpolation=cv2.INTER_AREA) for f in (0.5, 0.25))]
            self._eyes.append(_Eye(_shares(lids, iris), across, [np.asarray(d, np.uint8) for d in discs]))

    def look(self, face: NDArray[np.uint8], mesh: Points, irises: Irises | None) -> None:
        """Lay the irises into a warped reference, in place.

        Args:
            face: uint8 [H, W, 3 or 4], BGR: `whites` on the driver's mesh.
            mesh: float32 [468, 2 or 3], the driver's mesh, px of `face`; may reach outside.
            irises: float32 [2, 2], the driver's irises' centres, px of `face`; None: the eyes look as in the photo.
        """
        for place, ((ring, outer, inner), eye) in enumerate(zip(EYES, self._eyes, strict=True)):
            lids = mesh[list(ring), :2].astype(np.float32)
            across = mesh[inner, :2] - mesh[outer, :2]
            width = float(np.hypot(*across))
            if width < _NARROWEST_PX:
                continue
            own = eye.shares @ lids
            centre = own
            if irises is not None:
                centre = own + np.clip(irises[place] - own, -_FARTHEST * width, _FARTHEST * width)
            turn = complex(*across) / complex(*eye.across)
            _lay(face, lids, np.asarray(centre, np.float32), eye, turn)


def _lift_iris(picture: NDArray[np.uint8], lids: Points, iris: Points, width: float) -> NDArray[np.uint8]:
    """Return an iris, uint8 [D, D, 4], BGR and alpha, whole; and paint white over it in the picture, in place."""
    reach = int(np.ceil(width * _RADII[1] * _REACH)) + 1
    pad = int(np.ceil(max(reach, width * 0.25))) + 1
    left, top = np.floor(np.minimum(lids.min(0), iris)).astype(int) - pad
    right, bottom = np.ceil(np.maximum(lids.max(0), iris)).astype(int) + pad + 1
    padded = cv2.copyMakeBorder(picture, *_outside(picture, left, top, right, bottom), cv2.BORDER_REPLICATE)
    x0, y0 = max(0, -left), max(0, -top)
    area = padded[top + y0 : bottom + y0, left + x0 : right + x0].astype(np.float32)
    ring, centre = lids - [left, top], iris - np.array([left, top], np.float32)
    inside = _filled(ring, area.shape[:2], 255).astype(np.float32) / np.float32(255)
    edge = 2 * max(1, round(width * _INSIDE)) + 1
    clear = np.asarray(cv2.erode(inside, np.ones((edge, edge))), np.float32)
    y, x = np.mgrid[: area.shape[0], : area.shape[1]].astype(np.float32)
    away = np.hypot(x - centre[0], y - centre[1])
    beside = (clear > 0) & (np.abs(y - centre[1]) < 0.6 * np.abs(x - centre[0]))
    far = away / np.float32(_radius(area, away, beside, width))
    whole = _ringed(area, far, clear)
    alpha = np.clip((_REACH - far) / (_REACH - _WHOLE), 0, 1)
    disc = cv2.merge([*cv2.split(np.clip(whole, 0, 255)), alpha * 255])
    size = 2 * reach + 1
    cut = np.array([[1, 0, reach - centre[0]], [0, 1, reach - centre[1]]], np.float64)
    disc = cv2.warpAffine(disc, cut, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    white = _whites(area, clear * (far > _WHOLE + 0.1), width) * _shade(inside, width)[..., None]
    hidden = np.clip((_GONE - far) / (_GONE - _COVERED), 0, 1)
    hidden = hidden * hidden * (3 - 2 * hidden) * cv2.GaussianBlur(clear, (0, 0), max(0.5, width * _INSIDE))
    painted = area + (white - area) * hidden[..., None]
    padded[top + y0 : bottom + y0, left + x0 : right + x0] = np.clip(np.rint(painted), 0, 255)
    picture[:] = padded[y0 : y0 + picture.shape[0], x0 : x0 + picture.shape[1]]
    return np.clip(np.rint(disc), 0, 255).astype(np.uint8)


def _outside(picture: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
    """Return by how much a rectangle reaches beyond a picture: top, bottom, left, right."""
    height, width = picture.shape[:2]
    return max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)


def _radius(area: NDArray[np.float32], away: NDArray[np.float32], beside: NDArray[np.bool_], width: float) -> float:
    """Return an iris' radius, px: where, to its left and right, it gets bright fastest; the usual one if nowhere."""
    at = np.arange(0.11, 0.30, 0.01) * width
    grey = cv2.cvtColor(area, cv2.COLOR_BGR2GRAY)
    rings = [beside & (np.abs(away - radius) < 0.02 * width) for radius in at]
    tones = np.array([grey[ring].mean() if ring.sum() > 3 else np.nan for ring in rings])
    steps = tones[4:] - tones[:-4]
    if not np.isfinite(steps).any() or np.nanmax(steps) < 15:
        return _RADIUS * width
    return float(np.clip(at[2 + int(np.nanargmax(steps))], _RADII[0] * width, _RADII[1] * width))


def _ringed(area: NDArray[np.float32], far: NDArray[np.float32], clear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an iris with what the lids hide: the mean of the ring that it lies on. Float32 [H, W, 3]."""
    ring = np.minimum((far * (_RINGS / _REACH)).astype(int), _RINGS - 1)
    weight = np.bincount(ring.ravel(), clear.ravel(), _RINGS)
    means = (
        np.stack([np.bincount(ring.ravel(), (area[..., c] * clear).ravel(), _RINGS) for c in range(3)], axis=1)
        / np.maximum(weight, 1e-6)[:, None]
    )
    seen = np.flatnonzero(weight > 2)
    if len(seen) == 0:
        return area
    means = np.stack([np.interp(np.arange(_RINGS), seen, means[seen, c]) for c in range(3)], axis=1)
    means = cv2.GaussianBlur(means.astype(np.float32), (1, 3), 0.8)
    guessed = means[ring]
    share = cv2.GaussianBlur(cv2.erode(clear, np.ones((3, 3))), (0, 0), 1.0)[..., None]
    return np.asarray(guessed + (area - guessed) * share, np.float32)


def _whites(area: NDArray[np.float32], seen: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Return an eye's white over all of its part, guessed from where it is seen: float32 [H, W, 3]."""
    grey = cv2.cvtColor(area, cv2.COLOR_BGR2GRAY)
    bright = grey / max(float((grey * (seen > 0)).max()), 1.0)
    seen = np.asarray(seen * np.clip(bright, 0, 1), np.float32)  # what is dark there is a lash, a shadow, a vein
    total, tone = np.zeros(seen.shape, np.float32), np.zeros(area.shape, np.float32)
    for trust, reach in ((1.0, 1.0), (1e-3, 2.5)):  # what is near; where nothing is, what is farther away
        across, down = (share * width * reach for share in _WHITE_REACH)
        total += trust * cv2.GaussianBlur(seen, (0, 0), across, sigmaY=down)
        tone += trust * cv2.GaussianBlur(area * seen[..., None], (0, 0), across, sigmaY=down)
    return np.asarray(tone / np.maximum(total, 1e-9)[..., None] if seen.sum() > 4 else area, np.float32)


def _lay(face: NDArray[np.uint8], lids: Points, centre: Points, eye: _Eye, turn: complex) -> None:
    """Lay an iris into an eye, in place, under its lids; `turn`: how the photo's eye is turned and scaled."""
    height, wide = face.shape[:2]
    scale = abs(turn)
    level = 0 if scale > 0.7 else 1 if scale > 0.35 else 2
    disc = eye.discs[level]
    half = disc.shape[0] / 2
    reach = half * 2**level * scale
    left, top = np.maximum(np.floor(np.maximum(lids.min(0), centre - reach)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(np.minimum(lids.max(0), centre + reach)).astype(int) + 2, [wide, height])
    if right - left < 2 or bottom - top < 2:
        return
    size = (int(right - left), int(bottom - top))
    step = turn * 2**level
    middle = complex(half - 0.5, half - 0.5)
    shift = complex(*(centre - [left, top])) - step * middle
    matrix = np.array([[step.real, -step.imag, shift.real], [step.imag, step.real, shift.imag]])
    laid = cv2.warpAffine(disc, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    width = float(np.hypot(*eye.across)) * scale
    inside = _filled(lids - [left, top], size[::-1], 255).astype(np.float32) * np.float32(1 / 255)
    weight = cv2.GaussianBlur(inside, (0, 0), max(0.5, width * 0.02)) * laid[..., 3] * np.float32(1 / 255)
    target = face[top:bottom, left:right, :3]
    colour = laid[..., :3] * _shade(inside, width)[..., None]
    target[:] = np.rint(target + (colour - target) * weight[..., None])


def _shade(inside: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Return how bright an eye is beside its lids, float32 [H, W]: 1 in the middle, darker at the edge, most above."""
    below = cv2.warpAffine(inside, np.array([[1, 0, 0], [0, 1, width * _DEEPER]], np.float64), inside.shape[::-1])
    soft = cv2.GaussianBlur(below, (0, 0), max(0.5, width * _SHADOW_REACH))
    return np.asarray(1 - _SHADOW * (1 - np.clip(soft * 2 - 1, 0, 1)), np.float32)


def _filled(ring: Points, shape: tuple[int, ...], value: int) -> Mask:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(ring * 16).astype(np.int32)], (value,), cv2.LINE_AA, 4)
    return mask


def _shares(lids: Points, iris: Points) -> NDArray[np.float32]:
    """Return what carries an iris, float32 [2], along with its lids, float32 [16, 2]: their shares, float32 [16]."""
    ones = np.ones((len(lids), 1), np.float32)
    return np.asarray(np.array([*iris, 1.0]) @ np.linalg.pinv(np.concatenate([lids, ones], axis=1)), np.float32)


def moved_irises(irises: Irises, matrix: Matrix) -> Irises:
    """Return irises' centres moved by a matrix: float32 [2, 2]."""
    return np.asarray(irises @ matrix[:, :2].T + matrix[:, 2], np.float32)
