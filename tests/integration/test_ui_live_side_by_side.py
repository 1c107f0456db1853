"""Side by side on the Live page: two personas, or the camera beside the swap, only for those who chose it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page
from benchmarks.harness.pages import fresh_app
from benchmarks.harness.waiting import wait_until
from liveframe.frame import Frame
from liveframe.gate import ShownState
from liveframe.models.side_by_side import SideBySide, SideBySideSession, side_by_side
from tests.support.real_faces import astronaut
from ui.session.choices import SideBySideView
from understudy.swap.swapper import SwapSession


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


def test_two_personas_are_chosen_and_play_side_by_side(page: AppTest) -> None:
    page.button_group(key="beside").set_value("persona").run()
    page.selectbox(key="beside_persona").set_value("ben").run()
    viewer = admitted()
    assert viewer.choices.personas == ("ada", "ben")
    wait_until(lambda: isinstance(viewer.pipeline.session, SideBySideSession), timeout_s=60)
    session = viewer.pipeline.session
    assert isinstance(session, SideBySideSession) and isinstance(session.left, SwapSession)
    assert session.left.settings.persona == "ben"
    result = session.process(Frame(astronaut(), 0, 0.0))
    assert result.is_complete
    camera_twice = side_by_side(astronaut(), astronaut(), ("", ""))
    changed = np.abs(result.image.astype(int) - camera_twice).max(axis=2)[160:350]
    assert changed[:, :256].max() > 30 and changed[:, 256:].max() > 30


def test_view_with_the_own_camera_is_covered_at_once_when_it_is_left(page: AppTest) -> None:
    viewer = admitted()
    page.button_group(key="beside").set_value("camera").run()
    assert "Your own face is shown" in page.warning[0].value
    wait_until(lambda: isinstance(viewer.pipeline.session, SideBySideSession), timeout_s=60)
    camera = HandCamera(viewer)
    viewer.choose(replace(viewer.choices, beside=SideBySideView()))
    camera.send(astronaut())
    still_there = isinstance(viewer.pipeline.session, SideBySideSession)
    assert not still_there or viewer.pipeline.stats().state is ShownState.COVERED
    wait_until(lambda: not isinstance(viewer.pipeline.session, SideBySideSession), timeout_s=60)
    wait_until(lambda: not viewer._is_leaving_camera, timeout_s=60)


def test_a_face_that_one_side_missed_makes_the_whole_picture_incomplete(page: AppTest) -> None:
    viewer = admitted()
    assert viewer.served is not None
    model = viewer.served.model
    model.warm_up()
    session = SideBySide(model, model, ("A", "B")).open_session()
    wall = np.full((240, 320, 3), 90, np.uint8)
    result = session.process(Frame(wall, 0, 0.0))
    assert not result.is_complete
    assert result.image.shape == wall.shape
    session.close()
