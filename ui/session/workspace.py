"""Whose files are whose: each viewer's folder for uploads, personas and clips, and the one queue of jobs.

Faces are private. A logged-in viewer has a folder that only they see; whoever sits at this machine has the
operator's; a stranger from elsewhere gets one that goes when their page closes.
"""

import hashlib
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st

from ui.session.settings import app_settings
from understudy.jobs.queue import JobError, JobQueue

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_OPERATOR, _STRANGER = "operator", "visitor-"
_STRANGER_S = 12 * 3600.0
_FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via")


@dataclass(frozen=True, slots=True)
class Workspace:
    """One viewer's files.

    Attributes:
        folder: everything they made; readable by this user alone.
        is_kept: whether it is still there when they come back; a stranger's is not.
    """

    folder: Path
    is_kept: bool

    @property
    def clips(self) -> Path:
        """Where their conversions lie, each in a folder of its own."""
        return self.folder / "clips"

    @property
    def personas(self) -> Path:
        """Where their personas lie, each in a folder of its own."""
        return self.folder / "personas"


@cache
def job_queue() -> JobQueue:
    """The queue that Convert, Studio and Models share: one worker, so that jobs do not fight for the cores."""
    return JobQueue(app_settings().work / "jobs")


def this_workspace() -> Workspace:
    """The workspace of whoever looks at the page."""
    if st.user.get("is_logged_in"):
        identity = str(st.user.get("sub") or st.user.get("email") or "")
        if identity:
            return _opened(f"user-{hashlib.sha256(identity.encode()).hexdigest()[:24]}", is_kept=True)
    if is_operator(st.context.headers, str(st.get_option("server.address") or "")):
        return _opened(_OPERATOR, is_kept=True)
    return _visitor()


def is_local() -> bool:
    """Whether whoever looks at the page sits at the app's own machine."""
    return is_operator(st.context.headers, str(st.get_option("server.address") or ""))


def is_local_or_logged_in() -> bool:
    """Whether whoever looks at the page is known: logged in, or at the app's own machine."""
    is_logged_in = bool(st.user.get("is_logged_in"))
    return is_logged_in or is_operator(st.context.headers, str(st.get_option("server.address") or ""))


def is_operator(headers: Mapping[str, str], address: str) -> bool:
    """Whether a page is open on the app's own machine.

    Args:
        headers: of the page's connection.
        address: what the server listens on.

    Returns:
        False where anything speaks for a proxy or a network in between.
    """
    if address not in _LOCAL or any(name in headers for name in _FORWARDED):
        return False
    hosts = [f"//{headers['Host']}"] if "Host" in headers else []
    hosts += [headers["Origin"]] if "Origin" in headers else []
    return all(urlsplit(host).hostname in _LOCAL for host in hosts)


def owned_jobs(folder: Path) -> Iterator[str]:
    """Ids of the jobs whose work lies under a folder."""
    queue = job_queue()
    for job in queue.jobs():
        if any(part == str(folder) or part.startswith(f"{folder}/") for part in job.command):
            yield job.id


def discard(folder: Path) -> None:
    """Remove a folder and cancel what still works on it."""
    queue = job_queue()
    for job_id in list(owned_jobs(folder)):
        with suppress(JobError):  # over already
            queue.cancel(job_id)
    shutil.rmtree(folder, ignore_errors=True)


def _opened(name: str, is_kept: bool) -> Workspace:
    folder = app_settings().work / "viewers" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Workspace(folder, is_kept)


def _forget(workspace: Workspace) -> None:
    discard(workspace.folder)


@st.cache_resource(scope="session", on_release=_forget, show_spinner=False)
def _visitor() -> Workspace:
    """A stranger's workspace, for as long as their page is open."""
    for left in (app_settings().work / "viewers").glob(f"{_STRANGER}*"):
        if time.time() - left.stat().st_mtime > _STRANGER_S:  # its server was killed before it could be removed
            discard(left)
    return _opened(f"{_STRANGER}{secrets.token_hex(12)}", is_kept=False)
