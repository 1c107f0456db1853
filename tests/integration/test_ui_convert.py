"""The Convert page with real jobs: a clip goes in, the queue survives a reload, the result comes out."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.harness.pages import fresh_app, no_worker, rerun, states
from benchmarks.harness.waiting import wait_until
from tests.support.clips import read_clip, write_clip
from tests.support.real_faces import astronaut, astronaut_clip
from ui.session.workspace import job_queue
from understudy.jobs.queue import JobState
from understudy.media.clip import read_photo
from understudy.provenance.watermark_detector import detect_file


def convert_page() -> None:
    from ui.convert import page as convert

    convert.page()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    with fresh_app(tmp_path, monkeypatch):
        yield AppTest.from_function(convert_page, default_timeout=60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return astronaut_clip(tmp_path_factory.mktemp("clip") / "in.mp4", 40).read_bytes()


@pytest.fixture
def idle_queue(page: AppTest) -> Iterator[None]:
    with no_worker():
        yield


def upload(page: AppTest, name: str, content: bytes) -> AppTest:
    page.file_uploader[0].set_value([(name, content, "video/mp4")]).run()
    return page.button(key="convert").click().run()


def test_empty_page_says_what_to_do(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "Add a clip with a face" in page.info[0].value
    assert page.button(key="convert").disabled


def test_a_clip_is_swapped_in_another_process_and_found_again_after_a_reload(page: AppTest, clip: bytes) -> None:
    page.run()
    page.selectbox(key="convert_persona").set_value(1)
    upload(page, "My holiday.mp4", clip)
    assert not page.exception
    assert page.file_uploader[0].value == []
    wait_until(lambda: states() == [JobState.DONE], timeout_s=90)

    reloaded = AppTest.from_function(convert_page, default_timeout=60).run()
    assert [each.label for each in reloaded.expander if "holiday" in each.label] == ["My holiday.mp4 as Ben"]
    (download,) = reloaded.download_button
    assert download.proto.label == "Download"
    (result,) = Path(job_queue().folder.parent).glob("viewers/operator/clips/*/swapped.mp4")
    assert len(read_clip(result)[0]) == 40
    assert detect_file(result).is_found


def test_waiting_clips_can_be_paused_resumed_cancelled_and_removed(
    page: AppTest, clip: bytes, idle_queue: None
) -> None:
    page.run()
    upload(page, "a.mp4", clip)
    (job,) = job_queue().jobs()
    page.button(key=f"pause-{job.id}").click().run()
    assert states() == [JobState.PAUSED]
    page.button(key=f"resume-{job.id}").click().run()
    assert states() == [JobState.QUEUED]
    page.button(key=f"cancel-{job.id}").click().run()
    assert states() == [JobState.CANCELLED]
    page.button(key=f"remove-{job.id}").click().run()
    assert job_queue().jobs() == []
    assert list(Path(job_queue().folder.parent).glob("viewers/operator/clips/*")) == []


def test_options_reach_the_command(page: AppTest, clip: bytes, idle_queue: None) -> None:
    page.run()
    page.toggle(key="convert_own_eyes").set_value(True)
    page.toggle(key="convert_colour_match").set_value(False)
    page.slider(key="convert_shape").set_value(0.5)
    page.run()
    upload(page, "a.mp4", clip)
    (job,) = job_queue().jobs()
    command = " ".join(job.command)
    assert "--colour-match 0.0 --shape 0.5 --keep-occluders --own-eyes" in command
    assert "--cover blur --no-face cover" in command


def test_a_disguised_clip_is_refused_at_once_with_its_name(page: AppTest) -> None:
    page.run()
    upload(page, "holiday.mp4", b"<html>" + bytes(100))
    assert "'holiday.mp4' must be" in page.error[0].value
    assert job_queue().jobs() == []


def test_a_clip_that_breaks_when_decoded_fails_with_a_sentence(page: AppTest, clip: bytes) -> None:
    page.run()
    upload(page, "torn.mp4", clip[: len(clip) // 3])
    wait_until(lambda: states() == [JobState.FAILED], timeout_s=60)
    page.run()
    assert "torn.mp4" in page.error[0].value


def test_a_rerun_does_little_however_many_clips_wait(page: AppTest, clip: bytes, idle_queue: None) -> None:
    page.run()
    upload(page, "0.mp4", clip)
    one = rerun(page)
    for number in (1, 2):
        upload(page, f"{number}.mp4", clip)
    three = rerun(page)
    assert (three.processes, three.pictures) == (0, 0)
    assert three.calls < 50_000
    assert three.files - one.files <= 2 * 15, (
        "what one more clip may cost: its notes and its job, each read once or twice"
    )


def test_a_photo_is_converted_too(page: AppTest, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "me.png"), astronaut())
    page.run()
    page.file_uploader[0].set_value([("me & you.png", (tmp_path / "me.png").read_bytes(), "image/png")]).run()
    page.button(key="convert").click().run()
    assert not page.exception
    wait_until(lambda: states() == [JobState.DONE], timeout_s=90)
    (result,) = Path(job_queue().folder.parent).glob("viewers/operator/clips/*/swapped.png")
    assert read_photo(result).shape == (512, 512, 3)


def test_one_picture_can_be_seen_before_the_clip_is_converted(page: AppTest, clip: bytes, idle_queue: None) -> None:
    page.run()
    page.file_uploader[0].set_value([("holiday.mp4", clip, "video/mp4")]).run()
    page.slider(key="convert_at").set_value(1.0)
    page.button(key="convert_preview").click().run(timeout=120)
    assert not page.exception and not page.error
    assert any("pictures take" in caption.value for caption in page.caption)
    assert job_queue().jobs() == []


def test_scenes_that_were_not_swapped_are_shown_and_can_be_kept(page: AppTest, tmp_path: Path) -> None:
    wall = [np.full((512, 512, 3), 90, np.uint8)] * 4
    images = read_clip(astronaut_clip(tmp_path / "face.mp4", 8))[0]
    clip = write_clip(tmp_path / "in.mp4", [*images, *wall], [number / 10 for number in range(12)])
    page.run()
    upload(page, "two.mp4", clip.read_bytes())
    wait_until(lambda: states() == [JobState.DONE], timeout_s=90)
    page.run()
    assert any("4 pictures covered" in caption.value for caption in page.caption)
    (job,) = job_queue().jobs()
    page.button(key=f"again-{job.id}").click().run()
    again = next(each for each in job_queue().jobs() if each.id != job.id)
    assert "--no-face keep" in " ".join(again.command)
    assert "two.mp4" in " ".join(again.command)
