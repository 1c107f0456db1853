"""The Convert page: a clip in, a swapped clip out."""

import os

import streamlit as st

from ui.convert.conversions import ClipEntry, PersonaChoice, Wishes, entries, pace, remove, result_name, submit
from ui.parts.job_card import find_job, is_active, is_moving, show_job
from ui.session.own_personas import shelved
from ui.session.shared import served_model
from ui.session.workspace import Workspace, job_queue, this_workspace
from understudy.bundle.bundle import BundleError
from understudy.consent.trust_store import trust_folder
from understudy.jobs.queue import Job, JobState
from understudy.media.guard import VIDEO_EXTENSIONS, MediaError
from understudy.provenance.disclosure import DisclosureError, read_disclosure

_FACES = {"all": "All", "largest": "The largest"}
_NO_FACE = {"cover": "Cover", "keep": "Keep as they are"}
_COVERS = {"blur": "Blur", "slate": "Card", "hold": "Last picture"}


def page() -> None:
    """Draw the page."""
    st.title("Convert")
    st.caption("A clip in, a swapped clip out. Sound and timing stay.")
    workspace = this_workspace()
    try:
        choices = [*bundle_choices(), *own_choices(workspace)]
    except BundleError as error:
        st.info("There are no personas to play yet. Make one in the Studio, or train some.", icon=":material/movie:")
        st.caption(str(error))
        return
    except DisclosureError as error:
        st.error(str(error), icon=":material/label_off:")
        return
    form, queue = st.columns([3, 5], gap="large")
    with form:
        _new_clip(workspace, choices)
        if not workspace.is_kept:
            st.caption("Nobody is logged in: your clips are forgotten when you close this page.")
    with queue:
        _clips(workspace)


def bundle_choices() -> list[PersonaChoice]:
    """The personas that ship.

    Raises:
        BundleError: there is no bundle.
    """
    bundle = served_model().bundle
    return [PersonaChoice(each.name, each.title, bundle.path, each.thumbnail) for each in bundle.personas]


def own_choices(workspace: Workspace) -> list[PersonaChoice]:
    """The viewer's own personas: played by their network, or by their photo while there is none, as live."""
    return [
        PersonaChoice(
            each.name, each.title, each.played or served_model().bundle.path, each.info.thumbnail, each.photo_persona
        )
        for each in shelved(workspace)
    ]


def _new_clip(workspace: Workspace, choices: list[PersonaChoice]) -> None:
    """Draw the form, and submit what it was given."""
    round_ = st.session_state.setdefault("convert_round", 0)  # a new key empties the uploader
    uploads = st.file_uploader(
        "Clips", list(VIDEO_EXTENSIONS), accept_multiple_files=True, key=f"clips-{round_}", max_upload_size=50
    )
    chosen = _choose_persona(choices)
    with st.expander("Options", icon=":material/tune:"):
        wishes = Wishes(
            faces=_one_of("Faces to swap", _FACES, "all"),
            strength=st.slider("Strength", 0.0, 1.0, 1.0, 0.05, key="convert_strength"),
            cover=_one_of("When a face cannot be swapped, show", _COVERS, "blur"),
            no_face=_one_of("Pictures in which no face is seen", _NO_FACE, "cover"),
            colour_match=st.toggle("Match the colours to the light", True, key="convert_colour_match"),
            shape=st.slider("Face shape", 0.0, 1.0, Wishes().shape, 0.05, key="convert_shape"),
            own_eyes=st.toggle("Keep the actor's own eyes", False, key="convert_own_eyes"),
            keep_occluders=st.toggle("Keep hands, hair and spectacles", True, key="convert_keep_occluders"),
        )
        if wishes.no_face == "keep":
            st.caption("A face that the detector overlooks then stays as it is. Look through the result.")
    if not st.button("Convert", type="primary", icon=":material/movie_edit:", disabled=not uploads, key="convert"):
        return
    refused = False
    for upload in uploads:
        try:
            submit(workspace, upload, chosen, wishes)
        except MediaError as error:
            refused = True
            st.error(str(error), icon=":material/block:")
    job_queue().ensure_worker()
    if not refused:
        st.session_state["convert_round"] = round_ + 1
        st.rerun()


