"""Whether a long stream stays as it began: `python -m benchmarks.soak --minutes 30` prints one JSON object.

Simulated viewers, each with a camera's pace and a pipeline of their own through one shared swapper, with the marks
that everything carries. Viewers leave and come back. Watched: memory, threads, open files, and the latency of swapped
frames. The exit status is 1 where a limit is broken.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.harness.machine import machine
from benchmarks.harness.moving_face import frames
from liveframe.gate import Paint, ShownState
from liveframe.pipeline import FramePipeline
from understudy.bundle.bundle import Bundle, BundleError, default_bundle
from understudy.provenance.disclosure import Disclosure
from understudy.swap.swapper import FaceSwapper

SLOPE_LIMIT_MB_PER_MIN = 1.0
P95_LIMIT = 1.10
_CLIP_FRAMES = 120
_WINDOW_S = 300.0
_WARM_UP_SHARE = 0.2
_LONGEST_WARM_UP_S = 300.0


@dataclass(frozen=True, slots=True)
class SoakPlan:
    """What to simulate.

    Attributes:
        minutes: how long.
        viewers: how many at the same time.
        fps: of each one's camera.
        reconnect_s: how long a viewer stays before another one takes the place.
        sample_s: how often memory, threads and files are counted.
    """

    minutes: float = 30.0
    viewers: int = 2
    fps: float = 15.0
    reconnect_s: float = 300.0
    sample_s: float = 5.0

    @property
    def duration_s(self) -> float:
        """The same in seconds."""
        return self.minutes * 60

    @property
    def warm_up_s(self) -> float:
        """The part at the start that memory's slope leaves out: a fifth, five minutes at most."""
        return min(_LONGEST_WARM_UP_S, self.duration_s * _WARM_UP_SHARE)

    @property
    def window_s(self) -> float:
        """The first and the last part, whose latencies are compared: five minutes, a third of a short run."""
        return min(_WINDOW_S, self.duration_s / 3)


class LoneViewer:
    """A place that one viewer after another takes; runs on a thread of its own. Its memory is taken at the start."""

    def __init__(
        self, model: FaceSwapper, overlays: Sequence[Paint], clip: Sequence[NDArray[np.uint8]], plan: SoakPlan
    ) -> None:
        room = int(plan.duration_s * plan.fps * 1.1) + 100
        self.times_s, self.latencies_ms = np.zeros(room, np.float32), np.zeros(room, np.float32)
        self.swapped = self.shown = self.visits = 0
        self.is_through = False
        self._model, self._overlays, self._clip, self._plan = model, overlays, clip, plan
        self.thread = threading.Thread(target=self._run, name="soak-viewer")

    def _run(self) -> None:
        start_s = time.monotonic()
        while (elapsed_s := time.monotonic() - start_s) < self._plan.duration_s:
            self.visits += 1
            leaves_s = min(elapsed_s + self._plan.reconnect_s, self._plan.duration_s)
            with FramePipeline(self._model, overlays=self._overlays) as pipeline:
                while time.monotonic() - start_s < leaves_s:
                    self._show(pipeline, start_s)
        self.is_through = True

    def _show(self, pipeline: FramePipeline, start_s: float) -> None:
        """One frame, and the wait for the next one's time."""
        captured_s = time.monotonic()
        shown = pipeline.process(self._clip[self.shown % len(self._clip)], captured_s)
        took_s = time.monotonic() - captured_s
        self.shown += 1
        if shown.state is ShownState.SWAPPED and self.swapped < len(self.times_s):
            self.times_s[self.swapped], self.latencies_ms[self.swapped] = captured_s - start_s, took_s * 1e3
            self.swapped += 1
        time.sleep(max(0.0, 1 / self._plan.fps - took_s))


@dataclass(slots=True)
class Samples:
    """What the process held, over time."""

    times_s: list[float] = field(default_factory=list[float])
    memory_mb: list[float] = field(default_factory=list[float])
    threads: list[int] = field(default_factory=list[int])
    files: list[int] = field(default_factory=list[int])

    def take(self, process: psutil.Process, now_s: float) -> None:
        """Count now."""
        self.times_s.append(now_s)
        self.memory_mb.append(process.memory_info().rss / 1e6)
        self.threads.append(process.num_threads())
        self.files.append(process.num_fds())

    def slope_mb_per_min(self, from_s: float) -> float | None:
        """Memory's growth from a moment on, by least squares; None where too little was counted to tell."""
        late = np.array(self.times_s) >= from_s
        if late.sum() < 3:
            return None
        return float(np.polyfit(np.array(self.times_s)[late] / 60, np.array(self.memory_mb)[late], 1)[0])

    def climbs(self, counts: Sequence[int], from_s: float) -> bool:
        """Whether the most in the second half of what follows a moment exceeds the most in the first half."""
        late = [count for time_s, count in zip(self.times_s, counts, strict=True) if time_s >= from_s]
        half = len(late) // 2
        return half == 0 or max(late[half:]) > max(late[:half])


