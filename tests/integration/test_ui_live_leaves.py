"""A viewer who leaves takes everything along: no thread, no picture, no session stays in memory."""

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from benchmarks.harness.live_stage import HandCamera, admitted, open_page
from benchmarks.harness.pages import fresh_app
from benchmarks.harness.waiting import wait_until
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut
from ui.session import shared


@pytest.fixture(autouse=True)
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fresh_app(tmp_path, monkeypatch):
        yield


def stream_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("liveframe", "recording"))]


def test_nothing_of_a_viewer_who_left_is_kept() -> None:
    page = open_page()
    viewer = admitted()
    camera = HandCamera(viewer)
    camera.send_until(ShownState.SWAPPED, astronaut())
    viewer.record()
    camera.send(astronaut())
    assert stream_threads()
    kept = [weakref.ref(viewer), weakref.ref(viewer.pipeline), weakref.ref(viewer.pipeline.session)]

    shared.viewer_registry().leave(viewer)
    assert len(shared.viewer_registry()) == 0
    assert camera.is_ended
    st.cache_resource.clear()  # the session's own caches go with it
    del viewer, camera, page
    wait_until(lambda: not stream_threads(), timeout_s=20)

    def left() -> list[object]:
        gc.collect()
        return [found for ref in kept if (found := ref()) is not None]

    wait_until(lambda: not left(), timeout_s=20)
