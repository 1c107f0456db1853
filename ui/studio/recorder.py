"""The guided camera take, as a component without an iframe: what to do next is shown over the picture."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st
from streamlit.components.v2 import component

from ui.parts.camera_check import REMEDIES, CameraState

MOST_TAKE_BYTES = 30_000_000
_HTML = """
<div class="stage"><video muted playsinline></video><p class="prompt" role="status"></p><div class="bar"></div></div>
<button type="button">Record</button>
"""
_CSS = """
.stage { position: relative; background: var(--st-secondary-background-color); overflow: hidden;
  border-radius: var(--st-base-radius); min-height: 6rem; }
.stage video { display: none; width: 100%; transform: scaleX(-1); }
.stage.on video { display: block; }
.prompt { position: absolute; left: 0; right: 0; bottom: 0.5rem; margin: 0; padding: 0.5rem 1rem; text-align: center;
  font-size: 1.4rem; font-weight: 600; color: #fff; text-shadow: 0 0 6px #000, 0 0 2px #000; }
.bar { position: absolute; left: 0; bottom: 0; height: 0.3rem; width: 0; background: var(--st-primary-color); }
button { margin-top: 0.5rem; padding: 0.5rem 1rem; border: 0; border-radius: var(--st-button-radius); cursor: pointer;
  font: inherit; background: var(--st-secondary-background-color); color: var(--st-text-color);
  border: 1px solid var(--st-border-color); }
"""
_PROBLEMS = {
    "NotAllowedError": REMEDIES[CameraState.DENIED],
    "NotFoundError": REMEDIES[CameraState.ABSENT],
    "NotReadableError": "Another program holds the camera. Close it there, then record again.",
    "insecure": REMEDIES[CameraState.INSECURE],
    "large": "The take is too large to send. Record again, in a lower light or with a smaller camera.",
    "unsupported": "This browser cannot record. Record with another program, and upload the clip.",
}


class Prompt(NamedTuple):
    """One thing to do before the camera.

    Attributes:
        text: what is shown.
        seconds: how long.
    """

    text: str
    seconds: float


# What a faceset wants to see: all sides of the head, and a face that moves.
MOVES = (
    Prompt("Look into the camera", 2.5),
    Prompt("Turn slowly to your left", 3.0),
    Prompt("Turn slowly to your right", 4.0),
    Prompt("Chin up, then down", 4.0),
    Prompt("Smile, then open your mouth wide", 4.0),
    Prompt("Frown, and shut your eyes for a moment", 3.5),
    Prompt("Say: “Every evening the blue boats come home”", 5.0),
)


@dataclass(frozen=True, slots=True)
class Take:
    """A recorded clip, as an upload.

    Attributes:
        name: carries the extension of its kind.
        content: the file.
    """

    name: str
    content: bytes

    def getvalue(self) -> bytes:
        """Return the whole content."""
        return self.content


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return component("camera_recorder", html=_HTML, css=_CSS, js=script)


def record(prompts: Sequence[Prompt], key: str) -> Take | None:
    """Mount the recorder.

    Args:
        prompts: what to ask for, one after the other.
        key: of the component.

    Returns:
        The take, in the one run after it was recorded.
    """
    answer = _component()(
        key=key,
        data={
            "prompts": [{"text": prompt.text, "seconds": prompt.seconds} for prompt in prompts],
            "mostBytes": MOST_TAKE_BYTES,
        },
        default={"problem": ""},
        on_take_change=_rerun,
        on_problem_change=_rerun,
    )
    if problem := str(getattr(answer, "problem", "") or ""):
        st.error(_PROBLEMS.get(problem, f"The camera could not record ({problem})."), icon=":material/videocam_off:")
    return take_from(getattr(answer, "take", None))


def take_from(sent: object) -> Take | None:
    """Read what the browser sent; None where it sent nothing, or nonsense."""
    if not isinstance(sent, dict):
        return None
    kind = {"video/webm": "take.webm", "video/mp4": "take.mp4"}.get(str(sent.get("mime", "")).split(";")[0])
    data = str(sent.get("data", ""))
    if kind is None or len(data) > MOST_TAKE_BYTES * 4 // 3 + 4:
        return None
    try:
        return Take(kind, base64.b64decode(data, validate=True))
    except binascii.Error:
        return None


def _rerun() -> None:
    """The page runs again by itself when a take has come."""
