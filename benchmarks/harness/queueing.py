"""One replica under load, event by event: Poisson arrivals, workers that take batches, refusal at the door."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np


@dataclass(frozen=True, slots=True)
class Service:
    """What a model call of n items takes: base_s + n * item_s; and what a request costs beside the model.

    Attributes:
        base_s: of a call, in seconds.
        item_s: of each item in it, in seconds.
        overhead_s: of each request outside the model (network on loopback, decoding, encoding), in seconds.
        max_batch: the most items in a call.
        workers: calls at the same time.
    """

    base_s: float
    item_s: float
    overhead_s: float
    max_batch: int = 4
    workers: int = 1

    def call_s(self, count: int) -> float:
        """How long a call of `count` items takes, in seconds."""
        return self.base_s + count * self.item_s

    @property
    def capacity_hz(self) -> float:
        """Items per second in full batches: what a replica can bear."""
        return self.workers * self.max_batch / self.call_s(self.max_batch)


@dataclass(frozen=True, slots=True)
class Load:
    """How one replica fares at one rate.

    Attributes:
        rate_hz: arrivals.
        p50_s: median of the answered requests' waits, in seconds.
        p95_s: their 95th percentile.
        refused: share of the requests that were refused or dropped.
        busy: share of the time that a worker ran.
    """

    rate_hz: float
    p50_s: float
    p95_s: float
    refused: float
    busy: float


def simulate(service: Service, rate_hz: float, deadline_s: float, count: int = 20_000, seed: int = 0) -> Load:
    """Run one replica.

    A request is refused when those before it and the call that it would be in, at the cost of an
    item in a full batch, would not be done by the deadline; so does the real batcher. One that is answered
    late nonetheless counts as refused too: the real server drops it.

    Args:
        service: what calls take.
        rate_hz: of the arrivals.
        deadline_s: of every request.
        count: arrivals to simulate; the first tenth is not counted.
        seed: of the arrivals.
    """
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate_hz, count)).tolist()
    full_item_s = service.call_s(service.max_batch) / service.max_batch
    left_s = deadline_s - service.overhead_s
    queue: deque[float] = deque()
    workers = [(0.0, 0)] * service.workers  # heap: when each is free, and how many items it has until then
    waits: list[float] = []
    refused = 0
    busy_s = 0.0
    for index, now_s in enumerate([*arrivals, float("inf")]):
        while queue and max(workers[0][0], queue[0]) < now_s:  # calls that begin before this arrival
            begin_s = max(workers[0][0], queue[0])
            size = min(service.max_batch, sum(1 for at in queue if at <= begin_s))
            end_s = begin_s + service.call_s(size)
            heapreplace(workers, (end_s, size))
            busy_s += end_s - begin_s
            waits.extend(end_s - queue.popleft() + service.overhead_s for _ in range(size))
        if index == len(arrivals):
            break
        ahead = len(queue) + sum(size for free_s, size in workers if free_s > now_s)
        shared = min(service.max_batch, len(queue) + 1)
        if ahead and (ahead / service.workers + shared) * full_item_s > left_s:
            refused += 1
        else:
            queue.append(now_s)
    last_s = max(max(free_s for free_s, _ in workers), arrivals[-1])
    answered = np.array(waits)
    settled = answered[len(answered) // 10 :]
    good = settled[settled <= deadline_s]
    refused += int((answered > deadline_s).sum())
    p50_s, p95_s = np.percentile(good if len(good) else [deadline_s], [50, 95])
    return Load(rate_hz, float(p50_s), float(p95_s), refused / count, busy_s / last_s / service.workers)


def curve(service: Service, deadline_s: float, shares: Sequence[float], count: int = 20_000) -> list[Load]:
    """Simulate one replica at shares of its capacity."""
    return [simulate(service, share * service.capacity_hz, deadline_s, count) for share in shares]
