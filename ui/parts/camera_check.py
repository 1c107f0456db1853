"""Asks the browser whether a camera can be used at all, before and while the page is open."""

from enum import StrEnum
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

_JS = """
export default function ({ parentElement, setStateValue }) {
  const media = navigator.mediaDevices;
  const tell = (state) => {
    if (state === (parentElement.told ?? "ready")) return;
    parentElement.told = state;
    setStateValue("camera", state);
  };
  const look = async () => {
    if (!window.isSecureContext || !media) return tell("insecure");
    try {
      const permission = await navigator.permissions.query({ name: "camera" });
      permission.onchange = look;
      if (permission.state === "denied") return tell("denied");
    } catch (error) { /* this browser cannot be asked: the start will tell */ }
    const devices = await media.enumerateDevices();
    tell(devices.some((device) => device.kind === "videoinput") ? "ready" : "absent");
  };
  if (media) media.ondevicechange = look;
  look();
  return () => { if (media) media.ondevicechange = null; };
}
"""


class CameraState(StrEnum):
    """What the browser says of its camera."""

    READY = "ready"
    INSECURE = "insecure"
    DENIED = "denied"
    ABSENT = "absent"


REMEDIES = {
    CameraState.INSECURE: (
        "The browser gives the camera only to pages on this machine or over HTTPS. "
        "Open http://localhost with the same port, or put the app behind HTTPS."
    ),
    CameraState.DENIED: (
        "The browser refuses the camera to this page. Click the camera or lock symbol beside the address, "
        "allow the camera, and reload the page."
    ),
    CameraState.ABSENT: (
        "The browser finds no camera. Plug one in, or close the program that uses it; this page notices by itself."
    ),
}


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    return component("camera_check", js=_JS)


def camera_state() -> CameraState:
    """Mount the check and give its last answer; READY until the browser says otherwise."""
    answer = _component()(key="camera_check", default={"camera": "ready"}, on_camera_change=_rerun, height=1)
    said = getattr(answer, "camera", None)
    return CameraState(said) if said in set(CameraState) else CameraState.READY


def _rerun() -> None:
    """The page runs again by itself when the state changes."""
