"""Ship a bundle to Vertex AI: `python -m serving.deploy --project P --region R [command] [--dry-run]`.

Commands: release (the default: copy, upload, endpoint, deploy), upload, deploy, canary,
promote, rollback, trust, status, undeploy. `--dry-run` prints each API call as a line of JSON,
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
from serving.vertex.plan import CANARY_SUFFIX, CHALLENGER, GPU_IMAGE, ModelVersion, PlanError, Scaling, candidate
from serving.vertex.rehearsal import ApiCall, Rehearsal
from serving.vertex.tier import Place, VertexTier
from understudy.bundle.bundle import default_bundle
from understudy.consent.published_trust import parse_published, publish
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
    existing = None if arguments.command in ("release", "upload", "deploy") else arguments.endpoint
    return Rehearsal(arguments.project, arguments.region, on_call, existing)


# ---------------------------------------------------------------------- commands


def release(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Copy the bundle, upload the version as challenger, and show it to `--traffic` percent of the viewers.

    Where nothing serves yet, it serves them all. The alias `champion` stays where it is.
    """
    scaling = _scaling(arguments)
    model = _upload(tier, arguments)
    return {"model": model.versioned_resource_name, **_show(tier, model, scaling, arguments)}


def upload(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Copy the bundle and upload the version as challenger, no more."""
    return {"model": _upload(tier, arguments).versioned_resource_name}


def deploy(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """As release, of a version that was uploaded before (`--model projects/.../models/ID@VERSION`)."""
    if not arguments.model:
        raise PlanError("deploy must know which version, but --model is empty. Give projects/../models/ID@VERSION.")
    return _show(tier, tier.model(arguments.model), _scaling(arguments), arguments)


def canary(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Show the canary to `--traffic` percent of the viewers."""
    endpoint, beside = tier.existing_endpoint(arguments.endpoint), tier.canary_of(arguments.endpoint)
    if beside is None or not tier.deployed(beside):
        raise PlanError("A canary needs a second version, but only one is deployed. Run `release` first.")
    tier.set_share(endpoint, beside, arguments.traffic)
    return _status(tier, arguments.endpoint)


def promote(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Let the canary serve all viewers, and give it the alias `champion`."""
    scaling = _scaling(arguments)
    endpoint, beside = tier.existing_endpoint(arguments.endpoint), tier.canary_of(arguments.endpoint)
    stable = tier.deployed(endpoint)
    champion = tier.holder(stable[0].model) if stable else ""
    canaries = tier.deployed(beside) if beside is not None else []
    winner = candidate(stable, canaries, tier.share(endpoint), champion)
    if winner in canaries:
        model = tier.model(f"{winner.model}@{winner.version}")
        tier.deploy(endpoint, model, scaling, arguments.service_account)
        tier.set_share(endpoint, beside, 0)
    tier.set_alias(winner)
    return _status(tier, arguments.endpoint)


def rollback(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Take the canary from the viewers; where there is none, go back to the version that was promoted over."""
    endpoint, beside = tier.existing_endpoint(arguments.endpoint), tier.canary_of(arguments.endpoint)
    if beside is not None and tier.share(endpoint):
        tier.set_share(endpoint, beside, 0)
    else:
        tier.roll_back(endpoint)
    return _status(tier, arguments.endpoint)


def trust(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Publish the operator's public keys and revocations anew, beside every bundle that is deployed."""
    content = _published_trust()
    endpoints = [tier.existing_endpoint(arguments.endpoint), tier.canary_of(arguments.endpoint)]
    deployed = [entry for endpoint in endpoints if endpoint is not None for entry in tier.deployed(endpoint)]
    folders = sorted({tier.artifact_uri(entry) for entry in deployed})
    return {"published": [tier.publish_trust(folder, content) for folder in folders]}


def status(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Say what stands behind the endpoint, and beside it as a canary."""
    tier.existing_endpoint(arguments.endpoint)
    return _status(tier, arguments.endpoint)


def undeploy(tier: VertexTier, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Stop the versions that nobody sees; with `--all` everything, the endpoints too."""
    endpoint, beside = tier.existing_endpoint(arguments.endpoint), tier.canary_of(arguments.endpoint)
    endpoints = [endpoint, *([] if beside is None else [beside])]
    if arguments.all:
        names = [each.resource_name for each in endpoints]
        for each in endpoints:
            tier.tear_down(each)
        return {"deleted": names}
    stopped = tier.undeploy(endpoint, [entry for entry in tier.deployed(endpoint) if entry.percent == 0])
    if beside is not None and not tier.share(endpoint):
        stopped += tier.undeploy(beside, tier.deployed(beside))
    return {"undeployed": stopped}


COMMANDS: Mapping[str, Command] = {
    command.__name__: command
    for command in (release, upload, deploy, canary, promote, rollback, trust, status, undeploy)
}


def _upload(tier: VertexTier, arguments: argparse.Namespace) -> Any:
    version = model_version(arguments)
    if version.bundle is not None:
        tier.copy_bundle(version)
    tier.publish_trust(version.artifact_uri, version.trust)
    return tier.upload(version)


def _show(tier: VertexTier, model: Any, scaling: Scaling, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Start a version's machines where it replaces nobody: beside the version that serves, if there is one."""
    endpoint = tier.endpoint(arguments.endpoint)
    if not tier.deployed(endpoint):
        tier.deploy(endpoint, model, scaling, arguments.service_account)
    else:
        beside = tier.endpoint(f"{arguments.endpoint}{CANARY_SUFFIX}")
        before = tier.deployed(beside)
        tier.deploy(beside, model, scaling, arguments.service_account)
        tier.undeploy(beside, before)
        tier.set_share(endpoint, beside, arguments.traffic)
    return _status(tier, arguments.endpoint)


def _status(tier: VertexTier, name: str) -> Mapping[str, Any]:
    endpoint, beside = tier.existing_endpoint(name), tier.canary_of(name)
    facts: dict[str, Any] = _facts(tier, endpoint)
    if beside is not None:
        facts["canary"] = {"percent_of_viewers": tier.share(endpoint), **_facts(tier, beside)}
    return facts


def _facts(tier: VertexTier, endpoint: Any) -> dict[str, Any]:
    return {
        "endpoint": endpoint.resource_name,
        "dns": endpoint.dedicated_endpoint_dns,
        "deployed": [asdict(entry) for entry in tier.deployed(endpoint)],
    }


# ---------------------------------------------------------------------- the plan from the command line


def model_version(arguments: argparse.Namespace) -> ModelVersion:
    """Return the version to upload.

    The bundle and its consent records are verified before anything is sent, by the very list that replicas will read.
    """
    from understudy.any_bundle import open_servable

    served = open_servable(arguments.bundle)
    published = _published_trust()
    trusted = parse_published(published, "the list to publish")
    for variant in served.variants:
        served.check_use(variant, "live", trusted)
    uri = arguments.artifact_uri or (f"gs://{arguments.project}-understudy/bundles/{served.name}/{served.digest[:12]}")
    kind = GPU_IMAGE if arguments.accelerator else "serving"
    image = arguments.image or f"{arguments.region}-docker.pkg.dev/{arguments.project}/understudy/{kind}:latest"
    return ModelVersion(
        name=arguments.name or f"understudy-{served.name}",
        image=image,
        artifact_uri=uri,
        alias=arguments.alias,
        mlflow_run=arguments.mlflow_run,
        bundle=None if arguments.is_copied else arguments.bundle,
        digest=served.digest,
        trust=published,
        has_gpu=arguments.accelerator is not None,
    )


def _published_trust() -> bytes:
    return publish(TrustStore(trust_folder(os.environ)).read())


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
    parser.add_argument("--alias", default=CHALLENGER, help="of the new version in Vertex AI's registry (%(default)s)")
    parser.add_argument("--mlflow-run", default="", help="id of the MLflow run that made the bundle")


def _add_scaling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traffic", type=int, default=10, help="percent of the viewers for the canary (%(default)s)")
    parser.add_argument("--service-account", default="", help="whom the replicas act as; must read the bundle's bucket")
    parser.add_argument("--machine", default="n2-standard-4")
    parser.add_argument("--min-replicas", type=int, default=1)
    parser.add_argument("--max-replicas", type=int, default=4)
    parser.add_argument("--cpu-percent", type=int, default=60, help="autoscaling target: mean CPU use")
    parser.add_argument(
        "--accelerator", default=None, help="GPU of a replica, such as NVIDIA_L4 with --machine g2-standard-8"
    )
    parser.add_argument("--accelerator-count", type=int, default=1)
    parser.add_argument("--gpu-duty-percent", type=int, default=None, help="autoscaling target: mean GPU duty cycle")
    parser.add_argument("--requests-per-minute", type=int, default=None, help="autoscaling target: per replica")


if __name__ == "__main__":
    sys.exit(main())
