"""Hooks for `tests/conftest.py`: `pytest -m faults` ends with a table of faults, frames shown and raw frames.

A test that shows frames under a fault tells of them by `record_property(SHOWN, (fault, frames, raw))`.
"""

from collections.abc import Iterable

import pytest

SHOWN = "shown under a fault"
FULL, SHORT = 1000, 80

_ROWS = pytest.StashKey[dict[str, list[int]]]()


def is_suite(config: pytest.Config) -> bool:
    """Whether the faults were asked for by `-m faults`; otherwise they run in a short form among the other tests."""
    expression = config.option.markexpr
    return "faults" in expression and "not faults" not in expression


def frames_per_fault(config: pytest.Config) -> int:
    """How many frames each fault is shown for."""
    return FULL if is_suite(config) else SHORT


def without_slow(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out of `-m faults`, as the default run does: they are meant only where `slow` is said."""
    if not is_suite(config) or "slow" in config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = {}
    config.pluginmanager.register(_Listener(config), "fault-table")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the table below pytest's own last line."""
    rows = config.stash.get(_ROWS, {})
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if rows and reporter is not None and is_suite(config):
        for line in table((fault, *counts) for fault, counts in rows.items()):
            reporter.write_line(line)


class _Listener:
    """Collects what the tests told of."""

    def __init__(self, config: pytest.Config) -> None:
        self._rows = config.stash[_ROWS]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == SHOWN:
                fault, frames, raw = value
                counts = self._rows.setdefault(fault, [0, 0])
                counts[0] += frames
                counts[1] += raw


def table(rows: Iterable[tuple[str, int, int]]) -> list[str]:
    """Return the table's lines: the faults, and all of them together."""
    listed = list(rows)
    total = ("all faults", sum(row[1] for row in listed), sum(row[2] for row in listed))
    width = max(len(row[0]) for row in [*listed, total])
    lines = [f"{'fault':{width}}  frames shown  raw frames"]
    lines += [f"{fault:{width}}  {frames:12d}  {raw:10d}" for fault, frames, raw in [*listed, total]]
    return lines
