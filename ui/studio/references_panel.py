"""The Studio's second step: a persona's clips to further references, used where they are better than its photo."""

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from ui.parts.job_card import Pace, is_active, is_moving, show_job
from ui.parts.job_entry import job_command
from ui.parts.needs import show_missing
from ui.parts.notes import note_job, noted_job, read_note
from ui.session.own_personas import ShelfPersona
from ui.session.settings import app_settings
from ui.session.shared import served_model
from ui.session.workspace import is_local_or_logged_in, job_queue
from ui.studio.compare_panel import MODEL, compare_panel
from understudy.jobs.atomic_file import write_json
from understudy.jobs.queue import Job, JobState, module_command
from understudy.swap.own_personas import REFERENCES_NOTE

_LOOK_AGAIN_S = 2.0
_JOB = "references"
_FIGURES = {
    "identity": ("Likeness to the persona", "SFace, 1 is the same picture"),
    "ssim": ("Likeness to the clip itself", "SSIM, 1 is the clip"),
    "delta_e": ("Colour off", "delta E, 0 is the clip"),
    "flicker": ("Flicker", "1 is the clip's own"),
}


def references_panel(persona: ShelfPersona) -> None:
    """Draw what the clips gave, or the button that asks them."""
    job = noted_job(persona.folder, _JOB)
    if job is not None and is_active(job):
        if is_moving(job):
            job_queue().ensure_worker()
            st.fragment(_working, run_every=_LOOK_AGAIN_S)(persona)
        else:
            show_job(job, Pace())
        return
    if job is not None and job.state is not JobState.DONE:
        show_job(job, Pace())
    note = read_note(persona.references / REFERENCES_NOTE)
    if note:
        _finished(persona, note)
    _start(persona, is_first=not note)


def learn(persona: ShelfPersona, frames: int | None = None) -> Job:
    """Queue the choice of references, their measuring, and the bundle's registration.

    Args:
        persona: whose clips.
        frames: of each clip to judge by; as many as the command takes by itself where not given.
    """
    settings = app_settings()
    options = ("--persona", persona.folder, "--bundle", settings.bundle.resolve(), "--trust", settings.trust.resolve())
    options += ("--frames", str(frames)) if frames else ()
    choose = module_command("training.references", persona.faceset, *options)
    commands = [choose]
    if served_model().bundle.manifest.is_one_shot:  # an autoencoder plays no pictures, so there is nothing to promote
        bundle = persona.folder / "bundle"
        commands.append(
            module_command("pipelines.registry", "--name", MODEL, "register", bundle, "--alias", "challenger")
        )
    job = job_queue().submit("references", f"References of {persona.title}", job_command(*commands))
    note_job(persona.folder, job, _JOB)
    job_queue().ensure_worker()
    return job


def _learn(persona: ShelfPersona) -> None:
    learn(persona)


def _start(persona: ShelfPersona, is_first: bool) -> None:
    """Draw the button, or what it needs."""
    if not is_local_or_logged_in():
        st.info("This registers a version, and so is for those who are logged in.", icon=":material/login:")
        return
    if show_missing("Choosing references"):
        return
    if not (persona.faceset / "faceset.json").is_file():
        st.info(
            "Clips of the same person hold further poses and expressions. Add one on the Faces tab first: half a "
            "minute or more, the head turning, talking and smiling.",
            icon=":material/school:",
        )
        return
    st.button(
        "Choose references from the clips" if is_first else "Choose again",
        key="learn",
        type="primary" if is_first else "secondary",
        icon=":material/school:",
        on_click=_learn,
        args=(persona,),
    )
    st.caption(
        "A part of every clip is held out. Both ways to play are measured on it, the photo alone and the nearest of "
        "many references, and the better one plays. It takes minutes, beside the app: this page may be closed."
    )


def _working(persona: ShelfPersona) -> None:
    """Draw the work; reloads the page when it is over."""
    job = noted_job(persona.folder, _JOB)
    if job is None or not is_active(job):
        st.rerun()
        return
    show_job(job, Pace(None, "Choosing references, then measuring them"))


def _finished(persona: ShelfPersona, note: Mapping[str, Any]) -> None:
    """Draw what was chosen, what was measured, and the choice of what plays."""
    count = int(note.get("count", 0))
    if not count:
        st.info(
            "The clips show nothing of the persona that its photo does not: the photo plays.", icon=":material/face:"
        )
        return
    figures = note.get("figures", {})
    st.success(_sentence(count, bool(note.get("is_better")), bool(figures)), icon=":material/check_circle:")
    if figures:
        _table(figures)
    key = f"plays_by-{persona.name}"
    st.session_state.setdefault(key, bool(note.get("is_used")))
    st.segmented_control(
        "It plays by",
        [False, True],
        format_func={False: "Its photo", True: f"Its photo and {count} more"}.__getitem__,
        required=True,
        key=key,
        on_change=_use,
        args=(persona, key),
        help="Live, in converted clips and in the virtual camera.",
    )
    pictures = sorted(persona.references.glob("*.png"))
    with st.expander("The references", icon=":material/photo_library:", on_change="rerun", key="references") as shown:
        if shown.open:
            st.image([str(path) for path in pictures], width=120)
    if persona.bundle is not None:
        compare_panel(persona)


def _sentence(count: int, is_better: bool, is_measured: bool) -> str:
    if not is_measured:
        return f"{count} references were chosen. There is no clip to judge them by, so the photo plays."
    if is_better:
        return f"{count} references make a better picture than the photo alone, on frames held out. They play."
    return f"{count} references are no better than the photo alone, on frames held out. The photo plays."


def _table(figures: Mapping[str, Mapping[str, float]]) -> None:
    rows = [
        {"": title, "Its photo": figures["one"][key], "Many references": figures["many"][key], "Scale": scale}
        for key, (title, scale) in _FIGURES.items()
    ]
    st.dataframe(rows, hide_index=True, width="stretch")


def _use(persona: ShelfPersona, key: str) -> None:
    """Choose between the photo and all references, from the next run of the Live page on."""
    path = persona.references / REFERENCES_NOTE
    write_json(path, json.loads(path.read_text()) | {"is_used": bool(st.session_state[key])})
