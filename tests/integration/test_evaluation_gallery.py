"""Strangers are embedded once: a file of the owner's answers the second time, picture by picture."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, moved
from training.evaluation.distractors import Distractors, embed_folder
from training.evaluation.observer import Observer
from understudy.media.guard import MediaError


@pytest.fixture(scope="module")
def observer() -> Observer:
    return Observer()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of the astronaut, one of nobody, a text."""
    folder = tmp_path / "faces"
    (folder / "more").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), astronaut())
    cv2.imwrite(str(folder / "more" / "b.jpg"), moved(astronaut(), 8, 1.3))
    cv2.imwrite(str(folder / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_every_face_picture_is_embedded_and_others_are_left_out(
    folder: Path, observer: Observer, tmp_path: Path
) -> None:
    found = embed_folder(folder, observer, tmp_path / "cache", is_quiet=True)
    assert found.names == ("a.png", "more/b.jpg")
    assert {name: rows.shape for name, rows in found.embeddings.items()} == {"sface": (2, 128), "dlib": (2, 128)}
    first, second = found.embeddings["sface"]
    assert first @ second > 0.8, "one person"


def test_the_second_time_the_cache_answers_and_only_new_pictures_are_looked_at(
    folder: Path, observer: Observer, tmp_path: Path
) -> None:
    before = embed_folder(folder, observer, tmp_path / "cache", is_quiet=True)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_mode & 0o077 == 0, "embeddings of people are for their owner alone"
    _mark(file)
    shutil.copy(folder / "a.png", folder / "copy.png")
    cv2.imwrite(str(folder / "c.png"), moved(astronaut(), -8, 1.1))
    after = embed_folder(folder, observer, tmp_path / "cache", is_quiet=True)
    assert after.names == ("a.png", "c.png", "copy.png", "more/b.jpg")
    assert np.abs(after.embeddings["sface"][[0, 2, 3]]).max() == 0, "what the cache says is believed"
    assert after.embeddings["sface"][1] @ before.embeddings["sface"][0] > 0.8


def test_a_damaged_cache_is_made_anew(folder: Path, observer: Observer, tmp_path: Path) -> None:
    before = embed_folder(folder, observer, tmp_path / "cache", is_quiet=True)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    after = embed_folder(folder, observer, tmp_path / "cache", is_quiet=True)
    assert np.array_equal(before.embeddings["dlib"], after.embeddings["dlib"])


@pytest.mark.parametrize("content", ["nothing", "a wall"])
def test_a_gallery_without_faces_is_refused(content: str, observer: Observer, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    if content == "a wall":
        cv2.imwrite(str(folder / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(MediaError, match=r"must hold pictures of faces.*--gallery"):
        embed_folder(folder, observer, tmp_path / "cache", is_quiet=True)


def test_further_pictures_of_the_persona_are_no_strangers() -> None:
    rows = np.eye(128, dtype=np.float32)[:3]
    strangers = Distractors(("own", "near", "far"), {"sface": rows, "dlib": rows * 2})
    wanted = 0.9 * rows[0] + np.sqrt(1 - 0.9**2) * rows[1]
    left = strangers.without(wanted, 0.8)
    assert left.names == ("near", "far")
    assert np.array_equal(left.embeddings["dlib"], rows[1:] * 2)


def _mark(file: Path) -> None:
    """Put zeros in the place of every SFace vector that the cache holds."""
    with np.load(file) as data:
        values = dict(data)
    values["sface"] = np.zeros_like(values["sface"])
    np.savez(file, **values)
