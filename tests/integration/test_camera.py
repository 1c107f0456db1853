"""A clip through the camera command's relay with a tiny bundle, and what people are told where something is missing."""

import json
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from tests.support.real_faces import astronaut_clip
from understudy.bundle.bundle import Bundle
from understudy.camera import CameraError, CameraSource, ClipSource, VirtualCamera, main, relay
from understudy.consent.check import read_record
from understudy.consent.persona import ConsentWatch
from understudy.consent.trust_store import TrustStore
from understudy.swap.swapper import SwapSettings
from understudy.swap.verified_swapper import VerifiedSwapper


class Screen:
    """A sink that keeps what it is shown."""

    def __init__(self):
        self.images = []

    def send(self, image):
        self.images.append(image.copy())

    def close(self):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build_consented_bundle(folder / "bundle", PERSONAS, folder / "trust")
    astronaut_clip(folder / "in.mp4", 20)
    return folder


@pytest.fixture
def verified(site):
    settings = SwapSettings(persona="ada", colour_match=0)
    verified = VerifiedSwapper.open(site / "bundle", settings, "live", TrustStore(site / "trust"))
    verified.swapper.warm_up()
    return verified


def never():
    return False


def nothing():
    return ""


def play(site, verified, problem=nothing, should_stop=never, **options):
    screen, states = Screen(), []
    with FramePipeline(verified.swapper, overlays=verified.overlays()) as pipeline:
        pipeline.tap(lambda shown: states.append(shown.state))
        sent = relay(ClipSource(site / "in.mp4"), screen, pipeline, problem, should_stop, **options)
    assert sent == len(screen.images)
    return screen.images, states


def originals(site):
    capture = cv2.VideoCapture(str(site / "in.mp4"))
    images = []
    while True:
        is_read, image = capture.read()
        if not is_read:
            return images
        images.append(image)


def likeness(image, original):
    """PSNR in dB of the face's surroundings and the face."""
    return cv2.PSNR(image[80:300, 100:360], original[80:300, 100:360])


def test_every_frame_is_swapped_or_covered_and_none_is_raw(site, verified):
    images, states = play(site, verified)
    assert len(images) == 20
    assert ShownState.SWAPPED in states
    assert ShownState.OFF not in states
    assert max(likeness(image, original) for image, original in zip(images, originals(site), strict=True)) < 30


def test_mirroring_comes_before_the_label(site, verified):
    mirrored, _ = play(site, verified, is_mirrored=True)
    plain, _ = play(site, verified)
    corner = slice(0, 40), slice(-160, None)
    assert np.abs(mirrored[-1][corner].astype(int) - plain[-1][corner]).mean() < 40
    suit = slice(380, 500), slice(100, 400)
    assert np.abs(mirrored[-1][:, ::-1][suit].astype(int) - plain[-1][suit]).mean() < 4


def test_a_revoked_persona_is_covered_in_mid_stream(site, verified):
    store = TrustStore(site / "trust")
    watch = ConsentWatch(verified.persona, "live", store, every_s=0.0)
    asked = []

    def problem():
        asked.append(1)
        if len(asked) == 12:
            store.revoke(read_record(site / "bundle" / "ada" / "consent.json").digest, datetime.now(UTC))
        return watch.problem()

    try:
        _, states = play(site, verified, problem)
    finally:
        (store.folder / "revoked.json").write_text(json.dumps({"schema": 1, "records": {}}))
    assert ShownState.SWAPPED in states[:11]
    assert set(states[11:]) == {ShownState.COVERED}


def test_a_stop_request_ends_the_relay(site, verified):
    images, _ = play(site, verified, should_stop=iter([False] * 5 + [True]).__next__)
    assert len(images) == 5


def test_the_persona_is_named_in_the_bundle(site, verified):
    assert verified.persona.name in {info.name for info in Bundle.load(site / "bundle").personas}


@pytest.mark.skipif(Path("/dev/video0").exists(), reason="this machine has a camera")
def test_a_missing_camera_is_an_error_with_a_remedy():
    with pytest.raises(CameraError, match="Plug it in"):
        CameraSource(0, 640, 480, 30)


def read_to_the_end(source):
    for _ in range(100):
        source.read()


def test_a_camera_that_goes_silent_is_reported(site, monkeypatch):
    """cv2 reads a clip as it reads a camera; the clip's end is a camera that was unplugged."""
    source = CameraSource(str(site / "in.mp4"), 640, 480, 30)
    try:
        assert source.read().shape == (512, 512, 3)
        monkeypatch.setattr("understudy.camera._FIRST_FRAME_S", 0.5)
        with pytest.raises(CameraError, match="went silent"):
            read_to_the_end(source)
    finally:
        source.close()
    assert "understudy-camera" not in {thread.name for thread in threading.enumerate()}


def test_the_command_says_how_to_get_a_virtual_camera(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)  # as where the extra is not installed
    assert main(["--persona", "ada"]) == 1
    assert "uv run --extra camera" in capsys.readouterr().err


@pytest.mark.skipif(
    sys.platform != "linux" or any(Path("/sys/devices/virtual/video4linux").glob("*")),
    reason="this machine may have a loopback device",
)
def test_a_system_without_a_loopback_device_gets_a_remedy():
    with pytest.raises(CameraError, match="v4l2loopback"):
        VirtualCamera(30).send(np.zeros((480, 640, 3), np.uint8))


def test_camera_shows_the_persona_again_once_the_record_can_be_read_again(site, verified):
    """A network home that is gone for a moment."""
    asked = []

    def problem():
        asked.append(1)
        return "The trust folder cannot be read." if 6 <= len(asked) < 10 else ""

    _, states = play(site, verified, problem)
    assert set(states[5:9]) == {ShownState.COVERED}
    assert ShownState.SWAPPED in states[9:]
