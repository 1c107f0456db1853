"""The Live page: pick a persona, start the camera, be someone else."""

import time
from typing import Any, cast

import streamlit as st
from streamlit_webrtc import WebRtcMode, webrtc_streamer
from streamlit_webrtc.component import WebRtcStreamerContext

from ui.live.capture_panel import capture_buttons, shown_export
from ui.live.controls import RELAY_NAMES, Camera, choose, chosen_camera, chosen_relay, has_microphone
from ui.live.model_picker import pick_model
from ui.live.outputs_panel import outputs_panel
from ui.live.persona_picker import face_address
from ui.live.stage import Scene, stage
from ui.live.status import LOOK_EVERY_S, is_silent, is_streaming, show_status, stage_times
from ui.parts.camera_check import REMEDIES, CameraState, camera_state
from ui.relay import aiortc_tuning
from ui.relay.camera_socket import camera_socket
from ui.relay.choice import relay_for, remedy_for
from ui.relay.ice import renewed
from ui.relay.webrtc import CameraStream
from ui.session.own_personas import offered
from ui.session.settings import RelayChoice, app_settings
from ui.session.shared import ServedModel, model_sources, served_model, this_viewer, viewer_registry
from ui.session.viewer import FULL_SENTENCE, Viewer
from understudy.bundle.bundle import BundleError
from understudy.provenance.disclosure import DisclosureError

_STILL_PX = 480
_CSS = """<style>
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.stMainBlockContainer:has(.st-key-live) { padding: 4rem 2rem 0.5rem; }
.stMainBlockContainer:has(.st-key-live) > .stVerticalBlock { gap: 0; }
.st-key-panel { gap: 0.75rem; }
@media (min-width: 641px) {
  .st-key-live .stColumn { min-width: 0; }
  .st-key-live > * > .stHorizontalBlock, .st-key-live > .stHorizontalBlock { flex-wrap: nowrap; }
  .st-key-live .stColumn:has(.st-key-stage) {
    flex: 0 1 min(calc((100dvh - 10.75rem) * ASPECT), calc(100% - 22rem)); width: auto;
  }
  .st-key-live .stColumn:has(.st-key-panel) { flex: 1 1 20rem; width: auto; }
  .st-key-panel { max-height: calc(100dvh - 4.75rem); overflow: hidden auto; padding: 2px 0.5rem 2px 2px; }
}
@media (min-width: 1000px) { .st-key-bar { margin-top: -4.85rem; align-self: flex-end; width: auto; z-index: 1; } }
@media (max-width: 640px) {
  .stMainBlockContainer:has(.st-key-live) { padding: 3.5rem 0.75rem 1rem; }
  .stColumn:has(.st-key-stage) { position: sticky; top: 3.25rem; z-index: 5; background: var(--st-background-color); }
}
</style>"""
START_LOOK_S = 0.5  # while a picture is awaited, or may come any time
START_LIMIT_S = 10.0  # about one start in twenty never plays


def page() -> None:
    """Draw the page."""
    try:
        shared, viewer = served_model(), this_viewer()
    except BundleError as error:
        _show_no_personas(error)
        return
    except DisclosureError as error:
        st.error(str(error), icon=":material/label_off:")
        return
    camera = chosen_camera()
    st.html('<h1 class="unseen">Live</h1>' + _CSS.replace("ASPECT", f"{camera.width / camera.height:.4f}"))
    if viewer_registry().is_full_for(viewer):
        st.warning(FULL_SENTENCE, icon=":material/event_seat:")
    if remedy := REMEDIES.get(camera_state()):
        st.error(remedy, icon=":material/videocam_off:")
    with st.container(key="live"):
        picture, panel = st.columns([5, 3], gap="medium")
    with panel, st.container(key="panel"):
        shared = _panel(shared, viewer)
    with picture, st.container(key="stage", gap="xsmall"):
        _stage(shared, viewer, camera)


