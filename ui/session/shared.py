"""What the pages share: the bundle, its model and the viewers. Loaded once per server, warmed when a page opens."""

import gc
import secrets
import sys
import threading
from contextlib import suppress
from functools import cache

import cv2
import streamlit as st

from liveframe.errors import LiveframeError
from ui.session.consent_timer import ConsentChecker, ConsentTimer
from ui.session.model_sources import ModelSources, ServedModel, open_model
from ui.session.settings import app_settings
from ui.session.viewer import Choices, Viewer, ViewerRegistry
from understudy.consent.trust_store import TrustStore
from understudy.swap.swapper import SwapSettings

__all__ = ["ServedModel", "consent_timer", "model_sources", "served_model", "this_viewer", "viewer_registry"]


@st.cache_resource(show_spinner="Opening the personas")
def served_model() -> ServedModel:
    """Load the bundle that the settings name.

    Raises:
        BundleError: it is missing or damaged.
        DisclosureError: the operator's file on marks cannot be followed.
    """
    sys.setswitchinterval(0.001)  # s; while a page runs, frames wait for the interpreter 5 ms at every step otherwise
    cv2.setNumThreads(1)  # a frame's small steps gain nothing from a second core, which the codec and the browser want
    opened = open_model(app_settings().bundle, app_settings().trust)
    threading.Thread(target=_settle, args=(opened,), name="settle", daemon=True).start()
    return opened


def _settle(opened: ServedModel) -> None:
    """Warm the model, then take all that is there out of garbage collection.

    Streamlit collects garbage after every run of a page or a part of it, every other second beside a stream, and every
    frame waits meanwhile. What modules and networks made stays for good: it need not be looked through each time.
    """
    with suppress(LiveframeError):  # a viewer's pipeline meets the same error, and tells it
        opened.model.warm_up()
    if not gc.get_freeze_count():  # once: whatever is frozen is never freed
        gc.collect()
        gc.freeze()


@st.cache_resource(on_release=ModelSources.close, show_spinner=False)
def model_sources() -> ModelSources:
    """The models to choose between, while the server runs.

    Raises:
        BundleError, DisclosureError: as `served_model`.
    """
    return ModelSources(served_model(), app_settings(), lambda: viewer_registry().viewers())


@cache
def viewer_registry() -> ViewerRegistry:
    """The viewers of this server; the WebSocket's route asks too, outside any page."""
    return ViewerRegistry(app_settings().max_viewers)


@st.cache_resource(on_release=ConsentTimer.close, show_spinner=False)
def consent_timer() -> ConsentTimer:
    """Asks for every viewer's consent while the server runs."""
    return ConsentTimer(lambda: viewer_registry().viewers())


def _leave(viewer: Viewer) -> None:
    viewer_registry().leave(viewer)


@st.cache_resource(scope="session", on_release=_leave, show_spinner=False)
def this_viewer() -> Viewer:
    """This page's viewer; Streamlit frees it as soon as the page is closed or loses its connection."""
    consent_timer()
    # The same browser is shown the same model, whichever page it opens.
    source = model_sources().default_for(st.context.cookies.get("_streamlit_xsrf") or secrets.token_hex(8))
    shared = model_sources().served(source)
    personas = shared.bundle.personas
    consent = ConsentChecker(TrustStore(app_settings().trust))
    viewer = viewer_registry().admit(
        shared.model, Choices(SwapSettings(personas[0].name)), shared.overlays, consent, personas
    )
    viewer.served, viewer.wanted = shared, source
    viewer.switch_model(model_sources().served(source))  # it may have been promoted meanwhile
    return viewer
