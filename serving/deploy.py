"""Ship a bundle to Vertex AI: `python -m serving.deploy --project P --region R [command] [--dry-run]`.

Commands: release (the default: copy, upload, endpoint, deploy), upload, deploy, canary,
promote, rollback, status, undeploy. `--dry-run` prints each API call as a line of JSON,
sends nothing and needs no credentials.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from serving.vertex.plan import ModelVersion, PlanError, Scaling
from serving.vertex.rehearsal import ApiCall, Rehearsal
from serving.vertex.tier import Place, VertexTier
from understudy.bundle.bundle import default_bundle
from understudy.consent.trust_store import TrustStore, trust_folder

Command = Callable[[VertexTier, argparse.Namespace], Mapping[str, Any]]


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 refused by the cloud, 2 for a plan that makes no sense."""
    arguments = _parser(os.environ if environment is None else environment).parse_args(argv)
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    out = sys.stdout
    try:
        with redirect_stdout(sys.stderr):  # the SDK tells its progress on stdout
            outcome = run(arguments, lambda call: print(call.to_json(), file=out, flush=True))
    except (ValueError, LiveframeError, OSError) as error:  # PlanError, and what the SDK checks itself
        print(error, file=sys.stderr)
        return 2
    except GoogleAuthError as error:
        print(
            f"Google's credentials were not found: {error} Run `gcloud auth application-default login`.",
            file=sys.stderr,
        )
        return 1
    except GoogleAPICallError as error:
        print(f"Vertex AI refused: {error.message} (HTTP {error.code}).", file=sys.stderr)
        return 1
    if not arguments.dry_run:
        print(json.dumps(outcome))
    return 0


def run(arguments: argparse.Namespace, on_call: Callable[[ApiCall], None]) -> Mapping[str, Any]:
    """Carry a parsed command out; rehearsed, tell each call to `on_call`. Gives what came of it."""
    from google.auth.credentials import AnonymousCredentials

    if not arguments.project:
        raise PlanError(
            "--project must name a Google Cloud project, but is empty. Give it or set GOOGLE_CLOUD_PROJECT."
        )
    credentials: Any = AnonymousCredentials() if arguments.dry_run or arguments.api_endpoint else None
    with _rehearsal(arguments, on_call) as rehearsal:
        address = rehearsal.url if rehearsal else arguments.api_endpoint
        tier = VertexTier(Place(arguments.project, arguments.region, credentials, address))
        return COMMANDS[arguments.command](tier, arguments)


def _rehearsal(
    arguments: argparse.Namespace, on_call: Callable[[ApiCall], None]
) -> AbstractContextManager[Rehearsal | None]:
    if not arguments.dry_run:
        return nullcontext()
    is_first = arguments.command in ("release", "upload", "deploy") and arguments.traffic == 100
    existing = None if is_first else arguments.endpoint
    shares = (0, 100) if arguments.command == "undeploy" else (90, 10)
    return Rehearsal(arguments.project, arguments.region, on_call, existing, shares)


# ---------------------------------------------------------------------- commands


