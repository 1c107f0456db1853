"""The Studio's faces: clips in, faces found, bad ones dropped by a click."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from ui.parts.chart import histogram
from ui.parts.job_card import Pace, is_active, is_moving, show_job
from ui.parts.job_entry import job_command
from ui.parts.notes import note_job, noted_job
from ui.parts.uploads import Upload, keep_upload
from ui.session.own_personas import ShelfPersona
from ui.session.workspace import job_queue
from ui.studio.recorder import MOVES, record
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset, FacesetError, SortKey
from understudy.faceset.writer import FacesetWriter
from understudy.jobs.queue import Job, JobState, module_command
from understudy.media.guard import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, MediaError

_ON_A_PAGE, _IN_A_ROW = 40, 10
_SORTS = {"sharpness": "Sharpest first", "yaw": "From one side to the other", "frame": "As filmed"}


def faces_panel(persona: ShelfPersona) -> None:
    """Draw the step: add clips, watch faces being found, throw bad ones out."""
    job = noted_job(persona.folder, "faces")
    faceset = _faceset(persona)
    if faceset is None and not is_active(job):
        st.info(
            "The persona plays already, by its photo. For more poses and expressions, add clips of the same person: "
            "half a minute or more, the head turning, talking and smiling. The camera here tells you what to do.",
            icon=":material/video_camera_front:",
        )
    _add_clips(persona, is_busy=is_active(job))
    if job is not None and (is_active(job) or job.state in (JobState.FAILED, JobState.CANCELLED)):
        if is_moving(job):
            job_queue().ensure_worker()
            st.fragment(_working, run_every=1.0)(persona)
        else:
            show_job(job, Pace())
    elif faceset is not None:
        st.fragment(_look_through)(persona)


def _add_clips(persona: ShelfPersona, is_busy: bool) -> None:
    """Draw the uploader and the recorder; what they give is searched for faces at once."""
    round_ = st.session_state.setdefault("faces_round", 0)
    upload, camera = st.columns(2, gap="large")
    with upload:
        files = st.file_uploader(
            "Clips and photos",
            [*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS],
            accept_multiple_files=True,
            key=f"faces-{round_}",
            max_upload_size=50,
        )
        is_wanted = st.button(
            "Find the faces", type="primary", key="find_faces", icon=":material/search:", disabled=is_busy or not files
        )
    with camera:
        take = None if is_busy else record(MOVES, key=f"moves-{persona.name}")
    uploads: Sequence[Upload] = [take] if take is not None else files if is_wanted else []
    if not uploads:
        return
    try:
        for each in uploads:
            keep_upload(each, persona.clips)
    except MediaError as error:
        st.error(str(error), icon=":material/block:")
        return
    find_faces(persona)
    st.session_state["faces_round"] = round_ + 1
    st.rerun()


def find_faces(persona: ShelfPersona) -> Job:
    """Queue the search for faces in all of the persona's clips; what was searched before is not searched again."""
    clips = sorted(path for path in persona.clips.iterdir() if path.suffix in (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS))
    command = module_command("training.extract", *clips, "--out", persona.faceset, "--every", "2", "--quiet")
    job = job_queue().submit("faces", f"Faces for {persona.title}", job_command(command, vet=clips))
    note_job(persona.folder, job, "faces")
    job_queue().ensure_worker()
    return job


def _faceset(persona: ShelfPersona) -> Faceset | None:
    try:
        faceset = Faceset.open(persona.faceset)
    except FacesetError:
        return None
    return faceset if len(faceset) else None


def _working(persona: ShelfPersona) -> None:
    job = noted_job(persona.folder, "faces")
    if job is None or not is_active(job):
        st.rerun()
        return
    faceset = _faceset(persona)
    frames = sum(source.frames for source in faceset.sources.values()) if faceset else 0
    words = f"{len(faceset)} faces in {frames} pictures so far" if faceset else "Checking the clips"
    show_job(job, Pace(None, words))


