"""One job on a page: where it stands, how long it takes, and the buttons that stop, resume or forget it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import streamlit as st

from ui.session.workspace import job_queue
from understudy.jobs.queue import Job, JobError, JobState


class _Look(NamedTuple):
    """A state's word, colour and icon."""

    label: str
    colour: Literal["green", "orange", "red", "gray", "blue"]
    icon: str


_LOOKS: Mapping[JobState, _Look] = {
    JobState.QUEUED: _Look("Waiting", "gray", ":material/schedule:"),
    JobState.RUNNING: _Look("Working", "blue", ":material/autorenew:"),
    JobState.PAUSED: _Look("Paused", "orange", ":material/pause:"),
    JobState.DONE: _Look("Done", "green", ":material/check_circle:"),
    JobState.FAILED: _Look("Failed", "red", ":material/error:"),
    JobState.CANCELLED: _Look("Cancelled", "gray", ":material/cancel:"),
}
_WAITING = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a job is.

    Attributes:
        share: 0 to 1; None while it cannot be told.
        words: what people read beside it.
    """

    share: float | None = None
    words: str = ""


def find_job(job_id: str) -> Job | None:
    """The job of that id; None where it was removed."""
    try:
        return job_queue().job(job_id)
    except JobError:
        return None


def is_active(job: Job | None) -> bool:
    """Whether it still has work to do, paused or not."""
    return job is not None and job.state in _WAITING


def is_moving(job: Job | None) -> bool:
    """Whether it changes by itself: a page that shows it looks again."""
    return job is not None and (job.state in (JobState.QUEUED, JobState.RUNNING) or bool(job.pid))


def words_for_eta(eta_s: float | None) -> str:
    """Return "about 3 min left", or nothing while it is not known."""
    if eta_s is None:
        return ""
    if eta_s < 90:
        return f"about {max(1, round(eta_s))} s left"
    return f"about {round(eta_s / 60)} min left" if eta_s < 5400 else f"about {eta_s / 3600:.1f} h left"


def show_job(job: Job, pace: Pace, title: str = "") -> None:
    """Draw a job: its state in a word, its progress, and what can be done with it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        look = _LOOKS[job.state]
        st.badge(look.label, icon=look.icon, color=look.colour)
        st.markdown(f"**{plain(title or job.title)}**", width="stretch")
        _buttons(job)
    if job.state is JobState.FAILED:
        st.error(plain(job.note or "It failed and said nothing."), icon=":material/error:")
    elif job.state is JobState.QUEUED:
        st.caption(_what_is_before(job))
    elif job.state in (JobState.RUNNING, JobState.PAUSED):
        st.progress(min(1.0, max(0.0, pace.share or 0.0)), text=pace.words or "Starting…")


def watch_job(job: Job, words: Callable[[str], str], on_end: Callable[[], object]) -> None:
    """Draw a job, every two seconds anew while it moves; at its end tell the page, and draw that anew.

    Args:
        job: what to watch.
        words: what people read beside it while it moves, by its id.
        on_end: called once, before the page is drawn.
    """
    if not is_moving(job):
        show_job(job, Pace())
        return
    job_queue().ensure_worker()
    st.fragment(_show_moving, run_every=2.0)(job.id, words, on_end)


def _show_moving(job_id: str, words: Callable[[str], str], on_end: Callable[[], object]) -> None:
    job = find_job(job_id)
    if job is None or not is_moving(job):
        on_end()
        st.rerun()
    else:
        show_job(job, Pace(None, words(job_id)))


def _buttons(job: Job) -> None:
    if job.state in (JobState.QUEUED, JobState.RUNNING):
        _button(job, "Pause", ":material/pause:", job_queue().pause)
    if job.state is JobState.PAUSED:
        _button(job, "Resume", ":material/play_arrow:", _resume)
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        _button(job, "Try again", ":material/refresh:", _resume)
    if job.state in _WAITING:
        _button(job, "Cancel", ":material/close:", job_queue().cancel)


def _button(job: Job, label: str, icon: str, action: Callable[[str], object]) -> None:
    key = f"{label.split()[0].lower()}-{job.id}"
    st.button(label, key=key, icon=icon, type="tertiary", on_click=_do, args=(action, job.id))


def _do(action: Callable[[str], object], job_id: str) -> None:
    try:
        action(job_id)
    except JobError as error:  # it moved on while the page was looked at
        st.toast(str(error), icon=":material/info:")


def _resume(job_id: str) -> None:
    job_queue().resume(job_id)
    job_queue().ensure_worker()


def _what_is_before(job: Job) -> str:
    """Why a job waits: only its own viewer's titles are told."""
    before = sum(1 for other in job_queue().jobs() if other.id < job.id and is_moving(other))
    return f"Starts after {before} other job{'s' if before > 1 else ''}." if before else "Starts in a moment."


def plain(text: str) -> str:
    """Take the meaning from Markdown's signs: titles come from file names."""
    for sign in "\\`*_{}[]()#!|<>$~:":
        text = text.replace(sign, "\\" + sign)
    return text
