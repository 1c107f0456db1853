"""What a server counts and times, for Prometheus: one registry per server, read at `/metrics`."""

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """The meters of one Exchange. Thread-safe.

    Attributes:
        requests: answers by HTTP status.
        seconds: from a request's first byte to its answer.
        stages: seconds by stage: `decode`, `queue`, `model`, `encode`.
        batch: items in one call of the model.
        queued: items that wait now.
        refused: items not taken in, for want of room or time.
        expired: items dropped in the queue, past their deadline.
        covered: whole frames that came back covered, since a subject in them was not replaced.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: Any = {"namespace": "understudy", "registry": self.registry}
        self.requests = Counter("requests", "Answers by HTTP status.", ["status"], **named)
        self.seconds = Histogram("request_seconds", "First byte to answer.", buckets=_SECONDS, **named)
        self.stages = Histogram("stage_seconds", "Seconds by stage.", ["stage"], buckets=_SECONDS, **named)
        self.batch = Histogram("batch_items", "Items in one call of the model.", buckets=_SIZES, **named)
        self.queued = Gauge("queued_items", "Items that wait now.", **named)
        self.refused = Gauge("refused_items", "Items refused since the start.", **named)
        self.expired = Gauge("expired_items", "Items dropped past their deadline since the start.", **named)
        self.covered = Counter("covered_frames", "Whole frames that came back covered.", **named)
        self.bundle = Info("bundle", "What is served.", **named)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time a stage."""
        start_s = perf_counter()
        yield
        self.stages.labels(name).observe(perf_counter() - start_s)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
