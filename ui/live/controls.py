"""The panel beside the picture: which persona, swapped or not, and how the blend looks."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import streamlit as st

from liveframe.cover import CoverStyle
from ui.live.capture_panel import choose_format
from ui.live.persona_picker import pick_persona
from ui.relay.camera_socket import Camera
from ui.session.model_sources import ServedModel
from ui.session.remembered import MASK_SIZES, apply_preset, presets, save_preset
from ui.session.settings import RelayChoice
from ui.session.viewer import Choices, SideBySideView
from understudy.bundle.bundle import PersonaInfo
from understudy.swap.settings import LEAST_STRENGTH
from understudy.swap.swapper import SwapSettings, View

T = TypeVar("T")


SIZES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
RATES = {15: "15", 24: "24", 30: "30", 60: "60"}
_COVERS = {CoverStyle.BLUR: "Blur", CoverStyle.SLATE: "Card", CoverStyle.HOLD: "Last picture"}
_FACES: dict[str | int, str] = {"all": "All", "largest": "The largest"}
_VIEWS = {View.RESULT: "Off", View.MASK: "Mask", View.MESH: "Mesh"}
RELAY_NAMES = {RelayChoice.AUTO: "Automatic", RelayChoice.WEBRTC: "WebRTC", RelayChoice.WEBSOCKET: "WebSocket"}


def choose(
    personas: tuple[PersonaInfo, ...],
    shipped: tuple[PersonaInfo, ...] = (),
    rivals: Sequence[ServedModel] = (),
    faces: Sequence[int] = (),
) -> Choices:
    """Draw the panel and give what it says now.

    Args:
        personas: who may be chosen.
        shipped: those of them that are not the viewer's own; none: all of them.
        rivals: other models that may stand beside the one that plays.
        faces: ids of the faces in sight, left to right.
    """
    own = tuple(persona for persona in personas if persona not in shipped) if shipped else ()
    persona = pick_persona({"Yours": own, "Shipped": shipped or personas})
    is_swapping = not st.toggle(
        "Show my own camera",
        key="is_off",
        help="Off by default. While this is on, nothing is swapped and your own face is sent back.",
    )
    with st.expander("Blend", icon=":material/tune:"):
        swap = _choose_blend(persona, faces)
        _choose_preset()
    with st.expander("Camera", icon=":material/videocam:"):
        is_mirrored = _switch("Mirror the picture", True, "is_mirrored")
        cover = _choose_one("When the face cannot be swapped, show", _COVERS, CoverStyle.BLUR, "cover")
        choose_format()
        _choose_camera()
    with st.expander("Side by side", icon=":material/splitscreen_right:"):
        beside = _choose_beside(personas, persona, rivals)
    return Choices(swap, is_swapping, cover, is_mirrored, beside)


def chosen_camera() -> Camera:
    """What the viewer wants of their camera."""
    size, fps = st.session_state.get("camera_size") or "480p", st.session_state.get("camera_rate") or 30
    return Camera(*SIZES[size], fps)


def chosen_relay() -> RelayChoice:
    """The relay that the viewer wants."""
    return RelayChoice(st.session_state.get("relay", RelayChoice.AUTO))


def has_microphone() -> bool:
    """Whether the viewer wants sound in recordings."""
    return bool(st.session_state.get("microphone", False))


def _choose_preset() -> None:
    """Draw the looks that the viewer named, and the way to name the present one."""
    kept = list(presets())
    if kept:
        st.pills("Presets", kept, key="preset", on_change=_apply_preset, help="A look of yours, persona included.")
    with st.popover("Save this look", icon=":material/bookmark_add:"):
        name = st.text_input("Its name", key="preset_name", max_chars=30)
        if st.button("Save", key="save_preset", type="primary") and (problem := save_preset(name)):
            st.warning(problem)
        for each in kept:
            st.button(
                f"Remove {each}",
                key=f"drop-{each}",
                icon=":material/delete:",
                type="tertiary",
                on_click=_drop_preset,
                args=(each,),
            )


def _drop_preset(name: str) -> None:
    presets().pop(name, None)


def _apply_preset() -> None:
    name = st.session_state.get("preset")
    if name is not None and name in presets():
        apply_preset(name)


def _choose_beside(personas: tuple[PersonaInfo, ...], chosen: str, rivals: Sequence[ServedModel]) -> SideBySideView:
    """Draw what may stand left of the swap; the viewer's own camera only where they say so."""
    options = {"": "Nothing", "persona": "Another persona"} | ({"model": "Another model"} if rivals else {})
    kind = _choose_one("Left of the swap", {**options, "camera": "My own camera"}, "", "beside")
    if kind == "camera":
        st.warning("Your own face is shown on the left, to you and in recordings.", icon=":material/visibility:")
        return SideBySideView(is_camera=True)
    if kind == "persona":
        others = [persona for persona in personas if persona.name != chosen] or personas  # one's double says nothing
        titles = {persona.name: persona.title for persona in others}
        left = st.selectbox("Who plays on the left", list(titles), format_func=titles.__getitem__, key="beside_persona")
        return SideBySideView(persona=left or others[0].name)
    if kind == "model" and rivals:
        names = [rival.title for rival in rivals]
        title = st.selectbox("Which model plays on the left", names, key="beside_model")
        return SideBySideView(served=next((rival for rival in rivals if rival.title == title), rivals[0]))
    return SideBySideView()


