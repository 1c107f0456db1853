"""Pages under AppTest: a fresh work folder, a bundle whose consent counts, and everything cached forgotten."""

import _posixsubprocess
import io
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS
from ui.parts.registry_view import registry_view
from ui.session import shared
from ui.session.settings import app_settings
from ui.session.workspace import job_queue
from understudy.jobs.lock import exclusive
from understudy.jobs.queue import JobState


@contextmanager
def fresh_app(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tracking: str = "", bundle: Path | None = None
) -> Generator[None]:
    """Let pages read an environment of the test's own: work folder, keys, bundle, MLflow, WebSocket relay."""
    bundle = bundle or folder / "bundle"
    if not bundle.is_dir():
        build_consented_bundle(bundle, PERSONAS, folder / "trust")
    monkeypatch.setenv("UNDERSTUDY_BUNDLE", str(bundle))
    monkeypatch.setenv("UNDERSTUDY_HOME", str(folder / "trust"))
    monkeypatch.setenv("UNDERSTUDY_WORK", str(folder / "work"))
    monkeypatch.setenv("UNDERSTUDY_RELAY", "websocket")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    _forget()
    try:
        yield
    finally:
        for job in job_queue().jobs():
            if not job.is_over:
                job_queue().cancel(job.id)
        _forget()


@contextmanager
def no_worker() -> Generator[None]:
    """Keep jobs waiting: the worker's place is taken by somebody who does nothing."""
    folder = job_queue().folder
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "worker.lock", "The queue"):
        yield


class Rerun(NamedTuple):
    """What a page's script did in one run: counted, not timed, and so the same on a slow machine.

    Attributes:
        calls: functions called, Python's and C's.
        files: opened.
        processes: started.
        pictures: calls into OpenCV: reading, resizing, encoding.
    """

    calls: int
    files: int
    processes: int
    pictures: int


def rerun(page: AppTest) -> Rerun:
    """Run a page's script once more and count what it does, in threads that it starts too.

    How long that takes is measured by `benchmarks.app_speed`; a page of 20,000 calls takes about 20 ms there.
    """
    counts = [0, 0, 0, 0]

    def count(frame: FrameType, event: str, what: object) -> None:
        if event == "call":
            counts[0] += 1
        elif event == "c_call":
            counts[0] += 1
            counts[1] += what is io.open or what is os.open
            counts[2] += what is _posixsubprocess.fork_exec
            counts[3] += str(getattr(what, "__module__", "")).startswith("cv2")

    threading.setprofile(count)
    try:
        page.run()
    finally:
        threading.setprofile(None)
    return Rerun(*counts)


def states() -> list[JobState]:
    """Where the queue's jobs stand, oldest first."""
    return [job.state for job in job_queue().jobs()]


def _forget() -> None:
    if shared.viewer_registry.cache_info().currsize:
        for viewer in list(shared.viewer_registry().viewers()):
            shared.viewer_registry().leave(viewer)
    for cached in (app_settings, shared.viewer_registry, job_queue, registry_view):
        cached.cache_clear()
    st.cache_resource.clear()
    st.cache_data.clear()
