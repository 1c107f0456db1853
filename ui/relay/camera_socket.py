"""The camera of the WebSocket relay, as a component without an iframe (see camera_socket.js and camera_worker.js)."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st
from streamlit.components.v2 import component

from ui.parts.camera_check import REMEDIES, CameraState

QUALITY = 0.85
PATH = "/frames"
_HTML = """
<div class="stage"><p></p><canvas width="640" height="480" role="img" aria-label="What others see"></canvas></div>
<button type="button">Start the camera</button><select aria-label="Camera" hidden></select>
"""
_CSS = """
.stage { position: relative; border-radius: var(--st-base-radius); overflow: hidden; }
.stage { background: center / auto 100% no-repeat var(--st-secondary-background-color); }
.stage p { position: absolute; inset: auto 0 0; margin: 0; padding: 8px 12px; text-align: center; }
.stage p { background: #000a; color: #fff; }
.stage canvas, .stage.on p { display: none; }
.stage.on canvas { display: block; width: 100%; }
button {
  margin: 0.5rem 0; height: 40px; padding: 0 12px; border: 0; border-radius: var(--st-button-radius); cursor: pointer;
  font: inherit; font-size: 0.875rem; background: var(--st-primary-color); color: var(--st-background-color);
}
button:focus-visible, select:focus-visible { outline: 3px solid var(--st-text-color); outline-offset: 2px; }
select {
  margin: 0.5rem; padding: 0.5rem; max-width: 40%; font: inherit; cursor: pointer;
  background: var(--st-background-color); color: var(--st-text-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius);
}
"""
_PROBLEMS = {
    "NotAllowedError": REMEDIES[CameraState.DENIED],
    "NotFoundError": REMEDIES[CameraState.ABSENT],
    "NotReadableError": "Another program holds the camera. Close it there, then start again.",
    "insecure": REMEDIES[CameraState.INSECURE],
    "unplugged": "The camera was unplugged or taken away. Plug it in again, then start.",
    "unreachable": "The page cannot open a WebSocket to the app. Reload the page; if that does not help, a proxy "
    "between them must let WebSockets through.",
    "closed": "The connection to the app ended. Start again; if it stays away, reload the page.",
}


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    names = ("camera_socket.js", "camera_worker.js")
    page, worker = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)
    script = f"const WORKER_SOURCE = {json.dumps(worker)};\n{page}"
    return component("camera_socket", html=_HTML, css=_CSS, js=script)


class Camera(NamedTuple):
    """What the browser is asked for, in px and frames a second; takes effect at the next start."""

    width: int
    height: int
    fps: int = 30


def below_base(path: str) -> str:
    """Where a path is served: below server.baseUrlPath, which may be written with or without slashes."""
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{base}{path}" if base else path


def camera_socket(token: str, camera: Camera, in_flight: int, still: str = "", hint: str = "") -> str:
    """Mount the camera.

    Args:
        token: the viewer's, by which the WebSocket finds them.
        camera: what to ask the browser for.
        in_flight: frames under way at most.
        still: what stands in the picture's place while the camera is off, as an address that an <img> takes.
        hint: what is written over it.

    Returns:
        What is wrong and what to do, or an empty string.
    """
    answer = _component()(
        key="camera_socket",
        data={
            "token": token,
            "path": below_base(PATH),
            "width": camera.width,
            "height": camera.height,
            "fps": camera.fps,
            "still": still,
            "hint": hint,
            "inFlight": in_flight,
            "quality": QUALITY,
        },
        default={"problem": ""},
        on_problem_change=_rerun,
    )
    problem = str(getattr(answer, "problem", "") or "")
    return _PROBLEMS.get(problem, f"The camera could not be started ({problem}).") if problem else ""


def _rerun() -> None:
    """The page runs again by itself when the problem changes."""
