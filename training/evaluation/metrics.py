"""How good a swap is, in numbers: pure functions over meshes, landmarks, crops and embeddings.

Every function compares a swapped frame with its source frame and is exactly zero (or 1, or
the cap in dB) where the two are equal. Points are float32 [K, 2 or 3] in px; meshes have
MediaPipe's 468 points (Kartynnik et al. 2019, arXiv:1907.06724).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.face import Points
from understudy.vision.mesh import FACE_OVAL, INNER_MOUTH, LEFT_EYE, OUTER_MOUTH, RIGHT_EYE

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# A perfect match has no finite PSNR, and JSON no infinity: this stands for "equal in every bit".
PSNR_CAP_DB = 100.0


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Which points of a landmark scheme mean what.

    Attributes:
        rigid: points that expressions move little.
        mouth: the lips' contours.
        eyes: both eyes' contours.
        eye_corners: outer right, outer left.
        lids: (upper, lower) pairs, one or more for each eye.
        lips: the inner lips' middle: upper, lower.
    """

    rigid: tuple[int, ...]
    mouth: tuple[int, ...]
    eyes: tuple[int, ...]
    eye_corners: tuple[int, int]
    lids: tuple[tuple[int, int], ...]
    lips: tuple[int, int]


# Fourteen rigid points: eye corners, nose bridge to tip, nostril wings, glabella and forehead.
MESH = Landmarks(
    rigid=(33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327, 9, 151),
    mouth=OUTER_MOUTH + INNER_MOUTH,
    eyes=RIGHT_EYE + LEFT_EYE,
    eye_corners=(33, 263),
    lids=((159, 145), (386, 374)),
    lips=(13, 14),
)
# iBUG 68 (Sagonas et al. 2013), the second opinion: eye corners and the whole nose are rigid.
IBUG68 = Landmarks(
    rigid=(36, 39, 42, 45, 27, 28, 29, 30, 31, 32, 33, 34, 35),
    mouth=tuple(range(48, 68)),
    eyes=tuple(range(36, 48)),
    eye_corners=(36, 45),
    lids=((37, 41), (38, 40), (43, 47), (44, 46)),
    lips=(62, 66),
)


def fit_similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[float, Array, Array]:
    """Return scale, rotation and shift that bring source nearest to target (Umeyama 1991).

    Minimises sum |scale * rotation @ source_i + shift - target_i|^2 over proper rotations
    (Kabsch 1976 for the rotation: a mirrored face is never a solution).

    Args:
        source: float [K, D], D 2 or 3, not all in one place.
        target: float [K, D].

    Returns:
        scale, rotation float64 [D, D], shift float64 [D].
    """
    s, t = np.asarray(source, np.float64), np.asarray(target, np.float64)
    s_mean, t_mean = s.mean(0), t.mean(0)
    s, t = s - s_mean, t - t_mean
    u, singular, vt = np.linalg.svd(t.T @ s)
    signs = np.ones(len(singular))
    signs[-1] = np.sign(np.linalg.det(u @ vt)) or 1.0
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (s * s).sum())
    return scale, rotation, t_mean - scale * rotation @ s_mean


def rotation_angle_deg(rotation: Array) -> float:
    """Return the angle of a 3-D rotation about its axis, 0 to 180 degrees: arccos((trace - 1) / 2).

    Small angles come from the antisymmetric part, |R - R^T| = 2 sqrt(2) sin(angle), where
    arccos would lose half the digits.
    """
    sine = float(np.linalg.norm(rotation - rotation.T) / np.sqrt(8))
    return float(np.degrees(np.arctan2(sine, (np.trace(rotation) - 1) / 2)))


def pose_error_deg(source: Points, swapped: Points) -> float:
    """Return how far the head turned: the Kabsch rotation between the meshes' 14 rigid points.

    Args:
        source: float32 [468, 3], px.
        swapped: float32 [468, 3], px.

    Returns:
        Degrees, 0 to 180.
    """
    rigid = np.array(MESH.rigid)
    return rotation_angle_deg(fit_similarity(swapped[rigid], source[rigid])[1])


