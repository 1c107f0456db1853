"""The mixing network: how a lit photo and a driver's picture are mixed. It paints nothing.

A small U-Net sees the driver's crop and the reference on the driver's mesh, and says how opaque the reference is, pixel
by pixel. After HDRnet (Gharbi et al. 2017, arXiv:1707.02880): a map, applied at full resolution by
`understudy.swap.one_shot`. Light is the quotient image's alone: a coarse gain on it, learned beside the opacity, made
pictures lighter, flickered, and hid more of the persona than it gave. Opacity has a target of its own (the
known occluders of `training.data.triplets`): learned from the picture alone it lets the driver through wherever the
warp is imperfect, and the persona's identity goes. Backend-neutral (keras.ops).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from training.data.triplets import CHANNELS, Triplets
from training.model.config import TrainingConfig
from training.model.losses import MixLoss, dssim, halved, masked_edges, masked_l1
from training.model.run import TrainingRun, compile_for, cosine, made_ahead
from training.model.tracking import Tracker
from training.network import DepthToSpace
from understudy.draw.contact_sheet import labelled
from understudy.swap.one_shot import CONTROL_PX
from understudy.swap.relight import AROUND, FLOOR, GAINS, LIGHT_GRID, LIMITS, SIGMA, WHITE, lift_shares

# ---- network ---------------------------------------------------------------------------------------------------

INPUTS = 7
# A network that knows nothing lets the persona through.
_OPAQUE = 2.0


def build_mixer(width: int = 24) -> keras.Model:
    """Build the network: float32 [N, 128, 128, 7] -> opacity, [N, 128, 128, 1].

    Args:
        width: channels at half the crop's resolution; doubled twice on the way down. 24: 0.25 GMAC.
    """
    inputs = keras.Input((CONTROL_PX, CONTROL_PX, INPUTS), name="inputs")
    fine = _conv(_conv(inputs, width, 4, 2), width)
    middle = _residual(_conv(fine, 2 * width, 3, 2), 2 * width)
    coarse = _residual(_residual(_conv(middle, 4 * width, 3, 2), 4 * width), 4 * width)
    x = _conv(layers.Add()([_upsample(coarse, 2 * width), middle]), 2 * width)
    x = _conv(layers.Add()([_upsample(x, width), fine]), width)
    x = layers.Conv2D(
        4, 3, padding="same", kernel_initializer=_small(), bias_initializer=keras.initializers.Constant(_OPAQUE)
    )(x)
    x = DepthToSpace(2)(x)
    opacity = layers.Activation("sigmoid", name="opacity")(x)
    return keras.Model(inputs, opacity, name="mixer")


def _conv(x: Any, filters: int, kernel: int = 3, stride: int = 1) -> Any:
    # Normalised: without, the first occluder was seen after three times the steps. Export folds it away.
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_uniform")(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))


def _residual(x: Any, filters: int) -> Any:
    y = _conv(x, filters)
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer=_small())(y)
    return layers.ReLU()(layers.Add()([x, y]))


def _upsample(x: Any, filters: int) -> Any:
    return DepthToSpace(2)(_conv(x, filters * 4, 1))


def _small() -> Any:
    return keras.initializers.VarianceScaling(0.02, "fan_in", "truncated_normal")


# ---- composing, as understudy.swap.one_shot does -----------------------------------------------------------------


class MixTrainer(keras.Model):
    """The network with its loss, for Keras' own train_on_batch on any backend; input: triplets."""

    def __init__(self, network: keras.Model, weights: MixLoss) -> None:
        super().__init__()
        self.network, self.loss_weights = network, weights

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return image, opacity and seen (opacity before coverage) of triplets, uint8 [N, 128, 128, 11].

        Float32: [N, 128, 128, 3], and [N, 128, 128, 1] twice.
        """
        driver, warped, coverage, *_ = parts(inputs)
        lit = lit_by(light(driver, warped, coverage), warped)
        seen = self.network(ops.concatenate([driver, lit, coverage], axis=-1), training=training)
        seen = ops.cast(seen, "float32")
        opacity = seen * coverage
        final = light(driver, warped, ops.stop_gradient(opacity))
        image = opacity * lit_by(final, warped) + (1 - opacity) * driver
        return {"image": image, "opacity": opacity, "seen": seen}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the loss of a batch."""
        _, _, coverage, target, wanted = parts(x)
        image, weights = y_pred["image"], self.loss_weights
        around = 0.1 + coverage
        total = weights.l1 * masked_l1(image, target, around) + weights.edges * masked_edges(image, target, around)
        half, half_target = halved(image), halved(target)
        total += weights.dssim * dssim(half, half_target)
        # Cross-entropy: with the absolute error, what hides a face in one picture of ten is ignored for long.
        known = ops.clip(wanted / ops.maximum(coverage, 1e-3), 0.0, 1.0)
        seen = ops.clip(y_pred["seen"], 1e-4, 1 - 1e-4)
        entropy = -(known * ops.log(seen) + (1 - known) * ops.log(1 - seen))
        # Far fewer pixels hide than show, and a thin rim is all edge: what is hidden counts for more.
        return total + weights.opacity * ops.mean(entropy * coverage * (2 - known))


