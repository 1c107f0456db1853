"""Consent while a persona is live: refused at load, stopped by the timer, back again with another persona."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, open_page, pick
from benchmarks.harness.pages import fresh_app
from benchmarks.harness.waiting import wait_until
from liveframe.gate import ShownState
from tests.support.real_faces import astronaut
from ui.session.consent_timer import ConsentTimer
from understudy.bundle.bundle import Bundle
from understudy.consent.check import read_record
from understudy.consent.trust_store import TrustStore


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield open_page()


def revoke(folder: Path, persona: str) -> None:
    record = read_record(Bundle.load(folder / "bundle").persona(persona).consent)
    TrustStore(folder / "trust").revoke(record.digest, datetime.now(UTC), "asked by mail")


def test_revocation_covers_a_running_stream_and_another_persona_uncovers_it(page: AppTest, tmp_path: Path) -> None:
    viewer = admitted()
    camera = HandCamera(viewer)
    camera.send_until(ShownState.SWAPPED, astronaut())
    revoke(tmp_path, "ada")
    timer = ConsentTimer(lambda: [viewer], every_s=0.05)
    try:
        camera.send_until(ShownState.COVERED, astronaut())
        wait_until(lambda: camera.send(astronaut()) is not None and "revoked" in viewer.pipeline.stats().note)
        for _ in range(5):
            camera.send(astronaut())
            assert viewer.pipeline.stats().state is ShownState.COVERED
        pick(page, "ben")
        camera.send_until(ShownState.SWAPPED, astronaut())
    finally:
        timer.close()


def test_persona_that_was_revoked_before_never_plays(page: AppTest, tmp_path: Path) -> None:
    revoke(tmp_path, "ben")
    viewer = admitted()
    camera = HandCamera(viewer)
    camera.send_until(ShownState.SWAPPED, astronaut())
    pick(page, "ben")
    for _ in range(5):
        camera.send(astronaut())
        assert viewer.pipeline.stats().state is ShownState.COVERED
    assert "revoked" in viewer.pipeline.stats().note


def test_a_broken_trust_folder_trusts_nobody(page: AppTest, tmp_path: Path) -> None:
    viewer = admitted()
    assert viewer.check_consent() == ""
    (tmp_path / "trust" / "revoked.json").write_text("{")
    assert viewer.check_consent() != ""


def test_timer_asks_again_and_ends(page: AppTest) -> None:
    asked: list[int] = []

    class Asked:
        def check_consent(self) -> str:
            asked.append(1)
            return ""

    timer = ConsentTimer(lambda: [Asked()], every_s=0.01)
    wait_until(lambda: len(asked) >= 3)
    timer.close()
    count = len(asked)
    timer.close()
    assert len(asked) == count and not timer._thread.is_alive()


def test_whoever_is_painted_is_asked_about_recorded_and_claimed_not_who_was_chosen(
    page: AppTest, tmp_path: Path
) -> None:
    """Ben is chosen and cannot be loaded: Ada plays on, so it is Ada's record that counts."""
    viewer = admitted()
    camera = HandCamera(viewer)
    camera.send_until(ShownState.SWAPPED, astronaut())
    record = read_record(viewer.served.bundle.persona("ada").consent)
    (viewer.served.bundle.path / "ben" / "decoder.onnx").unlink()
    pick(page, "ben")
    wait_until(lambda: camera.send(astronaut()) is not None and "plays on" in viewer.pipeline.stats().note)
    assert viewer.choices.personas == ("ben",) and viewer.newest.personas == ("ada",)
    recording = viewer.record()
    for _ in range(3):
        camera.send(astronaut())
    assert recording.played == ("ada",)
    viewer.drop_recording()
    assert viewer.check_consent() == ""
    TrustStore(tmp_path / "trust").revoke(record.digest, datetime.now(UTC), "asked by mail")
    assert "revoked" in viewer.check_consent()
    camera.send(astronaut())
    assert viewer.pipeline.stats().state is ShownState.COVERED
    assert viewer.newest.personas == ()
