"""The serving tier on Vertex AI: upload, endpoints, deploy, canary, alias, rollback, by Google's SDK over REST."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from serving.vertex.plan import (
    CANARY_SUFFIX,
    CHAMPION,
    HEALTH_ROUTE,
    PORT,
    PREDICT_ROUTE,
    Deployed,
    ModelVersion,
    PlanError,
    Scaling,
    rollback_split,
)
from understudy.bundle.bundle import pack
from understudy.consent.published_trust import TRUST_OBJECT

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

T = TypeVar("T")

# Labels of an endpoint, which the apps read.
CANARY_LABEL, PERCENT_LABEL = "canary", "canary_percent"
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
        if version.bundle is None:
            raise PlanError(f"{version.name} must come with a local bundle to copy it, but has none. Add --bundle.")
        blob = self._blob(version.artifact_uri, "bundle.zip")
        with tempfile.TemporaryDirectory() as directory:
            archive = version.bundle
            if archive.is_dir():
                archive = pack(archive, Path(directory) / "bundle.zip")
            blob.upload_from_filename(str(archive), content_type="application/zip", checksum="crc32c")
        return f"gs://{blob.bucket.name}/{blob.name}"

    def publish_trust(self, artifact_uri: str, trust: bytes) -> str:
        """Lay public keys and revocations beside a bundle, over those that lie there; returns the object's URI.

        Replicas read the object itself, not the copy of the artifacts that Vertex AI makes when it deploys.
        """
        blob = self._blob(artifact_uri, TRUST_OBJECT)
        blob.cache_control = "no-store"
        blob.upload_from_string(trust, content_type="application/json", checksum="crc32c")
        return f"gs://{blob.bucket.name}/{blob.name}"

    def _blob(self, artifact_uri: str, name: str) -> Any:
        from google.cloud import storage

        bucket, _, folder = artifact_uri.removeprefix("gs://").partition("/")
        options: Any = {"api_endpoint": self._place.api_endpoint} if self._place.api_endpoint else None
        client: Any = storage.Client(self._place.project, self._place.credentials, client_options=options)
        return client.bucket(bucket).blob(f"{folder.strip('/')}/{name}")

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
                serving_container_environment_variables={
                    "VERTEX_CPR_WEB_CONCURRENCY": "1",
                    "UNDERSTUDY_TRUST": f"{version.artifact_uri.rstrip('/')}/{TRUST_OBJECT}",
                    **version.environment,
                },
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

    def deploy(self, endpoint: Any, model: Any, scaling: Scaling, service_account: str = "") -> None:
        """Start a version's machines behind an endpoint and give it all of the endpoint's traffic.

        Args:
            endpoint: of `endpoint`.
            model: of `upload` or `model`.
            scaling: its machines.
            service_account: whom its replicas act as; must read the bundle's folder. "" for Vertex AI's own agent.
        """
        has_gpu = scaling.accelerator is not None
        _patiently(
            lambda: endpoint.deploy(
                model=model,
                deployed_model_display_name=f"{model.display_name}-v{model.version_id}",
                traffic_percentage=100,
                machine_type=scaling.machine,
                min_replica_count=scaling.min_replicas,
                max_replica_count=scaling.max_replicas,
                accelerator_type=scaling.accelerator,
                accelerator_count=scaling.accelerator_count if has_gpu else None,
                autoscaling_target_cpu_utilization=scaling.cpu_percent,
                autoscaling_target_accelerator_duty_cycle=scaling.gpu_duty_percent,
                autoscaling_target_request_count_per_minute=scaling.requests_per_minute,
                service_account=service_account or None,
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

    # ------------------------------------------------------------------ who sees which version

    def canary_of(self, name: str) -> Any:
        """Find the canary's endpoint beside the endpoint of that display name; None where there is none.

        Vertex AI splits the traffic of one endpoint by request, which would mix two models within one viewer's
        stream. So a canary has an endpoint of its own, and the app sends a share of its viewers there.
        """
        return self._find(f"{name}{CANARY_SUFFIX}")

    def share(self, endpoint: Any) -> int:
        """Return the percentage of viewers that the canary beside an endpoint gets."""
        labels: Any = _patiently(lambda: self._sdk.Endpoint(endpoint.resource_name), is_safe=True).labels
        return int(labels.get(PERCENT_LABEL, "0"))

    def set_share(self, endpoint: Any, canary: Any, percent: int) -> None:
        """Tell the apps, by the endpoint's labels, which share of their viewers the canary gets.

        Raises:
            PlanError: percent is not from 0 to 99.
        """
        if not 0 <= percent <= 99:
            raise PlanError(f"A canary's share must be from 1 to 99 percent, but got {percent}. Promote it for 100.")
        current: Any = _patiently(lambda: self._sdk.Endpoint(endpoint.resource_name), is_safe=True)
        labels = {**current.labels, CANARY_LABEL: canary.name, PERCENT_LABEL: str(percent)}
        _patiently(lambda: current.update(labels=labels), is_safe=True)

    def set_alias(self, entry: Deployed, alias: str = CHAMPION) -> None:
        """Point the alias, and Vertex AI's own `default`, to a version."""
        registry: Any = self._sdk.models.ModelRegistry(entry.model)
        _patiently(lambda: registry.add_version_aliases([alias, "default"], entry.version), is_safe=True)

    def holder(self, model: str, alias: str = CHAMPION) -> str:
        """Return the version of a model that holds an alias; "" for none."""
        registry: Any = self._sdk.models.ModelRegistry(model)
        versions = _patiently(registry.list_versions, is_safe=True)
        return next((info.version_id for info in versions if alias in info.version_aliases), "")

    def roll_back(self, endpoint: Any) -> Deployed:
        """Give the version before the serving one all traffic, and the alias. Takes seconds: its machines run."""
        deployed = self.deployed(endpoint)
        split = rollback_split(deployed)
        winner = next(entry for entry in deployed if entry.id in split)
        _patiently(lambda: endpoint.update(traffic_split=split), is_safe=True)
        self.set_alias(winner)
        return winner

    def artifact_uri(self, entry: Deployed) -> str:
        """Return the folder that a deployed version's bundle lies in."""
        return str(self.model(f"{entry.model}@{entry.version}").uri)

    def undeploy(self, endpoint: Any, entries: Sequence[Deployed]) -> list[str]:
        """Stop the machines of versions; returns their ids."""
        ids = [entry.id for entry in entries]
        for deployed_id in ids:
            _patiently(partial(endpoint.undeploy, deployed_model_id=deployed_id), is_safe=True)
        return ids

    def tear_down(self, endpoint: Any) -> None:
        """Stop everything behind an endpoint and delete it, so that nothing is paid for."""
        from google.api_core.exceptions import NotFound

        with suppress(NotFound):  # SDK 2.7 deletes, then asks for what it has just deleted, to log its name
            _patiently(lambda: endpoint.delete(force=True), is_safe=True)

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
