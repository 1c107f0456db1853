"""What is written into logs: no pixels, no landmarks, no names, no secrets; and nobody reports home."""

import logging
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.waiting import wait_until
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from tests.faults.persona import DrawnCrop
from tests.faults.scene import Camera, Head
from tests.faults.stage import FlakyRenderer
from tests.support.real_faces import astronaut_clip
from understudy.consent.check import hash_files, write_record
from understudy.consent.check import main as consent_command
from understudy.consent.record import Consent, sign
from understudy.consent.trust_store import TrustStore
from understudy.convert import main as convert_command
from understudy.swap.swapper import FaceSwapper, SwapSettings

SUBJECT = "Wilhelmina Quackenbush"
# Five numbers in a row are no shape and no size: they are pixels, points or an embedding.
NUMBERS = re.compile(r"(?:-?\d+(?:\.\d*)?(?:e[+-]?\d+)?[\s,;\[\]]+){4}-?\d")


def assert_discreet(text: str) -> None:
    """No name, no array."""
    assert SUBJECT not in text and "Quackenbush" not in text
    assert "array(" not in text and "dtype=" not in text and not NUMBERS.search(text), NUMBERS.search(text)


def test_the_measure_finds_what_it_must() -> None:
    mesh = np.random.default_rng(0).random((5, 2)).astype(np.float32)
    for spilt in (str(mesh), repr(mesh), str(mesh.tolist()), f"consent of {SUBJECT}", str([1, 2, 3, 4, 5])):
        with pytest.raises(AssertionError):
            assert_discreet(spilt)
    assert_discreet("result must be [240, 320, 3], but got [8, 8, 3] at 12:30:11. Fix the model's session.")


def test_a_stream_that_fails_and_recovers_writes_nothing_about_the_viewer(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    renderer, camera = FlakyRenderer(DrawnCrop()), Camera()
    model = FaceSwapper(settings=SwapSettings("drawn"), renderers={"drawn": renderer})

    def spills(face: object) -> np.ndarray:
        raise RuntimeError(f"The model failed at {face.landmarks} of {face.crop}")  # type: ignore[attr-defined]

    with FramePipeline(model) as pipeline:

        def shows(state: ShownState) -> bool:
            return pipeline.process(camera.take(Head()).image).state is state

        wait_until(lambda: shows(ShownState.SWAPPED), 60)
        with renderer.failing(spills):
            wait_until(lambda: shows(ShownState.COVERED), 60)
        wait_until(lambda: shows(ShownState.SWAPPED), 60)
    written = capfd.readouterr()
    assert_discreet(caplog.text + written.out + written.err)


def test_a_conversion_names_no_person(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One that works, and one whose record has expired: the refusal names the persona, not the person."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "trust"))
    bundle = build_consented_bundle(tmp_path / "bundle", {"ada": "Ada"}, tmp_path / "trust")
    clip = astronaut_clip(tmp_path / "in.mp4", 12)
    assert convert_command([str(clip), str(tmp_path / "out.mp4"), "--bundle", str(bundle)]) == 0
    record = sign(expired([bundle / "ada" / "still.png"]), TrustStore(tmp_path / "trust").signing_key())
    path = tmp_path / "old.json"
    write_record(path, record)
    assert consent_command(["check", str(path), "--use", "live"]) == 2
    written = capfd.readouterr()
    assert "expired" in written.err
    assert_discreet(caplog.text + written.out + written.err)


def expired(files: list[Path]) -> Consent:
    now = datetime.now(UTC).replace(microsecond=0)
    return Consent(
        persona="ada",
        kind="person",
        subject=SUBJECT,
        statement="A test's own record.",
        uses=("live",),
        not_before=now - timedelta(days=9),
        not_after=now - timedelta(days=2),
        reference=hash_files(files),
        recipe={},
        evidence={"method": "test"},
    )


def test_kfp_and_mlflow_report_nothing_when_they_are_loaded() -> None:
    """No socket is opened by loading them, and MLflow's own switch reads off."""
    script = """
import socket
import pipelines
def refuse(*_): raise AssertionError("a socket was opened")
socket.socket.connect = refuse
import mlflow, kfp
from mlflow.telemetry import get_telemetry_client
assert get_telemetry_client() is None, "MLflow's telemetry client runs"
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
