"""What to put on Vertex AI: the model version, the machines under it, its share of the traffic."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/health"
PORT = 8080

CHAMPION, CHALLENGER = "champion", "challenger"
CANARY_SUFFIX = "-canary"
# What Vertex AI attaches to a machine: by the machine's family, or by the very machine where the GPUs are built in.
_ATTACHED: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "n1-": {
        "NVIDIA_TESLA_T4": (1, 2, 4),
        "NVIDIA_TESLA_P4": (1, 2, 4),
        "NVIDIA_TESLA_P100": (1, 2, 4),
        "NVIDIA_TESLA_V100": (1, 2, 4, 8),
    },
    **{f"g2-standard-{cores}": {"NVIDIA_L4": (1,)} for cores in (4, 8, 12, 16, 32)},
    "g2-standard-24": {"NVIDIA_L4": (2,)},
    "g2-standard-48": {"NVIDIA_L4": (4,)},
    "g2-standard-96": {"NVIDIA_L4": (8,)},
    **{f"a2-highgpu-{count}g": {"NVIDIA_TESLA_A100": (count,)} for count in (1, 2, 4, 8)},
    "a2-megagpu-16g": {"NVIDIA_TESLA_A100": (16,)},
    **{f"a2-ultragpu-{count}g": {"NVIDIA_A100_80GB": (count,)} for count in (1, 2, 4, 8)},
    **{f"a3-highgpu-{count}g": {"NVIDIA_H100_80GB": (count,)} for count in (1, 2, 4, 8)},
}
GPU_IMAGE = "serving-gpu"

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
            raise PlanError("--gpu-duty-percent needs a GPU, but none was asked for. Add --accelerator NVIDIA_L4.")
        self._check_accelerator()
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            raise PlanError(f"--requests-per-minute must be positive, but got {self.requests_per_minute}.")

    def _check_accelerator(self) -> None:
        """Refuse a machine and a GPU that Vertex AI does not put together."""
        families = [name for name in _ATTACHED if self.machine == name or (name == "n1-" and self.machine[:3] == name)]
        allowed = _ATTACHED[families[0]] if families else {}
        if self.accelerator is None:
            if allowed and families[0] != "n1-":
                (gpu,) = allowed
                raise PlanError(
                    f"{self.machine} comes with its GPU only. Add --accelerator {gpu}, or take n2-standard-4."
                )
            return
        if self.accelerator_count in allowed.get(self.accelerator, ()):
            return
        fitting = [
            f"{name}{'standard-4' if name == 'n1-' else ''}"
            for name in _ATTACHED
            if self.accelerator in _ATTACHED[name]
        ]
        raise PlanError(
            f"{self.machine} must be a machine that Vertex AI gives {self.accelerator_count} {self.accelerator} to, "
            f"but is not. It goes with {', '.join(fitting) or 'no machine: check its name'}."
        )


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version to upload.

    Attributes:
        name: the model's display name; its versions share it.
        image: the serving image, in Artifact Registry.
        artifact_uri: where the bundle lies or will lie, `gs://bucket/folder`.
        alias: the registry's alias for it; never `champion`, which moves by a promotion alone.
        mlflow_run: the id of the MLflow run that made it, or "".
        bundle: local bundle (directory or .zip) to copy to artifact_uri first; None when it is already there.
        digest: the bundle's SHA-256, hex.
        trust: the public keys and revocations to lay beside the bundle (`understudy.consent.published_trust.publish`).
        has_gpu: whether its machines have one.
        environment: settings of the container.
    """

    name: str
    image: str
    artifact_uri: str
    alias: str = CHALLENGER
    mlflow_run: str = ""
    bundle: Path | None = None
    digest: str = ""
    trust: bytes = b""
    has_gpu: bool = False
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not _ALIAS.fullmatch(self.alias):
            raise PlanError(
                f"The alias must be lower-case letters, digits and '-', as Vertex AI asks, but got {self.alias!r}."
            )
        if self.alias == CHAMPION:
            raise PlanError(f"The alias {CHAMPION} moves by `promote` alone. Upload as {CHALLENGER}, then promote.")
        if not _GS_URI.fullmatch(self.artifact_uri):
            raise PlanError(f"--artifact-uri must be gs://BUCKET/FOLDER, but got {self.artifact_uri!r}.")
        if (GPU_IMAGE in self.image) != self.has_gpu:
            raise PlanError(
                f"The image with CUDA ({GPU_IMAGE}) must go with --accelerator, and only with it, but the image is "
                f"{self.image!r}. Build the other one with `python -m serving.build`."
            )
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


def candidate(stable: list[Deployed], canary: list[Deployed], canary_percent: int, champion: str) -> Deployed:
    """Return the version to promote: the canary that viewers see, or the first version, which had nobody to replace.

    A version that was rolled back is neither: its canary has no share, and behind the endpoint another one serves.

    Args:
        stable: behind the endpoint.
        canary: behind the canary's endpoint.
        canary_percent: the viewers' share that the canary gets.
        champion: version of the model that holds the alias already; "" for none.

    Raises:
        PlanError: there is none.
    """
    if canary and canary_percent:
        return newest(canary)
    serving = [entry for entry in stable if entry.percent > 0]
    if serving and newest(serving).version != champion:
        return newest(serving)
    raise PlanError(
        "A promotion needs a version that viewers see as a canary, but there is none. "
        "Run `release`, or `canary --traffic 10` for one whose machines still run."
    )


def rollback_split(deployed: list[Deployed]) -> dict[str, int]:
    """Give all traffic to the version before the newest one that has any: the one that was promoted over.

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


def newest(deployed: list[Deployed]) -> Deployed:
    """Return the version that was deployed last.

    Raises:
        PlanError: there is none.
    """
    if not deployed:
        raise PlanError("The endpoint must have a deployed version, but has none. Run `deploy` first.")
    return max(deployed, key=lambda entry: entry.created)
