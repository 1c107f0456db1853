"""What the pages share: the bundle, its model and the seats. Loaded once per server, warmed when a page opens."""

import gc
import sys
import threading
from contextlib import suppress
from functools import cache

import cv2
import streamlit as st

from liveframe.errors import LiveframeError
from ui.session.consent_timer import Permits, PermitTimer
from ui.session.model_sources import House, Repertoire, open_house
from ui.session.settings import app_settings
from ui.session.viewer import Choices, Seats, Viewer
from understudy.consent.trust_store import TrustStore
from understudy.swap.swapper import SwapSettings

__all__ = ["House", "house", "permit_timer", "repertoire", "seats", "this_viewer"]


@st.cache_resource(show_spinner="Opening the personas")
def house() -> House:
    """Load the bundle that the settings name.

    Raises:
        BundleError: it is missing or damaged.
        DisclosureError: the operator's file on marks cannot be followed.
    """
    sys.setswitchinterval(0.001)  # s; while a page runs, frames wait for the interpreter 5 ms at every step otherwise
    cv2.setNumThreads(1)  # a frame's small steps gain nothing from a second core, which the codec and the browser want
    opened = open_house(app_settings().bundle, app_settings().trust)
    threading.Thread(target=_settle, args=(opened,), name="settle", daemon=True).start()
    return opened


def _settle(opened: House) -> None:
    """Warm the model, then take all that is there out of garbage collection.

    Streamlit collects garbage after every run of a page or a part of it, every other second beside a stream, and every
    frame waits meanwhile. What modules and networks made stays for good: it need not be looked through each time.
    """
    with suppress(LiveframeError):  # a viewer's pipeline meets the same error, and tells it
        opened.model.warm_up()
    if not gc.get_freeze_count():  # once: whatever is frozen is never freed
        gc.collect()
        gc.freeze()


@st.cache_resource(on_release=Repertoire.close, show_spinner=False)
def repertoire() -> Repertoire:
    """The models to choose between, while the server runs.

    Raises:
        BundleError, DisclosureError: as `house`.
    """
    return Repertoire(house(), app_settings(), lambda: seats().viewers())


@cache
def seats() -> Seats:
    """The seats of this server; the WebSocket's route asks too, outside any page."""
    return Seats(app_settings().max_viewers)


@st.cache_resource(on_release=PermitTimer.close, show_spinner=False)
def permit_timer() -> PermitTimer:
    """Asks for every viewer's permits while the server runs."""
    return PermitTimer(lambda: seats().viewers())


def _leave(viewer: Viewer) -> None:
    seats().leave(viewer)


@st.cache_resource(scope="session", on_release=_leave, show_spinner=False)
def this_viewer() -> Viewer:
    """This page's viewer; Streamlit frees it as soon as the page is closed or loses its connection.

    Raises:
        HouseFullError: every seat is taken.
    """
    permit_timer()
    source = repertoire().default
    shared = repertoire().house(source)
    personas = shared.bundle.personas
    permits = Permits(TrustStore(app_settings().trust))
    viewer = seats().admit(shared.model, Choices(SwapSettings(personas[0].name)), shared.finish, permits, personas)
    viewer.house, viewer.wanted = shared, source
    viewer.play(repertoire().house(source))  # it may have been promoted meanwhile
    return viewer
