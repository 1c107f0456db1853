"""An endpoint over a day: viewers come and go, the autoscaler follows, machines take their time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.queueing import Load, Service

STEP_S = 15.0
DAY_S = 86_400.0
FPS = 30.0


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """How replicas follow the load.

    Attributes:
        target: mean share of a replica's capacity to hold.
        start_s: from the decision until a new replica answers, in seconds.
        window_s: the wish of the last so many seconds that counts is the largest: scaling down waits.
        smooth_s: over which the use is averaged, in seconds.
        least: replicas that always run.
        price_per_hour: of one replica.
    """

    target: float = 0.6
    start_s: float = 180.0
    window_s: float = 300.0
    smooth_s: float = 60.0
    least: int = 1
    price_per_hour: float = 0.22


@dataclass(frozen=True, slots=True)
class Day:
    """What a day was like.

    Attributes:
        viewers: at each step.
        replicas: that answered, at each step.
        p95_s: of the answered requests, at each step, in seconds.
        refused: share of the requests, at each step.
        cost_per_viewer_hour: in the price's currency.
    """

    viewers: NDArray[np.float64]
    replicas: NDArray[np.float64]
    p95_s: NDArray[np.float64]
    refused: NDArray[np.float64]
    cost_per_viewer_hour: float

    def worst_p95_s(self) -> float:
        """The p95 that 99 % of the frames' steps keep, weighted by frames, in seconds."""
        order = np.argsort(self.p95_s)
        share = np.cumsum(self.viewers[order]) / self.viewers.sum()
        return float(self.p95_s[order][np.searchsorted(share, 0.99)])

    def refused_share(self) -> float:
        """Share of the day's frames that were refused (the embedded model answers, or the last picture is held)."""
        return float((self.refused * self.viewers).sum() / self.viewers.sum())


def diurnal(peak: int, seed: int = 0) -> NDArray[np.float64]:
    """Viewers over a day: a tenth of the peak at night, the peak in the evening, counted as people come (Poisson)."""
    at = np.arange(0, DAY_S, STEP_S) / DAY_S
    mean = peak * (0.1 + 0.9 * np.sin(np.pi * at) ** 4)
    return _with_people(mean, seed)


def flash(peak: int, seed: int = 0) -> NDArray[np.float64]:
    """Viewers on a day with a crowd: a tenth of the peak, all of it within a minute at noon, and gone after an hour."""
    at_s = np.arange(0, DAY_S, STEP_S)
    rise = np.clip((at_s - DAY_S / 2) / 60, 0, 1) - np.clip((at_s - DAY_S / 2 - 3600) / 300, 0, 1)
    return _with_people(peak * (0.1 + 0.9 * rise), seed)


def _with_people(mean: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Noise as of people who stay ten minutes: smooth over that time, the size of a Poisson count's."""
    steps = int(600 / STEP_S)
    noise = np.random.default_rng(seed).standard_normal(len(mean) + steps - 1)
    smooth = np.convolve(noise, np.full(steps, 1 / np.sqrt(steps)), mode="valid")
    return np.maximum(0, np.round(mean + smooth * np.sqrt(mean)))


def run_day(viewers: NDArray[np.float64], service: Service, loads: Sequence[Load], scaler: Autoscaler) -> Day:
    """Follow a day step by step.

    Args:
        viewers: at each step of 15 s; each sends 30 crops a second.
        service: of one replica.
        loads: one replica's behaviour by rate, rising; looked up between them.
        scaler: how replicas follow.
    """
    rates = viewers * FPS
    replicas = np.empty(len(viewers))
    delay = round(scaler.start_s / STEP_S)
    window, smooth = round(scaler.window_s / STEP_S), max(1, round(scaler.smooth_s / STEP_S))
    wishes = np.empty(len(viewers))
    ordered: list[float] = []
    for step in range(len(viewers)):
        ready = max(scaler.least, ordered[max(0, step - delay - 1)] if step else _wish(rates[0], service, scaler))
        # Machines that are on their way come late; machines that are not wanted any more go at once.
        wanted = float(max(wishes[max(0, step - window) : step], default=ready))
        replicas[step] = min(ready, max(wanted, scaler.least)) if step else ready
        used_hz = min(rates[max(0, step - smooth + 1) : step + 1].mean(), 1.5 * replicas[step] * service.capacity_hz)
        wishes[step] = _wish(used_hz, service, scaler)
        ordered.append(float(max(wishes[max(0, step - window) : step + 1])))
    per_replica = rates / replicas
    known = [load.rate_hz for load in loads]
    p95_s = np.interp(per_replica, known, [load.p95_s for load in loads])
    refused = np.interp(per_replica, known, [load.refused for load in loads])
    beyond = per_replica > known[-1]
    refused[beyond] = 1 - (1 - loads[-1].refused) * known[-1] / per_replica[beyond]
    hours = STEP_S / 3600
    cost = replicas.sum() * hours * scaler.price_per_hour / max(1e-9, viewers.sum() * hours)
    return Day(viewers, replicas, p95_s, refused, float(cost))


def _wish(rate_hz: float, service: Service, scaler: Autoscaler) -> float:
    return float(max(scaler.least, np.ceil(rate_hz / (service.capacity_hz * scaler.target))))
