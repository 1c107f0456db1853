"""Known face-swap autoencoders, rebuilt from their published widths with fresh weights: speed needs no training.

Each is what one swapped frame runs: encoder, what lies between, one decoder. The two 64 px networks are the first
deepfakes' (2017), as "original" and "lightweight" of faceswap. The others are DeepFaceLab's (Perov et al. 2020,
arXiv:2005.05535): `df` has one inter, `liae` feeds the shared inter to the decoder twice; options are `u` (pixel norm
of the code), `d` (the last doubling by sub-pixel convolution) and `t` (one more level, residual blocks). Widths:
Quick96 (df-ud, 96 px), SAEHD's defaults (liae-ud, 128 px), and the RTM models that DeepFaceLive's users train
(liae-udt, 224 px).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
from keras import layers, ops

from training.network import DepthToSpace, NetworkSize, SwapAutoencoder


@dataclass(frozen=True, slots=True)
class Widths:
    """A DeepFaceLab network.

    Attributes:
        side: of input and output, px.
        options: letters of "udt".
        is_liae: whether it is liae, else df.
        code: length of the code ("ae_dims").
        encoder, decoder, mask: widths of their first or last level ("e_dims", "d_dims", "d_mask_dims").
    """

    side: int
    options: str
    is_liae: bool
    code: int
    encoder: int
    decoder: int
    mask: int


QUICK96 = Widths(96, "ud", False, 128, 64, 64, 16)
SAEHD128 = Widths(128, "ud", True, 256, 64, 64, 22)
RTM224 = Widths(224, "udt", True, 512, 64, 64, 32)


# ---- building blocks -------------------------------------------------------------------------------------------


def _down(x: Any, filters: int) -> Any:
    return layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(filters, 5, 2, padding="same")(x))


def _up(x: Any, filters: int) -> Any:
    return DepthToSpace(2)(layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(filters * 4, 3, padding="same")(x)))


def _residual(x: Any) -> Any:
    filters = x.shape[-1]
    y = layers.LeakyReLU(negative_slope=0.2)(layers.Conv2D(filters, 3, padding="same")(x))
    y = layers.Conv2D(filters, 3, padding="same")(y)
    return layers.LeakyReLU(negative_slope=0.2)(layers.Add()([x, y]))


def _square(x: Any, code: int, side: int, filters: int) -> Any:
    """Through a dense code and back to a picture [N, side, side, filters]."""
    x = layers.Dense(side * side * filters)(layers.Dense(code)(x))
    return layers.Reshape((side, side, filters))(x)


# ---- the first deepfakes ---------------------------------------------------------------------------------------


def _first(widths: tuple[int, ...], code: int, middle: int, decoder: tuple[int, ...]) -> keras.Model:
    face = keras.Input((64, 64, 3), name="face")
    x = face
    for filters in widths:
        x = _down(x, filters)
    x = _up(_square(layers.Flatten()(x), code, 4, code), middle)
    for filters in decoder:
        x = _up(x, filters)
    return keras.Model(face, layers.Conv2D(3, 5, padding="same", activation="sigmoid", name="swap")(x))


def classic64() -> keras.Model:
    """Build the original 64 px autoencoder: float32 [N, 64, 64, 3] -> float32 [N, 64, 64, 3]."""
    return _first((128, 256, 512, 1024), 1024, 512, (256, 128, 64))


def light64() -> keras.Model:
    """Build the lightweight 64 px autoencoder: float32 [N, 64, 64, 3] -> float32 [N, 64, 64, 3]."""
    return _first((128, 256, 512), 512, 256, (512, 256, 128))


# ---- DeepFaceLab's ---------------------------------------------------------------------------------------------


def deepfacelab(widths: Widths) -> keras.Model:
    """Build one of DeepFaceLab's: float32 [N, S, S, 3] -> float32 [N, S, S, 4], face and mask."""
    face = keras.Input((widths.side, widths.side, 3), name="face")
    x = layers.Flatten()(_encoded(face, widths))
    if "u" in widths.options:
        x = layers.Lambda(lambda v: v * ops.rsqrt(ops.mean(v * v, -1, keepdims=True) + 1e-6))(x)
    filters = widths.code * (2 if widths.is_liae else 1)
    x = _square(x, widths.code, widths.side // (32 if "d" in widths.options else 16), filters)
    if "t" not in widths.options:
        x = _up(x, filters)
    if widths.is_liae:
        x = layers.Concatenate()([x, x])
    return keras.Model(face, layers.Concatenate(name="swap")([_picture(x, widths), _mask(x, widths)]))


def _encoded(x: Any, widths: Widths) -> Any:
    if "t" not in widths.options:
        for times in (1, 2, 4, 8):
            x = _down(x, widths.encoder * times)
        return x
    x = _residual(_down(x, widths.encoder))
    for times in (2, 4, 8, 8):
        x = _down(x, widths.encoder * times)
    return _residual(x)


def _levels(widths: Widths) -> tuple[int, ...]:
    return (8, 8, 4, 2) if "t" in widths.options else (8, 4, 2)


def _picture(x: Any, widths: Widths) -> Any:
    for times in _levels(widths):
        x = _residual(_up(x, widths.decoder * times))
    if "d" not in widths.options:
        return layers.Conv2D(3, 1, activation="sigmoid")(x)
    parts = [layers.Conv2D(3, kernel, padding="same")(x) for kernel in (1, 3, 3, 3)]
    return layers.Activation("sigmoid")(DepthToSpace(2)(layers.Concatenate()(parts)))


def _mask(x: Any, widths: Widths) -> Any:
    for times in (*_levels(widths), *((1,) if "d" in widths.options else ())):
        x = _up(x, widths.mask * times)
    return layers.Conv2D(1, 1, activation="sigmoid")(x)


KNOWN: dict[str, Callable[[], keras.Model]] = {
    "classic64": classic64,
    "light64": light64,
    "quick96": lambda: deepfacelab(QUICK96),
    "saehd128": lambda: deepfacelab(SAEHD128),
    "rtm224": lambda: deepfacelab(RTM224),
}


# ---- ours, and what all of them cost ---------------------------------------------------------------------------


def ours(size: NetworkSize) -> tuple[keras.Model, keras.Model, keras.Model]:
    """Build our network with fresh weights; returns encoder, decoder, and both as one."""
    network = SwapAutoencoder.build(size, ["persona"])
    decoder = network.decoders["persona"]
    whole = keras.Model(network.encoder.inputs, decoder(network.encoder.outputs[0]))
    return network.encoder, decoder, whole


def macs(model: keras.Model) -> int:
    """Count the multiplications of one input's pass through convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += macs(layer)
        elif isinstance(layer, layers.Conv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += prod(layer.kernel.shape)
    return total
