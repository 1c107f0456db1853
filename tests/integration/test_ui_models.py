"""The Models page on a real registry, promotion and rollback in real jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.pages import fresh_app, rerun, states
from benchmarks.harness.waiting import wait_until
from tests.support.mlflow_store import mlflow_store
from tests.support.real_faces import astronaut_clip
from ui.parts.registry_view import registry_view
from understudy.jobs.queue import JobState


def models_page() -> None:
    from ui.models import page as models

    models.page()


# MLflow makes its tables anew for every store, and each look at it is a process of its own.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One registry for all tests, empty for the first."""
    with mlflow_store(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture
def page(tmp_path: Path, tracking: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch, tracking):
        yield AppTest.from_function(models_page, default_timeout=60)


def register(folder: Path, personas: dict[str, str], alias: str) -> None:
    from pipelines.registry import Registry

    bundle = build_consented_bundle(folder, personas, folder.parent / "trust")
    Registry().register(bundle, {"ssim_ada": 0.9}, alias=alias)
    Registry().move_alias(alias, len(Registry().versions()))


def look(page: AppTest) -> AppTest:
    """Have MLflow asked anew, and run the page when the answer is there."""
    wait_until(lambda: not registry_view().is_busy(), timeout_s=200)
    registry_view().refresh()
    wait_until(lambda: not registry_view().is_busy(), timeout_s=200)
    return page.run()


def test_empty_registry_says_what_to_do(page: AppTest) -> None:
    look(page)
    assert not page.exception
    assert "Train a persona in the Studio" in page.info[0].value


def test_unreachable_mlflow_is_told_and_breaks_nothing(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    registry_view().tracking = "sqlite:////proc/nowhere/mlflow.db"
    look(page)
    assert not page.exception
    assert "MLflow could not be asked" in page.error[0].value


def test_versions_are_shown_judged_and_rolled_back(page: AppTest, tmp_path: Path) -> None:
    register(tmp_path / "one", {"ada": "Ada"}, "champion")
    register(tmp_path / "two", {"ada": "Ada", "ben": "Ben"}, "challenger")
    look(page)
    assert not page.exception
    assert page.radio(key="version").value == 2
    assert any("Version 2" in heading.value for heading in page.subheader)
    assert any("What it must hold" in part.label for part in page.expander)
    work = rerun(page)
    assert (work.processes, work.pictures) == (0, 0)
    assert work.calls < 40_000 and work.files < 60

    clip = astronaut_clip(tmp_path / "in.mp4", 12).read_bytes()
    page.file_uploader(key="held-out-2").set_value([("held-out.mp4", clip, "video/mp4")]).run()
    page.button(key="promote").click().run()
    assert not page.exception
    wait_until(lambda: states() == [JobState.DONE], timeout_s=200)
    look(page)
    assert not page.exception
    assert "was not promoted" in page.error[0].value  # flat colours look like nobody
    assert registry_view().read().by_alias("champion").version == 1
    assert registry_view().read().versions[0].gates == "failed"

    from pipelines.registry import Registry

    Registry().move_alias("champion", 2)
    look(page)
    page.button(key="rollback").click().run()
    wait_until(lambda: states() == [JobState.DONE, JobState.DONE], timeout_s=200)
    look(page)
    assert registry_view().read().by_alias("champion").version == 1


def test_the_app_never_imports_mlflow_for_it(page: AppTest, repository: Path) -> None:
    import subprocess
    import sys

    code = "import sys, ui.main; print(*sorted({'mlflow', 'keras', 'tensorflow'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
