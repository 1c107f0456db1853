"""What a training tells MLflow: settings, curves, pictures, and the bundle at the end."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.model.config import DEFAULT, TrainingConfig
from training.model.tracking_uri import log_dataset, use_tracking
from understudy.jobs.atomic_file import write_json

_ROOT = Path(__file__).resolve().parents[2]


class Tracker:
    """One training's run in MLflow; a resumed training goes on in the same run.

    Args:
        config: the training's settings; `config.tracking` says where MLflow is.
        faceset: the digest of what is trained on.
    """

    def __init__(self, config: TrainingConfig, faceset: str) -> None:
        self.config, self._faceset = config, faceset
        self._mlflow: Any = None

    @contextmanager
    def run(self) -> Iterator["Tracker"]:
        """Open the run, and close it as finished, or as failed when an error passes through."""
        if not self.config.tracking:
            yield self
            return
        use_tracking("" if self.config.tracking == DEFAULT else self.config.tracking, self.config.name)
        import mlflow

        self._mlflow = mlflow
        name = Path(self.config.out).name
        with mlflow.start_run(run_id=self._earlier_run(), run_name=name, log_system_metrics=True) as run:
            write_json(self._note, {"run_id": run.info.run_id})
            self._describe()
            yield self

    @property
    def _note(self) -> Path:
        return Path(self.config.out) / "mlflow.json"

    def _earlier_run(self) -> str | None:
        import json

        from mlflow.exceptions import MlflowException

        if not self._note.is_file():
            return None
        run_id = str(json.loads(self._note.read_text())["run_id"])
        try:
            return str(self._mlflow.get_run(run_id).info.run_id)
        except MlflowException:  # the tracking store was moved or cleaned: start anew
            return None

    def _describe(self) -> None:
        config = asdict(self.config)
        flat = {key: str(value)[:500] for key, value in flattened(config)}
        earlier = self._mlflow.active_run().data.params
        self._mlflow.log_params({key: value for key, value in flat.items() if key not in earlier})
        self._mlflow.log_dict(config, "config.json")
        self._mlflow.set_tags({"git_sha": git_sha(), "lock_sha256": lock_digest(), "faceset": self._faceset})
        where = self.config.facesets or {"triplets": self.config.triplets}
        for name, path in where.items():
            log_dataset(name, str(Path(path).absolute()), self._faceset, "training")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log one point of the curves."""
        if self._mlflow:
            self._mlflow.log_metrics({key: float(value) for key, value in values.items()}, step=step)

    def picture(self, path: Path) -> None:
        """Log a preview sheet."""
        if self._mlflow:
            self._mlflow.log_artifact(str(path), "previews")

    def bundle(self, folder: Path) -> str:
        """Register a bundle as a new version under the configured alias; returns its address, or "" untracked."""
        if not self._mlflow:
            return ""
        from training.model.log_model import log_bundle

        return log_bundle(folder, self.config.name, alias=self.config.alias).uri


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted name, as `--set` takes them: parameters that MLflow can search by."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def git_sha() -> str:
    """Return the commit that the code stands at, with -dirty when it was changed since; "" outside git."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def lock_digest() -> str:
    """Return the SHA-256 of uv.lock, or "" where it is missing."""
    lock = _ROOT / "uv.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""
