"""Where MLflow is: the one place that training, pipelines, the app and notebooks ask.

`MLFLOW_TRACKING_URI` names a server (or a file); without it a sqlite file in the work folder does. Nothing is ever
written into the current folder.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from understudy.jobs.work_folder import work_folder

__all__ = ["log_dataset", "tracking_uri", "use_tracking", "work_folder"]

_VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"


def tracking_uri(environment: Mapping[str, str]) -> str:
    """Return MLflow's address."""
    return environment.get(_VARIABLE) or f"{_SQLITE}{work_folder(environment) / 'mlflow.db'}"


def use_tracking(uri: str = "", experiment: str = "") -> str:
    """Make an MLflow the current one, here and in processes started here.

    A new experiment in a sqlite file keeps its artifacts beside that file; on a server, where the server says, so that
    its artifact proxy is used.

    Args:
        uri: MLflow's address; `tracking_uri` of the environment where empty.
        experiment: made current, and made where missing; "" leaves the current one.

    Returns:
        The address.
    """
    import mlflow  # takes seconds: only where something is tracked

    address = uri or tracking_uri(os.environ)
    os.environ[_VARIABLE] = address
    mlflow.set_tracking_uri(address)
    folder = Path(address.removeprefix(_SQLITE)).resolve().parent if address.startswith(_SQLITE) else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    if experiment:
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, (folder / "artifacts").as_uri() if folder else None)
        mlflow.set_experiment(experiment)
    return address


def log_dataset(name: str, where: str, digest: str, context: str) -> None:
    """Log what the active run has seen as its input.

    Args:
        name: what people call it.
        where: a path or a URI.
        digest: SHA-256 (hex) of its content; MLflow keeps 36 digits.
        context: "training", "validation" or "evaluation".
    """
    import mlflow
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    with warnings.catch_warnings():
        # MLflow registers its source of local files twice, and warns of that.
        warnings.filterwarnings("ignore", ".*can be interpreted in multiple ways", UserWarning)
        source = resolve_dataset_source(where)
    mlflow.log_input(MetaDataset(source, name=name, digest=digest[:36]), context=context)
