"""The Studio page: a photo and a permission become a persona that plays at once; clips become a faceset."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import offered_names, pick
from benchmarks.harness.pages import fresh_app, rerun, states
from benchmarks.harness.waiting import wait_until
from liveframe.frame import Frame, Image
from tests.support.clips import read_clip
from tests.support.real_faces import astronaut, astronaut_clip, astronaut_face, moved
from ui.session import shared
from ui.session.own_personas import ShelfPersona, shelved, trust_store
from ui.session.settings import app_settings
from ui.session.workspace import this_workspace
from ui.studio import composite_job
from ui.studio.faces_panel import find_faces
from ui.studio.training_runs import RECIPES, curves, start
from understudy.consent.check import read_record
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


def convert_page() -> None:
    from ui.convert import page as convert

    convert.page()


def photo() -> bytes:
    # Another look than the astronaut's own, so that the swap can be told from the camera.
    tinted = moved(astronaut(), 4, 1.6)[..., ::-1]
    return cv2.imencode(".png", tinted)[1].tobytes()


def redness_correlation(one: Image, other: Image) -> float:
    maps = [cv2.blur(crop[..., 2].astype(np.float32) - crop[..., 0], (5, 5)) for crop in (one, other)]
    return float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])


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


def test_a_composite_of_too_few_faces_is_refused(page: AppTest) -> None:
    page.run()
    page.button_group(key="face_from").set_value("composite").run()
    page.text_input(key="composite_title-0").set_value("Nobody")
    page.file_uploader(key="composite_files-0").set_value([(f"{n}.png", photo(), "image/png") for n in range(3)])
    page.button(key="make_composite").click().run()
    assert "must be made of 40 pictures or more, but got 3" in page.error[0].value
    assert states() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_of_faces_becomes_a_persona_that_is_nobody(page: AppTest, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    for number in range(composite_job.LEAST_FACES):
        turned = moved(astronaut(), number / 4 - 5, 1.1 + number / 100)
        cv2.imwrite(str(tmp_path / "faces" / f"{number}.jpg"), turned)
    workspace = this_workspace()
    options = ["--title", "Nobody", "--source", "tests", "--workspace", str(workspace.folder)]
    assert composite_job.main([str(tmp_path / "faces"), *options, "--trust", str(tmp_path / "trust")]) == 0
    (persona,) = shelved(workspace)
    assert persona.persona().kind == "synthetic"
    assert persona.refusal("live", trust_store().read()) == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_runs_beside_the_page_survives_a_reload_and_its_network_plays(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    persona = make(page)
    drivers = tmp_path / "drivers"
    drivers.mkdir()
    for number in range(12):
        cv2.imwrite(str(drivers / f"{number}.jpg"), moved(astronaut(), number - 6, 1.2))
    monkeypatch.setenv("UNDERSTUDY_DRIVERS", str(drivers))
    app_settings.cache_clear()
    run = start(persona, RECIPES[0], ["iterations=6", "preview_every=3", "checkpoint_every=3", "batch=2", "warm_up=1"])

    wait_until(lambda: curves(run), timeout_s=400)
    reloaded = AppTest.from_function(studio_page, default_timeout=60)
    reloaded.session_state["studio_persona"] = persona.name
    reloaded.session_state["studio_step"] = "Training"
    reloaded.run()
    assert not reloaded.exception
    wait_until(lambda: states() == [JobState.DONE], timeout_s=400)
    reloaded.run()
    assert "has a network of its own" in reloaded.success[0].value
    assert persona.bundle == run.bundle is not None
    assert not run.pairs.exists()

    live = AppTest.from_function(live_page, default_timeout=60).run()
    pick(live, "eileen")
    (viewer,) = shared.viewer_registry().viewers()
    assert viewer.pipeline.session.process(Frame(astronaut().copy(), 0, 0.0)).subjects_found == 1


def test_persona_of_one_photo_plays_in_converted_clips(page: AppTest, tmp_path: Path) -> None:
    persona = make(page)
    clip = astronaut_clip(tmp_path / "in.mp4", 20)
    convert = AppTest.from_function(convert_page, default_timeout=60).run()
    titles = convert.selectbox(key="convert_persona").options
    convert.selectbox(key="convert_persona").set_value(titles.index(persona.title))
    convert.file_uploader[0].set_value([("in.mp4", clip.read_bytes(), "video/mp4")]).run()
    convert.button(key="convert").click().run()
    assert not convert.exception
    wait_until(lambda: states() == [JobState.DONE], timeout_s=90)
    (result,) = this_workspace().clips.glob("*/swapped.mp4")
    swapped, source = read_clip(result)[0], read_clip(clip)[0]
    assert len(swapped) == 20
    assert detect_file(result).is_found
    # The colour match gives the photo's face the astronaut's mean colour, but its lips stay bluer than its skin.
    face, suit = np.s_[130:215, 190:255], np.s_[300:420, 60:340]
    assert redness_correlation(source[10][face], swapped[10][face]) < 0.7
    assert redness_correlation(source[10][suit], swapped[10][suit]) > 0.99