def _choose_persona(choices: list[PersonaChoice]) -> PersonaChoice:
    """Draw the choice of personas, with the chosen one's picture."""
    picture, choice = st.columns([1, 3], vertical_alignment="bottom")
    with choice:
        place = st.selectbox(
            "Persona", range(len(choices)), format_func=lambda place: choices[place].title, key="convert_persona"
        )
    chosen = choices[place if place < len(choices) else 0]
    with picture:
        st.image(str(chosen.thumbnail), width="stretch", alt=chosen.title)
    return chosen


def _one_of(label: str, options: dict[str, str], default: str) -> str:
    picked = st.segmented_control(label, list(options), format_func=options.__getitem__, default=default, required=True)
    return str(picked or default)


def _clips(workspace: Workspace) -> None:
    """Draw the list: what works in a part that looks again by itself, then what is over."""
    listed = [(entry, find_job(entry.job_id)) for entry in entries(workspace)]
    if not listed:
        st.info(
            "Nothing here yet. Add a clip with a face, choose who plays, and press Convert: "
            "it goes on while this page is closed.",
            icon=":material/movie:",
        )
        return
    if any(is_moving(job) for _, job in listed):
        job_queue().ensure_worker()  # after a restart of the machine nobody else would
        st.fragment(_show_active, run_every=1.0)(workspace)
    else:
        _show_active(workspace)
    over = [(entry, job) for entry, job in listed if not is_active(job)]
    newest = next((entry.job_id for entry, job in over if job is None or job.state is JobState.DONE), "")
    for entry, job in over:
        _show_over(entry, job, is_open=entry.job_id == newest)


def _show_active(workspace: Workspace) -> None:
    """Draw what is not over; a change of what is reloads the whole page."""
    active = [(entry, job) for entry in entries(workspace) if (job := find_job(entry.job_id)) and is_active(job)]
    before = st.session_state.get("active_clips")
    st.session_state["active_clips"] = [entry.job_id for entry, _ in active]
    if before is not None and len(active) < len(before):
        st.rerun()
    for _, job in active:
        with st.container(border=True):
            show_job(job, pace(job.id, job.state))


def _show_over(entry: ClipEntry, job: Job | None, is_open: bool) -> None:
    """Draw a clip that is done, failed or cancelled."""
    with st.container(border=True):
        if job is not None and job.state is not JobState.DONE:
            show_job(job, pace(job.id, job.state))
            _forget_button(entry)
        elif entry.target.is_file():
            _show_result(entry, is_open)
        else:
            st.caption(f"The result of {entry.title} is gone.")
            _forget_button(entry)


def _show_result(entry: ClipEntry, is_open: bool) -> None:
    shown = st.expander(
        f"{entry.title} as {entry.persona_title}",
        expanded=is_open,
        key=f"result-{entry.job_id}",
        icon=":material/check_circle:",
        on_change="rerun",
        type="compact",
    )
    if not shown.open:
        return
    with shown:
        st.video(str(entry.target))
        st.caption(read_disclosure(trust_folder(os.environ)).sentence)
        with st.container(horizontal=True):
            st.download_button(
                "Download",
                data=entry.target.read_bytes,
                file_name=result_name(entry),
                mime="video/mp4",
                icon=":material/download:",
                key=f"download-{entry.job_id}",
                on_click="ignore",
            )
            _forget_button(entry)


def _forget_button(entry: ClipEntry) -> None:
    st.button(
        "Remove",
        key=f"remove-{entry.job_id}",
        icon=":material/delete:",
        type="tertiary",
        on_click=remove,
        args=(entry,),
    )
