"""Where everything lies that the app, the commands and trainings make: one folder, one default for all of them."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path

_SQLITE = "sqlite:///"
_ARTIFACTS = "_MLFLOW_SERVER_ARTIFACT_ROOT"  # MLflow reads it for stores of its own process, too


def work_folder(environment: Mapping[str, str]) -> Path:
    """Where Studio and Convert keep personas, uploads and jobs: UNDERSTUDY_WORK, else work/ beside the packages."""
    return Path(environment.get("UNDERSTUDY_WORK") or Path(__file__).resolve().parents[2] / "work")


def tracking_address(environment: Mapping[str, str]) -> str:
    """MLflow's address: MLFLOW_TRACKING_URI, else sqlite in the work folder."""
    return environment.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{work_folder(environment) / 'mlflow.db'}"


def keep_tracking_together(environment: MutableMapping[str, str], address: str = "") -> None:
    """Make MLflow use the one address, and keep files beside a local store instead of wherever a command runs.

    Args:
        environment: os.environ, handed in by the entry point, before MLflow is asked anything.
        address: MLflow's, where the caller has one of its own.
    """
    address = address or tracking_address(environment)
    environment["MLFLOW_TRACKING_URI"] = address
    if address.startswith(_SQLITE):
        folder = Path(address.removeprefix(_SQLITE)).absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        environment.setdefault(_ARTIFACTS, (folder / "mlruns").as_uri())
