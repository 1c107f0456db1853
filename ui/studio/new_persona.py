"""The Studio's first step: a face and a permission become a persona that plays at once."""

import shutil
import tempfile
from pathlib import Path

import streamlit as st

from liveframe.errors import LiveframeError
from ui.parts.uploads import Upload, keep_upload
from ui.session.own_personas import ShelfPersona, trust_store
from ui.session.shared import served_model
from ui.session.workspace import Workspace
from ui.studio.consent_form import ask_permission
from ui.studio.persona_maker import Permission, make_persona
from ui.studio.photo import PersonaPhoto, read_photo, warm_up
from understudy.bundle.bundle import BundleError
from understudy.media.guard import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS

_WAYS = {"file": "A photo or a clip", "camera": "The camera"}


def new_persona(workspace: Workspace) -> ShelfPersona | None:
    """Draw the form; returns the persona in the run in which it was made."""
    warm_up()
    way = st.segmented_control(
        "Make it from", list(_WAYS), format_func=_WAYS.__getitem__, default="file", required=True, key="face_from"
    )
    face, permission = st.columns(2, gap="large")
    with face:
        st.subheader("The face")
        title = st.text_input("Name of the persona", key="persona_title", max_chars=40)
        upload = _ask_face(way or "file")
    with permission:
        st.subheader("The permission")
        given = ask_permission(workspace)
    missing = [what for what, is_there in {"a name": title.strip(), "a face": upload}.items() if not is_there]
    if missing := [*missing, *given.missing()]:
        st.caption("Still missing: " + "; ".join(missing) + ".")
    if not st.button("Make the persona", type="primary", icon=":material/face:", key="make_persona"):
        return None
    if upload is None:
        st.warning(
            "A persona must have a face. Add a photo, a clip or a picture from the camera.", icon=":material/face:"
        )
        return None
    try:
        with st.spinner("Making the persona"):
            return _make(workspace, title, upload, given)
    except LiveframeError as error:
        st.error(str(error), icon=":material/block:")
        return None


def _ask_face(way: str) -> Upload | None:
    """Draw the camera or the uploader; returns what it holds."""
    if way == "camera":
        return st.camera_input("Look straight into the camera, in even light, without glasses", key="face_camera")
    return st.file_uploader(
        "One photo, or a short clip of one person",
        [*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS],
        key="face_file",
        max_upload_size=50,
        help="From the front, sharp, evenly lit, with nothing before the face. Of a clip the best picture is taken.",
    )


def _make(workspace: Workspace, title: str, upload: Upload, given: Permission) -> ShelfPersona:
    """Refuse first, then decode, then write."""
    given.check()
    folder = Path(tempfile.mkdtemp(prefix="face-", dir=workspace.folder))
    try:
        path = keep_upload(upload, folder, "face")
        picture: PersonaPhoto = read_photo(path)
        persona = make_persona(workspace, title, picture, given, trust_store(), _taken())
        if path.suffix in VIDEO_EXTENSIONS:  # further references are chosen from its other pictures
            persona.clips.mkdir(mode=0o700, exist_ok=True)
            shutil.move(path, persona.clips / f"first{path.suffix}")
        return persona
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _taken() -> set[str]:
    """Names of the personas that ship."""
    try:
        return {persona.name for persona in served_model().bundle.personas}
    except BundleError:
        return set()
