"""A folder of jobs and real workers on it: order, pause, cancel, death of commands and of workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from understudy.jobs.queue import PROGRESS, JobError, JobQueue, JobState, module_command
from understudy.jobs.worker import JobWorker, main

# Counts to argv[2] in the file argv[1], goes on where it stopped, tells its progress in argv[3].
COUNT = """
import json, os, pathlib, sys, time
path, goal, progress = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
print("counting", flush=True)
while True:
    count = int(path.read_text()) if path.exists() else 0
    if count >= goal:
        break
    scratch = path.with_suffix(".new")
    scratch.write_text(str(count + 1))
    os.replace(scratch, path)
    pathlib.Path(progress + ".new").write_text(json.dumps({"done": count + 1, "total": goal}))
    os.replace(progress + ".new", progress)
    time.sleep(0.01)
"""


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("on", flush=True)
time.sleep(99)
"""


def count_command(path, goal):
    return (sys.executable, "-c", COUNT, str(path), str(goal), PROGRESS)


def wait_until(is_true, timeout_s=20.0):
    until_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def queue(tmp_path):
    return JobQueue(tmp_path / "jobs")


@contextmanager
def worker_process(queue, idle_s=30.0):
    process = subprocess.Popen(module_command("understudy.jobs.worker", queue.folder, "--idle-s", str(idle_s)))
    try:
        wait_until(queue.has_worker)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_jobs_run_in_order_and_tell_their_progress(queue, tmp_path):
    ids = [queue.submit("train", f"count {n}", count_command(tmp_path / f"{n}.txt", n)).id for n in (3, 5)]
    JobWorker(queue, idle_s=0.2).run()
    jobs = queue.jobs()
    assert [job.id for job in jobs] == ids
    assert {job.state for job in jobs} == {JobState.DONE}
    assert jobs[0].ended_s <= jobs[1].started_s
    assert queue.progress(ids[1]) == {"done": 5, "total": 5}
    assert queue.log_tail(ids[0]) == "counting\n"
    assert [job.pid for job in jobs] == [0, 0]


def test_a_failing_command_gives_its_last_line_and_can_be_tried_again(queue, tmp_path):
    flag = tmp_path / "flag"
    script = f"import os, sys; os.path.exists({str(flag)!r}) or sys.exit('The disk must have room, but has none.')"
    job = queue.submit("convert", "clip", (sys.executable, "-c", script))
    JobWorker(queue, idle_s=0.2).run()
    failed = queue.job(job.id)
    assert (failed.state, failed.note) == (JobState.FAILED, "The disk must have room, but has none.")
    flag.touch()
    queue.resume(job.id)
    JobWorker(queue, idle_s=0.2).run()
    assert (queue.job(job.id).state, queue.job(job.id).attempts, queue.job(job.id).note) == (JobState.DONE, 2, "")


def test_a_command_that_cannot_start_fails_and_the_next_runs(queue, tmp_path):
    missing = queue.submit("convert", "no program", ("/no/such/program",))
    following = queue.submit("convert", "count", count_command(tmp_path / "n.txt", 2))
    JobWorker(queue, idle_s=0.2).run()
    assert queue.job(missing.id).state is JobState.FAILED
    assert "/no/such/program" in queue.job(missing.id).note
    assert queue.job(following.id).state is JobState.DONE


def test_a_paused_job_keeps_its_work_and_goes_on(queue, tmp_path):
    path = tmp_path / "n.txt"
    with worker_process(queue):
        job = queue.submit("train", "count", count_command(path, 60))
        wait_until(lambda: path.exists() and int(path.read_text()) > 5)
        queue.pause(job.id)
        wait_until(lambda: queue.job(job.id).pid == 0)
        assert queue.job(job.id).state is JobState.PAUSED
        count = int(path.read_text())
        assert 5 < count < 60
        queue.resume(job.id)
        wait_until(lambda: queue.job(job.id).state is JobState.DONE)
    assert path.read_text() == "60"
    assert queue.job(job.id).attempts == 2


