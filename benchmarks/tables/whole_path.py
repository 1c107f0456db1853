"""Table 3, the whole swap path without codec: frame sizes, faces and viewers, stage by stage.

One strip of the frame for each of four people; as many as a row says hold a moving face, a third of the frame's
height at every size, the rest is grey. Rows take turns, a few frames each: a stream's own frames follow one another, as
they do live. CPU time is the process's, threads included.
"""

import itertools
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.moving_face import frames
from benchmarks.harness.timing import Figures, Plan, exponent, line, ratio, rows, spread, spreads
from benchmarks.swap_path import NaiveLoop
from liveframe.frame import Frame
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from liveframe.stats import Phase
from understudy.bundle.bundle import Bundle
from understudy.swap.settings import SwapSettings
from understudy.swap.swapper import FaceSwapper, SwapSession

Image = NDArray[np.uint8]
SIZES = {"360p": (640, 360), "480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
STRIPS = 4
WARM_FRAMES = 5
TURN_FRAMES = 10  # how many frames a stream gets before the next stream's turn
VIEWERS = (1, 2, 4)


@dataclass(slots=True)
class Row:
    """One stream: a session and the frames that it gets.

    Attributes:
        session: of the swapper.
        pictures: uint8 [H, W, 3], BGR, shown forth and back.
        faces: how many each shows.
    """

    session: SwapSession
    pictures: Sequence[Image]
    faces: int
    count: int = 0
    found: int = 0
    done: int = 0
    wall_ms: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])
    stages_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def step(self) -> Image:
        """Process the next frame; returns the camera's."""
        image = forth_and_back(self.pictures, self.count)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        result = self.session.process(Frame(image, self.count, self.count / 30))
        wall_ms, cpu_ms = (time.perf_counter() - wall_s) * 1e3, (time.process_time() - cpu_s) * 1e3
        self.count += 1
        if self.count > WARM_FRAMES:
            self.found, self.done = self.found + result.subjects_found, self.done + result.subjects_done
            self.wall_ms.append(wall_ms)
            self.cpu_ms.append(cpu_ms)
            for stage, value in result.stages_ms.items():
                self.stages_ms.setdefault(stage, []).append(value)
        return image

    def allocations(self, calls: int = 8) -> float:
        """How many frames' worth of memory one call newly holds at its peak, the answer's own frame included."""
        size, most = self.pictures[0].nbytes, 0
        tracemalloc.start()
        try:
            for _ in range(calls):
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                self.session.process(Frame(forth_and_back(self.pictures, self.count), self.count, self.count / 30))
                self.count += 1
                most = max(most, tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
        return round(most / size, 2)

    def figures(self) -> Figures:
        """Sum it up."""
        p50_ms = float(np.median(self.wall_ms))
        return {
            "fps": round(1e3 / p50_ms, 2),
            **spread("total", self.wall_ms),
            **spread("cpu", self.cpu_ms),
            **spreads(self.stages_ms),
            "faces_found_per_frame": round(self.found / len(self.wall_ms), 3),
            "faces_swapped_per_frame": round(self.done / len(self.wall_ms), 3),
            "frames_of_memory": self.allocations(),
        }


def table(plan: Plan) -> Figures:
    """Measure sizes and faces, one thread and two, against the naive loop; then viewers; then fit how cost grows."""
    bundle = Bundle.load(plan.bundle)
    swappers = {threads: _warm(bundle, threads) for threads in (1, 2)}
    streams = {
        f"{size}_{faces}_faces": Row(swappers[1].open_session(), crowd(*SIZES[size], faces, 24), faces)
        for size, faces in itertools.product(SIZES, (1, 2, 4))
        if not plan.is_quick or faces == 1 or size == "720p"
    }
    streams |= {
        f"{name}_2_threads": Row(swappers[2].open_session(), streams[name].pictures, 1)
        for name in ("720p_1_faces", "1080p_1_faces")
    }
    naive_ms = _in_turn(streams, _naive(swappers[1]), plan.pick(10, 250))
    figures: Figures = {}
    for name, row in streams.items():
        figures |= rows(name, row.figures())
        row.session.close()
    for name, values in naive_ms.items():
        figures |= rows(name, {**spread("naive", values), "naive_to_ours_ratio": ratio(values, streams[name].wall_ms)})
    watched = viewer_cpu_ms(swappers[1], streams["480p_1_faces"].pictures, plan.pick(12, 80), plan.pick(2, 9))
    viewers = {count: float(np.median(values)) for count, values in watched.items()}
    figures |= rows("viewers", {f"cpu_of_{count}_ms": round(ms, 3) for count, ms in viewers.items()})
    figures |= rows("viewers", {"second_to_first_cpu_ratio": round(ratio(watched[2], watched[1]) - 1, 3)})
    for fps in (30, 120):  # a camera's, and more than anybody can swap
        stream = streamed(swappers[1], streams["480p_1_faces"].pictures, plan.pick(1, 10), fps)
        figures |= rows(f"480p_camera_{fps}_fps", stream)
    return figures | rows("growth", growth(figures, viewers))


def crowd(width: int, height: int, faces: int, count: int) -> list[Image]:
    """Return frames with moving faces, side by side.

    Args:
        width: of each frame, px, a multiple of 4.
        height: of each frame, px.
        faces: 1 to 4.
        count: how many.
    """
    strip = width // STRIPS
    people = frames(None, strip, height, count)
    pictures: list[Image] = []
    for image in people:
        picture = np.full((height, width, 3), 118, np.uint8)
        for index in range(faces):
            picture[:, index * strip : (index + 1) * strip] = image
        pictures.append(picture)
    return pictures


def forth_and_back(pictures: Sequence[Image], index: int) -> Image:
    """Return the picture of a step of an endless way to and fro, so that nothing jumps."""
    there_and_back = 2 * (len(pictures) - 1)
    step = index % there_and_back
    return pictures[min(step, there_and_back - step)]


def growth(figures: Mapping[str, float], viewers: Mapping[int, float]) -> Figures:
    """Fit CPU time against pixels, faces and viewers: a line, cost = a + b x size, and cost = a x size^exponent.

    A line's `_ms_per_...` is b, its `_ms_at_none` is a.
    """
    megapixels = [width * height / 1e6 for width, height in SIZES.values()]
    costs: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "megapixel": (megapixels, [figures[f"{size}_1_faces.cpu_p50_ms"] for size in SIZES]),
        "face": ((1, 2, 4), [figures[f"720p_{faces}_faces.cpu_p50_ms"] for faces in (1, 2, 4)]),
        "viewer": (list(viewers), list(viewers.values())),
    }
    fitted: Figures = {}
    for what, (sizes, values) in costs.items():
        each, none = line(sizes, values)
        name = "pixels" if what == "megapixel" else f"{what}s"
        fitted[f"cpu_ms_per_{what}"], fitted[f"cpu_ms_at_no_{name}"] = each, none
        fitted[f"{name}_exponent"] = exponent(sizes, values)
    return fitted


