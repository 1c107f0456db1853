"""The Convert page: clips and photos in, swapped ones out."""

import mimetypes
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import cv2
import streamlit as st

from ui.convert.conversions import (
    FORMATS,
    ClipEntry,
    ConversionError,
    PersonaChoice,
    Wishes,
    again,
    entries,
    outcome,
    pace,
    preview,
    remove,
    result_name,
    scene_picture,
    submit,
)
from ui.parts.job_card import find_job, is_active, is_moving, show_job, words_for_eta
from ui.parts.uploads import Upload, keep_upload, safe_stem
from ui.session.own_personas import shelved
from ui.session.shared import served_model
from ui.session.workspace import Workspace, is_operator, job_queue, this_workspace
from understudy.bundle.bundle import BundleError
from understudy.consent.trust_store import trust_folder
from understudy.jobs.queue import Job, JobError, JobState
from understudy.media.clip import describe
from understudy.media.guard import (
    IMAGE_EXTENSIONS,
    UPLOAD_LIMITS,
    VIDEO_EXTENSIONS,
    MediaError,
    MediaInfo,
    probe_upload,
)
from understudy.media.limits import MIB
from understudy.provenance.disclosure import DisclosureError, read_disclosure
from understudy.swap.settings import LEAST_STRENGTH

_MOST_SCENES = 6
_FRAME_MS, _MEGAPIXEL_MS = 12.0, 14.0  # of the swap on two cores, and of decoding, marking and encoding
_FACES = {"all": "All", "largest": "The largest"}
_NO_FACE = {"cover": "Cover", "keep": "Keep as they are"}
_COVERS = {"blur": "Blur", "slate": "Card", "hold": "Last picture"}


def page() -> None:
    """Draw the page."""
    st.title("Convert")
    st.caption("Clips and photos in, swapped ones out. Sound and timing stay.")
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
    """The viewer's own personas: played by their photos, as live."""
    bundle = served_model().bundle.path
    return [
        PersonaChoice(each.name, each.title, bundle, each.info.thumbnail, each.folder) for each in shelved(workspace)
    ]


def _new_clip(workspace: Workspace, choices: list[PersonaChoice]) -> None:
    """Draw the form, and submit what it was given."""
    round_ = st.session_state.setdefault("convert_round", 0)  # a new key empties the uploader
    sources: list[Upload | Path] = list(
        st.file_uploader(
            "Clips and photos",
            [*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS],
            accept_multiple_files=True,
            key=f"clips-{round_}",
            max_upload_size=UPLOAD_LIMITS.max_bytes // MIB,
        )
    )
    if is_operator(st.context.headers, str(st.get_option("server.address") or "")):
        path = st.text_input(
            "Or a file on this machine, of any size", key=f"path-{round_}", placeholder="/path/to/clip"
        )
        sources += [Path(path.strip()).expanduser()] if path.strip() else []
    chosen = _choose_persona(choices)
    wishes = _wishes()
    _preview(workspace, sources, chosen, wishes)
    if not st.button("Convert", type="primary", icon=":material/movie_edit:", disabled=not sources, key="convert"):
        return
    refused = False
    for source in sources:
        try:
            submit(workspace, source, chosen, wishes)
        except MediaError as error:
            refused = True
            st.error(str(error), icon=":material/block:")
    job_queue().ensure_worker()
    if not refused:
        st.session_state["convert_round"] = round_ + 1
        st.rerun()


def _wishes() -> Wishes:
    """Draw the options."""
    with st.expander("Options", icon=":material/tune:"):
        start, end = st.columns(2)
        wishes = Wishes(
            faces=_one_of("Faces to swap", _FACES, "all"),
            strength=st.slider("Strength", LEAST_STRENGTH, 1.0, 1.0, 0.05, key="convert_strength"),
            cover=_one_of("When a face cannot be swapped, show", _COVERS, "blur"),
            no_face=_one_of("Pictures in which no face is seen", _NO_FACE, "cover"),
            colour_match=st.toggle("Match the colours to the light", True, key="convert_colour_match"),
            shape=st.slider("Face shape", 0.0, 1.0, Wishes().shape, 0.05, key="convert_shape"),
            own_eyes=st.toggle("Keep the actor's own eyes", False, key="convert_own_eyes"),
            own_mouth=st.toggle("Keep the actor's own mouth", False, key="convert_own_mouth"),
            keep_occluders=st.toggle("Keep hands, hair and spectacles", True, key="convert_keep_occluders"),
            form=_one_of("Clips come out as", FORMATS, "mp4"),
            quality=st.slider("Quality", 1, 100, Wishes().quality, key="convert_quality"),
            height=int(st.number_input("Height in px (0: as it is)", 0, 8192, 0, 2, key="convert_height")),
            start_s=start.number_input("From second", 0.0, None, 0.0, 1.0, key="convert_start"),
            end_s=end.number_input("To second (0: the end)", 0.0, None, 0.0, 1.0, key="convert_end"),
        )
        if wishes.no_face == "keep":
            st.caption("A face that the detector overlooks then stays as it is. Look through the result.")
        if 0 < wishes.end_s <= wishes.start_s:
            st.caption("The end lies before the start: the clip is converted to its end.")
            wishes = replace(wishes, end_s=0.0)
        return wishes


