"""What the viewer sees of their stream's state, every two seconds: each look costs the stream beside it some time."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from liveframe.gate import ShownState
from liveframe.stats import Phase, PipelineStats
from ui.parts.chart import curves_chart, table
from ui.session.viewer import Viewer

STALE_S = 2.0  # a camera that has sent nothing for so long is off
SILENT_S = 4.0  # and one that was not stopped has a trouble
LOOK_EVERY_S = 2.0
_HISTORY_S = 60.0
_OWN_STAGES = ("queue", "model", "total")
_STAGE_NAMES = {"queue": "waiting", "model": "whole swap", "total": "in the app"}


@dataclass(frozen=True, slots=True)
class Badge:
    """The state in a word, a colour and a sentence."""

    label: str
    colour: Literal["green", "orange", "red", "gray", "blue"]
    icon: str
    sentence: str = ""


def badge_for(stats: PipelineStats, is_streaming: bool, has_own_camera: bool = False) -> Badge:
    """Put a stream's state into words; `has_own_camera` where it stands beside the swap."""
    if stats.phase is Phase.LOADING:
        return Badge("Getting ready", "blue", ":material/hourglass_top:", "The model is loading; this takes seconds.")
    if stats.phase is Phase.FAILED:
        return Badge("Covered", "red", ":material/error:", f"The model could not be brought up: {stats.last_error}")
    if not is_streaming:
        return Badge("Camera off", "gray", ":material/videocam_off:")
    if stats.state is ShownState.OFF:
        return Badge("Not swapped", "red", ":material/visibility:", "Your own face is being sent back.")
    if stats.state is ShownState.COVERED:
        return Badge("Covered", "orange", ":material/visibility_off:", stats.note)
    if stats.state is ShownState.HELD:
        return Badge("Swapped, holding", "orange", ":material/pause:", stats.note)
    if stats.is_mixed:
        return Badge("Mixed with your own face", "orange", ":material/visibility:", stats.note)
    if has_own_camera:
        return Badge("Own camera beside", "red", ":material/visibility:", "Your own face is shown on the left.")
    return Badge("Swapped", "green", ":material/check_circle:", stats.note)


def is_streaming(viewer: Viewer) -> bool:
    """Whether the camera sends frames now."""
    stream = viewer.stream
    return stream is not None and not stream.is_ended and stream.counts().received > 0 and _idle_s(viewer) < STALE_S


def is_silent(viewer: Viewer) -> bool:
    """Whether a started camera sends nothing any more, although nobody stopped it."""
    stream = viewer.stream
    return stream is not None and not stream.is_ended and stream.counts().received > 0 and _idle_s(viewer) > SILENT_S


def show_status(viewer: Viewer) -> None:
    """Draw the badges, and the sentence that explains them."""
    stats = viewer.pipeline.stats()
    badge = badge_for(stats, is_streaming(viewer), viewer.choices.beside.is_camera)
    stream = viewer.stream
    fault = stream.counts().last_fault if stream is not None else ""
    with st.container(key="state", horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(badge.label, icon=badge.icon, color=badge.colour)
        if viewer.recording is not None:
            sound = "with sound" if viewer.recording.has_sound else "no sound"
            words = f"Recording {viewer.recording.seconds:.0f} s, {sound}"
            st.badge(words, icon=":material/fiber_manual_record:", color="red")
        if badge.sentence:
            st.caption(badge.sentence, width="stretch")
        if fault:
            st.caption(f"Frames had to be covered: {fault}", width="stretch")


def stage_times(viewer: Viewer) -> None:
    """Draw rates and times by stage, looked at again only while somebody has them open."""
    with st.expander("Time by stage", icon=":material/timer:", on_change="rerun", key="stages") as shown:
        if shown.open:
            st.fragment(_show_times, run_every=LOOK_EVERY_S)(viewer)


def _show_times(viewer: Viewer) -> None:
    stats = viewer.pipeline.stats()
    if not is_streaming(viewer) or not stats.stages:
        st.caption("Figures come with the camera.")
        return
    st.markdown(_rates(viewer, stats))
    _show_stages(stats)


def _rates(viewer: Viewer, stats: PipelineStats) -> str:
    """Frames a second, and how many had to make way for newer ones since the start."""
    stream = viewer.stream
    dropped = stats.drops + (stream.counts().dropped if stream is not None else 0)
    rates = f"**{stats.fps_out:.0f}** frames/s shown, **{stats.fps_in:.0f}** from the camera"
    return f"{rates}, **{dropped}** dropped for newer ones"


def _show_stages(stats: PipelineStats) -> None:
    """Median and 95th percentile by stage: a minute's curves and a table."""
    names = [name for name in stats.stages if name not in _OWN_STAGES] + [n for n in _OWN_STAGES if n in stats.stages]
    times = [stats.stages[name] for name in names]
    history = _history(names, [time.p50_ms for time in times])
    curves_chart(history, "Median by stage, ms, over the last minute (s)", 20.0, LOOK_EVERY_S)
    rows = [
        [_STAGE_NAMES.get(name, name), f"{time.p50_ms:.1f}", f"{time.p95_ms:.1f}"]
        for name, time in zip(names, times, strict=True)
    ]
    table(["Stage", "Median, ms", "95 of 100 below, ms"], rows)


def _history(names: list[str], medians_ms: list[float]) -> dict[str, list[float]]:
    """Add a look to the last minute's medians; returns them by stage, oldest first."""
    samples: deque[dict[str, float]] = st.session_state.setdefault(
        "stage_history", deque(maxlen=round(_HISTORY_S / LOOK_EVERY_S))
    )
    samples.append({_STAGE_NAMES.get(name, name): ms for name, ms in zip(names, medians_ms, strict=True)})
    stages = dict.fromkeys(stage for sample in samples for stage in sample)
    return {stage: [sample.get(stage, 0.0) for sample in samples] for stage in stages}


def _idle_s(viewer: Viewer) -> float:
    stream = viewer.stream
    return stream.counts().idle_s if stream is not None else float("inf")
