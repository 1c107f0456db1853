"""Contestants timed in turn (A B A B), so that whatever else the machine does falls on all of them alike."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Figures = dict[str, float]
Times = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures, and how thoroughly.

    Attributes:
        is_quick: few rounds, all within a minute or so.
        bundle: the bundle that is ours.
        cache: a folder for graphs that take long to make.
        known: which of the known networks are rebuilt.
    """

    is_quick: bool
    bundle: Path
    cache: Path
    known: tuple[str, ...] = ()

    def pick(self, quick: int, full: int) -> int:
        """Return one of two counts."""
        return quick if self.is_quick else full


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, budget_s: float = math.inf) -> Times:
    """Time every call once a round, after one round that does not count.

    Args:
        calls: the contestants.
        rounds: how many at most.
        budget_s: start no round after so long; two are made in any case.

    Returns:
        Milliseconds by contestant, one a round.
    """
    for call in calls.values():
        call()
    times: Times = {name: [] for name in calls}
    began_s = time.perf_counter()
    for count in range(rounds):
        if count >= 2 and time.perf_counter() - began_s > budget_s:
            break
        for name, call in calls.items():
            start_s = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start_s) * 1e3)
    return times


def spread(name: str, times_ms: Sequence[float]) -> Figures:
    """Return the median and the 95th percentile, as `<name>_p50_ms` and `<name>_p95_ms`."""
    return {f"{name}_p50_ms": _rounded(np.median(times_ms)), f"{name}_p95_ms": _rounded(np.percentile(times_ms, 95))}


def spreads(times: Mapping[str, Sequence[float]]) -> Figures:
    """Return `spread` of every contestant."""
    return {key: value for name, values in times.items() for key, value in spread(name, values).items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return how many times as long the first took: the median of the rounds' own ratios."""
    return _rounded(np.median(np.asarray(slow) / np.asarray(fast)))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit cost = a x size^b by least squares in logarithms; returns b. 1: in proportion; 0: size costs nothing."""
    return _rounded(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def line(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Fit cost = a + b x size by least squares; returns b and a."""
    slope, start = np.polyfit(sizes, costs, 1)
    return _rounded(slope), _rounded(start)


def rows(name: str, figures: Mapping[str, float]) -> Figures:
    """Put a row's name before its figures."""
    return {f"{name}.{figure}": value for figure, value in figures.items()}


def _rounded(value: object) -> float:
    return float(f"{float(value):.4g}")  # type: ignore[arg-type]
