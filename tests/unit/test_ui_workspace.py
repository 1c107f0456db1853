"""Whose files are whose: only this machine is the operator, and strangers' files go with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from ui.parts.uploads import keep_upload, keep_uploads
from ui.session.settings import app_settings
from ui.session.workspace import discard, is_operator, job_queue
from understudy.jobs.queue import JobState
from understudy.media.guard import MediaError


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("UNDERSTUDY_WORK", str(tmp_path / "work"))
    app_settings.cache_clear()
    job_queue.cache_clear()
    yield
    app_settings.cache_clear()
    job_queue.cache_clear()


class Sent:
    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = content

    def getvalue(self) -> bytes:
        return self._content


@pytest.mark.parametrize(
    ("headers", "address", "expected"),
    [
        ({"Host": "localhost:8501", "Origin": "http://localhost:8501"}, "127.0.0.1", True),
        ({}, "127.0.0.1", True),
        ({"Host": "localhost:8501"}, "0.0.0.0", False),
        ({"Host": "localhost:8501"}, "", False),
        ({"Host": "faces.example", "Origin": "https://faces.example"}, "127.0.0.1", False),
        ({"Host": "127.0.0.1:8501", "Origin": "https://faces.example"}, "127.0.0.1", False),
        ({"Host": "localhost", "X-Forwarded-For": "203.0.113.9"}, "127.0.0.1", False),
    ],
)
def test_only_a_page_on_this_machine_is_the_operators(headers: dict[str, str], address: str, expected: bool) -> None:
    assert is_operator(headers, address) is expected


def test_discarding_a_folder_cancels_its_jobs_and_no_others(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "mine-too"
    mine.mkdir()
    other.mkdir()
    doomed = job_queue().submit("convert", "a", ("program", str(mine / "clip.mp4")))
    spared = job_queue().submit("convert", "b", ("program", str(other / "clip.mp4")))
    discard(mine)
    assert not mine.exists()
    assert job_queue().job(doomed.id).state is JobState.CANCELLED
    assert job_queue().job(spared.id).state is JobState.QUEUED


def test_an_upload_keeps_none_of_its_senders_name_but_the_extension(tmp_path: Path) -> None:
    path = keep_upload(Sent("../../evil name.PNG", b"\x89PNG\r\n\x1a\n" + bytes(60)), tmp_path, "photo")
    assert path == tmp_path / "photo.png"


def test_a_disguised_upload_is_refused_under_its_own_name_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"'holiday\.mp4'"):
        keep_upload(Sent("holiday.mp4", b"<html>" + bytes(60)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def workspace_page() -> None:
    import streamlit as st

    from ui.session.workspace import is_local_or_logged_in, this_workspace

    st.text(str(this_workspace().folder))
    st.text(f"{this_workspace().is_kept} {is_local_or_logged_in()}")


@pytest.fixture
def _public() -> Iterator[None]:
    before = config.get_option("server.address")
    config.set_option("server.address", "0.0.0.0")
    yield
    config.set_option("server.address", before)


def test_whoever_sits_at_this_machine_finds_their_files_again() -> None:
    first, second = (AppTest.from_function(workspace_page).run() for _ in range(2))
    assert first.text[0].value == second.text[0].value
    assert first.text[1].value == "True True"


@pytest.mark.usefixtures("_public")
def test_a_strangers_files_are_apart_and_go_with_the_page_and_they_neither_train_nor_promote() -> None:
    page = AppTest.from_function(workspace_page).run()
    folder = Path(page.text[0].value)
    assert folder.name.startswith("visitor-") and folder.is_dir()
    assert page.text[1].value == "False False"
    assert page.run().text[0].value == str(folder)
    st.cache_resource.clear()  # what Streamlit does with a session's things when its page closes
    assert not folder.exists()


def test_uploads_keep_their_senders_names_and_none_overwrites_another(tmp_path: Path) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(60)
    sent = ["my walk.png", "../My walk.png", "my walk (2).png", "my walk.png"]
    kept = keep_uploads([Sent(name, picture + bytes([i])) for i, name in enumerate(sent)], tmp_path)
    assert [path.name for path in kept] == ["my walk.png", "My walk (2).png", "my walk (2) (2).png", "my walk (3).png"]
    assert [path.read_bytes()[-1] for path in kept] == [0, 1, 2, 3]