def eye_distance(points: Points, scheme: Landmarks = MESH) -> float:
    """Return the distance of the outer eye corners in the picture plane, px."""
    right, left = scheme.eye_corners
    return float(np.linalg.norm(points[right, :2] - points[left, :2]))


@dataclass(frozen=True, slots=True)
class ExpressionError:
    """What a swap changed in an expression, in % of the source's outer-eye distance.

    Attributes:
        expression_pct: mean distance over the points of mouth and eyes.
        mouth_pct: over the mouth's points.
        eyes_pct: over the eyes' points.
        mouth_open_pct: how much wider (+) or narrower (-) the lips are apart.
        eyes_open_pct: the same of the lids, mean of both eyes.
    """

    expression_pct: float
    mouth_pct: float
    eyes_pct: float
    mouth_open_pct: float
    eyes_open_pct: float


def expression_error(source: Points, swapped: Points, scheme: Landmarks = MESH) -> ExpressionError:
    """Compare two expressions after a similarity fit on the rigid points in the picture plane.

    Args:
        source: float32 [K, 2 or 3], px, in the scheme's order; depth is not looked at.
        swapped: the same of the swapped face.
        scheme: `MESH` or `IBUG68`.
    """
    a, b = source[:, :2].astype(np.float64), swapped[:, :2].astype(np.float64)
    rigid = np.array(scheme.rigid)
    scale, rotation, shift = fit_similarity(b[rigid], a[rigid])
    b = scale * b @ rotation.T + shift
    to_pct = 100 / max(eye_distance(source, scheme), 1e-6)
    distance = np.linalg.norm(a - b, axis=1) * to_pct
    mouth, eyes = distance[np.array(scheme.mouth)], distance[np.array(scheme.eyes)]
    return ExpressionError(
        expression_pct=float(np.concatenate([mouth, eyes]).mean()),
        mouth_pct=float(mouth.mean()),
        eyes_pct=float(eyes.mean()),
        mouth_open_pct=(_gap(b, (scheme.lips,)) - _gap(a, (scheme.lips,))) * to_pct,
        eyes_open_pct=(_gap(b, scheme.lids) - _gap(a, scheme.lids)) * to_pct,
    )


def _gap(points: Array, pairs: Sequence[tuple[int, int]]) -> float:
    return float(np.mean([np.linalg.norm(points[upper] - points[lower]) for upper, lower in pairs]))


def gaze_offset(iris: Points, outer: Points, inner: Points) -> Array:
    """Return where the iris' centre lies in its eye, whatever the head's roll and distance.

    Args:
        iris: float32 [2], the iris' centre, px.
        outer: float32 [2], the eye's outer corner, px.
        inner: float32 [2], the inner corner, px.

    Returns:
        float64 [2]: along the line from outer to inner corner (0 at the outer one, 1 at the
        inner one) and across it, both in eye widths.
    """
    axis = np.asarray(inner, np.float64) - outer
    width2 = max(float(axis @ axis), 1e-12)
    offset = np.asarray(iris, np.float64) - outer
    return np.array([offset @ axis, axis[0] * offset[1] - axis[1] * offset[0]]) / width2


def gaze_error_pct(source: Sequence[Array], swapped: Sequence[Array]) -> float:
    """Return how far the irises moved in their eyes: mean over the eyes, in % of the eye's width.

    Args:
        source: `gaze_offset` of each eye; NaN of one that is shut, which is left out.
        swapped: the same eyes of the swapped face.

    Returns:
        NaN where no eye is open in both.
    """
    errors = [100 * np.linalg.norm(a - b) for a, b in zip(source, swapped, strict=True)]
    known = [error for error in errors if np.isfinite(error)]
    return float(np.mean(known)) if known else float("nan")


