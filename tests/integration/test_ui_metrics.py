"""Prometheus reads what the app counts, and nobody else does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page
from benchmarks.harness.pages import fresh_app
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut
from ui.session import shared
from ui.session.app_metrics import PATH, app_metrics


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


def ask(address: str = "10.0.0.7", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": PATH, "client": (address, 4711), "headers": raw})


def scraped() -> dict[tuple[str, ...], float]:
    """Return samples by their name and their labels' values."""
    answer = app_metrics(ask(), shared.viewer_registry())
    assert answer.status_code == 200
    families = text_string_to_metric_families(bytes(answer.body).decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_frames_are_counted_by_what_was_shown_and_stay_counted_when_their_viewer_leaves(page: AppTest) -> None:
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, astronaut())
    seen = scraped()
    assert seen["understudy_app_pages",] == 1 and seen["understudy_app_places",] >= 1
    assert seen["understudy_app_frames_total", "swapped"] >= 1
    before = {key: value for key, value in seen.items() if key[0] == "understudy_app_frames_total"}
    shared.viewer_registry().leave(admitted())
    after = scraped()
    assert after["understudy_app_pages",] == 0
    assert all(after[key] >= value for key, value in before.items())
    assert ("understudy_app_streams",) in after and after["understudy_app_streams",] == 0


@pytest.mark.parametrize(
    "request_",
    [ask("8.8.8.8"), ask(x_forwarded_for="10.0.0.7"), ask(forwarded="for=10.0.0.7")],
    ids=["public", "proxy", "forwarded"],
)
def test_strangers_and_proxies_read_nothing(page: AppTest, request_: Request) -> None:
    assert app_metrics(request_, shared.viewer_registry()).status_code == 404
