"""Extraction against a plain loop: `python -m benchmarks.extract_speed [CLIP]` prints one JSON object.

Both do the same work on the same frames with the same networks: decode, detect, fit the mesh, ask dlib's five
points, align, write the crop, embed for identity. The plain loop does everything in turn, in every frame.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.harness.machine import machine
from benchmarks.harness.moving_face import frames
from training.extract import ExtractOptions, extract
from understudy.media.clip import read_frames
from understudy.vision.align import align
from understudy.vision.detect import FaceDetector
from understudy.vision.dlib_landmarks import FivePoints, disagreement
from understudy.vision.embedding import DlibEmbedder
from understudy.vision.mesh import FaceMesh

SIZE = 256


def plain_loop(clip: Path, out: Path, use_identity: bool) -> int:
    """Extract as a straightforward program does, and give the number of frames."""
    detector, mesh, five_points = FaceDetector(2), FaceMesh(2), FivePoints()
    embedder = DlibEmbedder(five_points)
    count = 0
    for frame in read_frames(clip):
        count += 1
        for rank, found in enumerate(detector.detect(frame.image)):
            face = mesh.refine(frame.image, found)
            assert face.mesh is not None
            if face.presence < 0.5 or disagreement(face.mesh, five_points.fit(frame.image, face)) > 0.1:
                continue
            cv2.imwrite(str(out / f"{frame.index}-{rank}.png"), align(frame.image, face, SIZE).crop)
            if use_identity:
                embedder.embed(frame.image, face)
    return count


def timed(run: Callable[[Path], int]) -> tuple[float, float]:
    """Return frames a second, and CPU ms a frame (child processes counted), of one run into a fresh folder."""
    out = Path(tempfile.mkdtemp())
    try:
        started_s, before_s = time.perf_counter(), sum(os.times()[:4])
        count = run(out)
        return count / (time.perf_counter() - started_s), (sum(os.times()[:4]) - before_s) / count * 1000
    finally:
        shutil.rmtree(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the contestants in turn, and print medians, ratios and the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path, help="a clip; by default a made one of 120 frames")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        clip = given.clip or made_clip(Path(folder) / "made.mp4", 120)
        contestants: dict[str, Callable[[Path], int]] = {
            "extract": lambda out: extract(ExtractOptions((clip,), out, is_quiet=True)).frames,
            "plain_loop": lambda out: plain_loop(clip, out, use_identity=True),
            "plain_loop_without_identity": lambda out: plain_loop(clip, out, use_identity=False),
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for _ in tqdm(range(given.rounds), desc="rounds"):
            for name, run in contestants.items():
                runs[name].append(timed(run))
    rates = {name: round(median(hz for hz, _ in values), 1) for name, values in runs.items()}
    cpu = {name: round(median(ms for _, ms in values), 1) for name, values in runs.items()}
    ratios = {f"extract / {name}": round(rates["extract"] / rates[name], 2) for name in list(rates)[1:]}
    report = {"frames_per_s": rates, "cpu_ms_a_frame": cpu, "ratio_of_rates": ratios, "clip": str(given.clip or "made")}
    print(json.dumps(report | machine()))
    return 0


def made_clip(path: Path, count: int) -> Path:
    """Write a clip of so many frames of the moving astronaut; returns the path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (640, 480))
    for image in frames(None, 640, 480, count):
        writer.write(np.ascontiguousarray(image))
    writer.release()
    return path


if __name__ == "__main__":
    sys.exit(main())
