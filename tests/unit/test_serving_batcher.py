"""The batcher: shares calls, bounds its queue, drops what is late."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.waiting import quickest, wait_until
from liveframe.errors import ModelError, OverloadedError
from liveframe.remote.wire import Extras
from serving.server.batcher import Batcher, BatchPolicy, DeadlineError

SOON_S = 30.0


class Halver:
    """A model that halves, and that a test can hold at a gate."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.has_begun = threading.Event()

    def run(self, variant: str, batch: NDArray[np.uint8], extras: Extras) -> NDArray[np.uint8]:
        self.has_begun.set()
        assert self.gate.wait(SOON_S)
        self.batches.append((variant, len(batch)))
        return batch // 2


@contextmanager
def batching(model: Halver, **bounds: float) -> Iterator[Batcher]:
    batcher = Batcher(model.run, BatchPolicy(**bounds))  # type: ignore[arg-type]
    try:
        yield batcher
    finally:
        model.gate.set()
        batcher.close()


def items(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


def later() -> float:
    return time.monotonic() + SOON_S


def test_requests_that_wait_together_share_a_call_and_get_their_own_answers() -> None:
    model = Halver()
    with batching(model) as batcher:
        model.gate.clear()
        first = batcher.submit("a", items(2), later())
        assert model.has_begun.wait(SOON_S)
        others = [batcher.submit("a", items(*values), later()) for values in ((10, 20), (30,), (40, 50, 60))]
        model.gate.set()
        assert first.result(SOON_S)[0, 0, 0, 0] == 1
        answers = [other.result(SOON_S)[:, 0, 0, 0].tolist() for other in others]
    assert answers == [[5, 10], [15], [20, 25, 30]]
    assert model.batches == [("a", 1), ("a", 6)]


def test_variants_never_share_a_call() -> None:
    model = Halver()
    with batching(model) as batcher:
        model.gate.clear()
        futures = [batcher.submit(variant, items(8), later()) for variant in "xaba"]
        model.gate.set()
        for future in futures:
            assert future.result(SOON_S)[0, 0, 0, 0] == 4
    assert {variant for variant, _ in model.batches} == {"x", "a", "b"}
    assert ("a", 2) in model.batches and ("b", 1) in model.batches


def test_batch_never_exceeds_its_bound() -> None:
    model = Halver()
    with batching(model, max_batch=4) as batcher:
        model.gate.clear()
        futures = [batcher.submit("a", items(1, 2, 3), later()) for _ in range(5)]
        model.gate.set()
        assert all(len(future.result(SOON_S)) == 3 for future in futures)
    assert max(count for _, count in model.batches) <= 4


def test_alone_it_does_not_wait_for_company() -> None:
    model = Halver()
    with batching(model, max_wait_s=0.1) as batcher:
        assert quickest(lambda: batcher.submit("a", items(2), later()).result(SOON_S), 0.08, tries=20) < 0.08


def test_it_waits_for_a_request_that_is_on_its_way_but_not_for_long() -> None:
    model = Halver()
    with batching(model, max_wait_s=0.1) as batcher, batcher.expecting(later()):

        def ask_twice() -> None:
            one = batcher.submit("a", items(2), later())
            two = batcher.submit("a", items(4), later())
            assert [one.result(SOON_S)[0, 0, 0, 0], two.result(SOON_S)[0, 0, 0, 0]] == [1, 2]

        assert quickest(ask_twice, 1.0) < 1.0
        for _ in range(20):  # a busy machine may take longer than the wait from one submit to the next
            if ("a", 2) in model.batches:
                return
            ask_twice()
    pytest.fail(f"two requests never shared a call: {model.batches}")


def test_full_queue_refuses_and_says_when_to_come_back() -> None:
    model = Halver()
    with batching(model, max_batch=2, max_queue=4) as batcher:
        model.gate.clear()
        batcher.submit("a", items(1), later())
        assert model.has_begun.wait(SOON_S)
        for _ in range(2):
            batcher.submit("a", items(1, 2), later())
        with pytest.raises(OverloadedError, match="queue is full") as refusal:
            batcher.submit("a", items(1), later())
        assert refusal.value.retry_after_s > 0
        assert batcher.stats().queued == 4 and batcher.stats().refused == 1


def test_request_without_time_left_is_refused_at_the_door() -> None:
    with batching(Halver()) as batcher, pytest.raises(OverloadedError, match=r"only -?[0-9]+ ms are left"):
        batcher.submit("a", items(1), time.monotonic() - 1)


def test_deadline_that_passes_in_the_queue_drops_the_work() -> None:
    model = Halver()
    with batching(model) as batcher:
        model.gate.clear()
        batcher.submit("a", items(1), later())
        assert model.has_begun.wait(SOON_S)
        deadline_s = time.monotonic() + 0.5
        hurried = batcher.submit("a", items(2), deadline_s)
        patient = batcher.submit("a", items(4), later())
        wait_until(lambda: time.monotonic() > deadline_s)
        model.gate.set()
        with pytest.raises(DeadlineError, match="dropped"):
            hurried.result(SOON_S)
        assert patient.result(SOON_S)[0, 0, 0, 0] == 2
        assert batcher.stats().expired == 1
    assert model.batches == [("a", 1), ("a", 1)]


def test_one_slow_call_does_not_shut_the_door_for_good() -> None:
    model = Halver()
    with batching(model) as batcher:
        model.gate.clear()
        slow = batcher.submit("a", items(2), later())
        time.sleep(2.0)  # the call itself must be slow
        model.gate.set()
        slow.result(SOON_S)
        assert batcher.stats().item_ms > 300
        for _ in range(500):  # 30 do it where nothing else holds the calls up
            batcher.submit("a", items(2), time.monotonic() + 0.3).result(SOON_S)
            if batcher.stats().item_ms < 10:
                break
        assert batcher.stats().item_ms < 10


def test_error_of_the_model_reaches_every_caller_and_the_next_batch_runs() -> None:
    calls: list[int] = []

    def fail_once(_: str, batch: NDArray[np.uint8], extras: Extras) -> NDArray[np.uint8]:
        calls.append(len(batch))
        if len(calls) == 1:
            raise ModelError("The network is gone. Reload the bundle.")
        return batch

    batcher = Batcher(fail_once)
    try:
        with pytest.raises(ModelError, match="gone"):
            batcher.submit("a", items(1), later()).result(SOON_S)
        assert len(batcher.submit("a", items(1), later()).result(SOON_S)) == 1
    finally:
        batcher.close()


def test_workers_run_calls_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet(_: str, batch: NDArray[np.uint8], extras: Extras) -> NDArray[np.uint8]:
        both.wait(SOON_S)  # breaks unless two calls run at once
        return batch

    batcher = Batcher(meet, BatchPolicy(max_batch=1, workers=2))
    try:
        futures = [batcher.submit("a", items(value), later()) for value in (1, 2)]
        assert [future.result(SOON_S)[0, 0, 0, 0] for future in futures] == [1, 2]
    finally:
        batcher.close()


def test_closing_refuses_what_waits_and_ends_the_thread() -> None:
    model = Halver()
    with batching(model) as batcher:
        model.gate.clear()
        batcher.submit("a", items(1), later())
        assert model.has_begun.wait(SOON_S)
        waiting = batcher.submit("a", items(2), later())
        threading.Timer(0.05, model.gate.set).start()
        batcher.close()
        with pytest.raises(OverloadedError, match="shutting down"):
            waiting.result(SOON_S)
        assert not batcher.is_alive


def test_policy_refuses_bounds_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="max_batch <= max_queue"):
        BatchPolicy(max_batch=9, max_queue=8)
