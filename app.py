"""The app: `streamlit run app.py` serves `ui/main.py`'s pages, the frames' WebSocket and the panic key, on one port."""

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from serving.server.bounded_http import Bounds
from ui.guard import Guard
from ui.relay.camera_socket import PATH
from ui.relay.websocket import MOST_FRAME_BYTES, relay_frames
from ui.session.settings import app_settings
from ui.session.shared import viewer_registry

app_settings()  # a wrong environment stops the start here, with a sentence
_base = st.get_option("server.baseUrlPath").strip("/")
_base = f"/{_base}" if _base else ""


async def frames(socket: WebSocket) -> None:
    """Relay one viewer's frames; see `ui.relay.websocket`."""
    await relay_frames(socket, viewer_registry())


app = st.App(
    "ui/main.py",
    routes=[WebSocketRoute(_base + PATH, frames)],
    middleware=[
        Middleware(
            Guard,
            hosts=st.get_option("server.allowedHosts"),
            origins=st.get_option("server.corsAllowedOrigins"),
            base=_base,
            bounds=Bounds(messages=((PATH, MOST_FRAME_BYTES),)),
        )
    ],
)
