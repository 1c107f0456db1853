"""The Studio page: from a face and a permission to a persona of one's own, live, then learned from clips."""

import streamlit as st

from ui.parts.consent_badge import consent_badge, revoke_button
from ui.session.own_personas import ShelfPersona, shelved, trust_store
from ui.session.workspace import discard, this_workspace
from ui.studio.faces_panel import faces_panel
from ui.studio.new_persona import new_persona
from ui.studio.references_panel import references_panel

_CHOSEN = "studio_persona"
_IN_A_ROW = 6


def page() -> None:
    """Draw the page."""
    st.title("Studio")
    st.caption("One photo makes a persona that plays at once. Clips of the same person may make it a better one.")
    workspace = this_workspace()
    personas = shelved(workspace)
    chosen = next((each for each in personas if each.name == st.session_state.get(_CHOSEN)), None)
    if personas:
        _shelf(personas, chosen)
    if chosen is not None:
        _persona(chosen)
        return
    if not personas:
        st.info(
            "You have no personas of your own yet. Add a face and the permission to use it; "
            "the persona can be picked on the Live page seconds later.",
            icon=":material/face:",
        )
    if not workspace.is_kept:
        st.caption("Nobody is logged in: your personas are forgotten when you close this page.")
    if made := new_persona(workspace):
        _choose(made.name)
        st.rerun()


def _shelf(personas: list[ShelfPersona], chosen: ShelfPersona | None) -> None:
    """Draw the thumbnails, the chosen one marked, and the way to a new one."""
    columns = st.columns(_IN_A_ROW)
    for place, persona in enumerate(personas):
        with columns[place % _IN_A_ROW]:
            st.image(str(persona.info.thumbnail), width="stretch", alt=persona.title)
            is_chosen = persona is chosen
            st.button(
                persona.title,
                key=f"own-{persona.name}",
                icon=":material/check:" if is_chosen else None,
                width="stretch",
                on_click=_choose,
                args=("" if is_chosen else persona.name,),
            )
    if chosen is not None:
        with columns[len(personas) % _IN_A_ROW]:
            st.button("New persona", key="new_persona", icon=":material/add:", on_click=_choose, args=("",))


def _choose(name: str) -> None:
    st.session_state[_CHOSEN] = name


def _persona(persona: ShelfPersona) -> None:
    """Draw one persona: what it may be used for, where it plays, and how it becomes better."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(persona.title, width="content")
        consent_badge(persona.info, trust_store())
        st.button("Play it live", key="play_live", icon=":material/videocam:", on_click=_play, args=(persona.name,))
        with st.popover("More", icon=":material/more_horiz:", type="tertiary"):
            revoke_button(persona.info, trust_store())
            st.button(
                "Remove it and everything it was made of",
                key="remove_persona",
                icon=":material/delete:",
                on_click=_remove,
                args=(persona,),
            )
    if st.session_state.pop("go_live", False):
        st.switch_page(st.session_state["live_page"])
    faces, references = st.tabs(["Faces", "References"], key="studio_step", on_change="rerun")
    if faces.open:
        with faces:
            faces_panel(persona)
    if references.open:
        with references:
            references_panel(persona)


def _play(name: str) -> None:
    """Choose the persona on the Live page, and go there where there is one."""
    st.session_state["persona"] = name
    st.session_state["go_live"] = "live_page" in st.session_state


def _remove(persona: ShelfPersona) -> None:
    discard(persona.folder)
    _choose("")
