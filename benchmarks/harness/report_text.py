"""Reports as Markdown, put between their marks in a file of the docs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.plot import STAGES, rows_of

_RUNTIMES = {"ort": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
# Tables of many figures and few rows stand with a figure a line.
_TURNED = ("networks",)
# By table (behind a colon, which part of it): title, and which figures make its columns, with what stands above them.
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "networks": (
        "Networks, one face, ms (median), on 1 or 2 threads",
        {
            "keras_predict_p50_ms": "Keras predict()",
            **{
                f"{runtime}_{kind}_{threads}_threads_p50_ms": f"{title}, {kind}, {threads}"
                for runtime, title in _RUNTIMES.items()
                for kind in ("float32", "int8")
                for threads in (1, 2)
            },
            "1_threads_p50_ms": "as shipped, 1",
            "2_threads_p50_ms": "as shipped, 2",
            "params_m": "M parameters",
            "gmac": "GMAC",
            "int8_memory_mib": "int8 memory, MiB",
        },
    ),
    "merge": (
        "Merge and tracking, one thread, ms (median)",
        {
            "merge_ours_p50_ms": "merge",
            "merge_seed_to_ours_ratio": "seed / ours",
            "merge_full_frame_to_ours_ratio": "full frame / ours",
            "track_p50_ms": "tracking",
            "track_p95_ms": "95 of 100 below",
            "detect_every_frame_to_track_ratio": "detecting / tracking",
        },
    ),
    "whole_path": (
        "Whole path without codec",
        {
            "fps": "frames/s",
            "total_p50_ms": "median, ms",
            "total_p95_ms": "95 of 100 below",
            "cpu_p50_ms": "CPU, ms",
            "naive_to_ours_ratio": "naive / ours",
            "frames_of_memory": "frames of memory",
            "shown_fps": "shown/s",
            "dropped_frames": "dropped",
            "wrong_order_frames": "wrong order",
        },
    ),
    "whole_path:stages": (
        "Whole path, ms a stage: median, and what 95 of 100 frames stay below",
        {f"{stage}_{figure}_ms": f"{stage} {figure[1:]}" for stage in STAGES for figure in ("p50", "p95")},
    ),
    "training": (
        "Training",
        {
            "oneshot_faces_per_s": "one-shot, triplets/s",
            "classic_faces_per_s": "classic, faces/s",
        },
    ),
    "serving": (
        "Serving over loopback",
        {
            "requests_per_s": "requests/s",
            "faces_per_s": "faces/s",
            "wait_p50_ms": "median, ms",
            "wait_p95_ms": "95 of 100 below",
        },
    ),
}


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return the tables that a report of `benchmarks.run` holds, their ratios and fits, and the machine."""
    parts: list[str] = []
    for table, (title, columns) in TABLES.items():
        name, _, part = table.partition(":")
        rows = rows_of(report, name)
        if not rows:
            continue
        parts.append(f"### {title}\n")
        parts += _table(rows, columns, is_turned=table in _TURNED)
        if not part:
            parts += _list({name: row for name, row in rows.items() if not any(column in row for column in columns)})
    made_on, load = report["machine"], report["machine"]["load_average"][0]
    parts.append(
        f"{made_on['processor']}, {made_on['cores']} cores, load average {load:.1f} before and "
        f"{report['load_average_after'][0]:.1f} after; `uv run python -m benchmarks.run`."
    )
    return "\n".join(parts)


def _table(
    rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], *, is_turned: bool = False
) -> list[str]:
    """Return the rows that have some of the columns; columns that no row has are left out."""
    held = [column for column in columns if any(column in row for row in rows.values())]
    shown = {name: row for name, row in rows.items() if any(column in row for column in held)}
    if not shown:
        return []
    cells = [["", *(columns[column] for column in held)]]
    for name, row in shown.items():
        cells.append([name, *(f"{row[column]:.4g}" if column in row else "" for column in held)])
    head, *body = zip(*cells, strict=True) if is_turned else cells
    lines = [" | ".join(cell or " " for cell in line) for line in (head, *body)]
    return [f"| {lines[0]} |", "|---|" + "--:|" * (len(head) - 1), *(f"| {line} |" for line in lines[1:]), ""]


def _list(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [
        f"- {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()) for name, row in rows.items()
    ]
    return [*lines, ""] if lines else []


def put_between(path: Path, mark: str, text: str) -> None:
    """Put text between `<!-- mark:begin -->` and `<!-- mark:end -->`, in the place of what is there.

    Raises:
        ValueError: the file has no such marks.
    """
    begin, end = (f"<!-- {mark}:{side} -->" for side in ("begin", "end"))
    whole = path.read_text(encoding="utf-8")
    if not (begin in whole and end in whole):
        raise ValueError(f"{path} must hold {begin} and {end}, but does not. Add them where the table belongs.")
    head, tail = whole.split(begin)[0], whole.split(end)[1]
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
