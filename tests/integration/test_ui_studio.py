"""The Studio page: a photo and a permission become a persona that plays at once; clips become a faceset."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import offered_names, pick
from benchmarks.harness.pages import fresh_app, rerun, states
from benchmarks.harness.tiny_bundle import build_tiny_bundle, persona_colour
from benchmarks.harness.waiting import wait_until
from liveframe.frame import Frame
from tests.support.clips import read_clip
from tests.support.real_faces import astronaut, astronaut_clip, astronaut_face, turned, write_clip
from ui.session import shared
from ui.session.own_personas import ShelfPersona, shelved, trust_store
from ui.session.workspace import this_workspace
from ui.studio.faces_panel import find_faces
from ui.studio.references_panel import learn
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.consent.check import extended, read_record, write_record
from understudy.faceset.faceset import Faceset
from understudy.jobs.queue import JobState
from understudy.provenance.watermark_detector import detect_file


def studio_page() -> None:
    from ui.studio import page as studio

    studio.page()


def live_page() -> None:
    from ui.live import page as live

    live.page()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield AppTest.from_function(studio_page, default_timeout=60)


@pytest.fixture
def shipped_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    """The same with the bundle that ships, whose mixing network plays pictures."""
    with fresh_app(tmp_path, monkeypatch, bundle=default_bundle()):
        yield AppTest.from_function(studio_page, default_timeout=60)


def convert_page() -> None:
    from ui.convert import page as convert

    convert.page()


def photo() -> bytes:
    """A persona that ships, nobody's face: whoever is played as themselves stays covered."""
    look = cv2.imread(str(default_bundle() / "nils" / "reference.png"))
    return cv2.imencode(".png", cv2.copyMakeBorder(look, *(90,) * 4, cv2.BORDER_REFLECT_101))[1].tobytes()


def fill(page: AppTest, with_form: bool = True) -> AppTest:
    page.run()
    page.text_input(key="persona_title").set_value("Eileen")
    page.file_uploader(key="face_file").set_value(("me.png", photo(), "image/png"))
    page.button_group(key="face_of").set_value("person").run()
    page.text_input(key="consent_subject").set_value("Eileen Collins")
    if with_form:
        page.file_uploader(key="form-False").set_value(("form.pdf", b"%PDF-1.4 signed", "application/pdf"))
        page.checkbox(key="agreed-person").check()
    return page.run()


def make(page: AppTest) -> ShelfPersona:
    fill(page)
    page.button(key="make_persona").click().run()
    assert not page.exception
    assert not page.error
    (persona,) = shelved(this_workspace())
    return persona


