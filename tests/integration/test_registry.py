"""Versions, aliases and the way back, on a real MLflow in sqlite."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from pipelines import steps
from pipelines.chain import Release
from pipelines.registry import Registry, RegistryError, main
from tests.support.mlflow_store import mlflow_store
from understudy.bundle.bundle import Bundle, BundleError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("mlflow")
    with mlflow_store(directory):
        yield directory


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles that differ in their personas."""
    folder = tmp_path_factory.mktemp("bundles")
    return [build_tiny_bundle(folder / name, personas={name: name.title()}) for name in ("ada", "ben", "cy")]


@pytest.fixture
def registry(home: Path, bundles: list[Path], request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """Three versions under a name of the test's own."""
    registry = Registry(request.node.name, tmp_path / "cache")
    for path in bundles:
        registry.register(path)
    return registry


def test_an_unused_name_has_no_versions_aliases_or_history(home: Path) -> None:
    registry = Registry("nothing-here")
    assert registry.versions() == []
    assert registry.version_of("champion") is None
    assert registry.history() == []


def test_versions_come_newest_first_with_aliases_metrics_and_tags(
    home: Path, bundles: list[Path], tmp_path: Path
) -> None:
    registry = Registry("listed", tmp_path)
    registry.register(bundles[0], alias="champion")
    registry.register(bundles[1], metrics={"pose_deg": 1.5}, tags={"git": "abc"})
    newest, oldest = registry.versions()
    assert (newest.version, oldest.version) == (2, 1)
    assert (newest.aliases, oldest.aliases) == ((), ("champion",))
    assert (newest.personas, newest.metrics, newest.tags["git"]) == (("ben",), {"pose_deg": 1.5}, "abc")
    assert oldest.digest == Bundle.load(bundles[0]).digest


def test_a_registration_that_is_done_again_gives_the_same_version(
    home: Path, bundles: list[Path], tmp_path: Path
) -> None:
    """As after a kill between the registry's answer and the step's note; other figures make another version."""
    shutil.copytree(bundles[0], tmp_path / "trained" / steps.BUNDLE)
    release = Release([], [], "", trust="", tracking=f"sqlite:///{home / 'mlflow.db'}", model="once")

    def register(error_deg: float) -> dict[str, object]:
        (tmp_path / steps.FIGURES).write_text(json.dumps({"pose_deg": error_deg}) + "\n")
        steps.register(release, str(tmp_path / "trained"), str(tmp_path), str(tmp_path / "out"))
        return dict(json.loads((tmp_path / "out" / steps.VERSION).read_text()))

    first = register(1.25)
    assert first["version"] == 1 and register(1.25) == first
    assert register(2.5)["version"] == 2 and Registry("once").version_of("challenger") == 2


def test_an_alias_resolves_to_the_bundle_it_points_to(registry: Registry, bundles: list[Path]) -> None:
    registry.move_alias("champion", 1)
    assert Bundle.load(registry.resolve("champion")).digest == Bundle.load(bundles[0]).digest
    registry.move_alias("champion", 2)
    assert Bundle.load(registry.resolve("champion")).digest == Bundle.load(bundles[1]).digest
    assert registry.resolve(1) != registry.resolve(2)


def test_rolling_back_undoes_every_move_in_turn(registry: Registry) -> None:
    for version in (1, 2, 3):
        registry.move_alias("champion", version)
    assert registry.history() == [1, 2]
    assert registry.rollback() == (3, 2)
    assert registry.rollback() == (2, 1)
    assert registry.version_of("champion") == 1
    with pytest.raises(RegistryError, match="moved at least once"):
        registry.rollback()


def test_a_move_to_the_same_version_is_no_move(registry: Registry) -> None:
    registry.move_alias("champion", 1)
    assert registry.move_alias("champion", 1) == 1
    assert registry.history() == []


def test_aliases_keep_their_own_past(registry: Registry) -> None:
    registry.move_alias("champion", 1)
    registry.move_alias("canary", 2)
    registry.move_alias("canary", 3)
    assert (registry.history("champion"), registry.history("canary")) == ([], [2])


def test_an_alias_never_points_to_a_version_that_does_not_exist(registry: Registry) -> None:
    with pytest.raises(BundleError, match="must be registered"):
        registry.move_alias("champion", 9)
    assert registry.version_of("champion") is None


def test_an_alias_that_somebody_moved_meanwhile_is_left_alone(registry: Registry) -> None:
    registry.move_alias("champion", 2)
    with pytest.raises(RegistryError, match="must still be version 1 to be replaced, but is 2"):
        registry.replace_alias("champion", 3, expected=1)
    assert registry.version_of("champion") == 2
    registry.replace_alias("champion", 3, expected=2)
    assert registry.version_of("champion") == 3


@pytest.mark.faults
def test_rolling_back_to_a_damaged_version_is_refused_and_the_alias_stays(registry: Registry, home: Path) -> None:
    registry.move_alias("champion", 1)
    registry.move_alias("champion", 2)
    for stored in (home / "artifacts").rglob("bundle/ada"):
        with (stored / "decoder.onnx").open("ab") as file:
            file.write(b"x")
    try:
        with pytest.raises(BundleError, match="sizes"):
            registry.rollback()
        assert registry.version_of("champion") == 2
        assert registry.history() == [1]
    finally:
        for stored in (home / "artifacts").rglob("bundle/ada"):
            path = stored / "decoder.onnx"
            path.write_bytes(path.read_bytes()[:-1])


def test_the_command_registers_lists_and_resolves(
    home: Path, bundles: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--name", "cli", "register", str(bundles[0]), "--alias", "challenger"]) == 0
    assert capsys.readouterr().out == "models:/cli/1\n"
    assert main(["--name", "cli", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["aliases"] == ["challenger"]
    assert main(["--name", "cli", "resolve", "models:/cli@challenger"]) == 0
    assert Bundle.load(capsys.readouterr().out.strip()).digest == Bundle.load(bundles[0]).digest
    assert main(["--name", "cli", "resolve", "models:/cli@nobody"]) == 2
    assert "must be registered" in capsys.readouterr().err


@pytest.mark.faults
def test_the_command_refuses_a_damaged_bundle(
    home: Path, bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(bundles[0], tmp_path / "damaged")
    (damaged / "encoder.onnx").unlink()
    assert main(["--name", "damaged", "register", str(damaged)]) == 2
    assert "encoder.onnx" in capsys.readouterr().err
    assert Registry("damaged").versions() == []
