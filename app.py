"""The app: `streamlit run app.py` serves `ui/main.py`'s pages, the frames' WebSocket and the panic key, on one port."""

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from serving.server.bounded_http import Bounds
from ui.guard import Guard
from ui.live.stage import COVER_PATH, cover
from ui.relay import mjpeg
from ui.relay.camera_socket import PATH, below_base
from ui.relay.mjpeg import stream_pictures
from ui.relay.websocket import MOST_FRAME_BYTES, relay_frames
from ui.session.app_metrics import PATH as PATH_OF_METRICS
from ui.session.app_metrics import app_metrics
from ui.session.settings import app_settings
from ui.session.shared import viewer_registry

app_settings()  # a wrong environment stops the start here, with a sentence


async def frames(socket: WebSocket) -> None:
    """Relay one viewer's frames; see `ui.relay.websocket`."""
    await relay_frames(socket, viewer_registry())


async def panic(request: Request) -> Response:
    """Cover one viewer, or let them go on; see `ui.live.stage`."""
    return await cover(request, viewer_registry())


async def pictures(request: Request) -> Response:
    """Send one viewer's pictures to OBS; see `ui.relay.mjpeg`."""
    return await stream_pictures(request, viewer_registry())


async def metrics(request: Request) -> Response:
    """Answer Prometheus; see `ui.session.app_metrics`."""
    return app_metrics(request, viewer_registry())


routes = [
    WebSocketRoute(below_base(PATH), frames),
    Route(below_base(COVER_PATH), panic, methods=["POST"]),
    Route(below_base(mjpeg.PATH), pictures),
    Route(below_base(PATH_OF_METRICS), metrics),
]
guard = Middleware(
    Guard,
    hosts=st.get_option("server.allowedHosts"),
    origins=st.get_option("server.corsAllowedOrigins"),
    base=below_base(""),
    bounds=Bounds(messages=((PATH, MOST_FRAME_BYTES),)),
)
app = st.App("ui/main.py", routes=routes, middleware=[guard])