def _panel(shared: ServedModel, viewer: Viewer) -> ServedModel:
    """Draw everything that is chosen, and let it hold; returns the model that plays."""
    pick_model(model_sources(), viewer)
    shared = viewer.served or shared
    personas = offered(shared, viewer)
    viewer.offer(personas)
    shown_export()
    viewer.choose(choose(personas, shared.bundle.personas, model_sources().rivals(shared), viewer.faces()))
    outputs_panel(viewer, chosen_camera().fps)
    stage_times(viewer)
    return shared


def _stage(shared: ServedModel, viewer: Viewer, camera: Camera) -> None:
    """Draw the picture and what belongs under it."""
    scene = _scene(viewer, camera)
    relay = relay_for(app_settings(), chosen_relay(), st.session_state.get("failed_starts", 0), _relay_in_use(viewer))
    if relay.choice is RelayChoice.WEBSOCKET:
        in_flight = viewer.in_flight
        _websocket_camera(viewer, camera, in_flight, scene)
        watched: dict[str, Any] = {"is_wanted": False, "in_flight": in_flight}
    else:
        context = _webrtc_camera(viewer, camera)
        watched = {"is_wanted": context.state.playing or context.state.signalling}
    streams = is_streaming(viewer)
    with st.container(key="bar", horizontal=True, vertical_alignment="center", gap="small"):
        capture_buttons(shared, viewer)
        stage(viewer.token, scene, viewer.is_covered, viewer.recording is not None)
    is_awaited = not streams and (watched["is_wanted"] or relay.choice is RelayChoice.WEBSOCKET)
    every_s = START_LOOK_S if is_awaited else LOOK_EVERY_S
    st.fragment(_watch, run_every=every_s)(viewer, streams, **watched)
    if relay.reason:
        st.caption(f"Connected by {RELAY_NAMES[relay.choice]}. {relay.reason}")


def _scene(viewer: Viewer, camera: Camera) -> Scene:
    """What stands in the picture's place while the camera is off."""
    (info,) = viewer.infos([viewer.choices.swap.persona]) or (None,)
    still = face_address(info.still, _STILL_PX) if info is not None else ""
    title = info.title if info is not None else "Your persona"
    hint = f"{title} plays you. Everyone who watches sees the persona; nobody sees your face."
    return Scene(still, hint, f"{camera.width} / {camera.height}")


def _relay_in_use(viewer: Viewer) -> RelayChoice | None:
    """Which relay carries the stream now; None while there is none."""
    if not is_streaming(viewer):
        return None
    return RelayChoice.WEBRTC if isinstance(viewer.stream, CameraStream) else RelayChoice.WEBSOCKET


def _websocket_camera(viewer: Viewer, camera: Camera, in_flight: int, scene: Scene) -> None:
    """Mount the WebSocket relay's camera; the browser keeps one frame more on the road than the model works on."""
    if problem := camera_socket(viewer.token, camera, in_flight + 1, scene.still, scene.hint):
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
                "frameRate": {"ideal": camera.fps},
            },
            "audio": has_microphone(),
        },
        sink_video_track=stream.sink,
        sink_audio_track=stream.sound_sink,
        player_factory=cast(Any, lambda: stream),  # asked for its tracks alone, as MediaPlayer is
        sendback_audio=False,
        media_toggle_controls=False,
        video_html_attrs={"autoPlay": True, "controls": False, "muted": True, "style": {"width": "100%"}},
        translations={
            "start": "Start the camera",
            "stop": "Stop",
            "select_device": "Choose a camera",
            "device_access_denied": REMEDIES[CameraState.DENIED],
            "media_api_not_available": REMEDIES[CameraState.INSECURE],
            "device_not_available": REMEDIES[CameraState.ABSENT],
        },
    )


def _watch(viewer: Viewer, streams: bool, is_wanted: bool, in_flight: int | None = None) -> None:
    """Show the state again and again; notice a WebRTC start (`is_wanted`) that never plays, and a silent camera.

    The page is drawn anew when the stream begins or ends (`streams`). Where the browser was told how many frames it may
    send ahead (`in_flight`), it is told anew when another model takes over, near or far.
    """
    show_status(viewer)
    if in_flight not in (None, viewer.in_flight) or streams != is_streaming(viewer):
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
