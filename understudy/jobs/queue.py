"""Long work outside the app: a folder of jobs, and one worker process that runs their commands one after another.

A job is a command that, run again, goes on where it stopped (a conversion, a training). So pausing is ending its
process, and resuming is starting it again; a dead worker, app or machine loses no job. The app and the worker share
nothing but the folder:

    ID.json            the job; changed under the queue's lock, by atomic renames
    ID.progress.json   what the command says of itself, any JSON object; a command learns the path as {progress}
    ID.log             what it printed
    ID.lock            held by the command's process as long as it lives
    queue.lock, worker.lock

`python -m understudy.jobs.worker FOLDER` is the worker.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from understudy.jobs.atomic_file import write_json
from understudy.jobs.lock import LockedError, exclusive

PROGRESS = "{progress}"
ROOT = Path(__file__).resolve().parents[2]
_LOCK_S = 10.0
_LOG_TAIL_BYTES = 4000


class JobError(LiveframeError, ValueError):
    """A job does not exist, or is not in a state that allows what was asked."""


class JobState(StrEnum):
    """Where a job stands. QUEUED, RUNNING and PAUSED jobs still have work to do."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of long work.

    Attributes:
        id: names its files; sorts by age.
        kind: "convert", "train", whatever the app tells apart.
        title: what people read.
        command: the program and its arguments; `PROGRESS` in one stands for the progress file's path.
        state: where it stands.
        created_s: when it was submitted, seconds since 1970.
        started_s: when it last began to run; 0 before.
        ended_s: when it was done, failed or cancelled; 0 before.
        pid: of the running command; 0 when none runs.
        attempts: how often it was started.
        note: why it failed, a sentence; empty otherwise.
    """

    id: str
    kind: str
    title: str
    command: tuple[str, ...]
    state: JobState = JobState.QUEUED
    created_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    pid: int = 0
    attempts: int = 0
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it will not run again by itself."""
        return self.state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


def module_command(module: str, *arguments: str | Path) -> tuple[str, ...]:
    """Return the command that runs a module of this project with this Python; paths must be absolute."""
    return (sys.executable, "-m", module, *(str(argument) for argument in arguments))


class JobQueue:
    """The folder of jobs, as the app and the worker see it. Any number of processes and threads may use one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    # ------------------------------------------------------------------ what people ask for

    def submit(self, kind: str, title: str, command: Sequence[str]) -> Job:
        """Add a job at the end of the queue. Start the worker with `ensure_worker`."""
        now_s = time.time()
        job = Job(f"{int(now_s * 1e6):017d}-{uuid.uuid4().hex[:6]}", kind, title, tuple(command), created_s=now_s)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._write(job)
        return job

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        if not self.folder.is_dir():
            return []
        names = sorted(path.stem for path in self.folder.glob("[0-9]*.json") if "." not in path.stem)
        found = (self._read(name) for name in names)
        return [job for job in found if job is not None]

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            JobError: there is none of that id, or its file is broken.
        """
        job = self._read(job_id)
        if job is None:
            raise JobError(f"The job must exist, but there is none with the id '{job_id}'. Reload the list.")
        return job

    def progress(self, job_id: str) -> Mapping[str, Any]:
        """What the job's command last said of itself; empty before it said anything."""
        try:
            stored = json.loads(self.progress_path(job_id).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def log_tail(self, job_id: str) -> str:
        """The end of what the job's command printed."""
        try:
            with self.log_path(job_id).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def pause(self, job_id: str) -> Job:
        """Stop a queued or running job for now; its work so far is kept."""
        return self._move(job_id, (JobState.QUEUED, JobState.RUNNING), JobState.PAUSED)

    def resume(self, job_id: str) -> Job:
        """Queue a paused, failed or cancelled job again; it goes on where it stopped."""
        ended = (JobState.PAUSED, JobState.FAILED, JobState.CANCELLED)
        return self._move(job_id, ended, JobState.QUEUED)

    def cancel(self, job_id: str) -> Job:
        """Stop a job for good."""
        waiting = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
        return self._move(job_id, waiting, JobState.CANCELLED)

    def remove(self, job_id: str) -> None:
        """Forget a job that is over, and its log. What it made stays.

        Raises:
            JobError: it is not over, or its process has not ended yet.
        """
        with self._locked():
            job = self.job(job_id)
            if not job.is_over or job.pid:
                raise JobError(f"'{job.title}' must be over to be removed, but is {job.state}. Cancel it first.")
            for path in (self.log_path(job_id), self.progress_path(job_id), self.lock_path(job_id)):
                path.unlink(missing_ok=True)
            self._path(job_id).unlink()

    # ------------------------------------------------------------------ the worker's side

    def has_worker(self) -> bool:
        """Whether a worker serves the folder now."""
        if not self.folder.is_dir():
            return False
        try:
            with exclusive(self.folder / "worker.lock", "The queue"):
                return False
        except LockedError:
            return True

    def ensure_worker(self) -> None:
        """Start a worker if there is none. It outlives this process, and ends when there is nothing left to do.

        Call it after `submit` and `resume`, and wherever the list of jobs is drawn: a worker that was just about to
        end for want of work does not take up a new job.
        """
        if self.has_worker():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # The short-lived process in between leaves the worker to init: nobody here must wait for it.
        subprocess.run(
            [*module_command("understudy.jobs.worker", self.folder, "--detach")], cwd=ROOT, check=True, timeout=60
        )

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Change a job under the queue's lock."""
        with self._locked():
            changed = change(self.job(job_id))
            self._write(changed)
            return changed

    def progress_path(self, job_id: str) -> Path:
        """Where the command writes its progress, by atomic renames."""
        return self.folder / f"{job_id}.progress.json"

    def log_path(self, job_id: str) -> Path:
        """Where its output goes."""
        return self.folder / f"{job_id}.log"

    def lock_path(self, job_id: str) -> Path:
        """What its process holds locked while it lives."""
        return self.folder / f"{job_id}.lock"

    # ------------------------------------------------------------------ small parts

    def _move(self, job_id: str, sources: Sequence[JobState], state: JobState) -> Job:
        def change(job: Job) -> Job:
            if job.state not in sources:
                expected = " or ".join(sources)
                raise JobError(f"'{job.title}' must be {expected} for that, but is {job.state}. Reload the list.")
            ended_s = time.time() if state is JobState.CANCELLED else 0.0
            return replace(job, state=state, ended_s=ended_s, note="")

        return self.update(job_id, change)

    def _read(self, job_id: str) -> Job | None:
        """Read a job; None where it was removed."""
        try:
            stored: dict[str, Any] = json.loads(self._path(job_id).read_text())
            stored |= {"command": tuple(stored["command"]), "state": JobState(stored["state"])}
            return Job(**stored)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(f"The job's file {self._path(job_id)} is broken: {error}. Delete it.") from error

    def _locked(self) -> AbstractContextManager[object]:
        return exclusive(self.folder / "queue.lock", "The queue", wait_s=_LOCK_S)

    def _path(self, job_id: str) -> Path:
        if not job_id.replace("-", "").isalnum():
            raise JobError(f"A job's id must be letters, digits and dashes, but got '{job_id}'. Reload the list.")
        return self.folder / f"{job_id}.json"

    def _write(self, job: Job) -> None:
        write_json(self._path(job.id), asdict(job))
