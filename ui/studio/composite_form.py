"""The Studio's way to a persona that is nobody: a folder of machine-made faces, averaged in a job."""

import secrets
import shutil
import time
from collections.abc import Sequence

import streamlit as st

from ui.parts.job_card import Pace, find_job, is_active, is_moving, show_job
from ui.parts.notes import note_job, noted_job
from ui.parts.uploads import Upload, keep_upload
from ui.session.settings import app_settings
from ui.session.workspace import Workspace, job_queue
from ui.studio.composite_job import LEAST_FACES
from understudy.jobs.queue import PROGRESS, Job, JobState, module_command
from understudy.media.guard import IMAGE_EXTENSIONS, MediaError


def composite_form(workspace: Workspace, taken: set[str]) -> None:
    """Draw the form; its button queues the work."""
    round_ = st.session_state.setdefault("composite_round", 0)
    title = st.text_input("Name of the persona", key=f"composite_title-{round_}", max_chars=40)
    files = st.file_uploader(
        f"A folder of {LEAST_FACES} machine-made faces or more",
        list(IMAGE_EXTENSIONS),
        accept_multiple_files="directory",
        key=f"composite_files-{round_}",
        max_upload_size=50,
        help="All of one kind of face, from the front. Their average is nobody.",
    )
    source = st.text_input("What made these pictures", key=f"composite_source-{round_}", placeholder="StyleGAN2, seed…")
    is_nobody = st.checkbox("A machine made all of them; none shows a person who exists.", key=f"nobody-{round_}")
    if not st.button("Make the composite", type="primary", icon=":material/group:", key="make_composite"):
        return
    if problem := _missing(title, files, source, is_nobody):
        st.error(problem, icon=":material/block:")
        return
    try:
        submit(workspace, title, files, source, taken)
    except MediaError as error:
        st.error(str(error), icon=":material/block:")
        return
    st.session_state["composite_round"] = round_ + 1
    st.rerun()


def submit(workspace: Workspace, title: str, files: Sequence[Upload], source: str, taken: set[str]) -> Job:
    """Keep the pictures and queue the work.

    Raises:
        MediaError: one of the files is no picture; nothing is kept then.
    """
    folder = workspace.folder / "composites" / f"{time.time_ns() // 1_000_000:014d}-{secrets.token_hex(4)}"
    try:
        for file in files:
            keep_upload(file, folder / "pictures")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    options = ("--title", title, "--source", source, "--workspace", workspace.folder, "--progress", PROGRESS)
    command = module_command(
        *("ui.studio.composite_job", folder / "pictures", *options, "--trust", app_settings().trust.resolve()),
        *("--taken", *sorted(taken)),
    )
    job = job_queue().submit("composite", f"Composite {title}", command)
    note_job(folder, job)
    job_queue().ensure_worker()
    return job


def show_composites(workspace: Workspace) -> None:
    """Draw the composites that are being made; what is done is swept away, its persona is on the shelf."""
    for folder in sorted((workspace.folder / "composites").glob("*")):
        job = noted_job(folder)
        if job is None or job.state in (JobState.DONE, JobState.CANCELLED):
            shutil.rmtree(folder, ignore_errors=True)
        elif is_moving(job):
            job_queue().ensure_worker()
            st.fragment(_watch, run_every=1.0)(job.id)
        else:
            show_job(job, Pace())


def _watch(job_id: str) -> None:
    job = find_job(job_id)
    if job is None or not is_active(job):
        st.rerun()
        return
    told = job_queue().progress(job_id)
    done, total = int(told.get("done") or 0), int(told.get("total") or 0)
    show_job(job, Pace(done / total, f"{done} of {total} pictures") if total else Pace())


def _missing(title: str, files: Sequence[Upload], source: str, is_nobody: bool) -> str:
    """Say what is missing; "" when nothing is."""
    if not title.strip():
        return "A persona must have a name to be picked by. Fill it in."
    if len(files) < LEAST_FACES:
        return (
            f"A composite must be made of {LEAST_FACES} pictures or more, but got {len(files)}. Choose a larger folder."
        )
    if not source.strip():
        return "A composite's record must say what made the pictures. Fill it in."
    return "" if is_nobody else "A composite must be of machine-made faces only. Tick the box, if they are."
