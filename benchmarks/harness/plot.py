"""Draw a report of `benchmarks.run`: networks, the path's stages, merge and tracking, training and serving."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("detect", "mesh", "check", "smooth", "warp", "network", "blend")
RUNTIMES = {
    "keras_predict": "Keras predict()",
    "ort_float32_2_threads": "ONNX Runtime float32",
    "ort_int8_2_threads": "ONNX Runtime int8",
    "openvino_int8_2_threads": "OpenVINO int8",
    "litert_int8_2_threads": "LiteRT int8",
}


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw the tables that a report holds into one picture.

    Args:
        report: figures by `<table>.<row>.<figure>`, and the machine.
        path: of the PNG; its folder is made where missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    held = {table: rows_of(report, table) for table in PANELS}
    drawn = {table: rows for table, rows in held.items() if rows}
    figure = Figure(figsize=(11, 3.6 * max(1, len(drawn))), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (table, rows) in zip(np.ravel(figure.subplots(max(1, len(drawn)), 1)), drawn.items(), strict=False):
        PANELS[table](axes, rows)
    machine = report["machine"]
    load = machine["load_average"][0]
    figure.suptitle(f"{machine['processor']}, {machine['cores']} cores, load {load:g} at the start")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def rows_of(report: Mapping[str, Any], table: str) -> dict[str, dict[str, float]]:
    """Return a table's figures by row."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in report.items():
        name, *rest = key.split(".")
        if name == table and len(rest) == 2:
            rows.setdefault(rest[0], {})[rest[1]] = value
    return rows


def _networks(axes: Any, rows: dict[str, dict[str, float]]) -> None:
    names = [name for name in rows if "keras_predict_p50_ms" in rows[name]]
    at = np.arange(len(names))
    for number, (runtime, title) in enumerate(RUNTIMES.items()):
        values = [rows[name].get(f"{runtime}_p50_ms", np.nan) for name in names]
        bars = axes.bar(at + (number - 2) * 0.16, values, 0.16, label=title)
        axes.bar_label(bars, fmt="%.3g", fontsize=6)
    axes.set(title="Networks: one face, two threads", ylabel="ms (median)", yscale="log")
    axes.set_xticks(at, names)
    axes.legend(fontsize=8)


def _whole_path(axes: Any, rows: dict[str, dict[str, float]]) -> None:
    names = [name for name in rows if "fps" in rows[name]]
    bottom = np.zeros(len(names))
    for stage in STAGES:
        values = np.array([rows[name].get(f"{stage}_p50_ms", 0.0) for name in names])
        axes.barh(names, values, left=bottom, label=stage)
        bottom += values
    for name, end in zip(names, bottom, strict=True):
        axes.text(end, name, f" {rows[name]['fps']:.0f} fps", va="center", fontsize=7)
    axes.set(title="Whole path without codec", xlabel="ms (median of each stage)")
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xlim(right=1.3 * max(bottom, default=1))  # room for the legend, and for what is written behind bars
    axes.legend(fontsize=8, loc="lower right")


def _times_as_long(axes: Any, rows: dict[str, dict[str, float]]) -> None:
    """Draw every ratio of a table: how many times as long, or as many, as what it is compared with."""
    ratios = {
        (figure if name == "ratio" else f"{name} {figure}").replace("_ratio", "").replace("_", " "): value
        for name, figures in rows.items()
        for figure, value in figures.items()
        if name == "ratio" or figure.endswith("_ratio")
    }
    axes.bar_label(axes.barh(list(ratios), list(ratios.values())), fmt="%.3g", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()


def _merge(axes: Any, rows: dict[str, dict[str, float]]) -> None:
    _times_as_long(axes, rows)
    axes.set(title="Merge and tracking: times as long as ours", xscale="log")


def _training(axes: Any, rows: dict[str, dict[str, float]]) -> None:
    _times_as_long(axes, rows)
    axes.set(title="Training and extraction: times as fast as the plain way")


def _serving(axes: Any, rows: dict[str, dict[str, float]]) -> None:
    names = [name for name in rows if "faces_per_s" in rows[name]]
    axes.bar_label(axes.barh(names, [rows[name]["faces_per_s"] for name in names]), fmt="%.3g", fontsize=8)
    axes.set(title="Serving: faces a second over loopback")
    axes.invert_yaxis()


PANELS: dict[str, Callable[[Any, dict[str, dict[str, float]]], None]] = {
    "networks": _networks,
    "whole_path": _whole_path,
    "merge": _merge,
    "training": _training,
    "serving": _serving,
}
