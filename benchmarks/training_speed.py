"""Table 4, training and extraction: faces a second by recipe and backend, frames a second against a plain loop.

A step of either recipe shows every one of two decoders a batch of faces: the paired recipe passes one batch through
the encoder for both, the classic one a batch for each. Keras' backend is fixed when it is imported, so every backend
that is installed gets a process of its own. What augmentation costs is a row of its own: training hides it in a thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Figures, Plan, Times, in_turn, ratio, rows, spread
from liveframe.errors import LiveframeError

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
RECIPES = ("paired", "classic")
PERSONAS = ["a", "b"]


class ChildError(LiveframeError):
    """A backend's process failed."""


def table(plan: Plan) -> Figures:
    """Measure every backend that is installed, then extraction."""
    steps, batch = plan.pick(3, 20), plan.pick(4, 8)
    figures: Figures = {}
    for backend in BACKENDS:
        if find_spec(backend) is not None:
            figures |= rows(backend, _in_child(backend, steps, batch))
    return figures | rows("augment", augmenting(plan.pick(10, 100))) | extracting(plan.pick(16, 120), plan.pick(1, 5))


def training(steps: int, batch: int) -> Figures:
    """Time steps of both recipes in turn, on this process's backend.

    Args:
        steps: of each recipe, after one that does not count.
        batch: faces per decoder and step.
    """
    times = in_turn({recipe: _step(recipe, batch) for recipe in RECIPES}, steps)
    return {
        **{f"{recipe}_faces_per_s": faces_per_s(times, recipe, batch) for recipe in RECIPES},
        **{f"{recipe}_step_p50_ms": spread(recipe, times[recipe])[f"{recipe}_p50_ms"] for recipe in RECIPES},
        "paired_to_classic_faces_ratio": ratio(times["classic"], times["paired"]),
    }


def faces_per_s(times: Times, recipe: str, batch: int) -> float:
    """Give how many targets the decoders see in a second."""
    return round(len(PERSONAS) * batch / float(np.median(times[recipe])) * 1e3, 2)


def _step(recipe: str, batch: int) -> Any:
    """Make a call of one training step of the shipped size, on faces of noise."""
    from training.config import TrainingConfig
    from training.train import build_trainer
    from understudy.network import NetworkSize

    if recipe == "classic":
        config = TrainingConfig(recipe=recipe, facesets=dict.fromkeys(PERSONAS, ""), size=NetworkSize(bottleneck=256))
    else:
        config = TrainingConfig(recipe=recipe)
    _, trainer = build_trainer(config, PERSONAS)
    rng, size = np.random.default_rng(0), config.size
    faces = rng.random((batch, size.input_px, size.input_px, 3), np.float32)
    inputs = dict.fromkeys(PERSONAS, faces) if recipe == "classic" else faces
    target = rng.integers(0, 256, (batch, size.output_px, size.output_px, 5), np.uint8)
    return lambda: trainer.train_on_batch(inputs, dict.fromkeys(PERSONAS, target))


def augmenting(rounds: int) -> Figures:
    """Time the variation of one driver and its two targets, on one thread."""
    from training.augment import Augmentation, augment
    from training.pairs import CANVAS_PX

    rng, how = np.random.default_rng(0), Augmentation()
    driver = rng.integers(0, 256, (CANVAS_PX, CANVAS_PX, 3), np.uint8)
    maps = np.full((CANVAS_PX, CANVAS_PX, 2), 255, np.uint8)
    times = in_turn({"driver": lambda: augment(rng, driver, maps, [driver, driver], how, driver)}, rounds)
    mean_ms = float(np.mean(times["driver"]))
    return {"driver_mean_ms": round(mean_ms, 3), "drivers_per_s": round(1e3 / mean_ms, 1)}


def extracting(frames: int, rounds: int) -> Figures:
    """Extract a made clip with `training.extract` and with a plain loop over the same networks, in turn."""
    from benchmarks.extract_speed import made_clip, plain_loop, timed
    from training.extract import ExtractOptions, extract

    rates: dict[str, list[float]] = {"threaded": [], "plain_loop": []}
    cpu_ms: dict[str, list[float]] = {"threaded": [], "plain_loop": []}
    with tempfile.TemporaryDirectory() as folder:
        clip = made_clip(Path(folder) / "made.mp4", frames)
        options = ExtractOptions((clip,), Path(folder), is_quiet=True)
        for _ in range(rounds):
            for name, run in {
                "threaded": lambda out: extract(replace(options, out=out)).frames,
                "plain_loop": lambda out: plain_loop(clip, out, use_identity=True),
            }.items():
                rate_hz, ms = timed(run)
                rates[name].append(rate_hz)
                cpu_ms[name].append(ms)
    figures = {f"{name}_frames_per_s": round(float(np.median(values)), 2) for name, values in rates.items()}
    figures |= {f"{name}_cpu_ms": round(float(np.median(values)), 2) for name, values in cpu_ms.items()}
    return rows("extract", {**figures, "threaded_to_plain_loop_ratio": ratio(rates["threaded"], rates["plain_loop"])})


# ---- a backend's own process -----------------------------------------------------------------------------------


def _in_child(backend: str, steps: int, batch: int) -> Figures:
    """Run `training` in a process with that backend.

    Raises:
        ChildError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.training_speed", "--steps", str(steps), "--batch", str(batch)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildError(f"Training steps must run on {backend}, but failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure this process's backend and print one JSON object, as the last line."""
    parser = argparse.ArgumentParser(prog="benchmarks.training_speed", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args(arguments)
    print(json.dumps(training(options.steps, options.batch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
