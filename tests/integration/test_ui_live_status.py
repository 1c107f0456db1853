"""The state beside the picture, once a second: stage times are drawn while somebody looks, and without data frames."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page
from benchmarks.harness.pages import fresh_app, rerun
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


def test_stage_times_are_a_chart_and_a_table_for_those_who_open_them(page: AppTest) -> None:
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, astronaut())
    camera.send(astronaut())
    page.run()
    assert "Time by stage" in [part.label for part in page.expander]
    assert not any("Stage" in part.value for part in page.markdown)
    camera.send(astronaut())
    page.session_state["stages"] = True
    page.run()
    assert not page.exception
    (table,) = [part.value for part in page.markdown if "| Stage |" in part.value]
    assert "whole swap" in table and "in the app" in table
    assert [caption for chart in page.image for caption in chart.captions if "Median by stage" in caption]


def test_frames_that_made_way_for_newer_ones_are_counted_on_the_page(page: AppTest) -> None:
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, astronaut())
    for answer in [camera.begin(astronaut()) for _ in range(12)]:
        answer()
    displaced = admitted().pipeline.stats().drops
    assert displaced > 0
    camera.dropped = 2
    page.session_state["stages"] = True
    page.run()
    assert any(f"**{displaced + 2}** dropped for newer ones" in part.value for part in page.markdown)


def test_a_rerun_beside_a_running_stream_does_little(page: AppTest) -> None:
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, astronaut())
    page.run()
    camera.send(astronaut())
    work = rerun(page)
    assert (work.processes, work.pictures) == (0, 0)
    assert work.calls < 60_000 and work.files < 40
