"""Small JSON notes beside the pages' files: which job works on what, what a command said at its end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ui.parts.job_card import find_job
from understudy.jobs.atomic_file import write_json
from understudy.jobs.queue import Job

_JOB = "job.json"


def read_note(path: Path) -> Mapping[str, Any]:
    """Read a JSON object; empty where there is none, or a torn one."""
    try:
        stored = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def note_job(folder: Path, job: Job, kind: str = "job_id") -> None:
    """Remember the job that works on a folder, beside those of other kinds."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(folder / _JOB, {**read_note(folder / _JOB), kind: job.id})


def noted_job(folder: Path, kind: str = "job_id") -> Job | None:
    """The job that was noted last; None where there was none, or it was removed."""
    job_id = read_note(folder / _JOB).get(kind)
    return find_job(str(job_id)) if job_id else None
