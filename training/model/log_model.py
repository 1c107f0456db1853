"""A bundle into MLflow's registry, and out of it again: verified on both ways, never unpickled."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.model.tracking_uri import use_tracking
from understudy.any_bundle import ServableBundle, open_servable
from understudy.bundle.bundle import Bundle, BundleError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# Where a version keeps its bundle, and the tag that says what it must be.
_MEMBER = "artifacts/bundle"
DIGEST_TAG = "bundle_digest"
_LONGEST_DESCRIPTION = 5000
_REQUIREMENTS = ("mlflow", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "protobuf")
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True, slots=True)
class LoggedBundle:
    """What `log_bundle` registered.

    Attributes:
        name: the registered model.
        version: its new version, from 1 up.
        run_id: the MLflow run that holds the artifacts.
        digest: the bundle's identity (`Bundle.digest`), also the version's tag `bundle_digest`.
    """

    name: str
    version: int
    run_id: str
    digest: str

    @property
    def uri(self) -> str:
        """The version's address: models:/name/version."""
        return f"models:/{self.name}/{self.version}"


def log_bundle(
    bundle_dir: Path | str,
    registered_name: str,
    *,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    alias: str = "",
) -> LoggedBundle:
    """Verify a bundle, log it as a pyfunc with signature, and register it as a new version.

    Goes into the active run, or into a run of its own, in the experiment named as the model. Tracking server
    is what `training.model.tracking_uri` says. The version's description is its model card.

    Args:
        bundle_dir: a bundle's directory or .zip, of any kind that may be run.
        registered_name: the registered model; made where missing.
        metrics: an evaluation of this very bundle: logged to the run and tied to the logged model's id.
        tags: set on the version, beside its digest, personas and the hash of each consent record.
        alias: moved to the new version, where given.

    Raises:
        BundleError: the bundle is damaged; nothing is logged.
        mlflow.exceptions.MlflowException: the tracking server refuses.
    """
    import mlflow

    bundle = open_servable(bundle_dir)
    is_nested = mlflow.active_run() is not None
    if not is_nested:
        use_tracking(experiment=registered_name)
    run = mlflow.active_run() or mlflow.start_run(run_name=f"register {registered_name}")
    try:
        model_uri, model_id = _log_pyfunc(bundle)
        mlflow.log_metrics(dict(metrics or {}), model_id=model_id)
        # With its tags in one step: a version without its digest would be there, but could not be fetched.
        all_tags = {**_bundle_tags(bundle), **(tags or {})}
        version = int(mlflow.register_model(model_uri, registered_name, tags=all_tags).version)
        mlflow.MlflowClient().update_model_version(registered_name, str(version), _description(bundle))
    finally:
        if not is_nested:
            mlflow.end_run()
    if alias:
        mlflow.MlflowClient().set_registered_model_alias(registered_name, alias, str(version))
    return LoggedBundle(registered_name, version, run.info.run_id, bundle.digest)


def fetch_bundle(uri: str, cache: Path | None = None) -> Path:
    """Return a registered bundle's directory, fetched once, verified at every call.

    The version's code and environment files stay where they are: only the bundle's data is
    fetched, and its digest must be the one that was registered.

    Args:
        uri: models:/name@alias or models:/name/version.
        cache: where bundles are kept, by digest; `~/.cache/understudy/bundles` by default.

    Raises:
        BundleError: the address is none, leads nowhere, or what it leads to is not what was registered.
    """
    version = find_version(uri)
    digest = version.tags.get(DIGEST_TAG, "")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise BundleError(
            f"{uri} (version {version.version}) must carry its bundle's SHA-256 in the tag {DIGEST_TAG!r}, "
            f"but it is {digest!r}. Register it with training.model.log_model.log_bundle."
        )
    root = cache or Path.home() / ".cache" / "understudy" / "bundles"
    target = root / digest
    if not target.is_dir():
        _download(version, uri, digest, target)
    _check_digest(target, digest, uri)
    return target


