"""Put a swapped face back into its frame: colour, mask, warp and blend, in the face's region only."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.scratch import Scratch
from understudy.vision.align import transform
from understudy.vision.face import AlignedFace, Matrix, Points
from understudy.vision.mesh import FACE_OVAL

Swap = NDArray[np.uint8]
Mask = NDArray[np.uint8]

_MIN_STATISTICS_PX = 64
# Colours' means and spreads are taken on so many pixels a side: a quarter of them say the same.
_STATISTICS_SIDE = 112
# Below this the face under the mask can be recognised.
_OPAQUE = 178
_GAIN_LIMITS = (0.6, 1.6)
_LEVELS = np.arange(256, dtype=np.float64)[:, None]


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """How the swap is put back.

    Attributes:
        strength: 0 shows the camera's face, 1 the persona; between, a mix.
        colour_match: how far the persona takes the camera's colours, 0 to 1.
        mask_feather: width of the mask's soft edge, share of the crop's side, 0 to 0.25.
        mask_size: the mask's edge moves outwards (or inwards, below 0) by this share of the crop's
            side, -0.25 to 0.25.
        use_hull: whether the mask ends at the mesh's face oval.
    """

    strength: float = 1.0
    colour_match: float = 1.0
    mask_feather: float = 0.04
    mask_size: float = 0.0
    use_hull: bool = True

    def __post_init__(self) -> None:
        limits = {
            "strength": (0.0, 1.0),
            "colour_match": (0.0, 1.0),
            "mask_feather": (0.0, 0.25),
            "mask_size": (-0.25, 0.25),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, but got {value!r}. Move it into that range.")


class Blender:
    """Blends swaps into frames; keeps its scratch memory between frames. Not thread-safe: one per session."""

    def __init__(self) -> None:
        self.scratch = Scratch()

    def blend(
        self,
        frame: NDArray[np.uint8],
        face: AlignedFace,
        swap: Swap,
        settings: BlendSettings | None = None,
    ) -> float:
        """Blend one swap into a frame, in place.

        Args:
            frame: uint8 [H, W, 3], BGR: the result in the making, never the camera's own array.
            face: where the crop came from.
            swap: uint8 [R, R, 4], BGR and mask of the same crop; R may differ from the crop's size. Not changed.
            settings: how; the defaults where not given.

        Returns:
            The share of the crop that the mask hides, 0 to 1; where it is half transparent, the camera's face
            shows through, and it hides nothing. Near 0, hardly anything was replaced.
        """
        chosen = settings or BlendSettings()
        scale = swap.shape[0] / face.crop.shape[0]
        frame_to_swap = face.frame_to_crop * np.float32(scale)
        frame_to_swap[:, 2] += (scale - 1) / 2  # pixel centres: networks learn from crops resized by averaging
        swap, frame_to_swap = _shrunk(swap, frame_to_swap)
        mask = self._mask(swap, face, chosen)
        coverage = cv2.countNonZero(cv2.threshold(mask, _OPAQUE, 255, cv2.THRESH_BINARY)[1]) / mask.size
        region = _region(mask, frame_to_swap, frame.shape)
        if region is not None and chosen.strength > 0:
            coloured = self._coloured(swap, mask, face, chosen)
            self._paste(frame, coloured, frame_to_swap, region)
        return coverage

    def _mask(self, swap: Swap, face: AlignedFace, settings: BlendSettings) -> Mask:
        """The network's mask, cut to the hull, resized, with a soft edge that stays inside it; 0 at the border."""
        size = swap.shape[0]
        mask = cv2.extractChannel(swap, 3, self.scratch.bytes("mask", (size, size)))
        if settings.use_hull:
            mesh = face.mesh[list(FACE_OVAL), :2] * np.float32(size / face.crop.shape[0])
            mask = cv2.bitwise_and(mask, self._hull(mesh, size), dst=mask)
        mask[0], mask[-1], mask[:, 0], mask[:, -1] = 0, 0, 0, 0
        feather = round(settings.mask_feather * size / 2)
        grow = round(settings.mask_size * size) - feather
        if grow:
            kernel = np.ones((2 * abs(grow) + 1,) * 2, np.uint8)
            mask = cv2.erode(mask, kernel) if grow < 0 else cv2.dilate(mask, kernel)
        if feather:
            side = 2 * feather + 1
            mask = cv2.blur(mask, (side, side), borderType=cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED)
        mask[0], mask[-1], mask[:, 0], mask[:, -1] = 0, 0, 0, 0
        return np.asarray(mask, np.uint8)

    def _hull(self, oval: Points, size: int) -> Mask:
        hull = self.scratch.bytes("hull", (size, size))
        hull.fill(0)
        corners = cv2.convexHull(np.round(oval).astype(np.int32))
        return np.asarray(cv2.fillConvexPoly(hull, corners, (255,)), np.uint8)

    def _coloured(self, swap: Swap, mask: Mask, face: AlignedFace, settings: BlendSettings) -> Swap:
        """The swap in the camera's colours, its fourth channel the final mask times strength."""
        gain, shift = _colour_gain(swap, mask, face.crop, settings.colour_match)
        table = np.zeros((1, 256, 4), np.uint8)
        table[0, :, :3] = np.clip(np.rint(_LEVELS * gain + shift), 0, 255)
        coloured = cv2.LUT(swap, table, self.scratch.bytes("coloured", swap.shape))
        alpha = mask if settings.strength >= 1 else cv2.convertScaleAbs(mask, alpha=settings.strength)
        return np.asarray(cv2.insertChannel(alpha, coloured, 3), np.uint8)

    def _paste(
        self, frame: NDArray[np.uint8], swap: Swap, frame_to_swap: Matrix, region: tuple[int, int, int, int]
    ) -> None:
        """Warp the swap into the region and mix: frame + mask x (swap - frame), to within one level.

        Two uint8 products and their sum take a third of the time of cv2.blendLinear, and leave
        the frame bit-exact where the mask is 0.
        """
        left, top, width, height = region
        matrix = frame_to_swap.astype(np.float64)
        matrix[:, 2] += matrix[:, :2] @ (left, top)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(
            swap, matrix, (width, height), self.scratch.bytes("warped", (height, width, 4)), flags, cv2.BORDER_CONSTANT
        )
        shape = (height, width, 3)
        face = cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR, self.scratch.bytes("face", shape))
        alpha = cv2.extractChannel(warped, 3, self.scratch.bytes("alpha", (height, width)))
        weight = cv2.merge([alpha, alpha, alpha], self.scratch.bytes("weight", shape))
        face = cv2.multiply(face, weight, face, 1 / 255)
        weight = cv2.bitwise_not(weight, weight)
        target = frame[top : top + height, left : left + width]
        rest = cv2.multiply(target, weight, weight, 1 / 255)
        cv2.add(face, rest, target)


