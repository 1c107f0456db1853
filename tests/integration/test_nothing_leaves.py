"""Every entry point in a network of its own, where any attempt to reach the outside is seen, native code's too.

What runs there are tests of this repository that drive the entry points for real.
"""

import sys
from pathlib import Path

import pytest

from tests.support.outside import need_namespaces, run_recorded

ENTRY_POINTS = {
    "convert": "integration/test_convert_command.py::test_faces_become_the_persona_and_the_result_is_marked",
    "camera": "integration/test_camera.py::test_every_frame_is_swapped_or_covered_and_none_is_raw",
    "evaluate": "integration/test_evaluate.py::test_one_json_object_a_clip_and_persona_and_files_to_look_at",
    "local server": "integration/test_serving_processes.py::test_local_server_serves_the_same_without_googles_sdk",
    "model server": "integration/test_serving_processes.py::test_entry_point_serves_a_bundle_from_cloud_storage",
    "legacy routine": "integration/test_serving_build.py::test_legacy_source_package_predicts_whole_frames",
    "training": "integration/test_training.py::test_training_is_told_to_mlflow_and_gets_its_alias",
    "pipelines": "integration/test_release.py::test_kubeflows_local_runner_goes_from_clips_to_a_rehearsed_deployment",
    "app": "browser/test_live_page.py::test_shipped_persona_replaces_the_face_and_nothing_else",
    "studio": "browser/test_studio_page.py::test_an_uploaded_photo_plays_in_the_returned_pixels",
    "sockets of foreign pages": "integration/test_ui_guard.py::test_sockets_of_foreign_pages_are_refused_at_once",
}
# What Chromium asks for by itself, whatever page it shows.
BROWSERS_OWN = ("update.googleapis.com", "content-autofill.googleapis.com")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    need_namespaces()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_no_entry_point_reaches_the_outside_or_keeps_a_devices_id(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{ENTRY_POINTS[name]}"]
    home = tmp_path / "home"
    home.mkdir()
    outcome = run_recorded(command, {"HOME": str(home)}, limit_s=380)
    assert outcome.status == 0, outcome.output[-3000:]
    assert [attempt for attempt in outcome.attempts if not any(host in attempt for host in BROWSERS_OWN)] == []
    kept = [path for path in home.rglob("*") if path.name.lower() in ("deviceid", "machine_id_v4", "microsoft")]
    assert kept == [], "something tells this machine from others"


TELEMETRY = """
import onnxruntime, sys, time
onnxruntime.InferenceSession(sys.argv[1])
time.sleep(25)
"""
ATTEMPTS = {
    "a native library's telemetry": [TELEMETRY, "bundles/default/encoder.onnx"],
    "a name": ["import socket\ntry: socket.getaddrinfo('example.org', 443)\nexcept OSError: pass"],
    "an address": ["import socket\ns = socket.socket()\ns.settimeout(1)\ns.connect_ex(('203.0.113.9', 443))"],
    "a proxy": ["import urllib.request as r\ntry: r.urlopen('http://example.org')\nexcept OSError: pass"],
    "a neighbour": ["import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 3478))"],
}


@pytest.mark.parametrize("kind", ATTEMPTS)
def test_the_recorder_sees(kind: str, tmp_path: Path) -> None:
    """The control: what the test above would miss, it would miss for everybody."""
    environment = {"HOME": str(tmp_path), "ORT_DISABLE_TELEMETRY": "0"}
    outcome = run_recorded([sys.executable, "-c", *ATTEMPTS[kind]], environment, limit_s=60)
    assert len(outcome.attempts) == 1, outcome
    expected = {"a native library's telemetry": "mobile.events.data.microsoft.com", "a name": "name: example.org"}
    assert expected.get(kind, ("example.org" if kind == "a proxy" else ":")) in outcome.attempts[0]