def jitter(points: NDArray[np.floating]) -> float:
    """Return how much points shake: the root mean square of their second differences in time, px.

    p[t-1] - 2 p[t] + p[t+1] is zero for any steady motion, so what is left is acceleration
    and noise. Frames without points are NaN; differences that touch them are left out.

    Args:
        points: float [T, K, 2], px.

    Returns:
        px; NaN where no three frames in a row have points.
    """
    second = points[:-2] - 2 * points[1:-1] + points[2:]
    whole = np.isfinite(second).all(axis=(1, 2))
    return float(np.sqrt((second[whole].astype(np.float64) ** 2).sum(-1).mean())) if whole.any() else float("nan")


def jitter_ratio(source: NDArray[np.floating], swapped: NDArray[np.floating]) -> float:
    """Return the swapped face's jitter over the source's: 1 follows the head, more shakes, less lags.

    Both are measured on the frames that both have.

    Args:
        source: float [T, K, 2], px, NaN where missing.
        swapped: the same of the swapped clip.
    """
    missing = ~(np.isfinite(source).all(axis=(1, 2)) & np.isfinite(swapped).all(axis=(1, 2)))
    a, b = np.array(source, np.float64), np.array(swapped, np.float64)
    a[missing] = b[missing] = np.nan
    below = jitter(a)
    if below == 0:
        return 1.0 if jitter(b) == 0 else float("inf")
    return jitter(b) / below


def frame_change(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: Mask) -> float:
    """Return how much an aligned face changed from one frame to the next: mean |difference|, grey levels.

    Flicker is the ratio of this on the swapped frames to this on the source's frames.

    Args:
        before: uint8 [S, S, 3], BGR, aligned.
        after: uint8 [S, S, 3], BGR, aligned the same way.
        mask: bool [S, S], what counts.
    """
    return float(cv2.absdiff(before, after)[mask].mean()) if mask.any() else float("nan")


def outside_psnr_db(source: NDArray[np.uint8], swapped: NDArray[np.uint8], inside: Mask) -> float:
    """Return how well a swap left the rest of the frame alone: 10 log10(255^2 / MSE) outside the faces.

    Args:
        source: uint8 [H, W, 3], BGR.
        swapped: uint8 [H, W, 3], BGR.
        inside: bool [H, W], the faces.

    Returns:
        dB, `PSNR_CAP_DB` where nothing differs; NaN where the faces fill the frame.
    """
    outside = ~inside
    if not outside.any():
        return float("nan")
    error = float((cv2.absdiff(source, swapped)[outside].astype(np.float32) ** 2).mean(dtype=np.float64))
    return PSNR_CAP_DB if error == 0 else min(PSNR_CAP_DB, float(10 * np.log10(255**2 / error)))


def face_hull(mesh: Points, shape: tuple[int, int], grow: float = 1.0) -> Mask:
    """Paint the face's oval, grown about its centre.

    Args:
        mesh: float32 [468, 2 or 3], px.
        shape: (H, W) of the mask.
        grow: 1 is the oval itself, 1.3 is 30 % wider.

    Returns:
        bool [H, W].
    """
    oval = mesh[np.array(FACE_OVAL), :2]
    centre = (oval.min(0) + oval.max(0)) / 2
    polygon = np.round((oval - centre) * grow + centre).astype(np.int32)
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [cv2.convexHull(polygon)], 1)
    return mask.astype(bool)


def changed_share(source: NDArray[np.uint8], swapped: NDArray[np.uint8], mask: Mask, threshold: int = 3) -> float:
    """Return which share of a face's pixels a swap repainted, 0 to 1: what was done, whatever the swapper says.

    Args:
        source: uint8 [H, W, 3], BGR.
        swapped: uint8 [H, W, 3], BGR.
        mask: bool [H, W], the middle of one face.
        threshold: grey levels in any channel; below it a pixel counts as untouched.

    Returns:
        The share; 0 where the mask lies outside the frame.
    """
    if not mask.any():
        return 0.0
    return float((cv2.absdiff(source[mask], swapped[mask]).max(axis=-1) >= threshold).mean())


