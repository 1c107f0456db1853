"""Everybody's speed in one run on one machine: `python -m benchmarks.run [--quick] [--json] [--plot FILE]`.

Contestants take turns (A B A B), so that the ratios hold on a busy machine too; absolute figures are worth what the
load average beside them says. `--json` prints one object: figures under `<table>.<row>.<figure>`, and the machine.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2

from benchmarks.harness.machine import machine
from benchmarks.harness.timing import Figures, Plan
from liveframe.errors import LiveframeError
from understudy.bundle.bundle import default_bundle

ROOT = Path(__file__).resolve().parent.parent
# Each names the module whose `table(plan)` measures it; imported at need, as some bring TensorFlow.
TABLES = {
    "merge": "benchmarks.tables.merge",
    "whole_path": "benchmarks.tables.whole_path",
    "networks": "benchmarks.tables.networks",
    "training": "benchmarks.tables.training_speed",
    "serving": "benchmarks.tables.serving_speed",
}


def measure(names: Sequence[str], plan: Plan) -> tuple[Figures, dict[str, str]]:
    """Run tables, one after the other.

    Returns:
        Figures by `<table>.<row>.<figure>`, and for tables that could not run, why.
    """
    figures: Figures = {}
    faults: dict[str, str] = {}
    for name in names:
        began_s = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            made: Figures = import_module(TABLES[name]).table(plan)
        except (LiveframeError, ImportError, OSError, RuntimeError) as error:
            faults[name] = f"{error}"
            print(f"{name}: {error}", file=sys.stderr)
            continue
        figures |= {f"{name}.{key}": value for key, value in made.items()}
        print(f"{name}: {time.perf_counter() - began_s:.1f} s", file=sys.stderr)
    return figures, faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print: 0 done, 1 a table could not run, 2 wrong options."""
    options = _options(arguments)
    plan = Plan(options.quick, options.bundle, options.cache, tuple(options.known.split(",")) if options.known else ())
    plan.cache.mkdir(parents=True, exist_ok=True)
    before, threads, began_s = machine(), cv2.getNumThreads(), time.perf_counter()
    cv2.setNumThreads(1)
    try:
        figures, faults = measure(options.only, plan)
    finally:
        cv2.setNumThreads(threads)
    report: dict[str, Any] = {
        "machine": before,
        "load_average_after": machine()["load_average"],
        "seconds": round(time.perf_counter() - began_s, 1),
        "is_quick": options.quick,
        "faults": faults,
        **figures,
    }
    if options.plot:
        from benchmarks.harness.plot import plot

        plot(report, options.plot)
    if options.write:
        from benchmarks.harness.report_text import as_markdown, put_between

        put_between(options.write, "results", as_markdown(report))
    print(json.dumps(report) if options.json else as_text(report))
    return 1 if faults else 0


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report as lines to read, one a row."""
    by_row: dict[str, list[str]] = {}
    for key, value in report.items():
        if key.count(".") == 2:
            row, figure = key.rsplit(".", 1)
            by_row.setdefault(row, []).append(f"    {figure:44s} {value:.4g}")
    head = [f"{key}: {json.dumps(value)}" for key, value in report.items() if "." not in key]
    return "\n".join([*head, *("\n".join([row, *lines]) for row, lines in by_row.items())])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="few rounds: a minute once the cache is filled")
    add("--json", action="store_true", help="print one JSON object")
    add("--only", default=",".join(TABLES), metavar="TABLES", help="some of %(default)s")
    add("--plot", type=Path, metavar="PNG", help="draw the tables too")
    add("--write", type=Path, metavar="FILE", help="put the tables into this Markdown file, between its marks")
    add("--bundle", type=Path, default=default_bundle(), help="the bundle that is ours")
    add("--known", default="", metavar="NETWORKS", help="rebuild only these of the known networks (all)")
    add("--cache", type=Path, default=ROOT / "work" / "benchmarks", help="keeps the rebuilt networks' graphs")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in TABLES]
    if unknown:
        parser.error(f"--only must name some of {', '.join(TABLES)}, but got {', '.join(unknown)}.")
    return options


if __name__ == "__main__":
    sys.exit(main())