def _shrunk(swap: Swap, frame_to_swap: Matrix) -> tuple[Swap, Matrix]:
    """Average the swap down while the frame shows it at less than half its size: a linear warp would alias."""
    zoom = float(np.hypot(frame_to_swap[0, 0], frame_to_swap[1, 0]))
    while zoom > 2 and swap.shape[0] % 2 == 0 and swap.shape[0] > 16:
        side = swap.shape[0] // 2
        swap = np.asarray(cv2.resize(swap, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        frame_to_swap, zoom = frame_to_swap * np.float32(0.5), zoom / 2
        frame_to_swap[:, 2] -= 0.25  # the mean of pixels 2i and 2i + 1 lies between them
    return swap, frame_to_swap


def _region(mask: Mask, frame_to_swap: Matrix, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """The frame's part that the mask reaches: (left, top, width, height), or None where there is none."""
    x, y, width, height = cv2.boundingRect(mask)
    swap_to_frame = cv2.invertAffineTransform(frame_to_swap).astype(np.float32)
    corners = np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]], np.float32)
    points = transform(corners, swap_to_frame)
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 2, [shape[1], shape[0]])
    if width == 0 or right <= left or bottom <= top:
        return None
    return int(left), int(top), int(right - left), int(bottom - top)


def _colour_gain(
    swap: Swap, mask: Mask, crop: NDArray[np.uint8], amount: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and shift by channel that give the swap the crop's mean and spread under the mask.

    After Reinhard et al. 2001 ("Color Transfer between Images"), in BGR, with the gain limited.
    """
    side = min(crop.shape[0], swap.shape[0], _STATISTICS_SIDE)
    small_mask, small_swap, small_crop = (_resized(image, side) for image in (mask, swap, crop))
    small_mask = np.asarray(cv2.threshold(small_mask, 127, 255, cv2.THRESH_BINARY)[1], np.uint8)
    if amount <= 0 or cv2.countNonZero(small_mask) < _MIN_STATISTICS_PX:
        return np.ones(3), np.zeros(3)
    mean, spread = (value.ravel()[:3] for value in cv2.meanStdDev(small_swap, mask=small_mask))
    wanted_mean, wanted_spread = (value.ravel() for value in cv2.meanStdDev(small_crop, mask=small_mask))
    gain = np.clip(wanted_spread / (spread + 1e-6), *_GAIN_LIMITS)
    shift = wanted_mean - gain * mean
    return 1 + amount * (gain - 1), amount * shift


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if image.shape[0] == side:
        return image
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)
