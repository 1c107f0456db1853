"""The swap autoencoder: one shared encoder, one decoder per persona (Keras 3, any backend).

Read from top to bottom: building blocks, encoder, decoder, the whole. Space-to-depth stem, residual
blocks (He et al. 2015, arXiv:1512.03385), sub-pixel upsampling (Shi et al. 2016, arXiv:1609.05158).

A dense bottleneck lies between both halves: without pairs, a latent that keeps the picture's layout
would let the driver's identity through to any decoder.

ReLU throughout: in graph mode TensorFlow's oneDNN computes Conv + Add + LeakyReLU with slope 0.2
whatever the slope is, so an exported graph would differ from the trained one.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

# ---- sizes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """How large the network is.

    Attributes:
        input_px: side of the encoder's input, a multiple of 4 patch_px.
        output_px: side of the decoder's output: a multiple of 2 grid.
        width: channels of the latent and after the stem; deeper stages have 2 and 4 times as many.
        head_channels: channels of the decoder's last stage, of twice the grid.
        bottleneck: length of the dense code between encoder and decoders.
        patch_px: side of the patches that the stem takes in as one: what the network costs goes by how many there
            are, not by input_px.
    """

    input_px: int = 224
    output_px: int = 224
    width: int = 64
    head_channels: int = 32
    bottleneck: int = 256
    patch_px: int = 8

    def __post_init__(self) -> None:
        if self.input_px % (4 * self.patch_px):
            raise ValueError(f"input_px must be a multiple of {4 * self.patch_px}, but got {self.input_px}.")
        if self.output_px % (2 * self.grid):
            raise ValueError(f"output_px must be a multiple of {2 * self.grid}, but got {self.output_px}.")

    @property
    def grid(self) -> int:
        """Side of the latent, in patches."""
        return self.input_px // self.patch_px


# ---- building blocks -------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("understudy")
class DepthToSpace(layers.Layer):
    """Sub-pixel shuffle: [N, H, W, C] -> [N, H b, W b, C / b^2] (Shi et al. 2016; order of tf.nn.depth_to_space)."""

    def __init__(self, block: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block = block

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the output's shape for an input's."""
        n, h, w, c = input_shape
        return n, h * self.block, w * self.block, c // self.block**2

    def call(self, inputs: Any) -> Any:
        """Move pixels between space and channels."""
        b = self.block  # plain moves: in an int8 graph they stay bytes, as a fused op would not
        _, h, w, c = inputs.shape
        x = ops.reshape(inputs, (-1, h, w, b, b, c // b**2))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h * b, w * b, c // b**2))

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to build the layer again."""
        return {**super().get_config(), "block": self.block}


@keras.saving.register_keras_serializable("understudy")
class SpaceToDepth(layers.Layer):
    """The inverse of DepthToSpace: [N, H, W, C] -> [N, H / b, W / b, C b^2]."""

    def __init__(self, block: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block = block

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the output's shape for an input's."""
        n, h, w, c = input_shape
        return n, h // self.block, w // self.block, c * self.block**2

    def call(self, inputs: Any) -> Any:
        """Move pixels between space and channels."""
        b = self.block
        _, h, w, c = inputs.shape
        x = ops.reshape(inputs, (-1, h // b, b, w // b, b, c))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h // b, w // b, b * b * c))

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to build the layer again."""
        return {**super().get_config(), "block": self.block}


def _conv(x: Any, filters: int, kernel: int = 3, stride: int = 1, activation: str | None = "relu") -> Any:
    return layers.Conv2D(
        filters, kernel, stride, padding="same", activation=activation, kernel_initializer="he_uniform"
    )(x)


def _residual(x: Any, filters: int) -> Any:
    small: Any = keras.initializers.VarianceScaling(0.02, "fan_in", "truncated_normal")
    y = _conv(x, filters)
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer=small)(y)
    return layers.ReLU()(layers.Add()([x, y]))


def _upsample(x: Any, filters: int) -> Any:
    return DepthToSpace(2)(_conv(x, filters * 4))


# ---- encoder ---------------------------------------------------------------------------------------------------


def build_encoder(size: NetworkSize) -> keras.Model:
    """Build the shared encoder: float32 [N, I, I, 3] BGR, 0 to 1 -> latent float32 [N, grid, grid, width]."""
    w = size.width
    face = keras.Input((size.input_px, size.input_px, 3), name="face")
    patches = SpaceToDepth(size.patch_px)(face)
    whole = _residual(_conv(patches, w, kernel=3 if size.patch_px <= 4 else 1), w)  # a large patch sees enough alone
    half = _residual(_conv(whole, 2 * w, stride=2), 2 * w)
    x = _conv(half, 4 * w, stride=2)
    x = _residual(_bottleneck(x, size), 4 * w)
    x = _residual(_upsample(x, 2 * w), 2 * w)
    x = _conv(_upsample(x, w), w)
    return keras.Model(face, layers.Activation("linear", dtype="float32", name="latent")(x), name="encoder")


def _bottleneck(x: Any, size: NetworkSize) -> Any:
    grid, w = size.grid // 4, size.width
    x = layers.Flatten()(_conv(x, w, kernel=1))
    x = layers.Dense(size.bottleneck, name="bottleneck")(x)
    x = layers.Reshape((grid, grid, w))(layers.Dense(grid * grid * w)(x))
    return _conv(x, 4 * w)


# ---- decoder ---------------------------------------------------------------------------------------------------


def build_decoder(size: NetworkSize, name: str) -> keras.Model:
    """Build one persona's decoder: latent -> float32 [N, O, O, 4], 0 to 1: BGR and mask."""
    w = size.width
    latent = keras.Input((size.grid, size.grid, w), name="latent")
    x = _residual(_residual(_conv(latent, w), w), w)
    x = _residual(_upsample(x, size.head_channels), size.head_channels)
    block = size.output_px // (2 * size.grid)
    # The head stays float32: bfloat16 has 8 bits of mantissa, too few for smooth skin.
    x = layers.Conv2D(4 * block * block, 3, padding="same", dtype="float32")(x)
    x = DepthToSpace(block, dtype="float32")(x)
    return keras.Model(latent, layers.Activation("sigmoid", dtype="float32", name="swap")(x), name=name)


# ---- the whole -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SwapAutoencoder:
    """A shared encoder and its decoders, by persona."""

    size: NetworkSize
    encoder: keras.Model
    decoders: dict[str, keras.Model]

    @classmethod
    def build(cls, size: NetworkSize, personas: list[str]) -> "SwapAutoencoder":
        """Build with fresh weights."""
        return cls(size, build_encoder(size), {name: build_decoder(size, name) for name in personas})

    def swap(self, faces: Any, persona: str) -> Any:
        """Return the persona in the faces' pose: float32 [N, I, I, 3] -> float32 [N, O, O, 4]."""
        return self.decoders[persona](self.encoder(faces, training=False), training=False)
