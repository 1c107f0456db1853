"""kill -9 at random moments while something is written: nothing that was told of is lost, nothing is half there.

Extraction and training have theirs in tests/integration (test_extract.py, test_training.py).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from tests.integration.test_convert import DiscSwapper
from tests.support.clips import numbered, read_clip, read_number, write_clip
from tests.support.mlflow_store import mlflow_store
from training.model.checkpoint import load_checkpoint
from understudy.bundle.bundle import Bundle
from understudy.convert import Conversion, convert

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
KILLS = pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])


def killed(script: str, *arguments: object, after_s: float, **environment: str) -> tuple[bool, list[str]]:
    """Run a script that says "ready" when its work begins, and kill it a while after that.

    Returns:
        Whether it was killed before it ended, and the whole lines that it printed after "ready".
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0, [line.strip() for line in printed.splitlines(keepends=True) if line.endswith("\n")]


# ---------------------------------------------------------------- checkpoints

CHECKPOINTING = """
import itertools, sys
from pathlib import Path
import numpy as np
from training.model.checkpoint import load_checkpoint, save_checkpoint
folder = Path(sys.argv[1])
found = load_checkpoint(folder)
print("ready", flush=True)
for step in itertools.count(found[0] + 1 if found else 1):
    save_checkpoint(folder, step, [np.full((400, 400), step, np.float32), np.full(7, -step, np.float64)])
    print(step, flush=True)
"""


@KILLS
def test_killed_checkpointing_leaves_the_last_whole_checkpoint(kills: int, tmp_path: Path) -> None:
    chance, told = np.random.default_rng(kills), 0
    for _ in range(kills):
        was_killed, steps = killed(CHECKPOINTING, tmp_path, after_s=chance.uniform(0.0, 0.25))
        told = int(steps[-1]) if steps else told
        found = load_checkpoint(tmp_path)
        assert was_killed
        if found is None:
            assert told == 0
            continue
        step, (wide, small) = found
        assert step in (told, told + 1), "what was told is there; the next one may be, untold"
        assert (wide == step).all() and (small == -step).all()
        told = step
    assert told > 0
    assert len(list(tmp_path.glob("checkpoint-*.npz"))) <= 3


# ---------------------------------------------------------------- conversion

CONVERTING = """
import sys, time
from pathlib import Path
from tests.integration.test_convert import DiscSwapper
from understudy.convert import Conversion, convert
print("ready", flush=True)
work = Conversion(Path(sys.argv[1]), Path(sys.argv[2]), segment_frames=5)
convert(work, DiscSwapper(), lambda progress: time.sleep(0.01))
"""


@KILLS
def test_killed_conversion_goes_on_and_publishes_a_whole_clip(kills: int, tmp_path: Path) -> None:
    times_s = [number / 25 for number in range(60)]
    clip = write_clip(tmp_path / "in.mp4", [numbered(number) for number in range(60)], times_s)
    target, chance, whole, hits = tmp_path / "out.mp4", np.random.default_rng(kills), 0, 0
    for _ in range(kills):
        was_killed, _ = killed(CONVERTING, clip, target, after_s=chance.uniform(0.0, 0.6))
        hits += was_killed
        if target.exists():  # ended, or killed after it was published: begin anew
            assert_is_the_whole_clip(target)
            target.unlink()
            whole = 0
            continue
        segments = sorted((tmp_path / "out.mp4.partial").glob("segment-*.json"))
        assert len(segments) >= whole, "a segment that was whole is lost"
        assert all(frames_in(path.with_suffix(".nut")) == 5 for path in segments)
        whole = len(segments)
    assert hits > 0
    report = convert(Conversion(clip, target, segment_frames=5), DiscSwapper())
    assert report.resumed_frames == 5 * whole
    assert_is_the_whole_clip(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def assert_is_the_whole_clip(path: Path) -> None:
    assert [read_number(image) for image in read_clip(path)[0]] == list(range(60))


# ---------------------------------------------------------------- registration

REGISTERING = """
import sys
from pathlib import Path
import pipelines
import mlflow
import mlflow.pyfunc
from pipelines.registry import Registry
mlflow.set_experiment("tests")
print("ready", flush=True)
Registry(sys.argv[1]).register(Path(sys.argv[2]), tags={"git": "abc"}, alias="challenger")
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    with mlflow_store(tmp_path) as uri:
        yield uri


@KILLS
def test_killed_registration_leaves_whole_versions_and_the_champion(kills: int, store: str, tmp_path: Path) -> None:
    from pipelines.registry import Registry

    bundles = [build_tiny_bundle(tmp_path / name, personas={name: name.title()}) for name in ("ada", "ben")]
    registry = Registry("killed", tmp_path / "cache")
    began_s = time.monotonic()
    champion = registry.register(bundles[0], alias="champion")
    usual_s, chance, hits = time.monotonic() - began_s, np.random.default_rng(kills), 0
    for _ in range(kills):
        wait_s = chance.uniform(0.0, usual_s)
        hits += killed(REGISTERING, "killed", bundles[1], after_s=wait_s, MLFLOW_TRACKING_URI=store)[0]
        assert registry.version_of("champion") == champion.version
        for version in registry.versions():
            Bundle.load(registry.resolve(version.version))
            assert version.tags["personas"] == ("ada" if version.version == champion.version else "ben")
    assert hits > 0
    registered = registry.register(bundles[1], alias="challenger")
    assert Bundle.load(registry.resolve("challenger")).digest == registered.digest
    assert Bundle.load(registry.resolve("champion")).digest == champion.digest
    assert json.loads((registry.resolve("challenger") / "manifest.json").read_text())["personas"][0]["name"] == "ben"
