"""What a pipeline says of itself: counters, rates and latencies, cheap enough to ask for at any time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from liveframe.gate import ShownState

_WINDOW = 300  # frames a latency window holds: ten seconds at 30 fps
_RATE_S = 2.0  # over how many seconds frame rates are taken
_MOST_STAGES = 32  # stages come from models: bounded


class Phase(StrEnum):
    """Whether the pipeline has a model: on its way, at work, failed (and tried again), or closed."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StageTime:
    """Latency of one stage over the last frames, in milliseconds."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """One look at a pipeline.

    Attributes:
        state: what the viewer saw last.
        phase: whether a model is at work.
        frames: frames that came in since the start.
        fps_in: camera frames per second, over the last two seconds.
        fps_out: frames per second that left with fresh content (swapped or off).
        swapped, held, covered, off: frames that left, by what they were.
        incomplete: answers in which a subject was missed; they were held or covered.
        suspected: answers that were covered because a slow, independent look saw the filmed face in one of them.
        drops: frames that a newer one displaced before the model saw them.
        late: answers that came after their deadline and were thrown away.
        errors: errors by type.
        breaker_opens: how often repeated errors suspended the model.
        abandoned: threads that hang in a model now and are no longer waited for.
        model_swaps: models that replaced a running one.
        stages: latency by stage; "queue", "model" and "total" are the pipeline's own.
        note: the last sentence for the viewer, empty when all is well.
        last_error: the last error's sentence.
        personas: names of those who were to be seen last.
        is_mixed: whether the filmed face may be recognised in what was shown last, by the viewer's own choice.
    """

    state: ShownState
    phase: Phase
    frames: int
    fps_in: float
    fps_out: float
    swapped: int
    held: int
    covered: int
    off: int
    incomplete: int
    suspected: int
    drops: int
    late: int
    errors: Mapping[str, int]
    breaker_opens: int
    abandoned: int
    model_swaps: int
    stages: Mapping[str, StageTime]
    note: str
    last_error: str
    personas: tuple[str, ...] = ()
    is_mixed: bool = False


class Rate:
    """Events per second over the last two seconds. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=512)

    def tick(self) -> None:
        """Count one event now."""
        self._times.append(self._clock())

    def per_s(self) -> float:
        """The rate now; 0 until there are two events."""
        now_s = self._clock()
        recent = [moment for moment in self._times if now_s - moment <= _RATE_S]
        span_s = now_s - recent[0] if recent else 0.0
        return (len(recent) - 1) / span_s if span_s > 0 else 0.0


class Meter:
    """Latency windows by stage. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, deque[float]] = {}

    def add(self, times_ms: Iterable[tuple[str, float]]) -> None:
        """Add one frame's stage times, in milliseconds."""
        with self._lock:
            for name, time_ms in times_ms:
                window = self._windows.get(name)
                if window is None:
                    if len(self._windows) >= _MOST_STAGES:
                        continue
                    window = self._windows[name] = deque(maxlen=_WINDOW)
                window.append(float(time_ms))

    def stages(self) -> dict[str, StageTime]:
        """Median and 95th percentile of every stage."""
        with self._lock:
            windows = {name: sorted(window) for name, window in self._windows.items()}
        return {name: StageTime(percentile(times, 50), percentile(times, 95)) for name, times in windows.items()}


def percentile(ordered: list[float], percent: float) -> float:
    """The nearest-rank percentile of values in rising order; 0 of none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
