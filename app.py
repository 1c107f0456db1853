"""The app: `streamlit run app.py` serves the pages of `ui/main.py`, and the frames' WebSocket, on one port."""

import os

import streamlit as st
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ui.relay.camera_socket import socket_path
from ui.relay.websocket import relay_frames
from ui.session.settings import app_settings
from ui.session.shared import viewer_registry
from understudy.jobs.quiet_logs import keep_quiet

keep_quiet(os.environ)
app_settings()  # a wrong environment stops the start here, with a sentence


async def frames(socket: WebSocket) -> None:
    """Relay one viewer's frames; see `ui.relay.websocket`."""
    await relay_frames(socket, viewer_registry())


app = st.App("ui/main.py", routes=[WebSocketRoute(socket_path(), frames)])
