"""Personas to pick by their faces: a radio group, one tab stop, arrow keys (see persona_picker.js)."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import streamlit as st
from streamlit.components.v2 import component

from understudy.bundle.bundle import PersonaInfo

_FACE_PX = 160
KEY = "persona"
_WIDGET = "persona_picker"
_CSS = """
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)); gap: 0.5rem; padding: 4px; }
.title { grid-column: 1 / -1; font-size: 0.875rem; opacity: 0.8; }
[role=radio] {
  position: relative; padding: 0; border: 0; aspect-ratio: 1; overflow: hidden; cursor: pointer;
  border-radius: var(--st-base-radius); background: var(--st-secondary-background-color); font: inherit;
  color: #fff;
}
img { display: block; width: 100%; height: 100%; object-fit: cover; }
.name { position: absolute; inset: auto 0 0; padding: 0.9rem 0.4rem 0.25rem; font-size: 0.875rem; text-align: left; }
.name { background: linear-gradient(#0000, #000c 55%); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.note { position: absolute; inset: 0.25rem auto auto 0.25rem; padding: 0.05rem 0.4rem; border-radius: 1rem; }
.note { background: #000b; font-size: 0.75rem; }
[role=radio][aria-checked=true] { outline: 3px solid var(--st-primary-color); outline-offset: 1px; }
[role=radio][aria-checked=true] .name::before { content: "✓ "; }
[role=radio]:focus-visible { outline: 3px solid var(--st-text-color); outline-offset: 2px; }
@media (max-width: 640px) {
  .faces { display: flex; overflow-x: auto; scrollbar-width: thin; }
  [role=radio] { flex: 0 0 64px; height: 64px; }
  .title { flex: 0 0 auto; align-self: center; writing-mode: vertical-rl; font-size: 0.75rem; }
  .name { padding: 0.5rem 0.2rem 0.1rem; font-size: 0.6875rem; }
  .note { display: none; }
}
"""


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    html = '<div class="faces" role="radiogroup"></div>'
    return component("persona_picker", html=html, css=_CSS, js=script)


def pick_persona(groups: Mapping[str, Sequence[PersonaInfo]], suiting: str = "") -> str:
    """Draw the faces and give the name of the chosen one.

    Args:
        groups: personas by the title of their group, first things first; one at least.
        suiting: who suits the driver in sight best; "" while nobody knows.
    """
    names = [persona.name for personas in groups.values() for persona in personas]
    if st.session_state.get(KEY) not in names:
        st.session_state[KEY] = names[0]
    data = [
        {"title": title, "personas": [_face(persona, persona.name == suiting) for persona in personas]}
        for title, personas in groups.items()
        if personas
    ]
    _component()(
        key=_WIDGET,
        data={"label": "Persona", "groups": data, "chosen": st.session_state[KEY]},
        on_persona_change=_take,
    )
    return str(st.session_state[KEY])


def face_address(picture: Path, size_px: int = _FACE_PX) -> str:
    """Return a picture as an address that an <img> takes, small enough to travel with the page."""
    return _address(str(picture), picture.stat().st_mtime_ns, size_px)


def _face(persona: PersonaInfo, suits: bool) -> dict[str, str]:
    note = {"note": "suits you"} if suits else {}
    return {"name": persona.name, "title": persona.title, "src": face_address(persona.thumbnail), **note}


@st.cache_data(max_entries=256, show_spinner=False)
def _address(picture: str, stamp: int, size_px: int) -> str:
    image = cv2.imdecode(np.fromfile(picture, np.uint8), cv2.IMREAD_COLOR)
    if image is None:  # half-written, or removed meanwhile
        return ""
    scale = size_px / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _take() -> None:
    """Keep what was clicked where the rest of the app looks for it."""
    chosen = st.session_state[_WIDGET].persona
    if chosen:
        st.session_state[KEY] = str(chosen)
