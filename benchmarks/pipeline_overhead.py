"""What a pipeline adds to its model: `python -m benchmarks.pipeline_overhead` prints one JSON object.

The same session's calls, straight and through a FramePipeline (thread hand-over, gate, copy, counters),
frame by frame in turn.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.harness.machine import machine
from liveframe.frame import Frame
from liveframe.gate import ShownState
from liveframe.models.pixelate import Pixelate
from liveframe.pipeline import FramePipeline
from liveframe.stats import Phase


def measure(height: int, width: int, frames: int) -> dict[str, float]:
    """Time both paths, in milliseconds."""
    model = Pixelate()
    session = model.open_session()
    pictures = [np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8) for k in range(4)]
    straight_ms: list[float] = []
    through_ms: list[float] = []
    with FramePipeline(model) as pipeline:
        while pipeline.stats().phase is not Phase.READY:
            time.sleep(0.001)
        for index in range(frames):
            start_s = time.perf_counter()
            session.process(Frame(pictures[index % 4], index, time.monotonic()))
            middle_s = time.perf_counter()
            shown = pipeline.process(pictures[index % 4])
            end_s = time.perf_counter()
            if shown.state is ShownState.SWAPPED:
                straight_ms.append((middle_s - start_s) * 1e3)
                through_ms.append((end_s - middle_s) * 1e3)
    added_ms = [through - straight for through, straight in zip(through_ms, straight_ms, strict=True)]
    return {
        "frames": len(added_ms),
        "straight_p50_ms": round(statistics.median(straight_ms), 3),
        "pipeline_p50_ms": round(statistics.median(through_ms), 3),
        "added_p50_ms": round(statistics.median(added_ms), 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    options = parser.parse_args(arguments)
    sizes = {"480p": (480, 640), "720p": (720, 1280)}
    figures = {name: measure(*size, options.frames) for name, size in sizes.items()}
    json.dump({"machine": machine(), **figures}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
