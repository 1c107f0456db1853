"""Parts of several faces joined to one picture: one shape, one light, and seams as wide as what they cut."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import crop_matrix, similarity, transform
from understudy.vision.embedding import Embedding
from understudy.vision.face import Crop, Points
from understudy.vision.mesh import (
    FACE_OVAL,
    LEFT_BROW,
    LEFT_EYE,
    NOSE,
    NOSE_TIP,
    OUTER_MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
)

# What a recipe names a face for; earlier ones lie on top. The skin's face gives the outline and all around it, too.
PARTS = ("eyes", "brows", "mouth", "nose", "forehead", "skin")
_FOREHEAD = (10, 338, 297, 332, 284, 251, 21, 54, 103, 67, 109, 70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
# Points that expressions move little, all over the face: what a head's turn is measured on.
_RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 234, 454, 127, 356, 10, 151, 9, 8)
_MOVED_BY = {"eyes": (*RIGHT_EYE, *LEFT_EYE), "brows": (*RIGHT_BROW, *LEFT_BROW), "mouth": OUTER_MOUTH, "nose": NOSE}
# Each part's outlines (their hulls are filled), and how far it reaches beyond them, in parts of the crop's side.
_OUTLINES: Mapping[str, tuple[tuple[tuple[int, ...], ...], float]] = {
    "eyes": ((RIGHT_EYE, LEFT_EYE), 0.024),
    "brows": (((*RIGHT_EYE, *RIGHT_BROW), (*LEFT_EYE, *LEFT_BROW)), 0.024),
    "mouth": ((OUTER_MOUTH,), 0.045),
    "nose": ((NOSE,), 0.016),
    "forehead": ((_FOREHEAD,), 0.0),
}
_NOT_SKIN = ((*RIGHT_EYE, *RIGHT_BROW), (*LEFT_EYE, *LEFT_BROW), OUTER_MOUTH)
_LEVELS = 6
_COARSE = 4  # smooth light is worked out on a picture so many times smaller
_OUTLINE = 0.5  # how far the outline goes from the skin's own towards the average
_REACH = 0.12  # how far a part's shape is felt by points beside it, in parts of the face's side
_MOST_GAIN = 0.7  # natural logarithm
_MOST_TRIM = 0.09  # how far a jaw's edge is looked for, in parts of the side
_STRETCH = 0.02
_EDGE = 12.0  # of a and b, Lab: what differs by more from the skin nearby is none; lightness, twice as much
_SKIN_SPREAD = 12.0  # of a and b, Lab; lightness spreads three times as far


@dataclass(frozen=True, slots=True)
class Source:
    """A face that parts are taken of.

    Attributes:
        image: uint8 [H, W, 3], BGR, as it lies on disk.
        mesh: float32 [468, 3], px of the image.
        identity: SFace's embedding, float32 [128].
    """

    image: NDArray[np.uint8]
    mesh: Points
    identity: Embedding


def join(parts: Mapping[str, Source], size: int, even: float = 0.0) -> Crop:
    """Join faces' parts to one picture.

    Args:
        parts: the face that gives each of `PARTS`.
        size: side of the result, px.
        even: share of the light's difference between left and right that is taken away, 0 to 1.

    Returns:
        uint8 [size, size, 3], BGR, aligned.
    """
    shape = common_shape({part: source.mesh for part, source in parts.items()}, size)
    weights = part_weights(shape, size)
    skin = _skin(shape, size)
    laid = {part: _evened(_lay(parts[part], shape, size), skin, even) for part in PARTS}
    pictures = [laid[part] if part == "skin" else _lit_as(laid[part], laid["skin"], skin) for part in PARTS]
    joined = blend(pictures, [weights[part] for part in PARTS])
    return np.clip(np.rint(joined), 0, 255).astype(np.uint8)


# ---- shape -----------------------------------------------------------------------------------------------------


def common_shape(meshes: Mapping[str, Points], size: int) -> Points:
    """Give the shape of a mosaic: the skin's outline and pose, each part's own shape where faces on average have it.

    Args:
        meshes: float32 [468, 3] of the face that gives each of `PARTS`, each in px of its own picture.
        size: side of the crop, px.

    Returns:
        float32 [468, 3], px of an aligned crop.
    """
    base = transform(meshes["skin"], crop_matrix(meshes["skin"], size)).astype(np.float64)
    rigid = list(_RIGID)
    turned = {part: _apply(_rigid_fit(mesh[rigid], base[rigid]), mesh) for part, mesh in meshes.items()}
    average = np.mean(list(turned.values()), axis=0)
    oval = list(FACE_OVAL)
    held, moves = [oval], [_OUTLINE * (average[oval] - base[oval])]
    for part, points in _MOVED_BY.items():
        chosen = list(points)
        placed = _apply(_rigid_fit(turned[part][chosen], average[chosen]), turned[part])
        held.append(chosen)
        moves.append(placed[chosen] - base[chosen])
    at, moved = np.concatenate([base[points] for points in held]), np.concatenate(moves)
    distance = np.linalg.norm(base[:, None] - at[None], axis=2) / size
    near = np.exp(-((distance / _REACH) ** 2) * 8) + 1e-9
    near[distance < 1e-6] = 1e6
    return (base + near @ moved / near.sum(1, keepdims=True)).astype(np.float32)


Fit = tuple[float, NDArray[np.float64], NDArray[np.float64]]


def _rigid_fit(source: NDArray[np.floating], target: NDArray[np.floating]) -> Fit:
    """Give scale, rotation and shift that bring points nearest to others (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    left, values, right = np.linalg.svd(s.T @ t)
    flip = np.array([1.0, 1.0, np.linalg.det(left @ right)])
    rotation = left @ np.diag(flip) @ right
    scale = float((values * flip).sum() / (s * s).sum())
    return scale, rotation, target_mean - scale * source_mean @ rotation


def _apply(fit: Fit, points: NDArray[np.floating]) -> NDArray[np.float64]:
    scale, rotation, shift = fit
    return scale * points.astype(np.float64) @ rotation + shift


def part_weights(mesh: Points, size: int) -> dict[str, NDArray[np.float32]]:
    """Give where each part is taken from its own face: float32 [size, size] each, 0 to 1, together 1 everywhere."""
    left = np.ones((size, size), np.float32)
    weights: dict[str, NDArray[np.float32]] = {}
    for part in PARTS[:-1]:
        outlines, reach = _OUTLINES[part]
        weights[part] = _hulls(mesh, outlines, reach, size) * left
        left = left - weights[part]
    weights["skin"] = left
    return weights


def _hulls(mesh: Points, outlines: Iterable[tuple[int, ...]], reach: float, size: int) -> NDArray[np.float32]:
    filled = np.zeros((size, size), np.uint8)
    for points in outlines:
        hull = cv2.convexHull(np.rint(mesh[list(points), :2]).astype(np.int32))
        cv2.fillConvexPoly(filled, hull, 1)
    return cv2.dilate(filled, _disc(reach * size)).astype(np.float32)


def _skin(mesh: Points, size: int) -> NDArray[np.float32]:
    """Give where bare skin is, well inside the oval: float32 [size, size], 0 or 1."""
    oval = cv2.erode(_hulls(mesh, (FACE_OVAL,), 0, size), _disc(0.03 * size))
    return oval * (1 - _hulls(mesh, _NOT_SKIN, 0.015, size))


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * round(radius) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


# ---- picture ---------------------------------------------------------------------------------------------------


def _lay(source: Source, shape: Points, size: int) -> NDArray[np.float32]:
    """Warp a face to a shape, and what surrounds it along: float32 [size, size, 3], 0 to 255.

    Smooth, where a warp by triangles would kink between closed lips and at the oval's edge.
    """
    to_source = similarity(shape[list(_RIGID), :2], source.mesh[list(_RIGID), :2])
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    plain = np.stack([x, y], axis=2) @ to_source[:, :2].T + to_source[:, 2]
    at = plain + _spread(shape, source.mesh[:, :2] - transform(shape[:, :2], to_source), size)
    warped = cv2.remap(source.image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[call-overload]
    return np.asarray(warped, np.float32)


def _spread(points: Points, moves: Points, size: int) -> NDArray[np.float32]:
    """Make a smooth field of moves known at points: float32 [size, size, 2]; far from all of them it fades."""
    side = size // 2  # half is fine enough for what is so smooth
    at = np.clip(np.rint((points[:, :2] - 0.5) / 2), 0, side - 1).astype(int)
    known = np.zeros((side, side, 3), np.float32)
    np.add.at(known, (at[:, 1], at[:, 0]), np.concatenate([moves, np.ones_like(moves[:, :1])], axis=1))
    total = np.zeros_like(known)
    for sigma, share in ((0.012, 1.0), (0.03, 0.05), (0.08, 0.002)):
        total += np.float32(share) * cv2.GaussianBlur(known, (0, 0), sigma * side)
    field = total[..., :2] / (total[..., 2:] + np.float32(1e-9))
    return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _lit_as(picture: NDArray[np.float32], base: NDArray[np.float32], skin: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring a picture into another's light and skin colour: smooth, by Lab, measured on bare skin alone.

    Lightness is scaled, so that pupils stay black; colour is shifted, the less the darker.
    """
    lab, wanted = _lab(picture), _lab(base)
    bare = skin * _near_median(lab, skin) * _near_median(wanted, skin)
    gain = np.exp(_smooth(np.log((wanted[..., :1] + 5) / (lab[..., :1] + 5)), bare, 0.08))
    shift = _smooth(wanted[..., 1:] - lab[..., 1:], bare, 0.08)
    middle = float(np.median(lab[..., 0][skin > 0]))
    shifted = np.concatenate([lab[..., :1] * gain, lab[..., 1:] + shift * (lab[..., :1] / middle).clip(0, 1)], axis=2)
    return np.asarray(cv2.cvtColor(shifted, cv2.COLOR_LAB2BGR), np.float32).clip(0, 1) * 255


def _lab(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(picture.clip(0, 255) / np.float32(255), cv2.COLOR_BGR2LAB), np.float32)


def _near_median(lab: NDArray[np.float32], skin: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tell skin from hair and rings: how near a colour is to the skin's own median, float32 [S, S], 0 to 1."""
    middle = np.median(lab[skin > 0], axis=0)
    away = (lab - middle) / np.array([3 * _SKIN_SPREAD, _SKIN_SPREAD, _SKIN_SPREAD], np.float32)
    return np.exp(-(away**2).sum(2)).astype(np.float32)


def _evened(picture: NDArray[np.float32], skin: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Make a face's two halves more equally light; a share of 1 makes them equal."""
    size = picture.shape[0]
    light = np.log(picture.clip(0).mean(2, keepdims=True) + 4)
    both = skin * skin[:, ::-1]
    gain = _smooth((light[:, ::-1] - light) / 2, both, 0.07)
    reach = cv2.GaussianBlur(cv2.dilate(skin, _disc(0.1 * size)), (0, 0), 0.06 * size)[..., None]
    return np.asarray(picture * np.exp(np.clip(gain * share, -_MOST_GAIN, _MOST_GAIN) * reach), np.float32)


def _smooth(values: NDArray[np.float32], weight: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur values where they count, and carry them on where they do not: normalised convolution, on a coarse grid."""
    size, coarse = values.shape[0], values.shape[0] // _COARSE
    small = (coarse, coarse)
    weighted = np.concatenate([values * weight[..., None], weight[..., None]], axis=2)
    weighted = np.asarray(cv2.resize(weighted, small, interpolation=cv2.INTER_AREA), np.float32)
    total = cv2.GaussianBlur(weighted, (0, 0), sigma * coarse)
    total += np.float32(1e-3) * cv2.GaussianBlur(weighted, (0, 0), 3 * sigma * coarse)
    smooth = np.asarray(total[..., :-1] / (total[..., -1:] + 1e-9), np.float32)
    return np.asarray(cv2.resize(smooth, (size, size), interpolation=cv2.INTER_CUBIC), np.float32).reshape(values.shape)


def blend(pictures: Sequence[NDArray[np.float32]], weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join pictures band by band, each band over as wide a seam as its details are large (Burt & Adelson 1983).

    Args:
        pictures: float32 [S, S, 3] each.
        weights: float32 [S, S] each, together 1 everywhere.

    Returns:
        float32 [S, S, 3].
    """
    bands: list[NDArray[np.float32]] = []
    for picture, weight in zip(pictures, weights, strict=True):
        shares = _halved(weight)
        levels = _halved(picture)
        laplacian = [fine - _doubled(coarse, fine) for fine, coarse in pairwise(levels)]
        laplacian.append(levels[-1])
        weighted = [np.asarray(b * share[..., None], np.float32) for b, share in zip(laplacian, shares, strict=True)]
        bands = [np.asarray(a + b, np.float32) for a, b in zip(bands, weighted, strict=True)] if bands else weighted
    joined = bands[-1]
    for band in bands[-2::-1]:
        joined = _doubled(joined, band) + band
    return joined


def _halved(picture: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    levels = [picture]
    for _ in range(_LEVELS - 1):
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.float32))
    return levels


def _doubled(picture: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.pyrUp(picture, dstsize=(like.shape[1], like.shape[0])), np.float32)


# ---- the finished picture's mesh -------------------------------------------------------------------------------


def trimmed(mesh: Points, image: Crop) -> Points:
    """Return a mesh whose edge, from the eyes down, lies on skin: what is seen beside a jaw is not carried along.

    The mesh model guesses a jaw where hair, an ear-ring or a turned cheek hides it.

    Args:
        mesh: float32 [468, 3], px of the image.
        image: uint8 [S, S, 3], BGR, aligned.

    Returns:
        float32 [468, 3]; points near the edge move along, the face's middle stays.
    """
    size = image.shape[0]
    oval, middle = mesh[list(FACE_OVAL), :2], mesh[NOSE_TIP, :2]
    inwards = (middle - oval) / np.linalg.norm(middle - oval, axis=1, keepdims=True)
    steps = np.arange(0, _MOST_TRIM * size, dtype=np.float32)
    at = np.rint(oval[:, None] + inwards[:, None] * steps[None, :, None]).astype(int).clip(0, size - 1)
    skin = _is_skin(mesh, image)[at[..., 1], at[..., 0]]
    # The first stretch of skin that is no mere ear lobe.
    windows = np.lib.stride_tricks.sliding_window_view(skin, max(1, round(_STRETCH * size)), axis=1)
    stretch = np.asarray(windows.all(2), np.bool_)
    pulled = np.where(stretch.any(1), stretch.argmax(1), 0).astype(np.float32)
    pulled[oval[:, 1] < mesh[[33, 263], 1].max()] = 0
    wide = np.maximum.reduce([pulled, np.roll(pulled, 1), np.roll(pulled, -1)])
    pulled = np.maximum(pulled, (np.roll(wide, 1) + wide + np.roll(wide, -1)) / 3)
    distance = np.linalg.norm(mesh[:, None, :2] - oval[None], axis=2)
    share = np.exp(-((distance.min(1) / (_MOST_TRIM * size)) ** 2))[:, None]
    near = np.exp(-(((distance - distance.min(1, keepdims=True)) / (_STRETCH * size)) ** 2))  # smooth: no folds
    result = mesh.copy()
    result[:, :2] += near @ (inwards * pulled[:, None]) / near.sum(1, keepdims=True) * share
    return result.astype(np.float32)


def _is_skin(mesh: Points, image: Crop) -> NDArray[np.bool_]:
    """Tell which pixels have about the colour that the skin nearby has: bool [S, S]; eyes, brows and lips count."""
    size = image.shape[0]
    lab, skin = _lab(image.astype(np.float32)), _skin(mesh, size)
    away = lab - _smooth(lab, skin * _near_median(lab, skin), 0.04)
    away = cv2.GaussianBlur(away, (0, 0), 0.002 * size) / np.array([2 * _EDGE, _EDGE, _EDGE], np.float32)
    features = _hulls(mesh, _NOT_SKIN, 0.015, size) > 0
    return np.asarray(((away**2).sum(2) < 1) | features, np.bool_)