def soak(model: FaceSwapper, overlays: Sequence[Paint], plan: SoakPlan) -> dict[str, object]:
    """Run the plan.

    Args:
        model: warm; shared by the viewers.
        overlays: what is painted on everything that leaves.
        plan: what to simulate.

    Returns:
        The report, as `main` prints it.
    """
    clip = frames(None, 640, 480, _CLIP_FRAMES)
    lone_viewers = [LoneViewer(model, overlays, clip, plan) for _ in range(plan.viewers)]
    process, samples = psutil.Process(), Samples()
    _rehearse(model, overlays, clip)
    # The bar's lock opens a file of its own, which must not count as left open.
    bar = tqdm(total=round(plan.duration_s), unit="s", desc="soak", disable=None)
    idle = {"threads": process.num_threads(), "files": process.num_fds()}
    start_s = time.monotonic()
    for lone_viewer in lone_viewers:
        lone_viewer.thread.start()
    with bar:
        while (elapsed_s := time.monotonic() - start_s) < plan.duration_s:
            time.sleep(min(plan.sample_s, plan.duration_s - elapsed_s))
            samples.take(process, time.monotonic() - start_s)
            bar.update(round(samples.times_s[-1]) - bar.n)
    for lone_viewer in lone_viewers:
        lone_viewer.thread.join()
    left = _left(process, idle)
    return _report(plan, lone_viewers, samples, idle, left)


def _rehearse(model: FaceSwapper, overlays: Sequence[Paint], clip: Sequence[NDArray[np.uint8]]) -> None:
    """Have a viewer come and go before anything is counted: the runtimes start their own threads with the first frames.

    Raises:
        RuntimeError: no frame was swapped within a minute.
    """
    until_s = time.monotonic() + 60
    with FramePipeline(model, overlays=overlays) as pipeline:
        while pipeline.stats().swapped < 5:
            pipeline.process(clip[pipeline.stats().frames % len(clip)])
            time.sleep(0.01)
            if time.monotonic() > until_s:
                raise RuntimeError(f"A viewer must see a swap within a minute, but saw none: {pipeline.stats().note}")


def _left(process: psutil.Process, idle: dict[str, int]) -> dict[str, int]:
    """Count what is held after the last viewer; a joined thread takes the system a moment to end."""
    until_s = time.monotonic() + 5
    while process.num_threads() > idle["threads"] and time.monotonic() < until_s:
        time.sleep(0.05)
    return {"threads": process.num_threads(), "files": process.num_fds()}


def _report(
    plan: SoakPlan, lone_viewers: Sequence[LoneViewer], samples: Samples, idle: dict[str, int], left: dict[str, int]
) -> dict[str, object]:
    times_s = np.concatenate([lone_viewer.times_s[: lone_viewer.swapped] for lone_viewer in lone_viewers])
    latencies_ms = np.concatenate([lone_viewer.latencies_ms[: lone_viewer.swapped] for lone_viewer in lone_viewers])
    first = latencies_ms[times_s < plan.window_s]
    last = latencies_ms[times_s >= plan.duration_s - plan.window_s]
    p95_first, p95_last = (float(np.percentile(part, 95)) if len(part) else None for part in (first, last))
    ratio = p95_last / p95_first if p95_first and p95_last else None
    slope = samples.slope_mb_per_min(plan.warm_up_s)
    growth = {name: left[name] - idle[name] for name in idle}
    return {
        "plan": asdict(plan),
        "viewers": [
            {"frames": lone_viewer.shown, "swapped": lone_viewer.swapped, "visits": lone_viewer.visits}
            for lone_viewer in lone_viewers
        ],
        "memory_mb": {"first": round(samples.memory_mb[0], 1), "last": round(samples.memory_mb[-1], 1)},
        "memory_slope_mb_per_min": slope if slope is None else round(slope, 3),
        "threads": {"before": idle["threads"], "most": max(samples.threads), "after": left["threads"]},
        "files": {"before": idle["files"], "most": max(samples.files), "after": left["files"]},
        "growth": growth,
        "p95_first_ms": p95_first if p95_first is None else round(p95_first, 2),
        "p95_last_ms": p95_last if p95_last is None else round(p95_last, 2),
        "p95_ratio": ratio if ratio is None else round(ratio, 3),
        "verdict": {
            "every viewer stayed to the end": all(
                lone_viewer.is_through and lone_viewer.swapped for lone_viewer in lone_viewers
            ),
            "memory is flat": slope is not None and slope < SLOPE_LIMIT_MB_PER_MIN,
            "threads do not climb": not samples.climbs(samples.threads, plan.warm_up_s),
            "files do not climb": not samples.climbs(samples.files, plan.warm_up_s),
            "no thread is left behind": growth["threads"] <= 0,
            "no file is left open": growth["files"] <= 0,
            "latency stays": ratio is not None and ratio <= P95_LIMIT,
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; returns its exit status."""
    options = _options(arguments)
    plan = SoakPlan(options.minutes, options.viewers, options.fps, options.reconnect_s)
    try:
        bundle = Bundle.load(options.bundle)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    model = FaceSwapper(bundle)
    model.warm_up()
    before = machine()
    report = {
        "machine": before,
        "bundle": bundle.digest[:12],
        **soak(model, Disclosure().overlays(bundle.digest), plan),
    }
    report["load_average_after"] = [round(value, 2) for value in os.getloadavg()]
    text = json.dumps(report, indent=2, allow_nan=False)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    verdict = report["verdict"]
    return 0 if isinstance(verdict, dict) and all(verdict.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--viewers", type=int, default=2)
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--reconnect-s", type=float, default=300.0)
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
