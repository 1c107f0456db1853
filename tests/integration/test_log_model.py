"""A bundle goes into MLflow and comes out again, equal and verified."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from tests.support.mlflow_store import mlflow_store
from training.model.log_model import DIGEST_TAG, LoggedBundle, fetch_bundle, find_version, log_bundle, open_bundle
from understudy.bundle.bundle import Bundle, BundleError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("mlflow")
    with mlflow_store(directory):
        yield directory


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def logged(home: Path, bundle_dir: Path) -> LoggedBundle:
    return log_bundle(bundle_dir, "swap", metrics={"pose_deg": 1.5}, tags={"git": "abc"}, alias="champion")


def test_a_fetched_bundle_is_the_one_that_was_logged(logged: LoggedBundle, bundle_dir: Path, tmp_path: Path) -> None:
    fetched = fetch_bundle("models:/swap@champion", tmp_path)
    assert Bundle.load(fetched).digest == Bundle.load(bundle_dir).digest == logged.digest
    assert (fetched / "encoder.onnx").read_bytes() == (bundle_dir / "encoder.onnx").read_bytes()
    assert open_bundle(logged.uri, tmp_path).path == fetched


def test_a_version_carries_its_digest_its_consents_and_its_metrics(logged: LoggedBundle, bundle_dir: Path) -> None:
    import mlflow

    version = find_version(logged.uri)
    manifest = Bundle.load(bundle_dir).manifest
    assert version.tags[DIGEST_TAG] == logged.digest
    assert version.tags["personas"] == "ada,ben"
    assert version.tags["consent.ada"] == manifest.files["ada/consent.json"].sha256
    assert version.tags["git"] == "abc"
    assert mlflow.get_run(logged.run_id).data.metrics == {"pose_deg": 1.5}
    assert mlflow.active_run() is None


def test_logging_joins_the_active_run_and_leaves_it_open(home: Path, bundle_dir: Path) -> None:
    import mlflow

    with mlflow.start_run() as run:
        logged = log_bundle(bundle_dir, "joined")
        assert mlflow.active_run() is not None
    assert logged.run_id == run.info.run_id


def test_a_zip_can_be_logged(home: Path, bundle_dir: Path, tmp_path: Path) -> None:
    from understudy.bundle.bundle import pack

    logged = log_bundle(pack(bundle_dir, tmp_path / "tiny.zip"), "zipped")
    assert fetch_bundle(logged.uri, tmp_path / "cache").is_dir()


@pytest.mark.faults
def test_a_damaged_bundle_is_not_logged(home: Path, bundle_dir: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(bundle_dir, tmp_path / "damaged")
    with (damaged / "encoder.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        log_bundle(damaged, "refused")
    with pytest.raises(BundleError, match="must be registered"):
        find_version("models:/refused/1")


@pytest.mark.faults
def test_artifacts_changed_on_the_server_are_refused(home: Path, bundle_dir: Path, tmp_path: Path) -> None:
    logged = log_bundle(build_tiny_bundle(tmp_path / "one", personas={"cy": "Cy"}), "swapped-out")
    (stored,) = [p for p in (home / "artifacts").rglob("bundle") if (p / "cy").is_dir()]
    shutil.rmtree(stored)
    shutil.copytree(bundle_dir, stored)  # valid in itself, but not what was registered
    with pytest.raises(BundleError, match="must be the bundle"):
        fetch_bundle(logged.uri, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.faults
def test_a_cached_bundle_is_verified_again(logged: LoggedBundle, tmp_path: Path) -> None:
    fetched = fetch_bundle(logged.uri, tmp_path)
    (fetched / "extra.txt").write_text("?")
    with pytest.raises(BundleError, match="exactly the files"):
        fetch_bundle(logged.uri, tmp_path)


@pytest.mark.parametrize("uri", ["models:/swap", "swap@champion", "models:/../x@y", "models:/swap@a/b"])
def test_an_address_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(BundleError, match="must be models:"):
        find_version(uri)


def test_an_alias_that_nobody_set_is_named(logged: LoggedBundle) -> None:
    with pytest.raises(BundleError, match=r"swap@nobody must be registered"):
        fetch_bundle("models:/swap@nobody")


def test_the_pyfunc_answers_without_our_repository_and_without_pickle(
    home: Path, logged: LoggedBundle, bundle_dir: Path, tmp_path: Path
) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), np.uint8)
    np.save(tmp_path / "batch.npy", batch)
    script = (
        "import mlflow, numpy as np\n"
        f"model = mlflow.pyfunc.load_model({logged.uri!r})\n"
        "np.save('answer.npy', model.predict(np.load('batch.npy'), params={'persona': 'ben'}))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=100)
    model = Bundle.load(bundle_dir).swap_model("ben")
    expected = np.concatenate([model.predict(batch[:16]), model.predict(batch[16:])])
    assert (np.load(tmp_path / "answer.npy") == expected).all()
