"""The app follows its endpoint: what it serves, its canary for some viewers, and what does not fit is told."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.ports import free_port
from benchmarks.harness.serving_process import running
from benchmarks.harness.waiting import wait_until
from serving.vertex.client import Fleet, RemoteSettings, Served
from ui.session.model_sources import ModelSource, ModelSources, open_model
from ui.session.settings import AppSettings


class Listener:
    """A viewer who only notes what plays."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.played: list[str] = []

    def switch_model(self, served: object) -> None:
        self.played.append(served.title)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_HOME", str(folder / "operator"))
        for name, personas in (("one", {"ada": "Ada"}), ("two", {"ben": "Ben"})):
            build_consented_bundle(folder / name, personas, folder / "operator")
        yield folder


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "serving.local_server", str(home / "one"), "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}", os.environ) as address:
        yield address


def sources(home: Path, url: str, bundle: str, listeners: list[Listener]) -> ModelSources:
    environment = {"UNDERSTUDY_HOME": str(home / "operator"), "UNDERSTUDY_WORK": str(home / "work")}
    settings = replace(
        AppSettings.from_environment(environment),
        remote=RemoteSettings(f"{url}/predict", deadline_ms=4000),
    )
    return ModelSources(open_model(home / bundle, home / "operator"), settings, lambda: listeners)


def test_endpoint_of_the_same_bundle_plays_and_one_of_another_is_told(home: Path, url: str) -> None:
    viewer = Listener(ModelSource.REMOTE)
    same = sources(home, url, "one", [viewer])
    wait_until(lambda: same.is_ready(ModelSource.REMOTE))
    assert viewer.played == ["Remote endpoint"] and same.problem(ModelSource.REMOTE) == ""
    other = sources(home, url, "two", [])
    wait_until(lambda: other.problem(ModelSource.REMOTE))
    assert "serves the bundle" in other.problem(ModelSource.REMOTE) and not other.is_ready(ModelSource.REMOTE)
    for each in (same, other):
        each.close()


def test_canary_is_for_its_share_and_its_viewers_return_when_it_ends(home: Path, url: str) -> None:
    viewer = Listener(ModelSource.CANARY)
    followed = sources(home, url, "one", [viewer])
    wait_until(lambda: followed.is_ready(ModelSource.REMOTE))
    served = Served(RemoteSettings(f"{url}/predict", deadline_ms=4000), "")
    followed._take_served(ModelSource.CANARY, served, "Remote canary")
    followed._fleet = Fleet(served, served, 40)
    chosen = [followed.default_for(f"viewer {number}") for number in range(200)]
    assert chosen == [followed.default_for(f"viewer {number}") for number in range(200)]
    assert 0.25 < chosen.count(ModelSource.CANARY) / 200 < 0.55 and ModelSource.CANARY in followed.sources()
    followed._end_canary()
    assert viewer.wanted == ModelSource.REMOTE and viewer.played == ["Remote canary", "Remote endpoint"]
    assert followed.default_for("viewer 1") is ModelSource.REMOTE and ModelSource.CANARY not in followed.sources()
    followed.close()
