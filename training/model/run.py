"""What every training does beside learning: it resumes, saves, reports and shows.

A subclass says what is learned from (`_batches`) and how it is judged (`_judged`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from tqdm import tqdm

from training.model.checkpoint import assign, load_checkpoint, save_checkpoint
from training.model.config import ConfigError, TrainingConfig
from training.model.tracking import Tracker

Batch = TypeVar("Batch")


def made_ahead(make: Callable[[int], Batch], first: int, last: int) -> Iterator[Batch]:
    """Yield `make` of steps first to last - 1, each made while the one before is trained on."""
    with ThreadPoolExecutor(1) as maker:
        ahead = maker.submit(make, first)
        for step in range(first, last):
            batch, ahead = ahead.result(), maker.submit(make, step + 1)
            yield batch


def share_over_devices(batch: int) -> None:
    """Share every batch over all devices (JAX: keras.distribution has data parallelism there), where there are several.

    Raises:
        ConfigError: the batch cannot be shared evenly.
    """
    if keras.backend.backend() != "jax":
        return
    devices = keras.distribution.list_devices()
    if len(devices) < 2:
        return
    if batch % len(devices):
        raise ConfigError(f"batch must be a multiple of the {len(devices)} devices, but got {batch}.")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))


def cosine(config: TrainingConfig, floor: float) -> Any:
    """Return a learning rate that rises over `warm_up` steps and falls along a cosine to a share of its height."""
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, config.iterations - config.warm_up),
        floor,
        warmup_target=config.learning_rate,
        warmup_steps=config.warm_up,
    )


def compile_for(trainer: keras.Model, optimizer: Any) -> None:
    """Compile a model for this backend: step by step, JAX is 50 times slower; for TensorFlow, XLA is no gain."""
    trainer.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")


class TrainingRun(ABC):
    """One training, from its last checkpoint to its last step.

    Attributes:
        config: what it was told.
        out: the folder of its checkpoint, curves and previews.
        trainer: a compiled model whose optimizer is built.
        tracker: where its figures and previews go too.
        step: steps done.
    """

    trainer: keras.Model
    tracker: Tracker

    def __init__(self, config: TrainingConfig) -> None:
        self.config, self.out, self.step = config, Path(config.out), 0
        self.out.mkdir(parents=True, exist_ok=True)
        share_over_devices(config.batch)

    @abstractmethod
    def _batches(self, end: int) -> Iterator[tuple[Any, ...]]:
        """Yield what `train_on_batch` takes, from `step` to `end`."""

    @abstractmethod
    def _judged(self) -> tuple[dict[str, float], NDArray[np.uint8]]:
        """Return figures on what is held out, and a sheet of pictures: uint8 [H, W, 3], BGR."""

    def _variables(self) -> list[Any]:
        return [*self.trainer.variables, *self.trainer.optimizer.variables]

    def _resume(self) -> bool:
        """Go on from the checkpoint, where there is one; returns whether there is.

        Raises:
            CheckpointError: it is another network's.
        """
        found = load_checkpoint(self.out)
        if not found:
            return False
        self.step, arrays = found
        assign(self._variables(), arrays, str(self.out))
        print(f"goes on from step {self.step}", file=sys.stderr)
        return True

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.out, self.step, [ops.convert_to_numpy(v.value) for v in self._variables()])

    def curves(self) -> list[dict[str, float]]:
        """Return what was reported so far, by step: seconds since the report before, loss, figures."""
        path = self.out / "curves.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        by_step = {int(line["step"]): line for line in lines}  # a resumed run reports some steps again
        return [by_step[step] for step in sorted(by_step)]

    def run(self, until: int | None = None) -> None:
        """Train to the last step, or until a step before it."""
        config, losses, began = self.config, [], time.monotonic()
        end = min(until or config.iterations, config.iterations)
        bar = tqdm(total=config.iterations, initial=self.step, desc="train", unit="step")
        for batch in self._batches(end):
            losses.append(float(self.trainer.train_on_batch(*batch, return_dict=True)["loss"]))
            self.step += 1
            bar.update()
            is_last = self.step == end
            if self.step % config.preview_every == 0 or is_last:
                self._report(losses, time.monotonic() - began)
                losses, began = [], time.monotonic()
            if self.step % config.checkpoint_every == 0 or is_last:
                self.save()
        bar.close()

    def _report(self, losses: list[float], seconds: float) -> None:
        figures, sheet = self._judged()
        loss = round(float(np.mean(losses)), 5)
        line = {"step": self.step, "seconds": round(seconds, 1), "loss": loss, **figures}
        with (self.out / "curves.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        tqdm.write(json.dumps(line), file=sys.stderr)
        self.tracker.metrics({key: value for key, value in line.items() if key != "step"}, self.step)
        path = self.out / f"preview-{self.step:07d}.jpg"
        cv2.imwrite(str(path), sheet)
        self.tracker.picture(path)
