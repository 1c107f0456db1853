"""Under the picture: cover, full screen, pop-out and the keyboard, the same by both relays (see stage.js)."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from streamlit.components.v2 import component

from ui.relay.camera_socket import below_base
from ui.session.viewer import ViewerRegistry

COVER_PATH = "/cover"
_KEYS = {
    "Space": "Cover at once; again, after a second, to go on",
    "1 … 9": "Choose a persona",
    "R": "Record, or stop recording",
    "S": "Snapshot",
    "M": "Mirror",
    "F": "Full screen",
    "?": "This list",
}
_BUTTONS = {
    "cover": ("visibility_off", "Cover", "Cover at once (Space)"),
    "full": ("fullscreen", "", "Full screen (F)"),
    "pop": ("picture_in_picture_alt", "", "Pop out"),
    "keys": ("keyboard", "", "Keyboard shortcuts (?)"),
}
_CSS = """
.bar { display: flex; gap: 0.35rem; align-items: center; }
button {
  display: inline-flex; align-items: center; gap: 0.4rem; min-height: 2.5rem; min-width: 2.5rem; padding: 0 0.6rem;
  justify-content: center; font: inherit; font-size: 0.875rem; cursor: pointer; color: var(--st-text-color);
  background: var(--st-background-color); border: 1px solid var(--st-border-color);
  border-radius: var(--st-button-radius); white-space: nowrap;
}
button:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
button:focus-visible, input:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 2px; }
button[aria-pressed=true] { background: #b3261e; border-color: #b3261e; color: #fff; }
.icon { font: normal 1.25rem/1 "Material Symbols Rounded"; }
dialog {
  border: 1px solid var(--st-border-color); border-radius: var(--st-base-radius); padding: 1.25rem 1.5rem;
  color: var(--st-text-color); background: var(--st-background-color); max-width: 28rem;
}
dialog::backdrop { background: #0008; }
h2 { margin: 0 0 0.75rem; font-size: 1.1rem; }
td { padding: 0.25rem 1rem 0.25rem 0; vertical-align: top; }
kbd { border: 1px solid var(--st-border-color); border-radius: 4px; padding: 0.05rem 0.4rem; white-space: nowrap; }
label { display: flex; gap: 0.5rem; margin: 0.75rem 0; }
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the stage shows, besides the picture itself.

    Attributes:
        still: the chosen persona's picture, as an address an <img> takes.
        hint: what is written over it while the camera is off.
        aspect: width over height, as CSS has it: "4 / 3".
    """

    still: str
    hint: str
    aspect: str


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return component("stage", html=bar_html(), css=_CSS, js=script)


def bar_html() -> str:
    """Give what stage.js brings to life: the buttons and the list of keys."""
    buttons = "".join(
        f'<button type="button" data-do="{name}" title="{escape(title)}" aria-label="{escape(title)}">'
        f'<span class="icon" aria-hidden="true" translate="no">{icon}</span>'
        + (f'<span class="words">{words}</span>' if words else "")
        + "</button>"
        for name, (icon, words, title) in _BUTTONS.items()
    )
    rows = "".join(f"<tr><td><kbd>{key}</kbd></td><td>{escape(words)}</td></tr>" for key, words in _KEYS.items())
    return (
        f'<div class="bar" role="toolbar" aria-label="Picture">{buttons}</div>'
        f'<dialog aria-labelledby="keys-title"><h2 id="keys-title">Keyboard</h2><table>{rows}</table>'
        '<label><input type="checkbox"> Letters and digits as shortcuts (Space always covers)</label>'
        '<button type="button" class="close">Close</button></dialog>'
    )


def stage(token: str, scene: Scene, is_covered: bool, is_recording: bool) -> None:
    """Mount the bar; the page runs again when the viewer covered themselves or went on.

    Args:
        token: the viewer's.
        scene: what stands in the picture's place while the camera is off.
        is_covered: whether the viewer covers themselves now.
        is_recording: whether leaving the page would lose a recording: the browser asks then.
    """
    _component()(
        key="stage_bar",
        data={
            "token": token,
            "coverPath": below_base(COVER_PATH),
            "still": scene.still,
            "hint": scene.hint,
            "aspect": scene.aspect,
            "isCovered": is_covered,
            "isRecording": is_recording,
            "words": {"cover": "Cover", "uncover": "Go on"},
        },
        on_covered_change=_rerun,
    )


async def cover(request: Request, viewers: ViewerRegistry) -> Response:
    """Cover a viewer, or let them go on: the panic key, which waits for no run of the page.

    The body is JSON, {"token": the viewer's, "covered": true or false}. No cookie is read: without a token, which only
    the viewer's own page knows, nothing happens.
    """
    try:
        asked = await request.json()
        token, is_covered = str(asked["token"]), bool(asked["covered"])
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": "The body must be JSON with token and covered. Reload the page."}, 400)
    viewer = viewers.find(token)
    if viewer is None:
        return JSONResponse({"error": "The page is no longer known here. Reload it."}, 404)
    viewer.cover(is_covered)
    return JSONResponse({"covered": viewer.is_covered})


def _rerun() -> None:
    """The page runs again by itself, so that the state says what holds."""