def release(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Copy the bundle, upload the version, find or create the endpoint, deploy, split the traffic."""
    scaling = _scaling(arguments)
    model = _upload(tier, arguments)
    endpoint = tier.endpoint(arguments.endpoint)
    tier.deploy(endpoint, model, scaling, arguments.traffic)
    return {"model": model.versioned_resource_name, **_status(tier, endpoint)}


def upload(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Copy the bundle and upload the version, no more."""
    return {"model": _upload(tier, arguments).versioned_resource_name}


def deploy(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Deploy a version that was uploaded before (`--model projects/.../models/ID@VERSION`)."""
    if not arguments.model:
        raise PlanError("deploy must know which version, but --model is empty. Give projects/../models/ID@VERSION.")
    scaling = _scaling(arguments)
    model = tier.model(arguments.model)
    endpoint = tier.endpoint(arguments.endpoint)
    tier.deploy(endpoint, model, scaling, arguments.traffic)
    return _status(tier, endpoint)


def canary(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Give the newest version `--traffic` percent."""
    endpoint = tier.existing_endpoint(arguments.endpoint)
    return {"traffic_split": tier.canary(endpoint, arguments.traffic)}


def promote(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Give the newest version all traffic and the alias."""
    return {"traffic_split": tier.promote(tier.existing_endpoint(arguments.endpoint), arguments.alias)}


def rollback(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Give the version before the serving one all traffic and the alias."""
    return {"traffic_split": tier.roll_back(tier.existing_endpoint(arguments.endpoint), arguments.alias)}


def status(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Say what stands behind the endpoint."""
    return _status(tier, tier.existing_endpoint(arguments.endpoint))


def undeploy(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Stop the versions without traffic; with `--all` everything, the endpoint too."""
    endpoint = tier.existing_endpoint(arguments.endpoint)
    if arguments.all:
        name = endpoint.resource_name
        tier.tear_down(endpoint)
        return {"deleted": name}
    return {"undeployed": tier.undeploy_idle(endpoint)}


COMMANDS: Mapping[str, Command] = {
    command.__name__: command for command in (release, upload, deploy, canary, promote, rollback, status, undeploy)
}


def _upload(tier: VertexTier, arguments: argparse.Namespace) -> Any:
    version = model_version(arguments)
    if version.bundle is not None:
        tier.copy_bundle(version)
    return tier.upload(version)


def _status(tier: VertexTier, endpoint: Any) -> Mapping[str, Any]:
    return {
        "endpoint": endpoint.resource_name,
        "dns": endpoint.dedicated_endpoint_dns,
        "deployed": [asdict(entry) for entry in tier.deployed(endpoint)],
    }


# ---------------------------------------------------------------------- the plan from the command line


def model_version(arguments: argparse.Namespace) -> ModelVersion:
    """Return the version to upload; the bundle and its consent records are verified before anything is sent."""
    from understudy.any_bundle import open_servable

    served = open_servable(arguments.bundle)
    trust = TrustStore(trust_folder(os.environ)).read()
    for variant in served.variants:
        served.check_use(variant, "live", trust)
    uri = arguments.artifact_uri or (f"gs://{arguments.project}-understudy/bundles/{served.name}/{served.digest[:12]}")
    image = arguments.image or f"{arguments.region}-docker.pkg.dev/{arguments.project}/understudy/serving:latest"
    return ModelVersion(
        name=arguments.name or f"understudy-{served.name}",
        image=image,
        artifact_uri=uri,
        alias=arguments.alias,
        mlflow_run=arguments.mlflow_run,
        bundle=None if arguments.is_copied else arguments.bundle,
        digest=served.digest,
    )


def _scaling(arguments: argparse.Namespace) -> Scaling:
    return Scaling(
        machine=arguments.machine,
        min_replicas=arguments.min_replicas,
        max_replicas=arguments.max_replicas,
        cpu_percent=arguments.cpu_percent,
        accelerator=arguments.accelerator,
        accelerator_count=arguments.accelerator_count,
        gpu_duty_percent=arguments.gpu_duty_percent,
        requests_per_minute=arguments.requests_per_minute,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.deploy", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("command", nargs="?", choices=sorted(COMMANDS), default="release")
    parser.add_argument("--project", default=environment.get("GOOGLE_CLOUD_PROJECT", ""))
    parser.add_argument("--region", default=environment.get("UNDERSTUDY_REGION", "europe-west4"))
    parser.add_argument("--endpoint", default="understudy", help="display name of the endpoint")
    parser.add_argument("--dry-run", action="store_true", help="print the API calls as JSON lines and send nothing")
    parser.add_argument("--api-endpoint", default=None, help="another address of the API, without credentials (tests)")
    _add_version_options(parser)
    _add_scaling_options(parser)
    parser.add_argument("--all", action="store_true", help="undeploy: everything, and delete the endpoint")
    return parser


def _add_version_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", type=Path, default=default_bundle(), help="directory or .zip; the shipped one if left out"
    )
    parser.add_argument("--is-copied", action="store_true", help="the bundle lies at --artifact-uri already")
    parser.add_argument("--artifact-uri", default="", help="gs://BUCKET/FOLDER for the bundle")
    parser.add_argument("--image", default="", help="the serving image in Artifact Registry")
    parser.add_argument("--name", default="", help="display name of the model")
    parser.add_argument("--model", default="", help="deploy: resource name of an uploaded version")
    parser.add_argument("--alias", default="champion", help="the registry's alias")
    parser.add_argument("--mlflow-run", default="", help="id of the MLflow run that made the bundle")


def _add_scaling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traffic", type=int, default=100, help="percent for the new version; less is a canary")
    parser.add_argument("--machine", default="n2-standard-4")
    parser.add_argument("--min-replicas", type=int, default=1)
    parser.add_argument("--max-replicas", type=int, default=4)
    parser.add_argument("--cpu-percent", type=int, default=60, help="autoscaling target: mean CPU use")
    parser.add_argument("--accelerator", default=None, help="GPU of a replica, such as NVIDIA_TESLA_T4")
    parser.add_argument("--accelerator-count", type=int, default=1)
    parser.add_argument("--gpu-duty-percent", type=int, default=None, help="autoscaling target: mean GPU duty cycle")
    parser.add_argument("--requests-per-minute", type=int, default=None, help="autoscaling target: per replica")


if __name__ == "__main__":
    sys.exit(main())
