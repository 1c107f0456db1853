"""A promoted champion reaches running streams: they go on, with its own marks, and only where it may play."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.live_stage import HandCamera, admitted, offered_names, open_page
from benchmarks.harness.pages import fresh_app
from benchmarks.harness.waiting import wait_until
from liveframe.gate import ShownState
from pipelines.follow import Follower
from pipelines.registry import Registry
from tests.support.mlflow_store import mlflow_store
from tests.support.real_faces import astronaut
from ui.session import shared
from ui.session.model_sources import ModelSource, ModelSources, open_model
from ui.session.settings import app_settings
from understudy.consent.check import read_record
from understudy.consent.trust_store import TrustStore


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


def other_bundle(folder: Path, *names: str) -> Path:
    return build_consented_bundle(folder / "other", {name: name.title() for name in names}, folder / "trust")


def test_new_champion_takes_over_a_running_stream_which_goes_on(page: AppTest, tmp_path: Path) -> None:
    viewer = admitted()
    camera = HandCamera(viewer)
    camera.send_until(ShownState.SWAPPED, astronaut())
    promoted = open_model(other_bundle(tmp_path, "ada", "eve"), tmp_path / "trust", "Champion, version 2")
    viewer.wanted = ModelSource.CHAMPION
    shared.model_sources().publish(ModelSource.CHAMPION, promoted)
    wait_until(lambda: camera.send(astronaut()) is not None and viewer.served is promoted, timeout_s=40)
    camera.send_until(ShownState.SWAPPED, astronaut())
    stats = viewer.pipeline.stats()
    assert stats.frames == camera.counts().received == stats.swapped + stats.held + stats.covered
    assert (stats.model_swaps, stats.abandoned, stats.off) == (1, 0, 0)
    assert viewer.stream is camera and not camera.is_ended
    assert viewer.choices.swap.persona == "ada"
    page.run()
    assert "eve" in offered_names(page)
    assert "ben" not in offered_names(page)


def test_persona_that_the_champion_lacks_gives_way_to_its_first(page: AppTest, tmp_path: Path) -> None:
    viewer = admitted()
    camera = HandCamera(viewer)
    camera.send_until(ShownState.SWAPPED, astronaut())
    promoted = open_model(other_bundle(tmp_path, "eve"), tmp_path / "trust")
    promoted.model.warm_up()
    viewer.switch_model(promoted).result(40)
    wait_until(lambda: viewer.choices.swap.persona == "eve")
    camera.send_until(ShownState.SWAPPED, astronaut())
    assert viewer.check_consent() == ""


def test_champion_without_consent_does_not_take_over(page: AppTest, tmp_path: Path) -> None:
    path = other_bundle(tmp_path, "ada")
    record = read_record(path / "ada" / "consent.json")
    TrustStore(tmp_path / "trust").revoke(record.digest, datetime.now(UTC), "asked by mail")
    viewer = admitted()
    before = viewer.served
    error = viewer.switch_model(open_model(path, tmp_path / "trust", "Champion, version 2")).exception(10)
    assert "Champion, version 2 cannot play" in str(error)
    assert viewer.served is before


def test_picker_appears_where_a_registered_model_is_followed(page: AppTest) -> None:
    assert "model" not in [group.key for group in page.button_group]


def test_alias_that_moves_in_the_registry_reaches_the_viewers_who_want_it(page: AppTest, tmp_path: Path) -> None:
    viewer = admitted()
    viewer.wanted = ModelSource.CHAMPION
    camera = HandCamera(viewer)
    with mlflow_store(tmp_path) as uri:
        registry = Registry("understudy", tmp_path / "cache")
        registry.register(other_bundle(tmp_path, "ada", "eve"), alias="champion")
        settings = replace(app_settings(), model="models:/understudy@champion", tracking=uri)
        running = ModelSources(shared.served_model(), settings, lambda: [viewer], every_s=0.5)
        try:
            wait_until(
                lambda: viewer.served is not None and viewer.served.title == "Champion, version 1", timeout_s=120
            )
            camera.send_until(ShownState.SWAPPED, astronaut())
        finally:
            running.close(timeout_s=30)
        assert running._child is not None and running._child.returncode is not None
        assert not any(thread.is_alive() for thread in running._threads)


def test_follower_tells_each_version_once_and_why_there_is_none(tmp_path: Path) -> None:
    with mlflow_store(tmp_path):
        follower = Follower(["models:/understudy@champion"], tmp_path / "cache")
        (missing,) = follower.news()
        assert missing["version"] is None and "must be registered" in missing["problem"]
        assert follower.news() == []
        bundle = build_consented_bundle(tmp_path / "bundle", {"ada": "Ada"}, tmp_path / "trust")
        registered = Registry("understudy", tmp_path / "cache").register(bundle, alias="champion")
        (found,) = follower.news()
        assert (found["version"], found["digest"], found["problem"]) == (1, registered.digest, "")
        assert (Path(found["bundle"]) / "manifest.json").is_file()
        assert follower.news() == []
