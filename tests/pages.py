"""Pages under AppTest: a fresh work folder, a bundle whose consent counts, and everything cached forgotten."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.consented_bundle import build_consented_bundle
from tests.tiny_bundle import PERSONAS
from ui import house
from ui.registry_view import registry_view
from ui.settings import app_settings
from ui.workspace import job_queue
from understudy.jobs import JobState
from understudy.lock import exclusive


@contextmanager
def fresh_app(folder: Path, monkeypatch: pytest.MonkeyPatch, tracking: str = "") -> Generator[None]:
    """Let pages read an environment of the test's own: work folder, keys, bundle, MLflow, WebSocket relay."""
    bundle = folder / "bundle"
    if not bundle.is_dir():
        build_consented_bundle(bundle, PERSONAS, folder / "trust")
    monkeypatch.setenv("UNDERSTUDY_BUNDLE", str(bundle))
    monkeypatch.setenv("UNDERSTUDY_HOME", str(folder / "trust"))
    monkeypatch.setenv("UNDERSTUDY_WORK", str(folder / "work"))
    monkeypatch.setenv("UNDERSTUDY_RELAY", "websocket")
    monkeypatch.delenv("UNDERSTUDY_DRIVERS", raising=False)
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


def fastest_rerun_s(page: AppTest, tries: int = 5) -> float:
    """How long a page's script takes when the machine lets it, seconds."""
    times_s: list[float] = []
    for _ in range(tries):
        start_s = time.perf_counter()
        page.run()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


def states() -> list[JobState]:
    """Where the queue's jobs stand, oldest first."""
    return [job.state for job in job_queue().jobs()]


def _forget() -> None:
    if house.seats.cache_info().currsize:
        for viewer in list(house.seats().viewers()):
            house.seats().leave(viewer)
    for cached in (app_settings, house.seats, job_queue, registry_view):
        cached.cache_clear()
    st.cache_resource.clear()
    st.cache_data.clear()
