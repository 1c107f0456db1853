"""Table 2, merge and tracking: ours against the seed's loop and a full-frame merge; tracking against detecting.

The seed is the first system that this one replaces: it shifts the colours of a 64 px crop in Python loops, pixel by
pixel, and pastes its whole box into a warped copy of the frame. Ours merges a crop of the shipped side, 224 px, with
a soft mask. All see the same face of the same frame.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.moving_face import frames
from benchmarks.harness.timing import Figures, Plan, in_turn, ratio, rows, spreads
from benchmarks.swap_path import merge_whole_frame
from understudy.swap.blend import Blender
from understudy.vision.align import align
from understudy.vision.detect import FaceDetector
from understudy.vision.face import AlignedFace
from understudy.vision.mesh import FaceMesh
from understudy.vision.track import FaceTracker

Image = NDArray[np.uint8]
SIZES = {"480p": (640, 480), "720p": (1280, 720)}
SEED_PX = 64
SHIPPED_PX = 224


def table(plan: Plan) -> Figures:
    """Measure at 480p and 720p, one thread."""
    figures: Figures = {}
    detector, mesh = FaceDetector(), FaceMesh()
    for name, (width, height) in SIZES.items():
        pictures = frames(None, width, height, 30)
        pictures += pictures[-2:0:-1]
        face = mesh.refine(pictures[0], detector.detect(pictures[0])[0])
        merging = merge_figures(pictures[0], align(pictures[0], face, SHIPPED_PX), plan.pick(20, 300))
        tracking = tracking_figures(pictures, detector, mesh, plan.pick(40, 600))
        figures |= rows(name, merging | tracking)
    return figures


def merge_figures(picture: Image, face: AlignedFace, rounds: int) -> Figures:
    """Time the three merges of one face into one frame, in turn.

    Args:
        picture: uint8 [H, W, 3], BGR.
        face: where the swap belongs.
        rounds: how often.
    """
    swap = made_swap(face)
    small, matrix = seed_crop(face, swap)
    out, blender = picture.copy(), Blender()
    times = in_turn(
        {
            "ours": lambda: blender.blend(out, face, swap),
            "seed": lambda: merge_as_the_seed(picture, *small, matrix),
            "full_frame": lambda: merge_whole_frame(picture, face, swap),
        },
        rounds,
    )
    figures = spreads({f"merge_{name}": values for name, values in times.items()})
    others = ("seed", "full_frame")
    return figures | {f"merge_{name}_to_ours_ratio": ratio(times[name], times["ours"]) for name in others}


def made_swap(face: AlignedFace) -> Image:
    """Return a swap as a network gives it: the crop in other colours, and an oval mask; uint8 [S, S, 4]."""
    side = face.crop.shape[0]
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, side // 2), (side * 2 // 5, side * 9 // 20), 0, 0, 360, (255,), -1)
    return np.dstack([cv2.convertScaleAbs(face.crop, alpha=0.8, beta=15), mask])


def seed_crop(face: AlignedFace, swap: Image) -> tuple[tuple[Image, Image], NDArray[np.float32]]:
    """Return swap and crop at the seed's size, and the matrix frame -> crop."""
    size = (SEED_PX, SEED_PX)
    small = cv2.resize(swap[..., :3], size, interpolation=cv2.INTER_AREA)
    crop = cv2.resize(face.crop, size, interpolation=cv2.INTER_AREA)
    matrix = face.frame_to_crop * np.float32(SEED_PX / face.crop.shape[0])
    return (np.asarray(small, np.uint8), np.asarray(crop, np.uint8)), matrix


def merge_as_the_seed(picture: Image, swap: Image, crop: Image, matrix: NDArray[np.float32]) -> Image:
    """Shift every channel to the crop's mean in Python loops, and paste the box into a copy of the whole frame."""
    shifted = swap.copy()
    for channel in range(3):
        shift = int(crop[..., channel].mean()) - int(swap[..., channel].mean())
        for y in range(swap.shape[0]):
            for x in range(swap.shape[1]):
                shifted[y, x, channel] = min(255, max(0, int(shifted[y, x, channel]) + shift))
    out, size = picture.copy(), (picture.shape[1], picture.shape[0])
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    cv2.warpAffine(shifted, matrix, size, out, flags=flags, borderMode=cv2.BORDER_TRANSPARENT)
    return out


def tracking_figures(pictures: Sequence[Image], detector: FaceDetector, mesh: FaceMesh, rounds: int) -> Figures:
    """Time our tracker, mesh included, against a detection and its mesh in every frame, frame by frame in turn."""
    tracker, ticks = FaceTracker(detector, mesh), iter(range(10**9))
    times = in_turn(
        {
            "track": _over(pictures, lambda image: tracker.update(image, next(ticks) / 30)),
            "detect_every_frame": _over(
                pictures, lambda image: [mesh.refine(image, f) for f in detector.detect(image)]
            ),
        },
        rounds,
    )
    figures = spreads(times)
    return figures | {"detect_every_frame_to_track_ratio": ratio(times["detect_every_frame"], times["track"])}


def _over(pictures: Sequence[Image], run: Callable[[Image], object]) -> Callable[[], object]:
    """Make a call that takes the next picture every time."""
    endless: Iterator[Image] = cycle(pictures)
    return lambda: run(next(endless))
