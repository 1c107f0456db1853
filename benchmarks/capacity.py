"""From measured service times to an endpoint's size and price: `python -m benchmarks.capacity [--write docs]`.

Measures the model's calls (batch 1 to 16, one and two threads), checks the simulated
replica against a real server on loopback, and lets the simulated autoscaler follow a day
with 10, 1,000 and 100,000 viewers. `--write` puts the table and the plot into the docs.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.autoscaler import FPS, STEP_S, Autoscaler, Day, diurnal, flash, run_day
from benchmarks.harness.load import closed_loop, http_request, open_loop
from benchmarks.harness.machine import machine
from benchmarks.harness.queueing import Service, curve, simulate
from benchmarks.harness.report_text import put_between
from benchmarks.harness.sent_faces import sent_faces
from benchmarks.harness.serving_process import serving
from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, encode_batch
from serving.server.settings import ServerSettings
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.swap.served import crop_model

BATCHES = (1, 2, 4, 8, 16)
VIEWERS = (10, 1_000, 100_000)
DEADLINE_S = 0.15
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.25, 1.5)


def measure_calls(bundle: Bundle, rounds: int) -> dict[int, dict[int, float]]:
    """Time the bare model: threads -> batch -> median seconds of a call."""
    name = bundle.personas[0].name
    models = {threads: crop_model(bundle, name, threads) for threads in (1, 2)}
    sent = {batch: sent_faces(bundle, batch) for batch in BATCHES}
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(rounds):
        for threads, model in models.items():
            for batch in BATCHES:
                crops, tensors = sent[batch]
                start_s = time.perf_counter()
                model.predict(crops, **tensors)
                times.setdefault((threads, batch), []).append(time.perf_counter() - start_s)
    medians = {key: float(np.median(values[1:])) for key, values in times.items()}
    return {threads: {batch: medians[threads, batch] for batch in BATCHES} for threads in models}


def fit(calls: Mapping[int, float], overhead_s: float, workers: int = 1) -> Service:
    """Fit base_s + n * item_s to measured calls (least squares of the relative error)."""
    counts, seconds = np.array(list(calls)), np.array(list(calls.values()))
    weights = 1 / seconds
    columns = np.stack([weights, counts * weights], axis=1)
    base_s, item_s = np.linalg.lstsq(columns, np.ones(len(counts)), rcond=None)[0]
    return Service(max(0.0, float(base_s)), float(item_s), overhead_s, workers=workers)


def validate(bundle_path: Path, calls: Mapping[int, float], seconds: float) -> dict[str, Any]:
    """Compare the simulated replica with a real one on loopback.

    The overhead is what one lone request takes beyond the bare call; the loads are shares of
    the measured peak, so that client and server on one machine do not count as a slow model.
    """
    crops, tensors = sent_faces(Bundle.load(bundle_path), 1)
    body = encode_batch(crops, Encoding.JPEG, extras=tensors)
    with serving(str(bundle_path.resolve())) as url:
        request = http_request(f"{url}/predict", body, f"{MEDIA_TYPE}; deadline-ms=5000")
        asyncio.run(closed_loop(url, request, 4, 0.5))
        alone = asyncio.run(closed_loop(url, request, 1, seconds))
        peak_hz = len(asyncio.run(closed_loop(url, request, 16, seconds))) / seconds
        overhead_s = max(0.0, float(np.median([outcome.wait_s for outcome in alone])) - calls[1])
        bare = fit(calls, overhead_s, ServerSettings.from_environment().workers)
        # Decoding and encoding share the machine's cores with the model: the measured peak counts.
        slower = bare.capacity_hz / peak_hz
        service = replace(bare, base_s=bare.base_s * slower, item_s=bare.item_s * slower)
        points = [_point(url, body, service, share * peak_hz, seconds) for share in (0.4, 0.7)]
    return {"overhead_ms": overhead_s * 1e3, "peak_hz": peak_hz, "service": service, "points": points}


def _point(url: str, body: bytes, service: Service, rate_hz: float, seconds: float) -> dict[str, float]:
    request = http_request(f"{url}/predict", body, f"{MEDIA_TYPE}; deadline-ms=2000")
    outcomes = asyncio.run(open_loop(url, request, rate_hz, seconds))
    waits_ms = [outcome.wait_s * 1e3 for outcome in outcomes if outcome.status == 200]
    expected = simulate(service, rate_hz, 2.0)
    return {
        "rate_hz": rate_hz,
        "measured_p50_ms": float(np.median(waits_ms)),
        "simulated_p50_ms": expected.p50_s * 1e3,
        "measured_p95_ms": float(np.percentile(waits_ms, 95)),
        "simulated_p95_ms": expected.p95_s * 1e3,
        "answered": len(waits_ms) / len(outcomes),
    }


def plan(service: Service, scaler: Autoscaler) -> dict[str, dict[int, Day]]:
    """Follow both kinds of day with each number of viewers."""
    loads = curve(service, DEADLINE_S, SHARES)
    return {
        name: {peak: run_day(shape(peak), service, loads, scaler) for peak in VIEWERS}
        for name, shape in (("diurnal", diurnal), ("flash crowd", flash))
    }


# ---------------------------------------------------------------------- the docs


def table(days: Mapping[str, Mapping[int, Day]]) -> str:
    """Return the days as a Markdown table."""
    lines = [
        "| day | viewers at the peak | replicas, mean / most | p95 that 99 % of frames keep | frames refused "
        "| cost per viewer-hour |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_peak in days.items():
        for peak, day in by_peak.items():
            lines.append(
                f"| {name} | {peak:,} | {day.replicas.mean():,.1f} / {day.replicas.max():,.0f} "
                f"| {day.worst_p95_s() * 1e3:.0f} ms | {day.refused_share():.2%} | ${day.cost_per_viewer_hour:.3f} |"
            )
    return "\n".join(lines)


def report(calls: Mapping[int, Mapping[int, float]], check: Mapping[str, Any], days: Any, scaler: Autoscaler) -> str:
    """Return the generated part of docs/capacity.md."""
    where = machine()
    service: Service = check["service"]
    heads = " | ".join(f"batch {batch}" for batch in BATCHES)
    rows = [f"| {n} | " + " | ".join(f"{s * 1e3:.1f}" for s in by.values()) + " |" for n, by in calls.items()]
    points = [
        f"| {p['rate_hz']:.0f} | {p['measured_p50_ms']:.0f} / {p['simulated_p50_ms']:.0f} "
        f"| {p['measured_p95_ms']:.0f} / {p['simulated_p95_ms']:.0f} | {p['answered']:.0%} |"
        for p in check["points"]
    ]
    return "\n".join(
        [
            f"Measured on {where['processor']}, {where['cores']} cores, load average {where['load_average']}.",
            "",
            "A call of the model, ms:",
            "",
            f"| threads | {heads} |",
            "|---" * (len(BATCHES) + 1) + "|",
            *rows,
            "",
            f"One replica bears {service.capacity_hz:.0f} crops a second: {service.capacity_hz / FPS:.1f} viewers at "
            f"{FPS:.0f} fps at full use, {service.capacity_hz * scaler.target / FPS:.1f} at the target.",
            "",
            "The simulated replica against a real one on loopback (client and server on the same machine):",
            "",
            "| requests a second | p50 measured / simulated, ms | p95 measured / simulated, ms | answered |",
            "|---|---|---|---|",
            *points,
            "",
            table(days),
        ]
    )


def plot(days: Mapping[str, Mapping[int, Day]], path: Path) -> None:
    """Draw viewers, replicas and waits over the day, for 1,000 viewers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, len(days), figsize=(10, 7), sharex="col", sharey="row", layout="constrained")
    for column, (name, by_peak) in enumerate(days.items()):
        day = by_peak[1_000]
        hours = np.arange(len(day.viewers)) * STEP_S / 3600
        for axis, values, label in zip(
            axes[:, column],
            (day.viewers, day.replicas, day.p95_s * 1e3),
            ("viewers", "replicas", "p95, ms"),
            strict=True,
        ):
            axis.plot(hours, values, color="#1a6e8e", linewidth=1.2)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        axes[0, column].set_title(f"{name}, 1,000 viewers at the peak")
        axes[2, column].axhline(DEADLINE_S * 1e3, color="#b04a3a", linestyle="--", linewidth=1, label="deadline")
        axes[2, column].set_xlabel("hour")
    axes[2, 0].legend(loc="upper left")
    for row, top in enumerate((None, None, DEADLINE_S * 1.2e3)):
        axes[row, 0].set_ylim(0, top)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def write_docs(folder: Path, text: str, days: Mapping[str, Mapping[int, Day]]) -> None:
    """Put the generated part between its marks in capacity.md, and the plot beside it."""
    put_between(folder / "capacity.md", "capacity", text)
    plot(days, folder / "capacity.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, simulate, print one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.capacity", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measured load")
    parser.add_argument("--price-per-hour", type=float, default=0.22, help="of one replica, USD")
    parser.add_argument("--write", type=Path, default=None, help="the docs folder")
    options = parser.parse_args(arguments)
    bundle = Bundle.load(options.bundle)
    scaler = Autoscaler(price_per_hour=options.price_per_hour)
    calls = measure_calls(bundle, options.rounds)
    check = validate(options.bundle, calls[1], options.seconds)
    days = plan(check["service"], scaler)
    if options.write:
        write_docs(options.write, report(calls, check, days, scaler), days)
    figures = {
        name: {
            str(peak): {
                "replicas_mean": float(day.replicas.mean()),
                "replicas_most": float(day.replicas.max()),
                "p95_ms": day.worst_p95_s() * 1e3,
                "refused": day.refused_share(),
                "cost_per_viewer_hour": day.cost_per_viewer_hour,
            }
            for peak, day in by_peak.items()
        }
        for name, by_peak in days.items()
    }
    service: Service = check.pop("service")
    check["capacity_hz"] = service.capacity_hz
    print(json.dumps({"machine": machine(), "calls_s": calls, "replica": check, "days": figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
