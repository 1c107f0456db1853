"""The Live page's widgets, run by Streamlit's AppTest over the WebSocket relay (WebRTC needs a browser)."""

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, offered_names, pick
from benchmarks.harness.tiny_bundle import build_tiny_bundle
from benchmarks.harness.waiting import wait_until
from liveframe.cover import CoverStyle
from ui.session import shared
from ui.session.settings import app_settings
from ui.session.viewer import Choices, Viewer
from understudy.swap.swapper import SwapSettings


def live_page() -> None:
    from ui.live import page as live

    live.page()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def page(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    monkeypatch.setenv("UNDERSTUDY_BUNDLE", str(bundle))
    monkeypatch.setenv("UNDERSTUDY_RELAY", "websocket")
    monkeypatch.setenv("UNDERSTUDY_MAX_VIEWERS", "1")
    forget_everything()
    yield AppTest.from_function(live_page, default_timeout=30)
    forget_everything()


def forget_everything() -> None:
    """Let the next page read the environment anew and find every seat free."""
    if shared.viewer_registry.cache_info().currsize:
        for viewer in list(shared.viewer_registry().viewers()):
            shared.viewer_registry().leave(viewer)
    for cached in (app_settings, shared.viewer_registry):
        cached.cache_clear()
    st.cache_resource.clear()


def admitted() -> Viewer:
    (viewer,) = shared.viewer_registry().viewers()
    return viewer


def test_page_opens_with_the_first_persona_chosen_and_swapping_on(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert offered_names(page) == ["ada", "ben"]
    assert admitted().choices.swap.persona == "ada"
    assert admitted().choices.is_swapping


def test_what_modules_made_is_not_looked_through_after_every_rerun(page: AppTest) -> None:
    page.run()
    wait_until(lambda: gc.get_freeze_count() > 10_000, timeout_s=30)


def test_click_on_a_thumbnail_chooses_that_persona(page: AppTest) -> None:
    page.run()
    pick(page, "ben")
    assert admitted().choices.swap.persona == "ben"


def test_controls_reach_the_viewer_without_a_restart(page: AppTest) -> None:
    page.run()
    before = admitted()
    page.slider(key="strength").set_value(0.9)
    page.toggle(key="is_mirrored").set_value(False)
    page.run()
    assert admitted() is before
    assert admitted().choices.swap.strength == 0.9
    assert not admitted().choices.is_mirrored


def test_cover_is_chosen_by_name(page: AppTest) -> None:
    page.run()
    page.button_group(key="cover").set_value(CoverStyle.SLATE).run()
    assert admitted().choices.cover is CoverStyle.SLATE


def test_own_camera_is_an_explicit_choice(page: AppTest) -> None:
    page.run()
    page.toggle(key="is_off").set_value(True).run()
    assert not admitted().choices.is_swapping


def test_relay_in_use_and_its_reason_are_told(page: AppTest) -> None:
    page.run()
    assert any("Connected by WebSocket. This server is set to it." in caption.value for caption in page.caption)


def test_an_idle_page_takes_no_place_and_a_stream_elsewhere_is_told(page: AppTest) -> None:
    other = shared.viewer_registry().admit(shared.served_model().model, Choices(SwapSettings("ada")))
    page.run()
    assert not page.warning
    HandCamera(other).send(np.full((48, 64, 3), 90, np.uint8))
    page.run()
    assert "All places of this server are taken" in page.warning[0].value


def test_missing_bundle_says_what_to_do(page: AppTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNDERSTUDY_BUNDLE", str(tmp_path / "nothing"))
    page.run()
    assert not page.exception
    assert "uv run python -m training.train" in page.info[0].value
