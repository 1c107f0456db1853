"""A snapshot, a recording, and what came of them."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime

import cv2
import streamlit as st

from liveframe.errors import LiveframeError
from liveframe.gate import Shown, ShownState
from ui.live.status import is_streaming
from ui.session.sealing import SealError, sealer
from ui.session.shared import ServedModel
from ui.session.viewer import Viewer
from understudy.consent.trust_store import trust_folder
from understudy.provenance.disclosure import read_disclosure

_FORMATS = {".jpg": "JPEG", ".png": "PNG"}
_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}
_KINDS = {".jpg": "snapshot", ".png": "snapshot", ".mp4": "recording"}
_JPEG_QUALITY = 95
_DONE, _PROBLEM = "capture_done", "capture_problem"


@dataclass(frozen=True, slots=True)
class Export:
    """A signed picture or clip, ready to be downloaded.

    Attributes:
        name: of the file.
        content: the whole file.
        note: a sentence about it, "" when there is nothing to say.
    """

    name: str
    content: bytes
    note: str = ""


def capture_buttons(shared: ServedModel, viewer: Viewer) -> None:
    """Draw the buttons; both wait for the camera, and say so."""
    streams = is_streaming(viewer)
    is_recording = viewer.recording is not None
    why = None if streams else "The camera is off. Start it first."
    st.button(
        "Snapshot",
        key="snapshot",
        icon=":material/photo_camera:",
        disabled=not streams,
        help=why or "Keep the picture of now (S)",
        on_click=_try,
        args=("snapshot", shared, viewer),
    )
    st.button(
        "Stop recording" if is_recording else "Record",
        key="record",
        icon=":material/stop_circle:" if is_recording else ":material/fiber_manual_record:",
        type="primary" if is_recording else "secondary",
        disabled=not streams and not is_recording,
        help=why or "Keep what is shown as a clip (R)",
        on_click=_try,
        args=("stop" if is_recording else "record", shared, viewer),
    )


def choose_format() -> None:
    """Draw the choice of the snapshots' format."""
    st.session_state.setdefault("snapshot_format", ".jpg")
    st.segmented_control(
        "Snapshots as", list(_FORMATS), format_func=_FORMATS.__getitem__, required=True, key="snapshot_format"
    )


def shown_export() -> None:
    """Draw what the last snapshot or recording came to: small, with its download, or why it came to nothing."""
    if problem := st.session_state.get(_PROBLEM):
        st.error(problem, icon=":material/block:")
    export = st.session_state.get(_DONE)
    if isinstance(export, Export):
        _show(export)


def snapshot(shared: ServedModel, viewer: Viewer, shown: Shown | None, suffix: str) -> Export:
    """Make a labelled and signed picture of what is shown.

    Raises:
        LiveframeError: there is nothing to keep, it may not be kept, or it could not be signed.
    """
    if shown is None or shown.state not in (ShownState.SWAPPED, ShownState.HELD):
        raise SealError("A snapshot shows a persona, but none is shown now. Wait until the badge says Swapped.")
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else []
    content = cv2.imencode(suffix, shown.image, options)[1].tobytes()
    infos = viewer.infos(shown.personas)
    if len(infos) != len(shown.personas):
        raise SealError("A persona in the picture is gone, and its consent with it. The picture was not delivered.")
    claim = sealer().claim(shared.bundle, infos)
    return Export(_named(suffix), sealer().seal_bytes(content, suffix, claim))


def recorded(shared: ServedModel, viewer: Viewer) -> Export:
    """Finish the recording under way, sign it, and give it.

    Raises:
        LiveframeError: there is none, it could not be written, may not be kept, or could not be signed.
    """
    recording = viewer.end_recording()
    if recording is None:
        raise SealError("There is no recording to stop. Start one first.")
    try:
        path = recording.finish()
        infos = viewer.infos(recording.played)
        if len(infos) != len(recording.played):
            raise SealError("A persona of the recording is gone, and its consent with it. It was not delivered.")
        claim = sealer().claim(shared.bundle, infos)
        content = sealer().seal_file(path, claim).read_bytes()
    finally:
        recording.discard()
    sound = "With sound." if recording.has_sound else NO_SOUND
    dropped = f" {recording.dropped} pictures were left out: the machine was busy." if recording.dropped else ""
    return Export(_named(".mp4"), content, sound + dropped)


NO_SOUND = (
    "Without sound: the microphone was off. Turn it on under “Camera”, then start the camera again; "
    "it needs the WebRTC connection."
)


def _try(action: str, shared: ServedModel, viewer: Viewer) -> None:
    """Run a button's action; keep its result or its refusal for the page."""
    st.session_state.pop(_PROBLEM, None)
    try:
        if action == "record":
            _start(shared, viewer)
            st.session_state.pop(_DONE, None)
        elif action == "stop":
            st.session_state[_DONE] = recorded(shared, viewer)
        else:
            suffix = str(st.session_state.get("snapshot_format") or ".jpg")
            st.session_state[_DONE] = snapshot(shared, viewer, viewer.newest, suffix)
    except (LiveframeError, OSError) as error:
        st.session_state[_PROBLEM] = str(error)
        st.session_state.pop(_DONE, None)


def _start(shared: ServedModel, viewer: Viewer) -> None:
    """Begin to record, unless that is already clear to come to nothing."""
    if not is_streaming(viewer):
        raise SealError("There is nothing to record while the camera is off. Start it first.")
    sealer().claim(shared.bundle, viewer.infos(viewer.choices.personas))
    viewer.record()


def _show(export: Export) -> None:
    """Draw a thumbnail, its download, and the way to be rid of it."""
    suffix = export.name[-4:]
    with st.container(key="export", border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if suffix == ".mp4":
                st.video(export.content, format=_TYPES[suffix], width=160)
            else:
                st.image(export.content, width=96, alt="The snapshot")
            st.download_button(
                f"Download {_KINDS[suffix]}",
                export.content,
                file_name=export.name,
                mime=_TYPES[suffix],
                icon=":material/download:",
                key="download_export",
                on_click="ignore",
            )
            st.button("Close", key="forget_export", icon=":material/close:", type="tertiary", on_click=_forget)
        st.caption(f"{read_disclosure(trust_folder(os.environ)).sentence} {export.note}")


def _forget() -> None:
    st.session_state.pop(_DONE, None)


def _named(suffix: str) -> str:
    return f"understudy-{datetime.now(UTC):%Y%m%d-%H%M%S}{suffix}"
