"""The Live page: pick a persona, start the camera, be someone else."""

import time

import streamlit as st
from streamlit_webrtc import WebRtcMode, webrtc_streamer
from streamlit_webrtc.component import WebRtcStreamerContext

from ui.live.capture_panel import capture_panel
from ui.live.controls import RELAY_NAMES, Camera, choose, chosen_camera, chosen_relay, has_microphone
from ui.live.model_picker import pick_model
from ui.live.status import LOOK_EVERY_S, is_silent, show_status
from ui.parts.camera_check import REMEDIES, camera_state
from ui.relay import aiortc_tuning
from ui.relay.camera_socket import camera_socket
from ui.relay.choice import relay_for, remedy_for
from ui.relay.ice import renewed
from ui.relay.webrtc import CameraStream
from ui.session.own_personas import offered
from ui.session.settings import RelayChoice, app_settings
from ui.session.shared import model_sources, served_model, this_viewer
from ui.session.viewer import ServerFullError, Viewer
from understudy.bundle.bundle import BundleError
from understudy.provenance.disclosure import DisclosureError

START_LIMIT_S = 10.0  # about one start in twenty never plays


def page() -> None:
    """Draw the page."""
    st.title("Live")
    st.caption("Pick a persona and start the camera. Everyone who watches sees the persona; nobody sees your face.")
    try:
        shared, viewer = served_model(), this_viewer()
    except BundleError as error:
        _show_no_personas(error)
        return
    except DisclosureError as error:
        st.error(str(error), icon=":material/label_off:")
        return
    except ServerFullError as error:
        st.warning(str(error), icon=":material/event_seat:")
        return
    if remedy := REMEDIES.get(camera_state()):
        st.error(remedy, icon=":material/videocam_off:")
    stage, panel = st.columns([5, 3], gap="large")
    with panel:
        pick_model(model_sources(), viewer)
        shared = viewer.served or shared
        personas = offered(shared, viewer)
        viewer.offer(personas)
        viewer.choose(choose(personas, model_sources().rivals(shared), viewer.faces()))
    relay = relay_for(app_settings(), chosen_relay(), st.session_state.get("failed_starts", 0))
    with stage:
        if relay.choice is RelayChoice.WEBSOCKET:
            in_flight = viewer.in_flight
            _websocket_camera(viewer, chosen_camera(), in_flight)
            _watch(viewer, is_wanted=False, in_flight=in_flight)
        else:
            context = _webrtc_camera(viewer, chosen_camera())
            _watch(viewer, is_wanted=context.state.playing or context.state.signalling)
            if not context.state.playing:
                st.caption("“Choose a camera” previews your own picture, in this browser only.")
        capture_panel(shared, viewer)
        if relay.reason:
            st.caption(f"Connected by {RELAY_NAMES[relay.choice]}. {relay.reason}")


def _websocket_camera(viewer: Viewer, camera: Camera, in_flight: int) -> None:
    """Mount the WebSocket relay's camera; the browser keeps one frame more on the road than the model works on."""
    if problem := camera_socket(viewer.token, camera, in_flight + 1):
        st.error(problem, icon=":material/videocam_off:")


def _webrtc_camera(viewer: Viewer, camera: Camera) -> WebRtcStreamerContext:
    """Mount the camera. Alone in its function: AppTest has no runtime that could run it."""
    aiortc_tuning.tune()
    stream = viewer.stream
    if not isinstance(stream, CameraStream) or stream.is_ended:
        stream = CameraStream(viewer, viewer.hear)
        viewer.attach(stream)
    is_in_use = stream.counts().received > 0 and not stream.is_ended
    ice = st.session_state["ice"] = renewed(st.session_state.get("ice"), app_settings(), is_in_use)
    return webrtc_streamer(
        key=f"camera-{st.session_state.get('attempt', 0)}",
        mode=WebRtcMode.SENDRECV,
        frontend_rtc_configuration=ice.browser,
        server_rtc_configuration=ice.server,
        media_stream_constraints={
            "video": {
                "width": {"ideal": camera.width},
                "height": {"ideal": camera.height},
                "frameRate": {"ideal": 30},
            },
            "audio": has_microphone(),
        },
        sink_video_track=stream.sink,
        sink_audio_track=stream.sound_sink,
        player_factory=lambda: stream,
        sendback_audio=False,
        media_toggle_controls=False,
        video_html_attrs={"autoPlay": True, "controls": False, "muted": True, "style": {"width": "100%"}},
        translations={
            "start": "Start the camera",
            "stop": "Stop",
            "select_device": "Choose a camera",
            "device_access_denied": REMEDIES["denied"],
            "media_api_not_available": REMEDIES["insecure"],
            "device_not_available": REMEDIES["absent"],
        },
    )


@st.fragment(run_every=LOOK_EVERY_S)
def _watch(viewer: Viewer, is_wanted: bool, in_flight: int | None = None) -> None:
    """Show the state every two seconds, and notice a WebRTC start (`is_wanted`) that never plays, and a silent camera.

    Where the browser was told how many frames it may send ahead (`in_flight`), it is told anew when another
    model takes over, near or far.
    """
    show_status(viewer)
    if in_flight not in (None, viewer.in_flight):
        st.rerun()
    if (is_wanted or in_flight is not None) and is_silent(viewer):
        st.warning(
            "The camera has gone silent. If it was unplugged, plug it in; if the network broke, wait for it. "
            "Then press Stop and start again.",
            icon=":material/videocam_off:",
        )
    stream = viewer.stream
    is_playing = stream is not None and bool(stream.counts().received) and not stream.is_ended
    if not is_wanted or stream is None or is_playing:
        st.session_state.pop("waiting_since_s", None)
        if is_wanted and is_playing:
            st.session_state["failed_starts"] = 0
        return
    waited_s = time.monotonic() - st.session_state.setdefault("waiting_since_s", time.monotonic())
    if waited_s > START_LIMIT_S:
        st.error(remedy_for(app_settings(), chosen_relay()), icon=":material/sync_problem:")
        if st.button("Try again", type="primary"):
            for count in ("failed_starts", "attempt"):
                st.session_state[count] = st.session_state.get(count, 0) + 1
            st.session_state.pop("waiting_since_s", None)
            st.rerun()


def _show_no_personas(error: BundleError) -> None:
    """The empty state: what is missing and what to do."""
    st.info(
        f"There are no personas to play yet. Train some with `uv run python -m training.train`, export them to "
        f"`{app_settings().bundle}`, then reload this page.",
        icon=":material/theater_comedy:",
    )
    st.caption(str(error))
