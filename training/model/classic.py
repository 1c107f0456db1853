"""The classic recipe as it trains: one shared encoder, one decoder per persona, two facesets or more.

Backend-neutral (keras.ops). What it learns from is made by `training.data.classic`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.data.classic import ClassicBatches, Facesets
from training.model.config import TrainingConfig
from training.model.losses import LossWeights, dssim, swap_loss
from training.model.run import TrainingRun, compile_for, cosine, made_ahead
from training.model.tracking import Tracker
from training.network import SwapAutoencoder
from understudy.draw.contact_sheet import labelled

Batch = tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.uint8]]]


class SwapTrainer(keras.Model):
    """The autoencoder with its loss, for Keras' own train_on_batch on any backend."""

    def __init__(self, network: SwapAutoencoder, weights: LossWeights) -> None:
        super().__init__()
        self.encoder, self.parts = network.encoder, list(network.decoders.values())
        self.names, self.loss_weights = list(network.decoders), weights

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return each persona's swap: float32 [N, I, I, 3] by name -> float32 [N, O, O, 4] by name."""
        faces = ops.concatenate([inputs[name] for name in self.names])
        latents = ops.split(self.encoder(faces, training=training), len(self.names))
        return {
            name: part(latent, training=training)
            for name, part, latent in zip(self.names, self.parts, latents, strict=True)
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the sum of the personas' losses: what Keras minimises."""
        return sum(swap_loss(y_pred[name], y[name], self.loss_weights) for name in self.names)


def has_bfloat16() -> bool:
    """Whether this CPU computes bfloat16 itself (AVX512-BF16 or AMX)."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


@contextmanager
def keras_policy(name: str) -> Iterator[None]:
    """Build layers under a policy of precision; the process's own comes back afterwards."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def build_trainer(config: TrainingConfig, personas: list[str]) -> tuple[SwapAutoencoder, SwapTrainer]:
    """Build the network and compile it: Adam with a cosine, a running mean of weights, no XLA."""
    keras.utils.set_random_seed(config.seed)
    policy = "mixed_bfloat16" if config.bfloat16 and has_bfloat16() else "float32"
    with keras_policy(policy):  # of these layers alone: the process may train or export something else next
        network = SwapAutoencoder.build(config.size, personas)
        trainer = SwapTrainer(network, config.loss)
    optimizer = keras.optimizers.Adam(cosine(config, 0.05), use_ema=True, ema_momentum=config.ema)
    compile_for(trainer, optimizer)
    nobody = np.zeros((1, config.size.input_px, config.size.input_px, 3), np.float32)
    trainer(dict.fromkeys(personas, nobody))
    optimizer.build(trainer.trainable_variables)
    return network, trainer


# ---- the run ---------------------------------------------------------------------------------------------------


class ClassicTraining(TrainingRun):
    """One training of an autoencoder, from its last checkpoint to its last step.

    Args:
        config: recipe "classic".
        trust: folder of keys.

    Raises:
        ConsentError: a faceset's person did not agree to be trained on.
        FacesetError: a faceset is missing, damaged or too small.
        CheckpointError: `out` holds the checkpoint of another network.
    """

    def __init__(self, config: TrainingConfig, trust: Path) -> None:
        super().__init__(config)
        self.facesets = Facesets(config.facesets)
        for name in self.facesets.personas:
            self.facesets.check_consent(name, trust)
        self.personas = self.facesets.personas
        self.batches = ClassicBatches(config, self.facesets)
        self.network, self.trainer = build_trainer(config, self.personas)
        self.tracker = Tracker(config, self.facesets.digest())
        self._resume()

    def _batches(self, end: int) -> Iterator[Batch]:
        return made_ahead(self.batches.batch, self.step, end)

    def _judged(self) -> tuple[dict[str, float], NDArray[np.uint8]]:
        faces, targets = self.batches.validation_batch(self.batches.validation[:24])
        predicted = {n: np.asarray(p) for n, p in self.trainer.predict_on_batch(faces).items()}
        ssims = {f"ssim_{name}": round(_masked_ssim(predicted[name], targets[name]), 4) for name in self.personas}
        return ssims, preview_sheet(faces, predicted, targets)


def _masked_ssim(predicted: NDArray[np.float32], target: NDArray[np.uint8]) -> float:
    wanted = target.astype(np.float32) / 255
    mask = wanted[..., 3:4]
    return 1 - 2 * float(ops.convert_to_numpy(dssim(predicted[..., :3] * mask, wanted[..., :3] * mask)))


def preview_sheet(
    faces: dict[str, NDArray[np.float32]],
    predicted: dict[str, NDArray[np.float32]],
    targets: dict[str, NDArray[np.uint8]],
    rows: int = 12,
) -> NDArray[np.uint8]:
    """Return a sheet, labelled: per persona driver, target, prediction and swap; uint8 [H, W, 3], BGR."""
    lines: list[NDArray[np.float32]] = []
    for i in range(min(rows, *(len(batch) for batch in faces.values()))):
        cells: list[Any] = []
        for name, output in predicted.items():
            side = output.shape[1]
            driver = cv2.resize(faces[name][i], (side, side), interpolation=cv2.INTER_LINEAR)
            colour, mask = output[i, ..., :3], output[i, ..., 3:4]
            wanted = targets[name][i, ..., :3] / np.float32(255)
            cells += [driver, wanted, colour, driver * (1 - mask) + colour * mask]
        lines.append(np.hstack(cells))
    half = (len(lines) + 1) // 2
    lines += [np.zeros_like(lines[0])] * (2 * half - len(lines))
    sheet = np.hstack([np.vstack(lines[:half]), np.vstack(lines[half:])])
    small = cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return labelled(np.clip(small * 255, 0, 255).astype(np.uint8))
