"""Every entry point in a network of its own, where any attempt to reach the outside is seen, native code's too.

What runs there are tests of this repository that drive the entry points for real, once (`tests.support.recorded_once`);
the pipelines' is recorded by `test_release`.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.support.outside import ROOT, Outcome, device_ids, need_namespaces, run_recorded
from tests.support.recorded_once import ENTRY_POINTS

# One process each: what tests of a group share is set up once. TensorFlow stays out of the others' way.
GROUPS = (("training",), tuple(name for name in ENTRY_POINTS if name != "training"))
# What Chromium asks for by itself, whatever page it shows.
BROWSERS_OWN = ("update.googleapis.com", "content-autofill.googleapis.com")

pytestmark = pytest.mark.timeout(500)


@pytest.fixture(autouse=True, scope="module")
def _namespaces() -> None:
    need_namespaces()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], tuple[Outcome, list[Path]]]:
    """Run a group's tests, once; returns what came of them, and files that tell this machine from others."""

    @cache
    def run(group: tuple[str, ...]) -> tuple[Outcome, list[Path]]:
        home = tmp_path_factory.mktemp("home")
        tests = [f"tests/{ENTRY_POINTS[name]}" for name in group]
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *tests]
        return run_recorded(command, {"HOME": str(home)}, limit_s=480), device_ids(home)

    return run


@pytest.fixture(scope="module", autouse=True)
def telemetry(_namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Future[Outcome]"]:
    """Begin first what takes half a minute of waiting: a native library's telemetry, for the control."""
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(control, TELEMETRY, tmp_path_factory.mktemp("telemetry"))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_no_entry_point_reaches_the_outside_or_keeps_a_devices_id(
    name: str, recorded: Callable[[tuple[str, ...]], tuple[Outcome, list[Path]]]
) -> None:
    outcome, ids = recorded(next(group for group in GROUPS if name in group))
    is_passed = f"PASSED tests/{ENTRY_POINTS[name]}" in outcome.output
    assert is_passed and outcome.status == 0, outcome.output[-6000:]
    assert [attempt for attempt in outcome.attempts if not any(host in attempt for host in BROWSERS_OWN)] == []
    assert ids == [], "something tells this machine from others"


TELEMETRY = """
import onnxruntime, sys, time
onnxruntime.InferenceSession(sys.argv[1])
time.sleep(25)
"""
ATTEMPTS = {
    "a name": "import socket\ntry: socket.getaddrinfo('example.org', 443)\nexcept OSError: pass",
    "an address": "import socket\ns = socket.socket()\ns.settimeout(1)\ns.connect_ex(('203.0.113.9', 443))",
    "a proxy": "import urllib.request as r\ntry: r.urlopen('http://example.org')\nexcept OSError: pass",
    "a neighbour": "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 3478))",
}


def control(code: str, home: Path) -> Outcome:
    """Run code that asks for the outside; a name that nobody resolves is given up after a second."""
    graph = str(next((ROOT / "bundles").rglob("*.onnx")))
    environment = {"HOME": str(home), "ORT_DISABLE_TELEMETRY": "0", "RES_OPTIONS": "timeout:1 attempts:1"}
    return run_recorded([sys.executable, "-c", code, graph], environment, limit_s=110)


@pytest.mark.parametrize("kind", ATTEMPTS)
def test_the_recorder_sees(kind: str, tmp_path: Path) -> None:
    """The control: what the test above would miss, it would miss for everybody."""
    outcome = control(ATTEMPTS[kind], tmp_path)
    assert len(outcome.attempts) == 1, outcome
    expected = {"a name": "name: example.org", "a proxy": "example.org"}
    assert expected.get(kind, ":") in outcome.attempts[0]


def test_the_recorder_sees_a_native_librarys_telemetry(telemetry: "Future[Outcome]") -> None:
    """Last: it has been waited for meanwhile."""
    outcome = telemetry.result()
    assert len(outcome.attempts) == 1, outcome
    assert "mobile.events.data.microsoft.com" in outcome.attempts[0]


def test_a_recorded_test_is_run_once_and_never_left_out_where_its_recorded_run_is() -> None:
    camera = ENTRY_POINTS["camera"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += [f"tests/{camera.partition('::')[0]}", "tests/integration/test_nothing_leaves.py"]
    both = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert camera not in both and "keeps_a_devices_id[camera]" in both
    alone = subprocess.run([*command, "-k", "swapped_or_covered"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert camera in alone.stdout