def box_middle(box: NDArray[np.float32], shape: tuple[int, int]) -> Mask:
    """Return the middle of a face's box: the ellipse of 60 % of its width and height; bool [H, W].

    Args:
        box: float32 [4], xyxy, px.
        shape: (H, W) of the frame.
    """
    mask = np.zeros(shape, np.uint8)
    centre, size = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1)
    cv2.ellipse(mask, ([float(v) for v in centre], [float(v) * 0.6 for v in size], 0.0), 1, cv2.FILLED)
    return mask.astype(bool)


def changed_region(source: NDArray[np.uint8], swapped: NDArray[np.uint8], near: Mask, threshold: int = 4) -> Mask:
    """Return what a swap repainted: pixels that differ, holes closed, the largest piece.

    Args:
        source: uint8 [H, W, 3], BGR.
        swapped: uint8 [H, W, 3], BGR.
        near: bool [H, W], where to look (one face's surroundings).
        threshold: grey levels; below it a pixel counts as untouched.

    Returns:
        bool [H, W], all False where nothing changed.
    """
    changed = ((cv2.absdiff(source, swapped).max(axis=2) >= threshold) & near).astype(np.uint8)
    radius = max(2, round(float(np.sqrt(near.sum())) / 30))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, disc)
    outlines = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    region = np.zeros_like(closed)
    if outlines:
        cv2.drawContours(region, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return region.astype(bool)


def seam_delta_e(image: NDArray[np.uint8], mask: Mask, width: float, sectors: int = 24) -> float:
    """Return the colour step across a mask's edge: CIEDE2000 between the ring inside and outside.

    The edge is cut into sectors by angle about the mask's centre; in each, the mean Lab colours
    (CIE 1976, D65) of the two rings are compared by CIEDE2000 (Sharma et al. 2005). About 1 is
    just visible, and faces have steps of their own (hair, jaw): read it beside the source's.

    Args:
        image: uint8 [H, W, 3], BGR.
        mask: bool [H, W].
        width: width of each ring, px.
        sectors: pieces of the edge.

    Returns:
        Mean over the sectors; NaN where no sector has both rings.
    """
    from skimage.color import deltaE_ciede2000

    inner, outer = _rings(mask, width)
    ys, xs = np.nonzero(inner | outer)
    if not len(ys):
        return float("nan")
    centre_y, centre_x = (float(axis.mean()) for axis in np.nonzero(mask))
    angle = np.arctan2(ys - centre_y, xs - centre_x)
    sector = ((angle + np.pi) / (2 * np.pi) * sectors).astype(np.intp) % sectors
    pixels = image[ys, xs].astype(np.float32)[None] / 255
    lab = cv2.cvtColor(pixels, cv2.COLOR_BGR2Lab)[0]
    is_inner = inner[ys, xs]
    steps = [
        deltaE_ciede2000(lab[here & is_inner].mean(0), lab[here & ~is_inner].mean(0))
        for here in (sector == index for index in range(sectors))
        if (here & is_inner).any() and (here & ~is_inner).any()
    ]
    return float(np.mean(steps)) if steps else float("nan")


def _rings(mask: Mask, width: float) -> tuple[Mask, Mask]:
    """Return the pixels within a width of the mask's edge, inside and outside: bool [H, W] each."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    if not mask.any():
        return np.zeros_like(mask), np.zeros_like(mask)
    return (inside > 0) & (inside <= width), (outside > 0) & (outside <= width)


def cosine(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the cosine of two embeddings, -1 to 1; NaN where one of them is zero."""
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.dot(first, second)) / norm if norm else float("nan")


def rank_of(similarities: Sequence[float], wanted: int) -> int:
    """Return the place of one entry of a gallery, 1 is the most alike; equals count against it."""
    return 1 + sum(value >= similarities[wanted] for i, value in enumerate(similarities) if i != wanted)
