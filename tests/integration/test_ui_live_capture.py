"""Snapshots and recordings of the Live page: marked and signed, or not delivered."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page, pick
from benchmarks.harness.pages import fresh_app
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut
from ui.live.capture_panel import Export
from ui.session.sealing import sealer
from understudy.bundle.bundle import Bundle
from understudy.consent.check import read_record
from understudy.consent.trust_store import TrustStore
from understudy.provenance.c2pa import Verdict


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    sealer.cache_clear()
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()
    sealer.cache_clear()


@pytest.fixture
def camera(page: AppTest) -> HandCamera:
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, astronaut())
    page.run()  # as the page does by itself when the stream begins
    return camera


def exported(page: AppTest) -> Export:
    assert not page.exception
    export = page.session_state["capture_done"]
    assert isinstance(export, Export)
    return export


def judged(export: Export, folder: Path) -> Verdict:
    path = folder / export.name
    path.write_bytes(export.content)
    return sealer().provenance.verify(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_snapshot_is_what_was_shown_signed_and_trusted(
    page: AppTest, camera: HandCamera, tmp_path: Path, suffix: str
) -> None:
    shown = admitted().newest
    assert shown is not None
    page.button_group(key="snapshot_format").set_value(suffix)
    page.button(key="snapshot").click().run()
    export = exported(page)
    picture = cv2.imdecode(np.frombuffer(export.content, np.uint8), cv2.IMREAD_COLOR)
    assert cv2.PSNR(picture, shown.image) > 35
    verdict = judged(export, tmp_path)
    assert verdict.is_trusted
    bundle = Bundle.load(tmp_path / "bundle")
    assert verdict.facts is not None
    assert verdict.facts["persona"] == "ada"
    assert verdict.facts["model_sha256"] == bundle.digest
    assert verdict.facts["consent_record_sha256"] == read_record(bundle.persona("ada").consent).digest


def test_snapshot_of_ones_own_camera_is_refused(page: AppTest, camera: HandCamera) -> None:
    page.toggle(key="is_off").set_value(True).run()
    camera.send_until(ShownState.OFF, astronaut())
    page.button(key="snapshot").click().run()
    assert "none is shown now" in page.error[0].value
    assert "capture_done" not in page.session_state


def test_revoked_persona_is_not_delivered(page: AppTest, camera: HandCamera, tmp_path: Path) -> None:
    page.button(key="record").click().run()
    camera.send_until(ShownState.SWAPPED, astronaut())
    record = read_record(Bundle.load(tmp_path / "bundle").persona("ada").consent)
    TrustStore(tmp_path / "trust").revoke(record.digest, datetime.now(UTC), "asked by mail")
    page.button(key="record").click().run()
    assert "was revoked" in page.error[0].value
    assert "capture_done" not in page.session_state


def test_recording_plays_back_signed_with_all_who_played(page: AppTest, camera: HandCamera, tmp_path: Path) -> None:
    page.button(key="record").click().run()
    assert page.button(key="record").label == "Stop recording"
    for _ in range(8):
        camera.send(astronaut())
    pick(page, "ben")
    for _ in range(8):
        camera.send(astronaut())
    page.button(key="record").click().run()
    export = exported(page)
    assert "Without sound" in export.note
    verdict = judged(export, tmp_path)
    assert verdict.is_trusted
    assert verdict.facts is not None
    assert verdict.facts["persona"] == "ada, ben"
    with av.open(str(tmp_path / export.name)) as clip:
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    assert len(pictures) >= 8
    shown = admitted().newest
    assert shown is not None
    assert cv2.PSNR(pictures[-1], shown.image) > 28


def test_buttons_wait_for_the_camera_and_say_so(page: AppTest) -> None:
    for key in ("snapshot", "record"):
        assert page.button(key=key).disabled
        assert "Start it first" in page.button(key=key).help


def test_recordings_go_when_the_page_closes(page: AppTest, camera: HandCamera) -> None:
    page.button(key="record").click().run()
    viewer = admitted()
    recording = viewer.recording
    assert recording is not None
    folder = recording.path.parent
    camera.send(astronaut())
    viewer.close()
    recording._thread.join(10)
    assert not folder.exists()
