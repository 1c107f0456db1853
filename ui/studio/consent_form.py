"""The permission step: whose face it is, what it may be used for, and what stands behind that."""

import hashlib
import random
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import streamlit as st

from ui.parts.job_card import plain
from ui.parts.uploads import keep_upload
from ui.session.workspace import Workspace
from ui.studio.persona_maker import Permission, evidence_of_file
from ui.studio.photo import face_finder
from ui.studio.recorder import Prompt, record
from understudy.consent.check import USES
from understudy.consent.liveness import LiveCheck, LivePrompt, Step
from understudy.media.guard import MediaError, read_upload_frames

KINDS = {"self": "My own", "person": "Somebody’s who agreed"}
_USES = {"train": "Training", "live": "Live", "record": "Recordings"}
_DAYS = {30: "30 days", 365: "A year", 1825: "Five years"}
_FORMS = ["pdf", "jpg", "jpeg", "png", "mp4", "mov", "webm", "mp3", "m4a", "wav", "txt"]
_LIVE = "live_check_evidence"


def ask_permission(workspace: Workspace) -> Permission:
    """Draw the step and give what it says now; whether that is enough, `Permission.check` tells."""
    kind = st.segmented_control(
        "Whose face is it?", list(KINDS), format_func=KINDS.__getitem__, default="self", required=True, key="face_of"
    )
    is_self = kind != "person"
    subject = st.text_input("Your name" if is_self else "Their name", key="consent_subject")
    uses = st.multiselect(
        "May be used for", list(USES), default=list(USES), format_func=_USES.__getitem__, key="consent_uses"
    )
    days = st.selectbox("For", list(_DAYS), index=1, format_func=_DAYS.__getitem__, key="consent_days")
    statement = statement_of(is_self, subject)
    with st.container(border=True):
        st.markdown(plain(statement))
        is_agreed = st.checkbox("I agree" if is_self else "They agreed, and I can show it", key=f"agreed-{kind}")
    evidence = _live_check(workspace) if is_self else {}
    evidence = evidence or _form(workspace, is_self)
    return Permission("self" if is_self else "person", subject, statement, tuple(uses), int(days), evidence, is_agreed)


def statement_of(is_self: bool, subject: str) -> str:
    """What is agreed to, as it goes into the record."""
    name = subject.strip() or "the person shown"
    if is_self:
        return "This is my own face. I agree that a persona of it is made and used here as chosen above."
    return f"This is the face of {name}, who agreed that a persona of it is made and used here as chosen above."


def check_take(path: Path, check: LiveCheck) -> LivePrompt:
    """Lead a recorded take through the live check; give where it ended.

    Raises:
        MediaError: the take cannot be decoded.
    """
    prompt = LivePrompt(Step.LOOK, "", 0.0)
    with closing(read_upload_frames(path)) as frames:
        for time_s, image in frames:
            face = face_finder().aligned(image)
            prompt = check.update(image, face.face.mesh if face else None, time_s)
            if prompt.step is Step.DONE:
                break
    return prompt


def _live_check(workspace: Workspace) -> Mapping[str, Any]:
    """Draw the camera check; returns the evidence once it is passed."""
    if found := st.session_state.get(_LIVE):
        st.success("The camera check is done. Only its fingerprint is kept.", icon=":material/verified_user:")
        return found
    with st.expander("Check with the camera that it is you", icon=":material/photo_camera:"):
        check = st.session_state.setdefault("live_check", LiveCheck(random.SystemRandom()))
        # The order of the turns is the check's secret: asked for twice, both orders are met.
        prompts = (
            Prompt("Look into the camera", 2.5),
            Prompt(f"Say aloud: “{check.line}”", 6.0),
            Prompt("Turn your head to your left", 3.0),
            Prompt("Turn your head to your right", 4.0),
            Prompt("Turn your head to your left", 4.0),
        )
        take = record(prompts, "live-check")
    if take is None:
        return {}
    path = workspace.folder / "takes"
    try:
        path = keep_upload(take, path)
        with st.spinner("Looking at the take"):
            prompt = check_take(path, check)
    except MediaError as error:
        st.error(str(error), icon=":material/block:")
        return {}
    finally:
        if path.is_file():
            path.unlink()
    st.session_state.pop("live_check")
    if prompt.step is not Step.DONE:
        st.error(f"The check stopped at: {prompt.sentence} Record again, with good light.", icon=":material/error:")
        return {}
    st.session_state[_LIVE] = check.evidence(datetime.now(UTC))
    return st.session_state[_LIVE]


def _form(workspace: Workspace, is_self: bool) -> Mapping[str, Any]:
    """Draw the upload of a signed form; it is kept as it is, and never opened."""
    label = "Or a signed form, or a recording of your statement" if is_self else "Signed form or recorded statement"
    form = st.file_uploader(label, _FORMS, key=f"form-{is_self}", max_upload_size=50)
    if form is None:
        return {}
    content = form.getvalue()
    folder = workspace.folder / "evidence"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}{Path(form.name).suffix.lower()[:6]}"
    path.write_bytes(content)
    return evidence_of_file(path, form.name)