def streamed(swapper: FaceSwapper, pictures: Sequence[Image], seconds: float, fps: float) -> Figures:
    """Send a camera's frames through a pipeline as a relay does, and count what comes of them.

    The camera keeps its pace whatever the model does; a frame that finds the one before it still waiting takes its
    place, and that one counts as dropped. Every frame that is shown tells which camera frame it was made of.
    """
    slot, is_over, dropped = deque[int](maxlen=1), threading.Event(), 0

    def film() -> None:
        nonlocal dropped
        start_s, number = time.monotonic(), 0
        while not is_over.wait(max(0.0, start_s + number / fps - time.monotonic())):
            dropped += len(slot)
            slot.append(number)
            number += 1

    shown: list[int] = []
    with FramePipeline(swapper) as pipeline:
        while pipeline.stats().phase is not Phase.READY:
            time.sleep(0.01)
        camera = threading.Thread(target=film, name="camera")
        camera.start()
        until_s = time.monotonic() + seconds
        sent: list[int] = []
        while time.monotonic() < until_s:
            if not slot:
                time.sleep(0.001)
                continue
            sent.append(slot.pop())
            answer = pipeline.process(forth_and_back(pictures, sent[-1]))
            if answer.state is ShownState.SWAPPED:
                shown.append(sent[answer.index])
        is_over.set()
        camera.join()
        dropped += pipeline.stats().drops
    wrong = sum(after <= before for before, after in pairwise(shown))
    return {
        "camera_fps": fps,
        "shown_fps": round(len(shown) / seconds, 2),
        "dropped_frames": dropped,
        "wrong_order_frames": wrong,
    }


def viewer_cpu_ms(
    swapper: FaceSwapper, pictures: Sequence[Image], frames_each: int, rounds: int
) -> dict[int, list[float]]:
    """Let viewers watch at once, a thread each, as pipelines do; one, two and four in turn.

    Returns:
        By number of viewers, round by round: the sum of their threads' CPU time for one frame each (median frame), ms.
    """
    times: dict[int, list[float]] = {count: [] for count in VIEWERS}
    for _ in range(rounds):
        for count in VIEWERS:
            times[count].append(_watch(swapper, pictures, frames_each, count))
    return times


def _watch(swapper: FaceSwapper, pictures: Sequence[Image], frames_each: int, viewers: int) -> float:
    medians_ms: list[float] = []

    def watch() -> None:
        session, cpu_ms = swapper.open_session(), list[float]()
        for index in range(frames_each):
            start_s = time.thread_time()
            session.process(Frame(forth_and_back(pictures, index), index, index / 30))
            cpu_ms.append((time.thread_time() - start_s) * 1e3)
        session.close()
        medians_ms.append(float(np.median(cpu_ms[WARM_FRAMES:])))

    threads = [threading.Thread(target=watch, name=f"viewer-{number}") for number in range(viewers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(medians_ms)


def _warm(bundle: Bundle, threads: int) -> FaceSwapper:
    swapper = FaceSwapper(bundle, SwapSettings(faces="all"), threads)
    swapper.warm_up()
    return swapper


def _naive(swapper: FaceSwapper) -> dict[str, NaiveLoop]:
    loaded = swapper.loaded(swapper.settings.persona)
    return {f"{size}_1_faces": NaiveLoop(loaded, 1) for size in ("480p", "720p")}


def _in_turn(streams: Mapping[str, Row], naive: Mapping[str, NaiveLoop], rounds: int) -> dict[str, list[float]]:
    """Give every stream its next frames, turn by turn; returns the naive loop's times on the same frames."""
    naive_ms: dict[str, list[float]] = {name: [] for name in naive}
    for row in streams.values():
        for _ in range(WARM_FRAMES):
            row.step()
    for start in range(0, rounds, TURN_FRAMES):
        for name, row in streams.items():
            images = [row.step() for _ in range(min(TURN_FRAMES, rounds - start))]
            for image in images if name in naive else []:
                start_s = time.perf_counter()
                naive[name](image)
                naive_ms[name].append((time.perf_counter() - start_s) * 1e3)
    return naive_ms
