"""Side-by-side clips of an evaluation: one at a time, chosen by name, the same one in every column."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.support.clips import write_clip
from tests.support.real_faces import astronaut


def clips_page(folder: str) -> None:
    from pathlib import Path

    from ui.parts.figures import show_clips

    show_clips({"New": Path(folder) / "new", "Old": Path(folder) / "old"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for side, names in {"new": ("a", "b"), "old": ("b",)}.items():
        (tmp_path / side).mkdir()
        for name in names:
            write_clip(tmp_path / side / f"{name}.mp4", [astronaut()] * 2, [0.0, 0.1])
    return tmp_path


def alts(page: AppTest) -> list[str]:
    return [video.proto.alt for video in page.get("video")]


def test_clip_is_chosen_by_name_and_shown_on_both_sides(folder: Path) -> None:
    page = AppTest.from_function(clips_page, kwargs={"folder": str(folder)}).run()
    assert page.button_group[0].options == ["a", "b"]
    assert alts(page) == ["New: the source beside the swap"], "the other side has no such clip"
    assert [caption.value for caption in page.caption] == ["No clip was kept."]
    page.button_group[0].set_value("b.mp4").run()
    assert alts(page) == ["New: the source beside the swap", "Old: the source beside the swap"]
    assert not page.caption
