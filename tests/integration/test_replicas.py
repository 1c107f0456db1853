"""Two replicas of the app on one work folder: one queue and one worker, one record of revocations."""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from understudy.consent.trust_store import TrustStore
from understudy.jobs.queue import JobQueue, JobState

pytestmark = pytest.mark.timeout(180)  # three interpreters start, perhaps on a busy machine
EACH = 5

# One replica: waits for the other, submits jobs and sees to a worker, and revokes records meanwhile.
REPLICA = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from understudy.consent.trust_store import TrustStore
from understudy.jobs.queue import JobQueue
work, name, count, ready = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
(ready / name).touch()
while len(list(ready.iterdir())) < 2:
    time.sleep(0.001)
queue, trust = JobQueue(work / "jobs"), TrustStore(work / "trust")
for number in range(count):
    command = (sys.executable, "-c", sys.argv[5], str(work / "log"), f"{name}{number}")
    queue.submit("convert", f"{name}{number}", command)
    queue.ensure_worker()
    trust.revoke((name + str(number)).encode().hex().ljust(64, "0"), datetime.now(UTC))
"""
# One job: writes when it began and when it ended.
JOB = """
import json, sys, time
began = time.time(); time.sleep(0.05)
with open(sys.argv[1], "a") as log:
    log.write(json.dumps([sys.argv[2], began, time.time()]) + chr(10))
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder that two replicas have used at the same time."""
    ready = tmp_path / "ready"
    ready.mkdir()
    TrustStore(tmp_path / "trust").read()
    command = [sys.executable, "-c", REPLICA, str(tmp_path)]
    replicas = [subprocess.Popen([*command, name, str(EACH), str(ready), JOB]) for name in "ab"]
    assert [replica.wait(120) for replica in replicas] == [0, 0]
    return tmp_path


def test_two_replicas_share_a_queue_a_worker_and_the_revocations(work: Path) -> None:
    queue = JobQueue(work / "jobs")
    until_s = time.monotonic() + 60
    while any(job.state is not JobState.DONE for job in queue.jobs()):
        assert time.monotonic() < until_s, [job.state for job in queue.jobs()]
        queue.ensure_worker()
        time.sleep(0.05)
    names = {f"{name}{number}" for name in "ab" for number in range(EACH)}
    assert {job.title for job in queue.jobs()} == names and len(queue.jobs()) == 2 * EACH
    runs = [json.loads(line) for line in (work / "log").read_text().splitlines()]
    assert sorted(name for name, _, _ in runs) == sorted(names), "each ran once"
    spans = sorted((began, ended) for _, began, ended in runs)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans)), "one at a time"
    revoked = TrustStore(work / "trust").read().revoked
    assert {name.encode().hex().ljust(64, "0") for name in names} <= revoked