def test_empty_studio_says_what_to_do(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "You have no personas of your own yet" in page.info[0].value


def test_everything_that_is_missing_is_said_before_the_press(page: AppTest) -> None:
    page.run()
    (missing,) = [caption.value for caption in page.caption if caption.value.startswith("Still missing")]
    for what in ("a name", "a face", "the name of the person", "the box beside", "proof of the permission"):
        assert what in missing
    fill(page)
    assert not [caption for caption in page.caption if caption.value.startswith("Still missing")]


@pytest.mark.parametrize("missing", ["box", "form", "name"])
def test_no_persona_without_a_whole_permission(page: AppTest, missing: str) -> None:
    fill(page, with_form=missing != "form")
    if missing == "box":
        page.checkbox(key="agreed-person").uncheck()
    if missing == "name":
        page.text_input(key="consent_subject").set_value("")
    page.button(key="make_persona").click().run()
    assert "A persona of a person must have" in page.error[0].value
    assert shelved(this_workspace()) == []


def test_a_picture_without_a_face_is_refused_with_a_remedy(page: AppTest) -> None:
    fill(page)
    blank = cv2.imencode(".png", astronaut()[400:, 400:].copy())[1].tobytes()
    page.file_uploader(key="face_file").set_value(("wall.png", blank, "image/png"))
    page.button(key="make_persona").click().run()
    assert "must show a clear face" in page.error[0].value
    assert shelved(this_workspace()) == []


def test_a_photo_and_a_permission_make_a_persona_with_a_signed_record(page: AppTest) -> None:
    persona = make(page)
    assert persona.name == "eileen"
    assert persona.refusal("live", trust_store().read()) == ""
    consent = read_record(persona.info.consent).consent
    assert (consent.kind, consent.subject, consent.uses) == ("person", "Eileen Collins", ("train", "live", "record"))
    assert consent.evidence["name"] == "form.pdf"


def test_the_persona_plays_in_its_makers_stream_at_once_and_stops_when_revoked(page: AppTest) -> None:
    live = AppTest.from_function(live_page, default_timeout=60).run()
    make(page)
    live.run()
    pick(live, "eileen")
    (viewer,) = shared.viewer_registry().viewers()
    assert viewer.choices.swap.persona == "eileen"
    session = viewer.pipeline.session
    assert session is not None
    result = session.process(Frame(astronaut().copy(), 0, 0.0))
    changed = np.abs(result.image.astype(int) - astronaut()).max(axis=2)
    x0, y0, x1, y1 = astronaut_face().box.astype(int)
    assert changed[y0:y1, x0:x1].mean() > 5
    changed[y0 - 40 : y1 + 40, x0 - 40 : x1 + 40] = 0
    assert changed.max() == 0

    page.button(key="revoke-eileen").click().run()
    live.run()
    assert "eileen" not in offered_names(live)
    assert viewer.choices.swap.persona == "ada"


def test_a_persona_is_removed_with_everything_it_was_made_of(page: AppTest) -> None:
    persona = make(page)
    page.button(key="remove_persona").click().run()
    assert not page.exception
    assert shelved(this_workspace()) == []
    assert not persona.folder.exists()


def test_clips_become_faces_of_which_bad_ones_are_dropped_by_a_click(page: AppTest, tmp_path: Path) -> None:
    persona = make(page)
    clip = astronaut_clip(tmp_path / "in.mp4", 30).read_bytes()
    page.file_uploader(key="faces-0").set_value([("walk.mp4", clip, "video/mp4")]).run()
    page.button(key="find_faces").click().run()
    assert not page.exception
    wait_until(lambda: states() == [JobState.DONE], timeout_s=100)
    page.run()
    before = Faceset.open(persona.faceset)
    assert len(before) >= 10
    crosses = [button for button in page.button if (button.key or "").startswith("face-")]
    assert len(crosses) == len(before)
    dropped = [crosses[0].key, crosses[3].key]
    for key in dropped:
        page.button(key=key).click().run()
    page.button(key="drop_faces").click().run()
    assert {f"face-{entry.id}" for entry in Faceset.open(persona.faceset)} == {
        f"face-{entry.id}" for entry in before
    } - set(dropped)
    work = rerun(page)
    assert (work.processes, work.pictures) == (0, 0)
    assert work.calls < 90_000 and work.files < 90
    assert find_faces(persona).kind == "faces"


def references_of(persona: ShelfPersona, is_better: bool) -> None:
    """Write what `training.references` leaves: one reference, and its figures."""
    persona.references.mkdir()
    still = cv2.imread(str(persona.info.still))
    cv2.imwrite(str(persona.references / "00.png"), cv2.convertScaleAbs(still, alpha=0.8))
    shutil.copyfile(persona.info.mesh, persona.references / "00.npy")
    figures = {"identity": 0.7, "ssim": 0.8, "delta_e": 4.0, "flicker": 1.0}
    note = {"count": 1, "is_better": is_better, "is_used": is_better, "figures": {"one": figures, "many": figures}}
    (persona.references / "references.json").write_text(json.dumps(note))
    key = trust_store().signing_key()
    write_record(
        persona.info.consent, extended(read_record(persona.info.consent), [persona.references / "00.png"], key)
    )


@pytest.mark.parametrize("is_better", [False, True])
def test_references_play_where_they_were_found_better_and_the_page_says_so(page: AppTest, is_better: bool) -> None:
    persona = make(page)
    before = persona.stamp
    references_of(persona, is_better)
    assert persona.stamp != before, "a stream opens it anew"
    assert len(persona.info.more) == is_better
    assert persona.refusal("live", trust_store().read()) == ""
    page.session_state["studio_step"] = "References"
    page.run()
    assert not page.exception
    (told,) = [box.value for box in page.success]
    assert ("They play" if is_better else "The photo plays") in told
    page.button_group(key="plays_by-eileen").set_value(not is_better).run()
    assert not page.exception
    assert len(persona.info.more) == (not is_better), "whoever asks for it gets it"


def test_a_trained_network_of_an_earlier_version_does_not_take_the_photos_place(page: AppTest) -> None:
    persona = make(page)
    old = persona.folder / "runs" / "1" / "out" / "bundle"
    build_tiny_bundle(old, personas={persona.name: persona.title})
    note = json.loads((persona.folder / "persona.json").read_text()) | {"is_played_by_still": False}
    (persona.folder / "persona.json").write_text(json.dumps(note))
    live = AppTest.from_function(live_page, default_timeout=60).run()
    pick(live, "eileen")
    (viewer,) = shared.viewer_registry().viewers()
    assert viewer.pipeline.session is not None
    swapped = viewer.pipeline.session.process(Frame(astronaut().copy(), 0, 0.0)).image
    x, y = astronaut_face().landmarks[2].astype(int)
    painted = swapped[y - 10 : y + 10, x - 10 : x + 10].reshape(-1, 3).mean(0)
    assert np.abs(painted - persona_colour(0)).max() > 60, "not the flat colour of that network"


@pytest.mark.timeout(300)
def test_clips_are_looked_through_beside_the_page_and_what_plays_is_registered(shipped_page: AppTest) -> None:
    page = shipped_page
    persona = make(page)
    persona.clips.mkdir(exist_ok=True)
    write_clip(persona.clips / "turns.mp4", [turned(yaw) for yaw in 25 * np.sin(np.linspace(0, 4 * np.pi, 36))])
    find_faces(persona)
    wait_until(lambda: states() == [JobState.DONE], timeout_s=100)
    learn(persona, frames=10)
    page.session_state["studio_step"] = "References"
    page.run()
    assert not page.exception
    wait_until(lambda: JobState.RUNNING not in states() and JobState.QUEUED not in states(), timeout_s=200)
    assert set(states()) == {JobState.DONE}
    page.run()
    assert not page.exception
    assert "its photo does not: the photo plays" in page.info[0].value, "the clip shows somebody else"
    assert persona.bundle is not None
    assert Bundle.load(persona.bundle).personas[0].title == "Eileen"


def test_persona_of_one_photo_plays_in_converted_clips(page: AppTest, tmp_path: Path) -> None:
    persona = make(page)
    clip = astronaut_clip(tmp_path / "in.mp4", 20)
    convert = AppTest.from_function(convert_page, default_timeout=60).run()
    titles = convert.selectbox(key="convert_persona").options
    convert.selectbox(key="convert_persona").set_value(titles.index(persona.title))
    convert.file_uploader[0].set_value([("in.mp4", clip.read_bytes(), "video/mp4")]).run()
    convert.button(key="convert").click().run()
    assert not convert.exception
    wait_until(lambda: set(states()) <= {JobState.DONE, JobState.FAILED}, timeout_s=90)
    assert states() == [JobState.DONE]
    (result,) = this_workspace().clips.glob("*/swapped.mp4")
    swapped, source = read_clip(result)[0], read_clip(clip)[0]
    assert len(swapped) == 20
    assert detect_file(result).is_found
    face, suit = np.s_[130:215, 190:255], np.s_[300:420, 60:340]
    changed = np.abs(source[10].astype(int) - swapped[10])
    assert changed[face].mean() > 5 * changed[suit].mean()
