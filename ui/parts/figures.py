"""How good versions are, in tables and pictures: figures, gates, and clips side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from ui.parts.chart import table
from ui.parts.job_card import plain

LABELS: Mapping[str, str] = {
    "identity_to_persona": "Looks like the persona (cosine, more is better)",
    "retrieval_rank1": "Taken for the persona (share, more is better)",
    "coverage": "Faces repainted (share, more is better)",
    "pose_deg": "Head pose off by (degrees)",
    "mouth_pct": "Mouth off by (% of eye distance)",
    "eyes_pct": "Eyes off by (% of eye distance)",
    "jitter_ratio": "Jitter (× the source’s)",
    "flicker_ratio": "Flicker (× the source’s)",
    "seam_delta_e": "Seam (ΔE)",
    "outside_psnr_db": "Outside the face (dB, more is better)",
    "ms_p50": "One frame (ms, median)",
}


def figures_table(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the means of several sides' reports beside each other.

    Args:
        sides: reports (`ClipReport.figures`) by the column's title.
    """
    rows = [key for key in LABELS if any(key in report for reports in sides.values() for report in reports)]
    table(
        ["Figure", *map(plain, sides)],
        [[LABELS[key], *(_mean(reports, key) for reports in sides.values())] for key in rows],
    )


def _mean(reports: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [float(report[key]) for report in reports if isinstance(report.get(key), (int, float))]
    return f"{sum(values) / len(values):.3g}" if values else "—"


def show_gates(decision: Mapping[str, Any]) -> None:
    """Draw how every gate of a judgement went, failures first."""
    gates = sorted(decision.get("gates", []), key=lambda gate: bool(gate["passed"]))
    failed = sum(1 for gate in gates if not gate["passed"])
    version = decision.get("candidate")
    if decision.get("promoted"):
        st.success(f"Version {version} is the champion: all {len(gates)} gates hold.", icon=":material/trophy:")
    else:
        st.error(f"Version {version} was not promoted: {failed} of {len(gates)} gates failed.", icon=":material/block:")
    icon = {True: ":green[:material/check:]", False: ":red[:material/close:]"}
    lines = [f"- {icon[bool(gate['passed'])]} {plain(str(gate['sentence']))}" for gate in gates]
    with st.container(border=True):
        st.markdown("\n".join(lines))


def show_clips(sides: Mapping[str, Path]) -> None:
    """Draw the side-by-side clips of several folders, one column each; nothing where there are none.

    Where there are several of them, the viewer chooses by name which one all columns show.
    """
    clips = {title: {path.name: path for path in sorted(folder.glob("*.mp4"))} for title, folder in sides.items()}
    names = sorted({name for found in clips.values() for name in found})
    if not names:
        return
    name = names[0]
    if len(names) > 1:
        key = f"clip-{next(iter(sides))}"
        name = st.pills("Clip", names, default=name, format_func=lambda each: Path(each).stem, key=key) or name
    for column, (title, found) in zip(st.columns(len(clips)), clips.items(), strict=True):
        with column:
            st.markdown(f"**{title}**")
            if name in found:
                alt = f"{title}: the source beside the swap"  # tells two players of equal clips apart
                st.video(str(found[name]), loop=True, autoplay=True, muted=True, alt=alt)
            else:
                st.caption("No clip was kept.")
