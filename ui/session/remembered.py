"""What a viewer chose, kept across pages, reloads and restarts: in a cookie of their browser, never on the server.

Streamlit forgets a widget's value as soon as a page without it runs; these outlive that. What shows the viewer's own
face (their camera in the swap's place, or beside it) is left out on purpose: it is off again after every reload.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from understudy.swap.settings import LEAST_STRENGTH

MOST_PRESETS = 8
MASK_SIZES = (0.75, 1.25)  # beyond, the mask cuts into the features, or takes hair and background with it
_COOKIE = "understudy"
_MOST_BYTES = 3800  # browsers keep 4096 a cookie, its name and dates included
_PRESETS = "presets"
_NAME = re.compile(r"[\w .'-]{1,30}")


def _between(least: float, most: float) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value) is not None


LOOK: Mapping[str, Callable[[object], bool]] = {
    "persona": _is_name,
    "strength": _between(LEAST_STRENGTH, 1),
    "colour_match": _is_flag,
    "mask_feather": _between(0, 1),
    "mask_size": _between(*MASK_SIZES),
    "own_eyes": _is_flag,
    "shape": _between(0, 1),
    "keep_occluders": _is_flag,
    "faces": _one_of("all", "largest"),
    "is_mirrored": _is_flag,
    "cover": _one_of("blur", "slate", "hold"),
}
"""What a preset holds: the widgets' keys, and which values they take."""

_KEPT: Mapping[str, Callable[[object], bool]] = {
    **LOOK,
    "camera_size": _one_of("480p", "720p", "1080p"),
    "camera_rate": _one_of(15, 24, 30, 60),
    "relay": _one_of("auto", "webrtc", "websocket"),
    "snapshot_format": _one_of(".jpg", ".png"),
}


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return component("remembered", js=script)


def recall() -> None:
    """Begin a session with what this browser remembers, and carry its values from page to page. First in every run."""
    state = st.session_state
    if _PRESETS not in state:
        stored = decoded(st.context.cookies.get(_COOKIE, ""))
        state[_PRESETS] = stored.pop(_PRESETS, {})
        for key, value in stored.items():
            state.setdefault(key, value)
    for key in _KEPT:
        if key in state:
            state[key] = state[key]  # a value that was set outlives a page without its widget


def remember() -> None:
    """Let the browser keep what holds now. Last in every run."""
    kept = {key: st.session_state[key] for key in _KEPT if key in st.session_state}
    value = encoded({**kept, _PRESETS: presets()})
    _component()(key="remembered", data={"name": _COOKIE, "value": value}, height=1)


def presets() -> MutableMapping[str, dict[str, Any]]:
    """This viewer's presets by name, oldest first."""
    return st.session_state.setdefault(_PRESETS, {})


def save_preset(name: str) -> str:
    """Keep the look of now under a name.

    Returns:
        Why it was not kept, or "".
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        return "A preset's name must have 1 to 30 letters, digits or spaces. Choose another one."
    kept = presets()
    if name not in kept and len(kept) >= MOST_PRESETS:
        return f"There may be {MOST_PRESETS} presets at most. Remove one first."
    kept[name] = {key: st.session_state[key] for key in LOOK if key in st.session_state}
    return ""


def apply_preset(name: str) -> None:
    """Let a preset's look hold. Call it in a callback: the widgets' values may not be set after they were drawn."""
    for key, value in presets()[name].items():
        st.session_state[key] = value


def encoded(stored: Mapping[str, Any]) -> str:
    """Return settings as a cookie's value; presets are left out, newest first, where all of them would not fit."""
    kept = dict(stored.get(_PRESETS, {}))
    while True:
        packed = json.dumps({**stored, _PRESETS: kept}, separators=(",", ":"), ensure_ascii=False, default=str)
        value = base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")
        if len(value) <= _MOST_BYTES or not kept:
            return value
        kept.popitem()


def decoded(value: str) -> dict[str, Any]:
    """Read a cookie's value; whatever is no setting of ours, or no value it can have, is left out."""
    try:
        stored = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except ValueError:
        return {}
    if not isinstance(stored, dict):
        return {}
    found: dict[str, Any] = _valid(stored, _KEPT)
    listed = stored.get(_PRESETS)
    kept = listed.items() if isinstance(listed, dict) else ()
    found[_PRESETS] = {
        name: _valid(look, LOOK)
        for name, look in [*kept][:MOST_PRESETS]
        if _NAME.fullmatch(name) and isinstance(look, dict)
    }
    return found


def _valid(stored: Mapping[str, Any], rules: Mapping[str, Callable[[object], bool]]) -> dict[str, Any]:
    return {key: stored[key] for key, is_valid in rules.items() if key in stored and is_valid(stored[key])}
