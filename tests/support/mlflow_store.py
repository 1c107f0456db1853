"""A fresh MLflow in a directory: sqlite, artifacts beside it. Used by tests of the registry."""

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mlflow_store(directory: Path) -> Generator[str]:
    """Make an empty MLflow the current one, and the one before current again at the end.

    Yields:
        The tracking URI.
    """
    with warnings.catch_warnings():
        # MLflow's own: SQLAlchemy's noload, pydantic schemas with Any; once per process, when these are imported.
        warnings.simplefilter("ignore")
        import mlflow
        import mlflow.pyfunc
        import mlflow.store.tracking.sqlalchemy_store

    before = os.environ.get("MLFLOW_TRACKING_URI")
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.create_experiment("tests", artifact_location=(directory / "artifacts").as_uri())
        mlflow.set_experiment("tests")
        yield uri
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None is "as the environment says"
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
