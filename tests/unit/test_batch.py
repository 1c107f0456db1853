"""Folders and patterns become tasks: each source by each persona, none twice under one name."""

from pathlib import Path

import pytest

from understudy.media.batch import BatchError, find_sources, plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.mov", "in/a.jpg", "in/.hidden.mp4", ".cache/c.mp4", "notes.txt", "12:30.mkv"):
        path = tmp_path / "media" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "media"


def test_folders_are_searched_to_the_bottom(folder: Path) -> None:
    found = [place.as_posix() for _, place in find_sources([folder])]
    assert found == ["12:30.mkv", "a.mov", "b.mp4", "in/a.jpg"]


def test_patterns_find_files_unless_one_is_called_that(folder: Path) -> None:
    assert [place.name for _, place in find_sources([folder / "*.m*"])] == ["12:30.mkv", "a.mov", "b.mp4"]
    (folder / "[1].mp4").touch()
    assert [place.name for _, place in find_sources([folder / "[1].mp4"])] == ["[1].mp4"]


def test_nothing_to_convert_is_said(folder: Path) -> None:
    with pytest.raises(BatchError, match="does not exist"):
        find_sources([folder / "nowhere.mp4"])
    for given in (folder / "*.xyz", folder / ".cache" / ".."):
        (folder / "empty").mkdir(exist_ok=True)
        with pytest.raises(BatchError, match="there are none"):
            find_sources([given if "*" in str(given) else folder / "empty"])


def test_every_source_by_every_persona_under_names_of_their_own(folder: Path) -> None:
    (folder / "a.mp4").touch()
    tasks = plan(find_sources([folder]), Path("out"), ["ada", "Ben B."], ".mp4")
    assert len(tasks) == 10 == len({task.target for task in tasks})
    names = {task.target.as_posix() for task in tasks if task.persona == "Ben B."}
    assert {"out/a.mov-ben-b-.mp4", "out/a.mp4-ben-b-.mp4", "out/b-ben-b-.mp4", "out/in/a-ben-b-.jpg"} <= names
    assert plan(find_sources([folder / "b.mp4"]), Path("out"), [""], ".mov")[0].target == Path("out/b-swapped.mov")