def test_a_cancelled_job_ends_and_can_be_removed(queue, tmp_path):
    with worker_process(queue):
        job = queue.submit("train", "count", count_command(tmp_path / "n.txt", 100_000))
        wait_until(lambda: queue.job(job.id).pid)
        pid = queue.job(job.id).pid
        with pytest.raises(JobError, match="Cancel it first"):
            queue.remove(job.id)
        queue.cancel(job.id)
        wait_until(lambda: queue.job(job.id).pid == 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    queue.remove(job.id)
    assert queue.jobs() == []
    assert list(queue.folder.glob(f"{job.id}*")) == []


@pytest.mark.faults
def test_a_command_that_ignores_the_request_to_end_is_killed(queue):
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(99)"
    )
    job = queue.submit("train", "stubborn", (sys.executable, "-c", script))
    worker = threading.Thread(target=lambda: JobWorker(queue, idle_s=0.2, grace_s=0.3).serve())
    worker.start()
    wait_until(lambda: queue.log_tail(job.id) == "on\n")
    queue.cancel(job.id)
    worker.join(20)
    assert queue.job(job.id).state is JobState.CANCELLED
    assert queue.job(job.id).pid == 0


@pytest.mark.faults
def test_a_killed_command_is_reported_and_goes_on_when_resumed(queue, tmp_path):
    path = tmp_path / "n.txt"
    with worker_process(queue):
        job = queue.submit("train", "count", count_command(path, 40))
        wait_until(lambda: path.exists() and int(path.read_text()) > 3)
        os.kill(queue.job(job.id).pid, signal.SIGKILL)
        wait_until(lambda: queue.job(job.id).state is JobState.FAILED)
        assert "SIGKILL" in queue.job(job.id).note
        queue.resume(job.id)
        wait_until(lambda: queue.job(job.id).state is JobState.DONE)
    assert path.read_text() == "40"


@pytest.mark.faults
def test_a_killed_workers_job_is_ended_and_run_again_by_the_next(queue, tmp_path):
    path = tmp_path / "n.txt"
    with worker_process(queue) as worker:
        job = queue.submit("train", "count", count_command(path, 300))
        wait_until(lambda: path.exists() and int(path.read_text()) > 3)
        worker.kill()
        worker.wait(10)
    orphan = queue.job(job.id).pid
    os.kill(orphan, 0)
    assert not queue.has_worker()
    JobWorker(queue, idle_s=0.2).run()
    finished = queue.job(job.id)
    assert (finished.state, finished.attempts) == (JobState.DONE, 2)
    assert finished.pid != orphan
    assert path.read_text() == "300"


def test_a_worker_that_is_asked_to_end_puts_its_job_back(queue, tmp_path):
    path = tmp_path / "n.txt"
    with worker_process(queue) as worker:
        job = queue.submit("train", "count", count_command(path, 100_000))
        wait_until(path.exists)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    assert (queue.job(job.id).state, queue.job(job.id).pid) == (JobState.QUEUED, 0)


def test_a_second_worker_is_refused(queue, capsys):
    with worker_process(queue):
        assert main([str(queue.folder)]) == 3
    assert "one user at a time" in capsys.readouterr().err


def test_ensured_worker_outlives_nobodys_wait_and_ends_when_idle(queue, tmp_path):
    queue.folder.mkdir()
    subprocess.run([*module_command("understudy.jobs.worker", queue.folder, "--detach", "--idle-s", "0.3")], check=True)
    job = queue.submit("train", "count", count_command(tmp_path / "n.txt", 3))
    wait_until(lambda: queue.job(job.id).state is JobState.DONE)
    wait_until(lambda: not queue.has_worker())


def test_ensure_worker_starts_one_worker_only(queue, tmp_path):
    queue.submit("train", "count", count_command(tmp_path / "n.txt", 30))
    queue.ensure_worker()
    wait_until(queue.has_worker)
    queue.ensure_worker()
    wait_until(lambda: queue.jobs()[0].state is JobState.DONE)
    assert queue.jobs()[0].attempts == 1
    _end_worker(queue)


def _end_worker(queue):
    """End the detached worker of a folder, found by its command line."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        if str(queue.folder) in (process.info["cmdline"] or []):
            process.terminate()
            process.wait(20)
    assert not queue.has_worker()


@pytest.mark.parametrize(
    ("action", "sentence"),
    [("resume", "must be paused or failed or cancelled"), ("remove", "must be over")],
)
def test_what_makes_no_sense_is_refused(queue, action, sentence):
    job = queue.submit("train", "count", ("true",))
    with pytest.raises(JobError, match=sentence):
        getattr(queue, action)(job.id)
    assert queue.job(job.id) == job


@pytest.mark.parametrize("job_id", ["0000", "../../etc/passwd", "a/b"])
def test_unknown_and_hostile_ids_are_refused(queue, job_id):
    queue.submit("train", "count", ("true",))
    with pytest.raises(JobError):
        queue.job(job_id)


def test_many_threads_lose_no_job(queue):
    def submit_some():
        for _ in range(10):
            queue.submit("train", "count", ("true",))

    threads = [threading.Thread(target=submit_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queue.jobs()) == 40
