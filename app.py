"""The app: `streamlit run app.py` serves the pages of `ui/main.py`, and the frames' WebSocket, on one port."""

import os

import streamlit as st
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ui.camera_socket import PATH
from ui.house import seats
from ui.relay_websocket import relay_frames
from ui.settings import app_settings
from understudy.quiet import keep_quiet

keep_quiet(os.environ)
app_settings()  # a wrong environment stops the start here, with a sentence


async def frames(socket: WebSocket) -> None:
    """Relay one viewer's frames; see `ui.relay_websocket`."""
    await relay_frames(socket, seats())


app = st.App("ui/main.py", routes=[WebSocketRoute(st.get_option("server.baseUrlPath").rstrip("/") + PATH, frames)])