def _choose_faces(faces: Sequence[int]) -> str | int:
    """Draw whose faces are swapped: all, the largest, or one of those in sight."""
    chosen = st.session_state.get("faces")
    ids = [*faces, *([chosen] if isinstance(chosen, int) and chosen not in faces else [])]
    options: dict[str | int, str] = {**_FACES, **{face: f"Face {place + 1}" for place, face in enumerate(ids)}}
    help_text = "Numbered from left to right. Faces that are not chosen are shown as the camera sees them."
    return _choose_one("Faces to swap", options, "all", "faces", help_text)


def _choose_blend(persona: str, faces: Sequence[int]) -> SwapSettings:
    """Draw how the face is put in; the sliders end where results stop looking right."""
    default = SwapSettings(persona)
    return SwapSettings(
        persona,
        strength=_slide(
            "Strength",
            (LEAST_STRENGTH, 1.0),
            default.strength,
            "strength",
            "How much of the persona is mixed in. Less than the slider's start, and you would be recognised.",
        ),
        colour_match=_switch("Match the colours to the light", bool(default.colour_match), "colour_match"),
        mask_feather=_slide("Soft edge", (0.0, 1.0), default.mask_feather, "mask_feather"),
        mask_size=_slide("Mask size", MASK_SIZES, default.mask_size, "mask_size"),
        shape=_slide(
            "Face shape",
            (0.0, 1.0),
            default.shape,
            "shape",
            "How far your face takes the persona's shape: jaw, cheeks, nose, distance of the eyes.",
        ),
        own_eyes=_switch(
            "Keep your own eyes",
            default.own_eyes,
            "own_eyes",
            "Off: the persona's eyes, looking where you look. They decide much of who is seen.",
        ),
        keep_occluders=_switch(
            "Keep hands, hair and spectacles",
            default.keep_occluders,
            "keep_occluders",
            "What is before your face stays before the persona's. Spectacles make anybody easier to recognise.",
        ),
        faces=_choose_faces(faces),
        view=_choose_one("Look into the works", _VIEWS, default.view, "view"),
    )


# The values live in the session's state, not in the widgets, so that a preset or a remembered look can set them.


def _slide(label: str, ends: tuple[float, float], default: float, key: str, help_text: str | None = None) -> float:
    st.session_state.setdefault(key, default)
    return st.slider(label, *ends, step=0.05, key=key, help=help_text)


def _switch(label: str, default: bool, key: str, help_text: str | None = None) -> bool:
    st.session_state.setdefault(key, default)
    return st.toggle(label, key=key, help=help_text)


def _choose_one(label: str, options: Mapping[T, str], default: T, key: str, help_text: str | None = None) -> T:
    """Draw options side by side, one of them always chosen; `options` gives their names."""
    if st.session_state.setdefault(key, default) not in options:
        st.session_state[key] = default
    chosen = st.segmented_control(
        label, list(options), format_func=options.__getitem__, required=True, key=key, help=help_text
    )
    return default if chosen is None else chosen


def _choose_camera() -> None:
    """Widgets whose answers `chosen_camera` and `chosen_relay` read."""
    _choose_one("Camera size", {size: size for size in SIZES}, "480p", "camera_size")
    _choose_one("Frames a second", RATES, 30, "camera_rate", "As many as your camera has, at most.")
    help_text = "WebRTC is the smoothest; WebSocket works where a network lets no UDP through."
    _choose_one("Connection", RELAY_NAMES, RelayChoice.AUTO, "relay", help_text)
    st.toggle(
        "Microphone, for recordings",
        key="microphone",
        help="Your voice as it is goes into recordings and nowhere else. By WebRTC only.",
    )
    st.caption("Size, frame rate, connection and microphone take effect at the next start.")
