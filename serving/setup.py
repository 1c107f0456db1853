"""What must exist in a project before anything is deployed: `python -m serving.setup --project P [--dry-run]`.

Prints the commands, each safe to repeat: APIs, registry, buckets, service accounts and their roles, secrets. Nothing is
run without `--run`.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

APIS = ("aiplatform", "artifactregistry", "cloudbuild", "run", "secretmanager", "storage")
# account: what it may do in the project.
ROLES = {
    "understudy-app": ("roles/aiplatform.user", "roles/secretmanager.secretAccessor"),
    "understudy-serving": (),
    "understudy-pipelines": ("roles/aiplatform.user",),
}
# bucket: who may do what with its objects. Replicas read bundles and published keys; only the app writes its state.
BUCKETS = {
    "understudy": {
        "understudy-serving": "roles/storage.objectViewer",
        "understudy-app": "roles/storage.objectViewer",
        "understudy-pipelines": "roles/storage.objectUser",
    },
    "understudy-state": {"understudy-app": "roles/storage.objectUser"},
}


def commands(project: str, region: str, has_turn: bool = False) -> Iterator[list[str]]:
    """Yield the commands, in the order to run them.

    Args:
        project: Google Cloud project id.
        region: of registry and buckets; the endpoint's own.
        has_turn: whether a TURN server shares a secret with the app.
    """
    where = ["--project", project]
    yield ["gcloud", "services", "enable", *(f"{api}.googleapis.com" for api in APIS), *where]
    registry = ["gcloud", "artifacts", "repositories", "create", "understudy"]
    yield [*registry, "--repository-format=docker", f"--location={region}", *where]
    for bucket in BUCKETS:
        closed = ["--uniform-bucket-level-access", "--public-access-prevention"]
        yield [
            "gcloud",
            "storage",
            "buckets",
            "create",
            f"gs://{project}-{bucket}",
            f"--location={region}",
            *closed,
            *where,
        ]
    for account, roles in ROLES.items():
        yield ["gcloud", "iam", "service-accounts", "create", account, *where]
        for role in roles:
            yield ["gcloud", "projects", "add-iam-policy-binding", project, _member(account, project), f"--role={role}"]
    for bucket, members in BUCKETS.items():
        for account, role in members.items():
            name = f"gs://{project}-{bucket}"
            member = _member(account, project)
            yield ["gcloud", "storage", "buckets", "add-iam-policy-binding", name, member, f"--role={role}"]
    if has_turn:
        yield ["gcloud", "secrets", "create", "understudy-turn", "--replication-policy=automatic", *where]


def _member(account: str, project: str) -> str:
    return f"--member=serviceAccount:{account}@{project}.iam.gserviceaccount.com"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the commands, or run them; one that says that its thing exists already is no failure."""
    parser = argparse.ArgumentParser(prog="python -m serving.setup", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--project", required=True)
    parser.add_argument("--region", default="europe-west4")
    parser.add_argument("--turn", action="store_true", help="also the secret that the app shares with coturn")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="print the commands and run none (the default)")
    how.add_argument("--run", action="store_true", help="run them; needs gcloud and an owner's login")
    arguments = parser.parse_args(argv)
    for command in commands(arguments.project, arguments.region, arguments.turn):
        print(shlex.join(command), flush=True)
        if not arguments.run:
            continue
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            print("gcloud must be installed to run this, but was not found. Leave --run out to read.", file=sys.stderr)
            return 2
        if done.returncode and "already exists" not in done.stderr and "ALREADY_EXISTS" not in done.stderr:
            print(done.stderr.strip(), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
