"""The swap path without codec: `python -m benchmarks.swap_path` prints one JSON object.

Ours (detect and track, mesh, warp, network, blend) against the naive loop with the same networks
(detection and two mesh fits in every frame, a merge in float over the whole frame), frame by frame in turn.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.machine import machine
from benchmarks.harness.moving_face import frames
from liveframe.frame import Frame
from understudy.bundle.bundle import Bundle, BundleError, default_bundle
from understudy.swap.renderer import LoadedRenderer, one_shot_persona
from understudy.swap.swapper import FaceSwapper, SwapSettings
from understudy.vision.align import align
from understudy.vision.detect import FaceDetector
from understudy.vision.face import AlignedFace
from understudy.vision.mesh import FaceMesh
from understudy.vision.reference import ReferenceFace

Image = NDArray[np.uint8]


class NaiveLoop:
    """What a straightforward program does with the same networks: everything anew in every frame."""

    def __init__(self, loaded: LoadedRenderer, threads: int) -> None:
        self._loaded = loaded
        self._detector = FaceDetector(threads)
        self._mesh = FaceMesh(threads)

    def __call__(self, image: Image) -> Image:
        """Return the frame with its faces replaced."""
        out = image.copy()
        for found in self._detector.detect(image):
            face = self._mesh.refine(image, found)
            if face.presence >= 0.5:
                aligned = align(image, face, self._loaded.input_size)
                out = merge_whole_frame(out, aligned, self._loaded.render([aligned])[0])
        return out


def merge_whole_frame(image: Image, face: AlignedFace, swap: NDArray[np.uint8]) -> Image:
    """Merge in float32 over the whole frame: Lab colours, cubic warp, Gaussian feather."""
    scale, size = swap.shape[0] / face.crop.shape[0], (image.shape[1], image.shape[0])
    matrix, side = face.frame_to_crop * scale, swap.shape[0] // 12 | 1
    crop = cv2.resize(face.crop, swap.shape[:2]).astype(np.float32) / 255
    source, wanted = (cv2.cvtColor(x, cv2.COLOR_BGR2LAB) for x in (swap[..., :3].astype(np.float32) / 255, crop))
    gain = wanted.std((0, 1)) / (source.std((0, 1)) + 1e-6)
    moved = (source - source.mean((0, 1))) * gain + wanted.mean((0, 1))
    colours = np.clip(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2BGR), 0, 1)
    mask = cv2.GaussianBlur(swap[..., 3].astype(np.float32) / 255, (side, side), 0)
    warped = cv2.warpAffine(colours, matrix, size, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC)
    alpha = cv2.warpAffine(mask, matrix, size, flags=cv2.WARP_INVERSE_MAP)[..., None]
    return np.asarray((warped * alpha + image.astype(np.float32) / 255 * (1 - alpha)) * 255, np.uint8)


def measure(model: FaceSwapper, pictures: Sequence[Image], threads: int, warm_frames: int = 10) -> dict[str, object]:
    """Run both over the pictures, in turn, and give their figures.

    Args:
        model: warm.
        pictures: uint8 [H, W, 3], BGR.
        threads: cores that the naive loop's networks use.
        warm_frames: how many frames at the start are not counted.
    """
    session, naive = model.open_session(), NaiveLoop(model.loaded(model.settings.persona), threads)
    times: dict[str, list[float]] = {key: [] for key in ("wall", "cpu", "naive_wall", "naive_cpu")}
    stages: dict[str, list[float]] = {}
    found = done = 0
    for index, image in enumerate(pictures):
        start = time.perf_counter(), time.thread_time()
        result = session.process(Frame(image, index, index / 30))
        middle = time.perf_counter(), time.thread_time()
        naive(image)
        end = time.perf_counter(), time.thread_time()
        if index < warm_frames:
            continue
        found, done = found + result.subjects_found, done + result.subjects_done
        for key, value in zip(times, (*_ms(start, middle), *_ms(middle, end)), strict=True):
            times[key].append(value)
        for key, value in result.stages_ms.items():
            stages.setdefault(key, []).append(value)
    session.close()
    return {
        "frames": len(times["wall"]),
        "faces_found": found,
        "faces_swapped": done,
        "ours": {"total": _figures(times["wall"]), "total_cpu": _figures(times["cpu"])}
        | {name: _figures(values) for name, values in stages.items()},
        "naive": {"total": _figures(times["naive_wall"]), "total_cpu": _figures(times["naive_cpu"])},
        "ratio_to_naive": round(float(np.median(times["naive_wall"]) / np.median(times["wall"])), 2),
        "ratio_to_naive_cpu": round(float(np.median(times["naive_cpu"]) / np.median(times["cpu"])), 2),
    }


def run_ours(model: FaceSwapper, pictures: Sequence[Image], seconds: float) -> int:
    """Swap the pictures over and over, and nothing else, for a profiler to look at; returns how many frames."""
    session, index, until_s = model.open_session(), 0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        session.process(Frame(pictures[index % len(pictures)], index, index / 30))
        index += 1
    session.close()
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit status."""
    options = _options(arguments)
    cv2.setNumThreads(options.threads)
    width, height = (int(part) for part in options.size.split("x"))
    pictures = frames(options.clip, width, height, options.frames)
    try:
        model = _model(options)
    except BundleError as error:
        print(f"{error} Or measure with --instant, which needs no bundle.", file=sys.stderr)
        return 2
    model.warm_up()
    if options.ours_for:
        print(json.dumps({"frames": run_ours(model, pictures, options.ours_for)}))
        return 0
    before = machine()
    result: dict[str, object] = {"machine": before, "threads": options.threads, "width": width, "height": height}
    result |= {"persona": model.settings.persona, "clip": options.clip.name if options.clip else "astronaut"}
    result |= measure(model, pictures, options.threads)
    result["load_average_after"] = machine()["load_average"]
    print(json.dumps(result, indent=2))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.swap_path", description=__doc__)
    parser.add_argument("clip", type=Path, nargs="?", help="a video file; the astronaut where not given")
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--persona", default="", help="the bundle's first where not given")
    parser.add_argument("--instant", action="store_true", help="the mesh-warp persona in place of a network")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ours-for", type=float, metavar="SECONDS", help="run ours alone so long, to be profiled")
    return parser.parse_args(arguments)


def _model(options: argparse.Namespace) -> FaceSwapper:
    """The model to measure.

    Raises:
        BundleError: the bundle is missing or damaged.
    """
    if options.instant:
        picture = frames(None, 512, 512, 1)[0]
        face = FaceMesh().refine(picture, FaceDetector().detect(picture)[0])
        aligned = align(picture, face, 256)
        return FaceSwapper(
            renderers={"instant": one_shot_persona([ReferenceFace(aligned.crop, aligned.mesh)], None)},
            threads=options.threads,
        )
    return FaceSwapper(Bundle.load(options.bundle), SwapSettings(options.persona), options.threads)


def _ms(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return (end[0] - start[0]) * 1e3, (end[1] - start[1]) * 1e3


def _figures(values: Sequence[float]) -> dict[str, float]:
    return {"p50_ms": round(float(np.median(values)), 3), "p95_ms": round(float(np.percentile(values, 95)), 3)}


if __name__ == "__main__":
    sys.exit(main())
