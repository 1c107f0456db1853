"""What to put on Vertex AI: the model version, the machines under it, its share of the traffic."""

import re
from dataclasses import dataclass, field
from pathlib import Path

PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/health"
PORT = 8080

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,126}[a-z0-9]")
_GS_URI = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^/]+)+/?")


class PlanError(ValueError):
    """What is asked of the cloud makes no sense; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The machines under a deployed model, and what makes their number grow.

    Attributes:
        machine: machine type of one replica.
        min_replicas: how many always run, and are always paid for.
        max_replicas: how many may run.
        cpu_percent: mean CPU use that the autoscaler holds, or None for Vertex's default (60).
        accelerator: a GPU's name (`NVIDIA_TESLA_T4`, `NVIDIA_L4`), or None.
        accelerator_count: GPUs per replica.
        gpu_duty_percent: mean GPU duty cycle to hold; needs an accelerator.
        requests_per_minute: requests per replica and minute to hold, or None.
    """

    machine: str = "n2-standard-4"
    min_replicas: int = 1
    max_replicas: int = 4
    cpu_percent: int | None = 60
    accelerator: str | None = None
    accelerator_count: int = 1
    gpu_duty_percent: int | None = None
    requests_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise PlanError(
                f"Replicas must be 1 <= min <= max, but got {self.min_replicas} and {self.max_replicas}. "
                "A live stream needs at least one warm replica; raise --max-replicas or lower --min-replicas."
            )
        for name, percent in (("--cpu-percent", self.cpu_percent), ("--gpu-duty-percent", self.gpu_duty_percent)):
            if percent is not None and not 1 <= percent <= 100:
                raise PlanError(f"{name} must be from 1 to 100, but got {percent}. 60 is a good start.")
        if self.gpu_duty_percent is not None and self.accelerator is None:
            raise PlanError(
                "--gpu-duty-percent needs a GPU, but none was asked for. Add --accelerator NVIDIA_TESLA_T4."
            )
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            raise PlanError(f"--requests-per-minute must be positive, but got {self.requests_per_minute}.")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version to upload.

    Attributes:
        name: the model's display name; its versions share it.
        image: the serving image, in Artifact Registry.
        artifact_uri: where the bundle lies or will lie, `gs://bucket/folder`.
        alias: the registry's alias that this version was resolved from (`champion`); the version carries it too.
        mlflow_run: the id of the MLflow run that made it, or "".
        bundle: local bundle (directory or .zip) to copy to artifact_uri first; None when it is already there.
        digest: the bundle's SHA-256, hex.
        environment: settings of the container.
    """

    name: str
    image: str
    artifact_uri: str
    alias: str = "champion"
    mlflow_run: str = ""
    bundle: Path | None = None
    digest: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not _ALIAS.fullmatch(self.alias):
            raise PlanError(
                f"The alias must be lower-case letters, digits and '-', as Vertex AI asks, but got {self.alias!r}."
            )
        if not _GS_URI.fullmatch(self.artifact_uri):
            raise PlanError(f"--artifact-uri must be gs://BUCKET/FOLDER, but got {self.artifact_uri!r}.")
        if "-docker.pkg.dev/" not in self.image:
            raise PlanError(
                f"--image must lie in Artifact Registry, but got {self.image!r}. "
                "Give REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME."
            )

    def labels(self) -> dict[str, str]:
        """Return what ties the version to the registry: `mlflow_run`, `mlflow_alias`, `bundle` (first 12 digits)."""
        labels = {"mlflow_alias": self.alias, "mlflow_run": self.mlflow_run, "bundle": self.digest[:12]}
        kept = {key: value.lower() for key, value in labels.items() if value}
        for key, value in kept.items():
            if not _LABEL.fullmatch(value):
                raise PlanError(
                    f"Label {key} must be 1 to 63 lower-case letters, digits, '-' or '_', but got {value!r}. "
                    "Give the run's id, not its name."
                )
        return kept


@dataclass(frozen=True, slots=True)
class Deployed:
    """One model version behind an endpoint.

    Attributes:
        id: the deployed model's id.
        name: its display name.
        model: resource name of the model.
        version: the model's version.
        percent: its share of the traffic.
        created: ISO 8601 time of the deployment.
    """

    id: str
    name: str
    model: str
    version: str
    percent: int
    created: str


def canary_split(deployed: list[Deployed], percent: int) -> dict[str, int]:
    """Give the newest version its share; the one that served before it keeps the rest.

    Raises:
        PlanError: fewer than two versions are deployed, or percent is not from 1 to 99.
    """
    if not 1 <= percent <= 99:
        raise PlanError(f"A canary's share must be from 1 to 99 percent, but got {percent}. Promote it for 100.")
    newest = _newest(deployed)
    others = [entry for entry in deployed if entry.id != newest.id]
    if not others:
        raise PlanError("A canary needs a second version, but only one is deployed. Deploy the new version first.")
    stable = max(others, key=lambda entry: (entry.percent, entry.created))
    return {newest.id: percent, stable.id: 100 - percent}


def promotion_split(deployed: list[Deployed]) -> dict[str, int]:
    """Give the newest version all traffic."""
    return {_newest(deployed).id: 100}


def rollback_split(deployed: list[Deployed]) -> dict[str, int]:
    """Give all traffic to the version before the newest one that has any.

    During a canary that is the stable version, after a promotion the one that was promoted over.

    Raises:
        PlanError: nothing older is deployed.
    """
    by_age = sorted(deployed, key=lambda entry: entry.created)
    serving = [entry for entry in by_age if entry.percent > 0]
    older = by_age[: by_age.index(serving[-1])] if serving else by_age
    if not older:
        raise PlanError(
            "Rolling back needs an older version behind the endpoint, but none is deployed. "
            "Deploy the version that you want back."
        )
    return {older[-1].id: 100}


def _newest(deployed: list[Deployed]) -> Deployed:
    if not deployed:
        raise PlanError("The endpoint must have a deployed version, but has none. Run `deploy` first.")
    return max(deployed, key=lambda entry: entry.created)
