"""The panel beside the picture: which persona, swapped or not, and how the blend looks."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import streamlit as st

from liveframe.cover import CoverStyle
from ui.relay.camera_socket import Camera
from ui.session.model_sources import ServedModel
from ui.session.settings import RelayChoice
from ui.session.viewer import Choices, SideBySideView
from understudy.bundle.bundle import PersonaInfo
from understudy.swap.swapper import SwapSettings, View

T = TypeVar("T")


CAMERAS = {"480p": Camera(640, 480), "720p": Camera(1280, 720)}
_COVERS = {CoverStyle.BLUR: "Blur", CoverStyle.SLATE: "Card", CoverStyle.HOLD: "Last picture"}
_FACES: dict[str | int, str] = {"all": "All", "largest": "The largest"}
_VIEWS = {View.RESULT: "Off", View.MASK: "Mask", View.MESH: "Mesh"}
RELAY_NAMES = {RelayChoice.AUTO: "Automatic", RelayChoice.WEBRTC: "WebRTC", RelayChoice.WEBSOCKET: "WebSocket"}
_THUMBNAILS_IN_A_ROW = 3


def choose(personas: tuple[PersonaInfo, ...], rivals: Sequence[ServedModel] = (), faces: Sequence[int] = ()) -> Choices:
    """Draw the panel and give what it says now.

    Args:
        personas: who may be chosen.
        rivals: other models that may stand beside the one that plays.
        faces: ids of the faces in sight, left to right.
    """
    st.markdown("**Persona**")
    persona = _choose_persona(personas)
    is_swapping = not st.toggle(
        "Show my own camera",
        key="is_off",
        help="Off by default. While this is on, nothing is swapped and your own face is sent back.",
    )
    with st.expander("Blend", icon=":material/tune:"):
        swap = _choose_blend(persona, faces)
    with st.expander("Camera and cover", icon=":material/videocam:"):
        is_mirrored = st.toggle("Mirror the picture", value=True, key="is_mirrored")
        cover = _choose_one("When the face cannot be swapped, show", _COVERS, CoverStyle.BLUR, "cover")
        _choose_camera()
    with st.expander("Side by side", icon=":material/splitscreen_right:"):
        beside = _choose_beside(personas, rivals)
    return Choices(swap, is_swapping, cover, is_mirrored, beside)


def chosen_camera() -> Camera:
    """The size that the viewer wants of their camera."""
    return CAMERAS[st.session_state.get("camera_size", "480p")]


def chosen_relay() -> RelayChoice:
    """The relay that the viewer wants."""
    return RelayChoice(st.session_state.get("relay", RelayChoice.AUTO))


def has_microphone() -> bool:
    """Whether the viewer wants sound in recordings."""
    return bool(st.session_state.get("microphone", False))


def _choose_persona(personas: tuple[PersonaInfo, ...]) -> str:
    """Draw the thumbnails, the chosen one marked; a click chooses."""
    st.session_state.setdefault("persona", personas[0].name)
    names = [persona.name for persona in personas]
    if st.session_state["persona"] not in names:
        st.session_state["persona"] = names[0]
    columns = st.columns(_THUMBNAILS_IN_A_ROW)
    for place, persona in enumerate(personas):
        with columns[place % len(columns)]:
            is_chosen = persona.name == st.session_state["persona"]
            st.image(str(persona.thumbnail), width="stretch")
            st.button(
                persona.title,
                key=f"persona-{persona.name}",
                icon=":material/check:" if is_chosen else None,
                width="stretch",
                on_click=_set_persona,
                args=(persona.name,),
            )
    return str(st.session_state["persona"])


def _set_persona(name: str) -> None:
    st.session_state["persona"] = name


def _choose_beside(personas: tuple[PersonaInfo, ...], rivals: Sequence[ServedModel]) -> SideBySideView:
    """Draw what may stand left of the swap; the viewer's own camera only where they say so."""
    options = {"": "Nothing", "persona": "Another persona"} | ({"model": "Another model"} if rivals else {})
    kind = _choose_one("Left of the swap", {**options, "camera": "My own camera"}, "", "beside")
    if kind == "camera":
        st.warning("Your own face is shown on the left, to you and in recordings.", icon=":material/visibility:")
        return SideBySideView(is_camera=True)
    if kind == "persona":
        titles = {persona.name: persona.title for persona in personas}
        left = st.selectbox("Who plays on the left", list(titles), format_func=titles.__getitem__, key="beside_persona")
        return SideBySideView(persona=left or personas[0].name)
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
    default = SwapSettings(persona)
    return SwapSettings(
        persona,
        strength=st.slider("Strength", 0.0, 1.0, default.strength, 0.05, key="strength"),
        colour_match=st.toggle("Match the colours to the light", bool(default.colour_match), key="colour_match"),
        mask_feather=st.slider("Soft edge", 0.0, 1.0, default.mask_feather, 0.05, key="mask_feather"),
        mask_size=st.slider("Mask size", 0.5, 1.5, default.mask_size, 0.05, key="mask_size"),
        shape=st.slider(
            "Face shape",
            0.0,
            1.0,
            default.shape,
            0.05,
            key="shape",
            help="How far your face takes the persona's shape: jaw, cheeks, nose, distance of the eyes.",
        ),
        own_eyes=st.toggle(
            "Keep your own eyes",
            default.own_eyes,
            key="own_eyes",
            help="Off: the persona's eyes, looking where you look. They decide much of who is seen.",
        ),
        keep_occluders=st.toggle(
            "Keep hands, hair and spectacles",
            default.keep_occluders,
            key="keep_occluders",
            help="What is before your face stays before the persona's. Spectacles make anybody easier to recognise.",
        ),
        faces=_choose_faces(faces),
        view=_choose_one("Look into the works", _VIEWS, default.view, "view"),
    )


def _choose_one(label: str, options: Mapping[T, str], default: T, key: str, help_text: str | None = None) -> T:
    """Draw options side by side, one of them always chosen; `options` gives their names."""
    chosen = st.segmented_control(
        label, list(options), format_func=options.__getitem__, default=default, required=True, key=key, help=help_text
    )
    return default if chosen is None else chosen


def _choose_camera() -> None:
    """Widgets whose answers `chosen_camera` and `chosen_relay` read."""
    _choose_one("Camera size", {size: size for size in CAMERAS}, "480p", "camera_size")
    help_text = "WebRTC is the smoothest; WebSocket works where a network lets no UDP through."
    _choose_one("Connection", RELAY_NAMES, RelayChoice.AUTO, "relay", help_text)
    st.toggle(
        "Microphone, for recordings",
        key="microphone",
        help="Your voice as it is goes into recordings and nowhere else. By WebRTC only.",
    )
    st.caption("Size, connection and microphone take effect at the next start.")
