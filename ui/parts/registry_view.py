"""What is registered, as the pages see it: a file that another process writes, so that MLflow stays out of the app."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.snapshot import no_snapshot
from ui.parts.job_entry import job_command
from ui.parts.notes import note_job
from ui.session.settings import app_settings
from ui.session.workspace import job_queue
from understudy.jobs.atomic_file import write_json
from understudy.jobs.command_line import sentence_for
from understudy.jobs.queue import ROOT, Job, module_command

_FILE = "registry.json"
_SNAPSHOT_LIMIT_S = 180.0


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version.

    Attributes:
        version: from 1 up.
        aliases: names that point to it.
        digest: the bundle's.
        personas: names.
        metrics: of the run that logged it.
        gates: "passed", "failed" or "" where it was never judged.
        gates_failed: what failed, sentences.
        created_s: Unix seconds.
        bundle: where its files lie on this machine; None where they could not be fetched.
        sheet: its newest preview sheet; None where there is none.
        decisions: judgements of it, newest first, as `pipelines.promote` writes them.
    """

    version: int
    aliases: tuple[str, ...]
    digest: str
    personas: tuple[str, ...]
    metrics: Mapping[str, float]
    gates: str
    gates_failed: str
    created_s: float
    bundle: Path | None
    sheet: Path | None
    decisions: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The registry at one moment.

    Attributes:
        taken_s: when, Unix seconds; 0 before the first time.
        name: the registered model.
        versions: newest first.
        history: versions that were champion before, oldest first.
        problem: why MLflow could not be asked; "" when it could.
    """

    taken_s: float = 0.0
    name: str = "understudy"
    versions: tuple[Version, ...] = ()
    history: tuple[int, ...] = ()
    problem: str = ""

    def by_alias(self, alias: str) -> Version | None:
        """The version that an alias points to."""
        return next((version for version in self.versions if alias in version.aliases), None)

    def by_digest(self, digest: str) -> Version | None:
        """The newest version of a bundle."""
        return next((version for version in self.versions if version.digest == digest), None)


@dataclass(slots=True)
class RegistryView:
    """Reads the snapshot, and has a new one taken by another process. Thread-safe.

    Attributes:
        folder: the work folder; the snapshot is a file in it.
        tracking: MLflow's address.
        trouble: why no new snapshot could be kept; "" when it could.
    """

    folder: Path
    tracking: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    trouble: str = ""

    @property
    def path(self) -> Path:
        """Where the snapshot lies."""
        return self.folder / _FILE

    def read(self) -> Snapshot:
        """Return the last snapshot; an empty one before the first."""
        try:
            return _snapshot(json.loads(self.path.read_text()))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Snapshot()

    def is_busy(self) -> bool:
        """Whether a new snapshot is being taken."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def refresh(self, older_than_s: float = 0.0) -> None:
        """Start to take a new snapshot, unless one is being taken, or the last is younger than that."""
        with self._lock:
            if self.is_busy() or time.time() - self.read().taken_s < older_than_s:
                return
            self._thread = threading.Thread(target=self._try_to_take, name="registry", daemon=True)
            self._thread.start()

    def _try_to_take(self) -> None:
        try:
            self._take()
            self.trouble = ""
        except OSError as error:
            self.trouble = sentence_for(error)

    def _take(self) -> None:
        """Run the command that asks MLflow; whatever becomes of it, there is a new snapshot afterwards."""
        started_s = time.time()
        self.folder.mkdir(parents=True, exist_ok=True)
        command = module_command("pipelines.snapshot", "--out", self.path)
        environment = os.environ | {"MLFLOW_TRACKING_URI": self.tracking}
        problem = "The command pipelines.snapshot ended without an answer"
        with (self.folder / "registry.log").open("wb") as log:
            try:
                subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=_SNAPSHOT_LIMIT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                problem = f"MLflow did not answer within {_SNAPSHOT_LIMIT_S:.0f} s"
        if self.read().taken_s < started_s:
            write_json(self.path, no_snapshot(self.read().name, problem))


@cache
def registry_view() -> RegistryView:
    """The view that all pages share."""
    return RegistryView(app_settings().work, app_settings().tracking_uri)


def promotion_folder(version: Version) -> Path:
    """Where clips and verdict of a version's last judgement are kept."""
    return app_settings().work / "promotions" / f"version-{version.version}-{version.digest[:8]}"


def rollback_folder() -> Path:
    """Where the last rollback is noted."""
    return app_settings().work / "promotions" / "rollback"


def promote_job(name: str, version: Version, clips: Sequence[Path]) -> Job:
    """Queue the judgement of a version against the champion on uploads; it is promoted if every gate holds."""
    out, candidate = promotion_folder(version), f"models:/{name}/{version.version}"
    options = ("--name", name, "--candidate", candidate, "--out", out, "--frames", "240", "--json")
    command = module_command("pipelines.promote", *clips, *options)
    return _queue(command, "promote", f"Promotion of version {version.version}", out, clips)


def rollback_job(name: str) -> Job:
    """Queue the way back to the champion before."""
    command = module_command("pipelines.promote", "--name", name, "--rollback")
    return _queue(command, "rollback", "Rollback", rollback_folder(), ())


def _queue(command: tuple[str, ...], kind: str, title: str, out: Path, vet: Sequence[Path]) -> Job:
    """Queue a command on the registry; a gate that does not hold (status 1) is an answer, not a failure."""
    out.mkdir(parents=True, exist_ok=True)
    environment = {"MLFLOW_TRACKING_URI": app_settings().tracking_uri, "UNDERSTUDY_HOME": str(app_settings().trust)}
    wrapped = job_command(command, vet=vet, environment=environment, to=out / "decision.json", accept=[1])
    job = job_queue().submit(kind, title, wrapped)
    note_job(out, job)
    job_queue().ensure_worker()
    return job


def _snapshot(stored: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        taken_s=float(stored["taken_s"]),
        name=str(stored["name"]),
        versions=tuple(_version(each) for each in stored["versions"]),
        history=tuple(int(number) for number in stored["history"]),
        problem=str(stored["problem"]),
    )


def _version(stored: Mapping[str, Any]) -> Version:
    return Version(
        version=int(stored["version"]),
        aliases=tuple(stored["aliases"]),
        digest=str(stored["digest"]),
        personas=tuple(stored["personas"]),
        metrics=dict(stored["metrics"]),
        gates=str(stored["gates"]),
        gates_failed=str(stored["gates_failed"]),
        created_s=float(stored["created_s"]),
        bundle=Path(stored["bundle"]) if stored["bundle"] else None,
        sheet=Path(stored["sheet"]) if stored["sheet"] else None,
        decisions=tuple(stored["decisions"]),
    )