def _preview(workspace: Workspace, sources: list[Upload | Path], chosen: PersonaChoice, wishes: Wishes) -> None:
    """Show the persona on one frame of the first clip before all of it is converted."""
    if not sources:
        return
    first = sources[0]
    name = Path(first.name).name
    try:
        source, info = _kept_for_preview(workspace, first)
    except (MediaError, OSError) as error:
        st.error(f"'{name}': {error}" if isinstance(error, OSError) else str(error), icon=":material/block:")
        return
    at_s = 0.0
    if info.is_video:
        at_s = st.slider(f"Moment of {name}", 0.0, max(info.seconds, 0.1), 0.0, 0.1, key="convert_at")
    if st.button("See it on this picture", icon=":material/visibility:", key="convert_preview"):
        began_s = time.monotonic()
        with st.spinner("Swapping one picture; some seconds…"):
            try:
                room, is_own = _preview_folder(workspace), isinstance(first, Path)
                shown = preview(source, room, chosen, wishes, at_s, is_own)
            except ConversionError as error:
                st.error(str(error), icon=":material/block:")
                return
        st.image(str(shown), caption=f"{name} as {chosen.title}")
        frames = info.frames or round(info.seconds * 25)
        if info.is_video and frames:
            st.caption(_estimate(frames, wishes, info, time.monotonic() - began_s))


def _estimate(frames: int, wishes: Wishes, info: MediaInfo, preview_s: float) -> str:
    """Say how long the whole clip may take: its pixels at the pace of two cores, after a start like the preview's."""
    part_s = (min(wishes.end_s, info.seconds) if wishes.end_s else info.seconds) - wishes.start_s
    share = min(1.0, max(0.0, part_s / info.seconds)) if info.seconds else 1.0
    frame_ms = _FRAME_MS + _MEGAPIXEL_MS * info.width * info.height / 1e6
    words = words_for_eta(preview_s + frames * share * frame_ms / 1e3).removesuffix(" left")
    return f"All {round(frames * share)} pictures take {words}."


def _preview_folder(workspace: Workspace) -> Path:
    folder = workspace.folder / "preview"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _kept_for_preview(workspace: Workspace, source: Upload | Path) -> tuple[Path, MediaInfo]:
    """Keep an upload where a preview can read it, and what its header says; once for each upload."""
    if isinstance(source, Path):
        return source, describe(source)
    known = st.session_state.get("convert_previewed")
    stamp = str(getattr(source, "file_id", source.name))
    if known and known[0] == stamp and known[1].is_file():
        return known[1], known[2]
    shutil.rmtree(workspace.folder / "preview", ignore_errors=True)
    kept = keep_upload(source, _preview_folder(workspace), safe_stem(source.name))
    info = probe_upload(kept)
    st.session_state["convert_previewed"] = (stamp, kept, info)
    return kept, info


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
    in_turn = reversed(entries(workspace))  # the queue runs the oldest first
    active = [(entry, job) for entry in in_turn if (job := find_job(entry.job_id)) and is_active(job)]
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
        if entry.target.suffix in (".mp4", ".webm"):
            st.video(str(entry.target))
        elif entry.target.suffix != ".mov":  # ProRes plays in no browser
            st.image(str(entry.target))
        _show_outcome(entry)
        st.caption(read_disclosure(trust_folder(os.environ)).sentence)
        with st.container(horizontal=True):
            st.download_button(
                "Download",
                data=entry.target.read_bytes,
                file_name=result_name(entry),
                mime=mimetypes.guess_type(entry.target.name)[0] or "application/octet-stream",
                icon=":material/download:",
                key=f"download-{entry.job_id}",
                on_click="ignore",
            )
            _forget_button(entry)


def _show_outcome(entry: ClipEntry) -> None:
    """Say how many pictures were swapped, and which scenes were not, with the reason and a look at them."""
    told = outcome(entry)
    for note in told["notes"]:
        st.caption(str(note))
    counts = {name: int(count) for name, count in dict(told["tally"]).items() if count}
    if sum(counts.values()) > 1:
        st.caption(", ".join(f"{count} pictures {name}" for name, count in counts.items()) + ".")
    scenes = list(told["scenes"])
    for place, scene in enumerate(scenes[:_MOST_SCENES]):
        picture, words = st.columns([1, 3], vertical_alignment="center")
        look = _scene_look(entry, float(scene["start_s"]))
        if look:
            picture.image(look, width="stretch", alt=f"Scene {place + 1}")
        span = f"{scene['start_s']:.1f} s to {scene['end_s']:.1f} s"
        words.caption(f"{span}: {scene['frames']} pictures {scene['outcome']}. {scene['reason']}")
    if any(scene["outcome"] == "covered" for scene in scenes):
        st.button(
            "Convert again, keeping pictures without a face",
            key=f"again-{entry.job_id}",
            icon=":material/replay:",
            type="tertiary",
            on_click=_again,
            args=(entry,),
        )


@st.cache_data(max_entries=64, show_spinner=False)
def _encoded_look(folder: str, at_s: float, _entry: ClipEntry) -> bytes:
    image = scene_picture(_entry, at_s)
    return cv2.imencode(".jpg", image)[1].tobytes() if image is not None else b""


def _scene_look(entry: ClipEntry, at_s: float) -> bytes:
    return _encoded_look(str(entry.folder), at_s, entry)


def _again(entry: ClipEntry) -> None:
    try:
        again(entry, this_workspace(), {"--no-face": "keep"})
    except (JobError, ValueError, OSError):
        st.toast("That clip is gone. Add it again.", icon=":material/error:")
        return
    job_queue().ensure_worker()


def _forget_button(entry: ClipEntry) -> None:
    st.button(
        "Remove",
        key=f"remove-{entry.job_id}",
        icon=":material/delete:",
        type="tertiary",
        on_click=remove,
        args=(entry,),
    )