def open_bundle(source: Path | str, cache: Path | None = None) -> Bundle:
    """Open a bundle wherever it lies: a directory, a .zip, or models:/name@alias in the registry.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    is_registered = str(source).startswith("models:")
    return Bundle.load(fetch_bundle(str(source), cache) if is_registered else source)


def find_version(uri: str, client: MlflowClient | None = None) -> ModelVersion:
    """Look a registered version up.

    Args:
        uri: models:/name@alias or models:/name/version.
        client: MLflow's client; one for the current tracking server by default.

    Raises:
        BundleError: the address is none, or nothing is registered there.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    match = _URI.fullmatch(uri)
    if match is None:
        raise BundleError(f"A registered bundle must be models:/NAME@ALIAS or models:/NAME/VERSION, but got {uri!r}.")
    name, alias, number = match["name"], match["alias"], match["version"]
    if client is None:
        use_tracking()
        client = MlflowClient()
    try:
        if alias:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, number)
    except MlflowException as error:
        raise BundleError(
            f"{uri} must be registered, but is not: {error.message}. "
            "Check MLFLOW_TRACKING_URI, or list versions with `python -m pipelines.registry list`."
        ) from error


def logged_model_id(version: ModelVersion) -> str | None:
    """Return the id of the logged model behind a version, which its figures belong to; None for an old version.

    The sqlite store leaves `model_id` out, but the version's source names it: `models:/m-...`.
    """
    named = re.fullmatch(r"models:/(m-[0-9a-f]+)", version.source or "")
    return version.model_id or (named[1] if named else None)


def _description(bundle: ServableBundle) -> str:
    """Return what people read of a version: the bundle's model card, as much as fits."""
    card = bundle.path / "model_card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return (text or f"{bundle.name}, version {bundle.version}: {', '.join(bundle.variants)}.")[:_LONGEST_DESCRIPTION]


def _log_pyfunc(bundle: ServableBundle) -> tuple[str, str]:
    """Log a bundle's files to the active run; give the logged model's address and id."""
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    spec = bundle.batch_model(bundle.variants[0], 1).spec
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *spec.input_shape))]),
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *spec.output_shape))]),
        ParamSchema([ParamSpec("persona", "string", bundle.variants[0])]),
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # MLflow names an artifact after its directory: give it always the same name.
        staged = shutil.copytree(bundle.path, Path(folder) / "bundle")
        # The signature is given below: MLflow need not infer one from an example.
        warnings.filterwarnings("ignore", ".*An input example was not provided", UserWarning)
        info = mlflow.pyfunc.log_model(
            name="bundle",
            python_model=str(Path(__file__).with_name("bundle_pyfunc.py")),
            artifacts={"bundle": str(staged)},
            code_paths=[str(Path(__file__).parents[2] / package) for package in ("liveframe", "understudy")],
            signature=signature,
            # Listed by hand: MLflow's own search for them imports the model in a new process, for a minute.
            pip_requirements=[f"{name}=={installed_version(name)}" for name in _REQUIREMENTS],
        )
    return str(info.model_uri), str(info.model_id)


def _bundle_tags(bundle: ServableBundle) -> dict[str, str]:
    tags = {
        DIGEST_TAG: bundle.digest,
        "bundle_name": bundle.name,
        "bundle_version": bundle.version,
        "factory": bundle.factory,
        "personas": ",".join(bundle.variants),
    }
    return tags | {f"consent.{name}": digest for name, digest in bundle.consents.items()}


def _download(version: ModelVersion, uri: str, digest: str, target: Path) -> None:
    """Fetch the bundle's files beside the target, verify them, and move them there in one step."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        try:
            fetched: Any = download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}/{_MEMBER}", dst_path=folder
            )
        except (MlflowException, OSError) as error:
            raise BundleError(f"{uri} must hold a bundle at {_MEMBER}, but: {error}. Register it again.") from error
        _check_digest(Path(fetched), digest, uri)
        try:
            os.replace(fetched, target)
        except OSError:
            # Another process was faster: its copy is verified by the caller.
            if not target.is_dir():
                raise


def _check_digest(directory: Path, digest: str, uri: str) -> None:
    found = open_servable(directory).digest
    if found != digest:
        raise BundleError(f"{uri} must be the bundle {digest[:12]}, but {directory} holds {found[:12]}. Refused.")
