"""Small charts as SVG: pandas and Altair take seconds to import, which a page with a live stream beside it has not."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import streamlit as st

_WIDTH, _HEIGHT = 480, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 30
_BINS = 18
_INK, _GREY = "#3d8a8f", "#84908f"  # to be read on a light and on a dark page
_INKS = (_INK, "#c98a3c", "#8a6fb0", "#5f9e58", "#c06070", "#5b86c4", "#a58b5a", "#7d8b90", "#b06fa0")


def line_chart(x: Sequence[float], y: Sequence[float], label: str) -> None:
    """Draw one curve; `label` says what y is."""
    _show(line_svg(x, y), f"{label}: from {y[0]:.4g} to {y[-1]:.4g}")


def curves_chart(
    curves: Mapping[str, Sequence[float]], label: str, least_height: float = 0.0, step: float = 1.0
) -> None:
    """Draw several curves, the newest values at the right; `label` says what they are."""
    _show(curves_svg(curves, least_height, step), label)


def histogram(values: Sequence[float], label: str) -> None:
    """Draw how often values occur, one at least; `label` says what they are."""
    _show(histogram_svg(values), f"{label}: {float(np.median(values)):.3g} in the middle")


def curves_svg(curves: Mapping[str, Sequence[float]], least_height: float = 0.0, step: float = 1.0) -> str:
    """Return several curves over the same moments as SVG, from zero up, named at the right, the highest first.

    Args:
        curves: values by name, as many of each, one at least.
        least_height: the axis reaches up to here in any case.
        step: what lies between two values, on the axis below.
    """
    right = _WIDTH - 150
    count = max(len(values) for values in curves.values())
    top = max(least_height, *(max(values) for values in curves.values()))
    xs = _scaled(range(count), _LEFT, right) if count > 1 else [float(_LEFT)]
    marks: list[str] = []
    ranks = sorted(curves, key=lambda name: -curves[name][-1])
    for place, (name, values) in enumerate(curves.items()):
        ys = [_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value / (top or 1.0) for value in values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        ink = _INKS[place % len(_INKS)]
        marks.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="2"/>')
        height = 22 + 18 * ranks.index(name)
        marks.append(f'<text x="{right + 14}" y="{height}" font-size="14" fill="{ink}">{escape(name)}</text>')
    return _framed("".join(marks), ((1 - count) * step, 0), (0, top), right)


def line_svg(x: Sequence[float], y: Sequence[float]) -> str:
    """Return a curve as SVG.

    Args:
        x: rising.
        y: as many.
    """
    xs, ys = _scaled(x, _LEFT, _WIDTH - _RIGHT), _scaled(y, _HEIGHT - _BOTTOM, _TOP)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))
    dot = f'<circle cx="{xs[-1]:.1f}" cy="{ys[-1]:.1f}" r="3.5" fill="{_INK}"/>'
    line = f'<polyline points="{points}" fill="none" stroke="{_INK}" stroke-width="2" stroke-linejoin="round"/>'
    return _framed(line + dot, (x[0], x[-1]), (min(y), max(y)))


def histogram_svg(values: Sequence[float]) -> str:
    """Return a histogram as SVG."""
    counts, edges = np.histogram(values, _BINS)
    xs = _scaled(edges.tolist(), _LEFT, _WIDTH - _RIGHT)
    floor, most = _HEIGHT - _BOTTOM, max(1, int(counts.max()))
    bars: list[str] = []
    for left, right, count in zip(xs[:-1], xs[1:], counts, strict=True):
        height = (floor - _TOP) * int(count) / most
        place = f'x="{left + 1:.1f}" y="{floor - height:.1f}" width="{right - left - 2:.1f}" height="{height:.1f}"'
        bars.append(f'<rect {place} fill="{_INK}"/>')
    return _framed("".join(bars), (float(edges[0]), float(edges[-1])), (0, most))


def _scaled(values: Sequence[float], start: float, end: float) -> list[float]:
    """Spread values from the least to the greatest over a stretch of the picture."""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return [start + (end - start) * (value - least) / span for value in values]


def _framed(marks: str, x: tuple[float, float], y: tuple[float, float], right: int = _WIDTH - _RIGHT) -> str:
    """Return marks between two axes that carry their ends; the one below ends at `right`."""
    floor = _HEIGHT - _BOTTOM
    texts = [
        (_LEFT, _HEIGHT - 8, "start", x[0]),
        (right, _HEIGHT - 8, "end", x[1]),
        (_LEFT - 6, floor, "end", y[0]),
        (_LEFT - 6, _TOP + 10, "end", y[1]),
    ]
    words = "".join(
        f'<text x="{left}" y="{top}" text-anchor="{anchor}" font-size="16" fill="{_GREY}">{_short(value)}</text>'
        for left, top, anchor, value in texts
    )
    axis = f'<path d="M{_LEFT} {_TOP}V{floor}H{right}" fill="none" stroke="{_GREY}" opacity="0.5"/>'
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">{axis}{marks}{words}</svg>'


def _short(value: float) -> str:
    """Return a value in as few signs as an axis has room for."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _show(svg: str, words: str) -> None:
    st.image(svg, caption=words, width="stretch", alt=words)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw a small table, its first column to the left and figures to the right."""
    lines = ["| " + " | ".join(columns) + " |", "|:--|" + "--:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    st.markdown("\n".join(lines))
