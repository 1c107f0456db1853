"""The Studio's training: one button, then a curve, pictures and the time that is left; then how good it became."""

import streamlit as st

from ui.parts.chart import line_chart
from ui.parts.job_card import find_job, is_active, is_moving, show_job
from ui.parts.needs import show_missing
from ui.session.own_personas import ShelfPersona, play_by_still
from ui.session.workspace import is_local_or_logged_in, job_queue
from ui.studio import training_runs
from ui.studio.compare_panel import compare_panel
from ui.studio.training_runs import Recipe, Run, curves, drivers_of, previews, runs, start, sweep, usable_recipes
from understudy.jobs.queue import JobState

_LOOK_AGAIN_S = 2.0
_SSIM = "ssim_"


def training_panel(persona: ShelfPersona) -> None:
    """Draw the newest training, or the button that starts one."""
    listed = runs(persona)
    job = find_job(listed[0].job_id) if listed else None
    if listed and is_active(job):
        if is_moving(job):
            job_queue().ensure_worker()
            st.fragment(_working, run_every=_LOOK_AGAIN_S)(persona, listed[0])
        else:
            _working(persona, listed[0])
        return
    if listed and job is not None and job.state is not JobState.DONE:
        show_job(job, training_runs.pace(listed[0], job.state))
    finished = next((run for run in listed if run.bundle), None)
    if finished is not None:
        sweep(finished)
        _finished(persona, finished)
    _start(persona, is_first=finished is None)


def _start(persona: ShelfPersona, is_first: bool) -> None:
    """Draw the choice of recipe and the button."""
    if not is_local_or_logged_in():
        st.info("Training registers a version, and so is for those who are logged in.", icon=":material/login:")
        return
    if show_missing("Training"):
        return
    if not drivers_of(persona):
        st.info(
            "Training learns how faces move. Add a clip on the Faces tab first: a minute of anybody who agrees, "
            "yourself best, turning the head and talking.",
            icon=":material/school:",
        )
        return
    recipes = usable_recipes()
    place = 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.selectbox(
            "How thoroughly", range(len(recipes)), format_func=lambda i: recipes[i].title, key="recipe", width=360
        )
        st.button(
            "Train" if is_first else "Train again",
            key="train",
            type="primary" if is_first else "secondary",
            icon=":material/school:",
            on_click=_begin,
            args=(persona, recipes[int(place or 0)]),
        )
    st.caption("It runs beside the app: this page may be closed, the server restarted, the training paused.")


def _begin(persona: ShelfPersona, recipe: Recipe) -> None:
    start(persona, recipe)


def _working(persona: ShelfPersona, run: Run) -> None:
    """Draw a training at work; reloads the page when it is over."""
    job = find_job(run.job_id)
    if job is None or not is_active(job):
        st.rerun()
        return
    show_job(job, training_runs.pace(run, job.state))
    _curve_and_pictures(run)


def _curve_and_pictures(run: Run) -> None:
    points = curves(run)
    if not points:
        return
    chart, picture = st.columns([2, 3], gap="large")
    with chart:
        line_chart([point["step"] for point in points], [point["loss"] for point in points], "Loss by step")
        for name, value in points[-1].items():
            if name.startswith(_SSIM):
                st.metric("Likeness to the target (SSIM)", f"{value:.3f}", help="1 is the same picture.")
    with picture:
        if sheets := previews(run):
            st.image(str(sheets[-1]), caption="Driver, target, network, swap", width="stretch")


def _play_by(persona: ShelfPersona, key: str) -> None:
    play_by_still(persona, bool(st.session_state[key]))


def _finished(persona: ShelfPersona, run: Run) -> None:
    """Draw what the last finished training came to."""
    key = f"plays_by-{persona.name}"
    st.session_state.setdefault(key, persona.is_played_by_still)
    st.success(f"{persona.title} has a network of its own.", icon=":material/check_circle:")
    st.segmented_control(
        "Live, it plays by",
        [False, True],
        format_func={False: "Its network", True: "Its photo"}.__getitem__,
        required=True,
        key=key,
        on_change=_play_by,
        args=(persona, key),
        help="The photo is sharp and quick to make; a well trained network moves better, and only it can be promoted.",
    )
    with st.expander("Curve and pictures", icon=":material/show_chart:", on_change="rerun", key="curve") as shown:
        if shown.open:
            _curve_and_pictures(run)
    compare_panel(persona, run)
