"""The serving tier on Vertex AI: upload, endpoint, deploy, split, promote, roll back, by Google's SDK over REST."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from serving.vertex.plan import (
    HEALTH_ROUTE,
    PORT,
    PREDICT_ROUTE,
    Deployed,
    ModelVersion,
    PlanError,
    Scaling,
    canary_split,
    promotion_split,
    rollback_split,
)
from understudy.bundle.bundle import pack

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

T = TypeVar("T")

RETRY_FOR_S = 120.0
INFERENCE_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where to deploy, and how to get in.

    Attributes:
        project: Google Cloud project id.
        region: where the endpoint runs; take the viewers' own.
        credentials: None for Google's default credentials.
        api_endpoint: another address of the API (a rehearsal, a test); None for Google's.
    """

    project: str
    region: str
    credentials: Credentials | None = None
    api_endpoint: str | None = None


class VertexTier:
    """One project's serving tier. Not thread-safe: the SDK keeps its place in a global.

    Every method waits until the cloud has finished (minutes, where machines start).

    Raises:
        google.api_core.exceptions.GoogleAPICallError: what the cloud refuses, in its own words.
    """

    def __init__(self, place: Place) -> None:
        from google.cloud import aiplatform  # takes 5 to 15 s

        self._place = place
        self._sdk: Any = aiplatform
        aiplatform.init(
            project=place.project,
            location=place.region,
            credentials=place.credentials,
            api_endpoint=place.api_endpoint,
            api_transport="rest",
        )

    # ------------------------------------------------------------------ models

    def copy_bundle(self, version: ModelVersion) -> str:
        """Copy a bundle, as one .zip, to `<artifact_uri>/bundle.zip` in Cloud Storage; returns that URI."""
        from google.cloud import storage

        if version.bundle is None:
            raise PlanError(f"{version.name} must come with a local bundle to copy it, but has none. Add --bundle.")
        bucket, _, folder = version.artifact_uri.removeprefix("gs://").partition("/")
        options: Any = {"api_endpoint": self._place.api_endpoint} if self._place.api_endpoint else None
        client: Any = storage.Client(self._place.project, self._place.credentials, client_options=options)
        blob = client.bucket(bucket).blob(f"{folder.strip('/')}/bundle.zip")
        with tempfile.TemporaryDirectory() as directory:
            archive = version.bundle
            if archive.is_dir():
                archive = pack(archive, Path(directory) / "bundle.zip")
            blob.upload_from_filename(str(archive), content_type="application/zip", checksum="crc32c")
        return f"gs://{bucket}/{blob.name}"

    def upload(self, version: ModelVersion) -> Any:
        """Upload a version under its alias, labelled with the MLflow run; a model of that name gains a version.

        Returns:
            aiplatform.Model.
        """
        known = _patiently(lambda: self._sdk.Model.list(filter=f'display_name="{version.name}"'), is_safe=True)
        return _patiently(
            lambda: self._sdk.Model.upload(
                serving_container_image_uri=version.image,
                artifact_uri=version.artifact_uri.rstrip("/"),
                display_name=version.name,
                parent_model=known[0].resource_name if known else None,
                is_default_version=not known,
                version_aliases=[version.alias],
                labels=version.labels(),
                serving_container_predict_route=PREDICT_ROUTE,
                serving_container_health_route=HEALTH_ROUTE,
                serving_container_ports=[PORT],
                serving_container_environment_variables={"VERTEX_CPR_WEB_CONCURRENCY": "1", **version.environment},
            ),
            is_safe=False,
        )

    def model(self, resource_name: str) -> Any:
        """Find an uploaded version: `projects/P/locations/R/models/ID@VERSION`."""
        return _patiently(lambda: self._sdk.Model(resource_name), is_safe=True)

    # ------------------------------------------------------------------ endpoints

    def endpoint(self, name: str) -> Any:
        """Find the endpoint of that display name, or create a dedicated one.

        Dedicated: 10 MB a request instead of 1.5, its own DNS name, no neighbours.
        """
        found = self._find(name)
        if found is not None:
            return found
        return _patiently(
            lambda: self._sdk.Endpoint.create(
                display_name=name, dedicated_endpoint_enabled=True, inference_timeout=INFERENCE_TIMEOUT_S
            ),
            is_safe=False,
        )

    def existing_endpoint(self, name: str) -> Any:
        """Find the endpoint of that display name.

        Raises:
            PlanError: there is none.
        """
        found = self._find(name)
        if found is None:
            raise PlanError(
                f"Endpoint {name!r} must exist in {self._place.project}/{self._place.region}, but does not. "
                "Run `python -m serving.deploy release` first, or name another with --endpoint."
            )
        return found

    def deploy(self, endpoint: Any, model: Any, scaling: Scaling, traffic_percent: int) -> None:
        """Start a version's machines behind an endpoint and give it a share of the traffic.

        The first version behind an endpoint gets all of it.
        """
        if not self.deployed(endpoint):
            traffic_percent = 100
        has_gpu = scaling.accelerator is not None
        _patiently(
            lambda: endpoint.deploy(
                model=model,
                deployed_model_display_name=f"{model.display_name}-v{model.version_id}",
                traffic_percentage=traffic_percent,
                machine_type=scaling.machine,
                min_replica_count=scaling.min_replicas,
                max_replica_count=scaling.max_replicas,
                accelerator_type=scaling.accelerator,
                accelerator_count=scaling.accelerator_count if has_gpu else None,
                autoscaling_target_cpu_utilization=scaling.cpu_percent,
                autoscaling_target_accelerator_duty_cycle=scaling.gpu_duty_percent,
                autoscaling_target_request_count_per_minute=scaling.requests_per_minute,
            ),
            is_safe=False,
        )

    def deployed(self, endpoint: Any) -> list[Deployed]:
        """List what stands behind an endpoint, oldest first, as the cloud says now."""
        resource: Any = _patiently(lambda: self._sdk.Endpoint(endpoint.resource_name), is_safe=True).gca_resource
        split = dict(resource.traffic_split)
        entries = [
            Deployed(
                id=entry.id,
                name=entry.display_name,
                model=entry.model.split("@")[0],
                version=entry.model_version_id,
                percent=int(split.get(entry.id, 0)),
                created=entry.create_time.isoformat() if entry.create_time else "",
            )
            for entry in resource.deployed_models
        ]
        return sorted(entries, key=lambda entry: entry.created)

    # ------------------------------------------------------------------ traffic

    def canary(self, endpoint: Any, percent: int) -> dict[str, int]:
        """Give the newest version `percent` of the traffic; returns the split by deployed model id."""
        return self._split(endpoint, canary_split(self.deployed(endpoint), percent))

    def promote(self, endpoint: Any, alias: str) -> dict[str, int]:
        """Give the newest version all traffic, and its model version the alias."""
        deployed = self.deployed(endpoint)
        return self._hand_over(endpoint, deployed, promotion_split(deployed), alias)

    def roll_back(self, endpoint: Any, alias: str) -> dict[str, int]:
        """Give the version before the serving one all traffic, and the alias. Takes seconds: its machines run."""
        deployed = self.deployed(endpoint)
        return self._hand_over(endpoint, deployed, rollback_split(deployed), alias)

    def undeploy_idle(self, endpoint: Any) -> list[str]:
        """Stop the machines of every version that gets no traffic; returns their ids."""
        idle = [entry.id for entry in self.deployed(endpoint) if entry.percent == 0]
        for deployed_id in idle:
            _patiently(partial(endpoint.undeploy, deployed_model_id=deployed_id), is_safe=True)
        return idle

    def tear_down(self, endpoint: Any) -> None:
        """Stop everything behind an endpoint and delete it, so that nothing is paid for."""
        from google.api_core.exceptions import NotFound

        with suppress(NotFound):  # SDK 2.7 deletes, then asks for what it has just deleted, to log its name
            _patiently(lambda: endpoint.delete(force=True), is_safe=True)

    def _hand_over(self, endpoint: Any, deployed: list[Deployed], split: dict[str, int], alias: str) -> dict[str, int]:
        winner = next(entry for entry in deployed if entry.id in split)
        self._split(endpoint, split)
        registry: Any = self._sdk.models.ModelRegistry(winner.model)
        _patiently(lambda: registry.add_version_aliases([alias, "default"], winner.version), is_safe=True)
        return split

    def _split(self, endpoint: Any, split: dict[str, int]) -> dict[str, int]:
        _patiently(lambda: endpoint.update(traffic_split=split), is_safe=True)
        return split

    def _find(self, name: str) -> Any:
        found = _patiently(lambda: self._sdk.Endpoint.list(filter=f'display_name="{name}"'), is_safe=True)
        return found[0] if found else None


def _patiently(call: Callable[[], T], is_safe: bool) -> T:
    """Repeat a call that the cloud asks to repeat (429), and where repeating is safe also one it dropped (503)."""
    from google.api_core import exceptions, retry

    busy, dropped = exceptions.TooManyRequests, exceptions.ServiceUnavailable
    is_worth_it = retry.if_exception_type(busy, dropped) if is_safe else retry.if_exception_type(busy)
    policy = retry.Retry(predicate=is_worth_it, initial=0.5, maximum=20.0, multiplier=2.0, timeout=RETRY_FOR_S)
    return policy(call)()
