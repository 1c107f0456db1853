"""Table 4, training and extraction: faces a second by recipe and backend, frames a second against a plain loop.

A step of the one-shot recipe shows the mixing network a batch of triplets, a step of the classic one shows each of two
decoders a batch of faces. Keras' backend is fixed when it is imported, so every backend that is installed gets a
process of its own. What making a triplet costs is a row of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness.timing import Figures, Plan, Times, in_turn, ratio, rows, spread
from liveframe.errors import LiveframeError

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("tensorflow", "jax", "torch")
RECIPES = ("oneshot", "classic")
PERSONAS = ["a", "b"]
WORKERS = (1, 2, 4)


class ChildError(LiveframeError):
    """A backend's process failed."""


def table(plan: Plan) -> Figures:
    """Measure every backend that is installed (in short, this process's own), then extraction."""
    figures: Figures = {}
    if plan.is_quick:
        import keras

        figures |= rows(keras.backend.backend(), training(steps=2, batch=2))
    else:
        for backend in filter(find_spec, BACKENDS):
            figures |= rows(backend, _in_child(backend, steps=20, batch=8))
    return figures | rows("triplets", triplets(plan.pick(10, 100))) | extracting(plan.pick(8, 120), plan.pick(1, 5))


def training(steps: int, batch: int) -> Figures:
    """Time steps of both recipes in turn, on this process's backend.

    Args:
        steps: of each recipe, after one that does not count.
        batch: triplets, or faces per decoder, a step.
    """
    times = in_turn({recipe: _step(recipe, batch) for recipe in RECIPES}, steps)
    return {
        **{f"{recipe}_faces_per_s": faces_per_s(times, recipe, batch) for recipe in RECIPES},
        **{f"{recipe}_step_p50_ms": spread(recipe, times[recipe])[f"{recipe}_p50_ms"] for recipe in RECIPES},
    }


def faces_per_s(times: Times, recipe: str, batch: int) -> float:
    """Return how many triplets, or faces of all decoders, are learned from in a second."""
    faces = batch * (len(PERSONAS) if recipe == "classic" else 1)
    return round(faces / float(np.median(times[recipe])) * 1e3, 2)


def _step(recipe: str, batch: int) -> Any:
    """Make a call of one training step of the shipped size, on noise."""
    from training.model.config import TrainingConfig

    rng = np.random.default_rng(0)
    if recipe == "oneshot":
        from training.data.triplets import CHANNELS, SIDE
        from training.model.mixing import build_trainer as build_mix_trainer

        mixer = build_mix_trainer(TrainingConfig())[1]
        triplets = rng.integers(0, 256, (batch, SIDE, SIDE, CHANNELS), np.uint8)
        return lambda: mixer.train_on_batch(triplets)
    from training.model.classic import build_trainer

    config = TrainingConfig(recipe=recipe, facesets=dict.fromkeys(PERSONAS, ""))
    _, trainer = build_trainer(config, PERSONAS)
    size = config.size
    faces = rng.random((batch, size.input_px, size.input_px, 3), np.float32)
    target = rng.integers(0, 256, (batch, size.output_px, size.output_px, 5), np.uint8)
    return lambda: trainer.train_on_batch(dict.fromkeys(PERSONAS, faces), dict.fromkeys(PERSONAS, target))


def triplets(rounds: int) -> Figures:
    """Time the making of one triplet, on one thread, of made faces."""
    from benchmarks.harness.moving_face import frames as moving
    from training.data.drivers import DriverCrops, DriverFinder
    from training.data.triplets import TripletMaker

    finder = DriverFinder()
    found = [each for each in map(finder.canvas, moving(None, 640, 480, 4)) if each is not None]
    crops, meshes = (np.stack([each[i] for each in found]) for i in (0, 1))
    alone, plain = np.full(len(found), -1), np.ones(len(found), bool)
    maker = TripletMaker(DriverCrops(crops, meshes, alone, plain, "", []))
    times = in_turn({"triplet": partial(maker.make, 1)}, rounds)
    mean_ms = float(np.mean(times["triplet"]))
    return {"triplet_mean_ms": round(mean_ms, 3), "triplets_per_s": round(1e3 / mean_ms, 1)}


def extracting(frames: int, rounds: int) -> Figures:
    """Extract a made clip with `training.extract`, by threads, and with a plain loop over the same networks."""
    from benchmarks.extract_speed import made_clip, plain_loop, timed
    from training.extract import ExtractOptions, extract

    with tempfile.TemporaryDirectory() as folder:
        clip = made_clip(Path(folder) / "made.mp4", frames)
        options = ExtractOptions((clip,), Path(folder), is_quiet=True)
        ways = {
            _threads(workers): partial(_extracted, extract, replace(options, workers=workers)) for workers in WORKERS
        }
        ways["plain_loop"] = lambda out: plain_loop(clip, out, use_identity=True)
        runs = {name: list[tuple[float, float]]() for name in ways}
        for _ in range(rounds):
            for name, run in ways.items():
                runs[name].append(timed(run))
    rates = {name: [rate_hz for rate_hz, _ in values] for name, values in runs.items()}
    figures = {f"{name}_frames_per_s": round(float(np.median(values)), 2) for name, values in rates.items()}
    figures |= {f"{name}_cpu_ms": round(median(ms for _, ms in values), 2) for name, values in runs.items()}
    for workers in WORKERS:
        name = _threads(workers)
        figures[f"{name}_to_plain_loop_ratio"] = ratio(rates[name], rates["plain_loop"])
    return rows("extract", figures) | rows("detect", detecting(rounds * 8))


def _threads(workers: int) -> str:
    return f"{workers}_threads"


def _extracted(extract: Any, options: Any, out: Path) -> int:
    return int(extract(replace(options, out=out)).frames)


def detecting(rounds: int) -> Figures:
    """Time the detector on its own: one picture a call, by threads; the pictures' sizes are a camera's.

    It takes no batches: its network is made for one picture, since a live stream never has two.
    """
    from benchmarks.harness.moving_face import frames as moving
    from understudy.vision.detect import FaceDetector

    picture = moving(None, 640, 480, 1)[0]
    detectors = {_threads(threads): FaceDetector(threads) for threads in (1, 2)}
    times = in_turn({name: partial(each.detect, picture) for name, each in detectors.items()}, rounds)
    return {f"{name}_pictures_per_s": round(1e3 / float(np.median(values)), 2) for name, values in times.items()}


# ---- a backend's own process -----------------------------------------------------------------------------------


def _in_child(backend: str, steps: int, batch: int) -> Figures:
    """Run `training` in a process with that backend.

    Raises:
        ChildError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.tables.training_speed", "--steps", str(steps), "--batch", str(batch)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildError(f"Training steps must run on {backend}, but failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure this process's backend and print one JSON object, as the last line."""
    parser = argparse.ArgumentParser(prog="benchmarks.tables.training_speed", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args(arguments)
    print(json.dumps(training(options.steps, options.batch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
