"""The capacity model's parts, against cases whose answer is known."""

import numpy as np
import pytest

from benchmarks.capacity import fit
from benchmarks.harness.autoscaler import FPS, Autoscaler, diurnal, flash, run_day
from benchmarks.harness.queueing import Service, curve, simulate

SINGLE = Service(0.0, 0.010, 0.0, max_batch=1)


def test_lone_requests_wait_for_one_call_and_the_overhead() -> None:
    load = simulate(Service(0.004, 0.006, 0.003), rate_hz=0.5, deadline_s=1.0, count=2000)
    assert load.p50_s == pytest.approx(0.013) and load.refused == 0
    assert load.busy == pytest.approx(0.5 * 0.010, rel=0.05)


def test_single_server_waits_as_pollaczek_and_khinchine_say() -> None:
    # M/D/1 at use 0.5: the mean wait in the queue is rho * s / (2 * (1 - rho)) = s / 2; its median is near 0.
    load = simulate(SINGLE, rate_hz=50, deadline_s=100, count=20_000)
    assert load.busy == pytest.approx(0.5, rel=0.05)
    # P(wait = 0) = 1 - rho, so that half of the requests take just one service time.
    assert load.p50_s == pytest.approx(0.010, abs=0.0012)


def test_beyond_its_capacity_a_replica_refuses_the_rest_and_keeps_the_deadline() -> None:
    service = Service(0.004, 0.006, 0.002)
    load = simulate(service, 2 * service.capacity_hz, deadline_s=0.25, count=10_000)
    assert load.refused == pytest.approx(0.5, abs=0.05)
    assert load.p95_s <= 0.25 and load.busy > 0.97


def test_batches_bear_more_than_single_calls() -> None:
    service = Service(0.010, 0.002, 0.0, max_batch=16)
    assert service.capacity_hz == pytest.approx(16 / 0.042)
    assert simulate(service, 200, 1.0).refused == 0


def test_two_workers_bear_twice_as_much_and_a_lone_request_is_no_faster() -> None:
    service = Service(0.004, 0.006, 0.0, workers=2)
    assert service.capacity_hz == pytest.approx(2 * Service(0.004, 0.006, 0.0).capacity_hz)
    assert simulate(service, 0.5, 1.0, count=500).p50_s == pytest.approx(0.010)
    assert simulate(service, 2 * service.capacity_hz, 0.25, count=8000).refused == pytest.approx(0.5, abs=0.05)


def test_fit_recovers_base_and_item() -> None:
    service = fit({n: 0.003 + 0.005 * n for n in (1, 2, 4, 8, 16)}, 0.001)
    assert (service.base_s, service.item_s) == (pytest.approx(0.003), pytest.approx(0.005))


def test_steady_viewers_get_the_replicas_that_the_target_asks_for() -> None:
    loads = curve(SINGLE, 0.5, (0.1, 0.5, 0.9, 1.2), count=2000)
    day = run_day(np.full(400, 100.0), SINGLE, loads, Autoscaler(target=0.5, price_per_hour=2.0))
    expected = 100 * FPS / (100 * 0.5)
    assert set(day.replicas) == {expected}
    assert day.cost_per_viewer_hour == pytest.approx(expected * 2.0 / 100)
    assert day.refused_share() < 0.01


def test_crowd_waits_for_machines_and_not_longer() -> None:
    loads = curve(SINGLE, 0.15, (0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.25), count=2000)
    viewers = np.concatenate([np.full(100, 10.0), np.full(200, 100.0)])
    scaler = Autoscaler(target=0.6, start_s=180.0)
    day = run_day(viewers, SINGLE, loads, scaler)
    assert day.refused[:100].max() < 0.01
    assert day.refused[101:110].min() > 0.5, "while machines start"
    assert day.refused[160:].max() < 0.01, "once they have started"
    assert day.replicas[-1] == np.ceil(100 * FPS / (100 * 0.6))


def test_replicas_go_when_the_crowd_has_gone() -> None:
    loads = curve(SINGLE, 0.15, (0.1, 0.5, 1.0, 1.25), count=2000)
    viewers = np.concatenate([np.full(100, 100.0), np.full(200, 10.0)])
    day = run_day(viewers, SINGLE, loads, Autoscaler(window_s=300.0))
    most = day.replicas[0]
    assert day.replicas[115] == most, "the window holds them"
    assert day.replicas[-1] == np.ceil(10 * FPS / 60)


@pytest.mark.parametrize("shape", [diurnal, flash])
def test_days_reach_their_peak(shape: object) -> None:
    viewers = shape(10_000)  # type: ignore[operator]
    assert len(viewers) == 5760 and viewers.max() == pytest.approx(10_000, rel=0.05) and viewers.min() > 500