def parts(batch: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Split triplets: driver, warped, coverage, target, wanted opacity; float32, 0 to 1, [N, 128, 128, 3 or 1]."""
    batch = ops.cast(batch, "float32") * (1 / 255)
    return batch[..., :3], batch[..., 3:6], batch[..., 6:7], batch[..., 7:10], batch[..., 10:11]


def light(driver: Any, warped: Any, weight: Any) -> Any:
    """Return `understudy.swap.relight.quotient` in Keras: float32 [N, 32, 32, 3]."""
    step = CONTROL_PX // LIGHT_GRID
    small = ops.average_pool(ops.concatenate([driver, warped, weight], axis=-1), step, step, padding="valid")
    shown = small[..., 6:7]
    both = (small[..., :6] + FLOOR / 255) * shown
    both = _blurred(both, LIGHT_GRID * SIGMA, 13)
    return ops.clip((both[..., :3] + 1e-3 / 255) / (both[..., 3:] + 1e-3 / 255), *LIMITS)


def lit_by(final: Any, warped: Any) -> Any:
    """Return the photo in a light, by `understudy.swap.relight.Relight.lighting`: float32 [N, 128, 128, 3]."""
    step = CONTROL_PX // LIGHT_GRID
    small = ops.average_pool(warped, step, step, padding="valid")
    smooth = _blurred(small, LIGHT_GRID * SIGMA, 13)
    brightest = ops.max_pool(ops.average_pool(warped, 2, 2, padding="valid"), AROUND, 1, padding="same")
    peaks = ops.average_pool(ops.max(brightest, axis=-1, keepdims=True), step // 2, step // 2, padding="valid")
    wanted = ops.max(final * smooth, axis=-1, keepdims=True)
    room = (WHITE / 255 - wanted) / ops.maximum(peaks - ops.max(smooth, axis=-1, keepdims=True), 1 / 255)
    room = _blurred(ops.clip(room, *GAINS), LIGHT_GRID * SIGMA / 2, 7)
    gain = ops.minimum(final, GAINS[1])
    coloured, neutral = lift_shares(ops.clip(_grey(warped) / ops.maximum(_enlarged(_grey(smooth)), 1e-3), 0.0, 1.0))
    lit: list[Any] = []
    for each in (gain, ops.minimum(gain, room)):
        lift = (final - each) * smooth
        lit.append(warped * _enlarged(each) + coloured * _enlarged(lift) + neutral * _enlarged(_grey(lift)))
    return ops.clip(ops.minimum(*lit), 0.0, 1.0)


def _grey(picture: Any) -> Any:
    """Return a BGR picture's grey as OpenCV has it: [N, H, W, 1]."""
    return ops.sum(picture * np.array([0.114, 0.587, 0.299], np.float32), axis=-1, keepdims=True)


def _blurred(image: Any, sigma: float, reach: int) -> Any:
    """Blur by a Gaussian, zeros outside: float32 [N, H, W, C]."""
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    channels = image.shape[-1]
    down = ops.convert_to_tensor(np.tile(kernel[:, None, None, None], (1, 1, channels, 1)))
    across = ops.convert_to_tensor(np.tile(kernel[None, :, None, None], (1, 1, channels, 1)))
    return ops.depthwise_conv(ops.depthwise_conv(image, down, padding="same"), across, padding="same")


def _enlarged(grid: Any) -> Any:
    return ops.image.resize(grid, (CONTROL_PX, CONTROL_PX), interpolation="bilinear")


def build_trainer(config: TrainingConfig) -> tuple[keras.Model, MixTrainer]:
    """Build the network and compile it: AdamW with a cosine, a running mean of weights, no XLA."""
    keras.utils.set_random_seed(config.seed)
    network = build_mixer(config.mixer_width)
    trainer = MixTrainer(network, config.mix)
    optimizer = keras.optimizers.AdamW(cosine(config, 0.03), weight_decay=1e-4, use_ema=True, ema_momentum=config.ema)
    compile_for(trainer, optimizer)
    trainer(np.zeros((1, CONTROL_PX, CONTROL_PX, CHANNELS), np.uint8))
    optimizer.build(trainer.trainable_variables)
    return network, trainer


# ---- the run ---------------------------------------------------------------------------------------------------

_PREVIEWED = 16


class MixTraining(TrainingRun):
    """One training of the mixing network, from its last checkpoint to its last step.

    Args:
        config: recipe "oneshot".

    Raises:
        TripletError: there is nothing to learn from.
        CheckpointError: `out` holds the checkpoint of another network.
    """

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        self.triplets = Triplets.open(Path(config.triplets))
        self.held = min(config.validation, len(self.triplets.rows) // 5)
        self.network, self.trainer = build_trainer(config)
        self.tracker = Tracker(config, self.triplets.digest)
        self._resume()

    def batch(self, step: int) -> NDArray[np.uint8]:
        """Return the triplets of a step: uint8 [B, 128, 128, 11], half of them mirrored; always the same ones."""
        rng = np.random.default_rng((self.config.seed, step))
        rows = self.triplets.rows[np.sort(rng.integers(self.held, len(self.triplets.rows), self.config.batch))]
        mirrored = rng.random(len(rows)) < 0.5
        rows[mirrored] = rows[mirrored][:, :, ::-1]
        return rows

    def _batches(self, end: int) -> Iterator[tuple[NDArray[np.uint8]]]:
        return ((batch,) for batch in made_ahead(self.batch, self.step, end))

    def _judged(self) -> tuple[dict[str, float], NDArray[np.uint8]]:
        """Judge the averaged weights, which are what is exported."""
        kept = self.trainer.get_weights()
        self.trainer.optimizer.finalize_variable_values(self.trainer.trainable_variables)
        validation = [self._validate(first) for first in range(0, self.held, _PREVIEWED)]
        figures = {key: round(float(np.mean([each[key] for each in validation])), 5) for key in (validation or [{}])[0]}
        sheet = self._sheet()
        self.trainer.set_weights(kept)
        return figures, sheet

    def _validate(self, first: int) -> dict[str, float]:
        rows = np.ascontiguousarray(self.triplets.rows[first : min(first + _PREVIEWED, self.held)])
        mixed = self.trainer(rows, training=False)
        _, _, coverage, target, wanted = parts(rows)
        error = ops.sum(ops.abs(mixed["opacity"] - wanted)) / (ops.sum(coverage) + 1)
        return {
            "validation_loss": float(self.trainer.compute_loss(x=rows, y_pred=mixed)),
            "opacity_error": float(error),
            "picture_error": float(masked_l1(mixed["image"], target, coverage)),
        }

    def _sheet(self) -> NDArray[np.uint8]:
        """Return a sheet, labelled: driver, swap, right answer, opacity, wanted opacity; uint8 [H, W, 3], BGR."""
        rows = np.ascontiguousarray(self.triplets.rows[:_PREVIEWED])
        mixed = {key: ops.convert_to_numpy(value) for key, value in self.trainer(rows, training=False).items()}
        lines: list[NDArray[np.uint8]] = []
        for row, image, opacity in zip(rows, mixed["image"], mixed["opacity"], strict=True):
            grey = [np.repeat(each, 3, axis=2) for each in (_bytes(opacity), row[..., 10:11])]
            lines.append(np.hstack([row[..., :3], _bytes(image), row[..., 7:10], *grey]))
        half = (len(lines) + 1) // 2
        lines += [np.zeros_like(lines[0])] * (2 * half - len(lines))
        return labelled(np.hstack([np.vstack(lines[:half]), np.vstack(lines[half:])]))

    def inputs(self, count: int) -> NDArray[np.float32]:
        """Return what the network sees of held-out triplets: float32 [N, 128, 128, 7]; to calibrate its export with."""
        driver, warped, coverage, *_ = parts(np.ascontiguousarray(self.triplets.rows[: min(count, self.held)]))
        lit = lit_by(light(driver, warped, coverage), warped)
        return np.asarray(ops.convert_to_numpy(ops.concatenate([driver, lit, coverage], axis=-1)), np.float32)

    def mean_network(self) -> keras.Model:
        """Return a copy of the network with the running mean of its weights."""
        kept = self.trainer.get_weights()
        self.trainer.optimizer.finalize_variable_values(self.trainer.trainable_variables)
        network = build_mixer(self.config.mixer_width)
        network.set_weights(self.network.get_weights())
        self.trainer.set_weights(kept)
        return network


def _bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
