"""The stream in other programs: one switch for a virtual camera, one for an address that OBS reads."""

import streamlit as st

from ui.relay.camera_socket import below_base
from ui.relay.mjpeg import PATH
from ui.session.viewer import Viewer
from ui.session.workspace import is_local
from understudy.camera import CameraError, VirtualCamera


def outputs_panel(viewer: Viewer, fps: int) -> None:
    """Draw the switches; nothing where the viewer is not at the app's own machine, which is where pictures would go."""
    if not is_local():
        return
    with st.expander("Other programs", icon=":material/connected_tv:"):
        wants_camera = st.toggle(
            "Virtual camera", key="virtual_camera", help="What you see here, persona and look included, as a camera."
        )
        if wants_camera and not viewer.outputs.has_camera and not viewer.outputs.problem:
            try:
                viewer.outputs.start_camera(VirtualCamera(fps))
            except CameraError as error:
                viewer.outputs.problem = str(error)
        elif not wants_camera:
            viewer.outputs.stop_camera()
            viewer.outputs.problem = ""
        if viewer.outputs.problem:
            st.warning(viewer.outputs.problem, icon=":material/videocam_off:")
        elif wants_camera:
            st.caption("Choose the virtual camera in OBS, Zoom, Teams or Meet. It begins with the first picture.")
        wants_address = st.toggle(
            "Address for OBS",
            key="mjpeg",
            help="A Media source (without “Local file”) or a Browser source takes it. This machine alone can read it.",
        )
        viewer.outputs.set_address(wants_address)
        if viewer.outputs.token:
            host = st.context.headers.get("Host", "127.0.0.1:8501")
            st.code(f"http://{host}{below_base(PATH).format(token=viewer.outputs.token)}", language=None)
