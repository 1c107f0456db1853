"""The process that runs a queue's jobs, one at a time: `python -m understudy.jobs.worker FOLDER`."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from understudy.jobs.lock import LockedError, exclusive
from understudy.jobs.queue import PROGRESS, ROOT, Job, JobQueue, JobState, module_command

_POLL_S = 0.1
_GRACE_S = 15.0


class JobWorker:
    """Runs the queue's jobs, oldest first. One worker serves a folder; a second one is refused.

    Args:
        queue: the folder.
        idle_s: ends after so long without a job to run.
        grace_s: how long a command may take to end when asked to, before it is killed.
    """

    def __init__(self, queue: JobQueue, idle_s: float = 60.0, grace_s: float = _GRACE_S) -> None:
        self._queue = queue
        self._idle_s, self._grace_s = idle_s, grace_s
        self._is_ending = False

    def run(self) -> None:
        """Serve until idle, or until SIGTERM or SIGINT: then the running job goes back into the queue.

        Raises:
            LockedError: another worker serves the folder.
        """
        # Those who ask whether there is a worker hold the lock for a moment.
        with exclusive(self._queue.folder / "worker.lock", "The queue", wait_s=2.0):
            before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                self._recover()
                self.serve()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _end(self, number: int, frame: object) -> None:
        self._is_ending = True

    def serve(self) -> None:
        """Run queued jobs until idle; `run` calls it under the worker's lock."""
        idle_from_s = time.monotonic()
        while not self._is_ending and time.monotonic() - idle_from_s < self._idle_s:
            waiting = [job for job in self._queue.jobs() if job.state is JobState.QUEUED]
            if waiting:
                self._run(waiting[0])
                idle_from_s = time.monotonic()
            else:
                time.sleep(_POLL_S)

    def _recover(self) -> None:
        """Take over from a worker that died: end what it left running, and queue it again."""
        for job in self._queue.jobs():
            if job.pid:
                self._end_orphan(job)
                state = JobState.QUEUED if job.state is JobState.RUNNING else job.state
                self._queue.update(job.id, lambda left, state=state: replace(left, pid=0, state=state))

    def _end_orphan(self, job: Job) -> None:
        """End a dead worker's command, if it lives: while its lock is held, its process group is its own."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not _is_held(self._queue.lock_path(job.id)):
                return
            with suppress(ProcessLookupError):
                os.killpg(job.pid, number)
            until_s = time.monotonic() + self._grace_s
            while _is_held(self._queue.lock_path(job.id)) and time.monotonic() < until_s:
                time.sleep(_POLL_S)

    def _run(self, job: Job) -> None:
        """Run one job's command until it ends or is no longer wanted."""
        try:
            with exclusive(self._queue.lock_path(job.id), f"'{job.title}'") as lock:
                process = self._start(job, lock.fileno())
                self._watch(self._queue.update(job.id, lambda now: _started(now, process.pid)), process)
        except LockedError:
            note = "An earlier process of this job still runs. Wait for it to end, then resume the job."
            self._queue.update(job.id, lambda now: _ended(now, note))
        except OSError as error:
            note = f"The command cannot be started: {error}."
            self._queue.update(job.id, lambda now: _ended(now, note))

    def _start(self, job: Job, lock: int) -> "subprocess.Popen[bytes]":
        """Start a job's command in a process group of its own; it shares the job's lock for life."""
        command = [part.replace(PROGRESS, str(self._queue.progress_path(job.id))) for part in job.command]
        with self._queue.log_path(job.id).open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock],
            )

    def _watch(self, job: Job, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            if self._is_ending or self._queue.job(job.id).state is not JobState.RUNNING:
                self._stop(process)
                break
            try:
                process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
        code = process.wait()
        self._queue.update(job.id, lambda now: self._after(now, code))

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    def _after(self, job: Job, code: int) -> Job:
        """What a job is once its process has ended."""
        if code == 0 and job.state is not JobState.CANCELLED:
            return replace(job, state=JobState.DONE, pid=0, ended_s=time.time(), note="")
        if job.state is not JobState.RUNNING:
            return replace(job, pid=0)
        if self._is_ending:
            return replace(job, state=JobState.QUEUED, pid=0)
        return _ended(job, _failure_reason(code, self._queue.log_tail(job.id)))


def _started(job: Job, pid: int) -> Job:
    # Paused or cancelled in the meantime: it keeps that state, and is stopped at once.
    state = JobState.RUNNING if job.state is JobState.QUEUED else job.state
    return replace(job, state=state, pid=pid, started_s=time.time(), attempts=job.attempts + 1)


def _ended(job: Job, note: str) -> Job:
    return replace(job, state=JobState.FAILED, pid=0, ended_s=time.time(), note=note)


def _failure_reason(code: int, log: str) -> str:
    """A sentence for a failure: the command's own last line, or how it died."""
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if line.strip()]
    if code < 0:
        return f"The process was ended by {signal.Signals(-code).name}. Resume the job to go on."
    return lines[-1][:500] if lines else f"The process ended with status {code} and said nothing."


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with exclusive(path, "it"):
            return False
    except LockedError:
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; returns its exit status: 3 when another one serves the folder."""
    parser = argparse.ArgumentParser(prog="understudy.jobs.worker", description="Run the jobs of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detach", action="store_true", help="start a worker in the background and return")
    parser.add_argument("--idle-s", type=float, default=60.0, help="end after so long without work (default 60)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.detach:
        command = module_command("understudy.jobs.worker", options.folder.resolve(), "--idle-s", str(options.idle_s))
        with (options.folder / "worker.log").open("ab") as log:
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        os._exit(0)  # no interpreter clean-up: the worker must not be waited for
    try:
        JobWorker(JobQueue(options.folder), idle_s=options.idle_s).run()
    except LockedError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
