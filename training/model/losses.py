"""What the decoders are trained to minimise. Backend-neutral (keras.ops), all in float32."""

from dataclasses import dataclass
from typing import Any

from keras import ops

_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part of the loss counts.

    Attributes:
        l1: masked mean absolute error.
        dssim: structural dissimilarity, mean of two scales.
        edges: masked mean absolute error of horizontal and vertical differences: sharpness.
        mask: mean absolute error of the mask.
        attention: how much more eyes and mouth count within l1 and edges (0: as the rest).
    """

    l1: float = 6.0
    dssim: float = 4.0
    edges: float = 4.0
    mask: float = 1.0
    attention: float = 2.0


@dataclass(frozen=True, slots=True)
class MixLoss:
    """How much each part of the mixing network's loss counts (`training.model.mixing`).

    Attributes:
        l1: mean absolute error of the composed picture, where the face is.
        edges: of its neighbouring pixels' differences.
        dssim: structural dissimilarity, at half the size.
        opacity: cross-entropy of the opacity and the known occluders.
    """

    l1: float = 3.0
    edges: float = 2.0
    dssim: float = 2.0
    opacity: float = 6.0


def swap_loss(predicted: Any, target: Any, weights: LossWeights) -> Any:
    """Return the loss of one persona's batch.

    Args:
        predicted: float [N, S, S, 4], 0 to 1: BGR and mask.
        target: uint8 [N, S, S, 5], 0 to 255: BGR, mask, attention (eyes and mouth).
        weights: how much each part counts.

    Returns:
        A scalar, float32.
    """
    predicted = ops.cast(predicted, "float32")
    target = ops.cast(target, "float32") * (1 / 255)
    face, wanted, mask, attention = predicted[..., :3], target[..., :3], target[..., 3:4], target[..., 4:5]
    weight = mask * (1 + weights.attention * attention)
    total = weights.l1 * masked_l1(face, wanted, weight)
    total += weights.edges * masked_edges(face, wanted, weight)
    half, half_wanted = halved(face * mask), halved(wanted * mask)
    total += weights.dssim * (dssim(half, half_wanted) + dssim(halved(half), halved(half_wanted))) / 2
    return total + weights.mask * ops.mean(ops.abs(predicted[..., 3:] - mask))


def masked_l1(image: Any, wanted: Any, weight: Any) -> Any:
    """Return the mean absolute error where weight is: images float [N, H, W, 3], weight [N, H, W, 1]."""
    return ops.sum(ops.abs(image - wanted) * weight) / (3 * ops.sum(weight) + 1.0)


def masked_edges(image: Any, wanted: Any, weight: Any) -> Any:
    """Return the mean absolute error of neighbouring pixels' differences where weight is."""
    error = image - wanted
    across = ops.abs(error[:, :, 1:] - error[:, :, :-1]) * weight[:, :, 1:]
    down = ops.abs(error[:, 1:] - error[:, :-1]) * weight[:, 1:]
    return (ops.sum(across) + ops.sum(down)) / (6 * ops.sum(weight) + 1.0)


def dssim(image: Any, wanted: Any, window: int = 7, stride: int = 2) -> Any:
    """Return the structural dissimilarity, (1 - SSIM) / 2 (Wang et al. 2004), with box windows.

    Args:
        image: float [N, H, W, C], 0 to 1.
        wanted: as image.
        window: side of a window, px.
        stride: distance of windows, px.
    """

    def local(x: Any) -> Any:
        return ops.average_pool(x, window, stride, padding="valid")

    mean_a, mean_b = local(image), local(wanted)
    var_a = local(image * image) - mean_a * mean_a
    var_b = local(wanted * wanted) - mean_b * mean_b
    covariance = local(image * wanted) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    ssim = ssim / ((mean_a * mean_a + mean_b * mean_b + _C1) * (var_a + var_b + _C2))
    return ops.mean(1 - ssim) / 2


def halved(image: Any) -> Any:
    """Return an image at half its size by averaging."""
    return ops.average_pool(image, 2, 2, padding="valid")