def _look_through(persona: ShelfPersona) -> None:
    """Draw the faces, page by page; a click marks one, the button below drops what is marked."""
    faceset = _faceset(persona)
    if faceset is None:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sort = st.segmented_control(
            f"{len(faceset)} faces", list(_SORTS), format_func=_SORTS.__getitem__, default="sharpness", key="faces_sort"
        )
        person = _choose_person(faceset)
    wanted = faceset.filter(lambda entry: person is None or entry.identity == person).sorted_by(_sort_key(sort))
    pages = -(-len(wanted) // _ON_A_PAGE)
    page = st.pagination(pages, key=f"faces_page-{person}-{sort}") if pages > 1 else 1
    marked: set[str] = st.session_state.setdefault(f"marked-{persona.name}", set())
    _grid(wanted, list(wanted)[(page - 1) * _ON_A_PAGE : page * _ON_A_PAGE], marked)
    if marked:
        st.button(
            f"Drop {len(marked)} face{'s' if len(marked) > 1 else ''}",
            key="drop_faces",
            type="primary",
            icon=":material/delete:",
            on_click=_drop,
            args=(persona, marked),
        )
    with st.expander("Poses and sharpness", icon=":material/bar_chart:", on_change="rerun", key="histograms") as shown:
        if shown.open:
            _histograms(faceset)


def _sort_key(chosen: str | None) -> SortKey:
    return "yaw" if chosen == "yaw" else "frame" if chosen == "frame" else "sharpness"


def _choose_person(faceset: Faceset) -> int | None:
    people = faceset.identities
    if len(people) < 2:
        return None
    names = {None: "All", **{number: f"Person {number + 1} ({faces})" for number, faces in list(people.items())[:6]}}
    return st.segmented_control("Whose", list(names), format_func=names.__getitem__, default=None, key="faces_person")


def _grid(faceset: Faceset, entries: list[FaceEntry], marked: set[str]) -> None:
    """Draw faces in rows, each with the cross that marks it."""
    for first in range(0, len(entries), _IN_A_ROW):
        for column, entry in zip(st.columns(_IN_A_ROW, gap="xsmall"), entries[first : first + _IN_A_ROW], strict=False):
            is_marked = entry.id in marked
            with column:
                if is_marked:
                    st.image(faceset.crop(entry) // 4, channels="BGR", width="stretch", alt="Marked to be dropped")
                else:
                    st.image(str(faceset.root / entry.crop), width="stretch", alt=f"Yaw {entry.pose.yaw:.0f}°")
                st.button(
                    "Keep" if is_marked else "",
                    key=f"face-{entry.id}",
                    icon=":material/undo:" if is_marked else ":material/close:",
                    type="tertiary",
                    help=f"Yaw {entry.pose.yaw:.0f}°, sharpness {entry.sharpness:.0f}",
                    on_click=marked.symmetric_difference_update,
                    args=({entry.id},),
                )


def _drop(persona: ShelfPersona, marked: set[str]) -> None:
    try:
        with FacesetWriter.open(persona.faceset) as writer:
            writer.drop(marked)
        marked.clear()
    except FacesetError as error:
        st.toast(str(error), icon=":material/error:")


def _histograms(faceset: Faceset) -> None:
    """Draw how the heads are turned and how sharp the pictures are."""
    figures = {
        "Yaw, degrees": [entry.pose.yaw for entry in faceset],
        "Pitch, degrees": [entry.pose.pitch for entry in faceset],
        "Sharpness": [entry.sharpness for entry in faceset],
    }
    for column, (label, values) in zip(st.columns(len(figures), gap="large"), figures.items(), strict=True):
        with column:
            histogram(values, label)


def clips_of(persona: ShelfPersona) -> list[Path]:
    """The persona's clips (no photos), sorted by name."""
    return sorted(path for path in persona.clips.glob("*") if path.suffix in VIDEO_EXTENSIONS)
