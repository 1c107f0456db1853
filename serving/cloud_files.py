"""Renders what puts the app in the cloud: `python -m serving.cloud_files --project P --region R --out DIR`.

Cloud Run gets cloud_run.yaml, App Engine flexible app.yaml, both the same Dockerfile, and
the TURN server coturn.conf where `--turn-host` names one.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from serving.turn import TurnSettings, render_coturn

TEMPLATES = Path(__file__).resolve().parent / "cloud"
CONNECTIONS_PER_VIEWER = 2
_SAFE = re.compile(r"[A-Za-z0-9._:/?=@,+-]*")


@dataclass(frozen=True, slots=True)
class CloudApp:
    """The app in one project.

    Attributes:
        project: Google Cloud project id.
        region: near the viewers, and the endpoint's own.
        image: the app's image in Artifact Registry.
        endpoint: resource name of the Vertex AI endpoint; empty: the embedded model answers.
        turn: the TURN server, or none.
        max_instances: of the app. Work and keys lie in one mounted folder, and a viewer's uploads and jobs are known
            to the instance that took them: more than one only for an app that shows Live alone.
        max_viewers: per instance.
    """

    project: str
    region: str
    image: str
    endpoint: str = ""
    turn: TurnSettings = field(default_factory=TurnSettings)
    max_instances: int = 1
    max_viewers: int = 4

    def __post_init__(self) -> None:
        for value in (self.project, self.region, self.image, self.endpoint, self.turn.secret):
            if not _SAFE.fullmatch(value):
                raise ValueError(f"Names must be letters, digits and ._:/?=@,+- only, but one is {value[:60]!r}.")
        if self.max_instances < 1 or self.max_viewers < 1:
            raise ValueError("There must be at least one instance and one viewer. Correct the numbers.")


def render_cloud_run(app: CloudApp) -> str:
    """Return the service for `gcloud run services replace`; the TURN secret is a reference to Secret Manager."""
    turn = ""
    if app.turn.urls:
        turn = (
            f'            - name: UNDERSTUDY_TURN_URLS\n              value: "{",".join(app.turn.urls)}"\n'
            "            - name: UNDERSTUDY_TURN_SECRET\n              valueFrom:\n                secretKeyRef:\n"
            "                  name: understudy-turn\n                  key: latest\n"
        )
    return _render("cloud_run.yaml", app, turn)


def render_app_engine(app: CloudApp) -> str:
    """Return app.yaml. App Engine knows no secret references: with TURN, keep the file out of version control."""
    turn = ""
    if app.turn.urls:
        turn = f'  UNDERSTUDY_TURN_URLS: "{",".join(app.turn.urls)}"\n  UNDERSTUDY_TURN_SECRET: "{app.turn.secret}"\n'
    return _render("app.yaml", app, turn)


def write_cloud_files(app: CloudApp, out: Path, turn_host: str = "", turn_ip: str = "") -> list[Path]:
    """Write every file; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    files = {"cloud_run.yaml": render_cloud_run(app), "app.yaml": render_app_engine(app)}
    if turn_host:
        files["coturn.conf"] = render_coturn(app.turn, turn_host, turn_ip)
    for name, text in files.items():
        (out / name).write_text(text)
        (out / name).chmod(0o600)
    return [out / name for name in files]


def _render(name: str, app: CloudApp, turn: str) -> str:
    return Template((TEMPLATES / name).read_text()).substitute(
        project=app.project,
        region=app.region,
        image=app.image,
        endpoint=app.endpoint,
        max_instances=app.max_instances,
        max_viewers=app.max_viewers,
        concurrency=app.max_viewers * CONNECTIONS_PER_VIEWER + 8,
        turn=turn,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Render from the command line; the TURN secret comes from the environment."""
    parser = argparse.ArgumentParser(prog="python -m serving.cloud_files", description="Render the app's cloud files.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--region", default="europe-west4")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image", default="")
    parser.add_argument("--endpoint", default="", help="projects/P/locations/R/endpoints/ID")
    parser.add_argument("--turn-host", default="", help="domain name of the TURN server; needs UNDERSTUDY_TURN_SECRET")
    parser.add_argument("--turn-ip", default="", help="its public address")
    parser.add_argument("--max-instances", type=int, default=1, help="more only where Live alone is shown")
    parser.add_argument("--max-viewers", type=int, default=4)
    arguments = parser.parse_args(argv)
    try:
        app = CloudApp(
            project=arguments.project,
            region=arguments.region,
            image=arguments.image or f"{arguments.region}-docker.pkg.dev/{arguments.project}/understudy/app:latest",
            endpoint=arguments.endpoint,
            turn=_turn(arguments.turn_host),
            max_instances=arguments.max_instances,
            max_viewers=arguments.max_viewers,
        )
        for path in write_cloud_files(app, arguments.out, arguments.turn_host, arguments.turn_ip):
            print(path)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _turn(host: str) -> TurnSettings:
    if not host:
        return TurnSettings()
    urls = (f"turn:{host}:3478?transport=udp", f"turn:{host}:3478?transport=tcp", f"turns:{host}:443?transport=tcp")
    return TurnSettings(urls, TurnSettings.from_environment().secret)


if __name__ == "__main__":
    sys.exit(main())
