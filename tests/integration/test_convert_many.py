"""The command on photos, folders and single frames: what it writes, says and returns."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS
from tests.support.clips import numbered, read_clip, write_clip
from tests.support.real_faces import astronaut, astronaut_clip
from understudy.convert import main
from understudy.media.clip import read_photo
from understudy.provenance.c2pa import provenance_from


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    build_consented_bundle(folder / "bundle", PERSONAS, folder / "trust")
    astronaut_clip(folder / "in.mp4", 8)
    cv2.imwrite(str(folder / "in.png"), astronaut())
    return folder


@pytest.fixture(autouse=True)
def _operator(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(room / "trust"))
    monkeypatch.setenv("UNDERSTUDY_WORK", str(room / "work"))


def run(room: Path, *arguments: object) -> int:
    return main([*map(str, arguments), "--bundle", str(room / "bundle")])


def is_trusted(room: Path, path: Path) -> bool:
    return provenance_from({"UNDERSTUDY_HOME": str(room / "trust")}).verify(path).is_trusted


@pytest.mark.parametrize("name", ["out.jpg", "out.webp"])
def test_a_photo_comes_out_swapped_signed_and_without_metadata(room: Path, tmp_path: Path, name: str) -> None:
    exif = Pictures.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    sideways = np.ascontiguousarray(np.rot90(astronaut()))
    Pictures.fromarray(sideways[..., ::-1]).save(tmp_path / "in.jpg", exif=exif, quality=95)
    assert run(room, tmp_path / "in.jpg", tmp_path / name, "--persona", "Ada") == 0
    after = read_photo(tmp_path / name)
    change = np.abs(after.astype(int) - astronaut()).mean(axis=2)
    assert change[60:180, 170:270].mean() > 12  # the face
    assert change[300:, 100:200].mean() < 8  # the suit: upright, and as it was
    assert is_trusted(room, tmp_path / name)
    with Pictures.open(tmp_path / name) as written:
        assert "A camera" not in str(dict(written.getexif()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jpg", name]


def test_a_photo_without_a_face_gives_a_sentence_and_no_file(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 300, 3), 120, np.uint8))
    assert run(room, tmp_path / "wall.png", tmp_path / "out.jpg") == 1
    assert "'wall.png' must show faces" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["wall.png"]


def test_a_folder_by_several_personas_is_done_once_and_told(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media = tmp_path / "media"
    (media / "in").mkdir(parents=True)
    (media / "a.mp4").write_bytes((room / "in.mp4").read_bytes())
    (media / "in" / "b.png").write_bytes((room / "in.png").read_bytes())
    (media / "torn.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(100))
    out = tmp_path / "out"
    assert run(room, media, out, "--persona", "ada", "Ben") == 1  # one of them is torn
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 6 and sum("8 swapped" in line for line in told) == 2
    made = ["a-ada.mp4", "a-ben.mp4", "in/b-ada.png", "in/b-ben.png"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == made
    assert all(is_trusted(room, out / name) for name in made)
    (media / "torn.mp4").unlink()
    assert run(room, media, out, "--persona", "ada", "Ben") == 0
    assert capsys.readouterr().out.count("there already") == 4


def test_patterns_and_options_before_paths_are_understood(room: Path, tmp_path: Path) -> None:
    assert main(["--bundle", str(room / "bundle"), "--persona", "ada", str(room / "*.mp4"), str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in-ada.mp4"]


def test_a_preview_shows_the_frame_at_the_start_and_nothing_else(room: Path, tmp_path: Path) -> None:
    assert run(room, room / "in.mp4", "--preview", tmp_path / "look.jpg", "--start", "0:00.4") == 0
    frame = read_clip(room / "in.mp4")[0][4]
    shown = read_photo(tmp_path / "look.jpg")
    assert shown.shape == frame.shape
    assert np.abs(shown.astype(int) - frame)[300:, 250:].mean() < 8
    assert is_trusted(room, tmp_path / "look.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["look.jpg"]


@pytest.mark.parametrize("name", ["out.webm", "out.gif"])
def test_other_containers_are_signed_too(room: Path, tmp_path: Path, name: str) -> None:
    assert run(room, room / "in.mp4", tmp_path / name) == 0
    assert is_trusted(room, tmp_path / name)


def test_what_was_not_swapped_is_told_with_the_reason(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = read_clip(room / "in.mp4")[0]
    wall = [numbered(number, 512, 512) for number in range(4)]
    clip = write_clip(tmp_path / "in.mp4", [*seen, *wall], [number / 10 for number in range(12)])
    assert run(room, clip, tmp_path / "out.mp4", "--progress", tmp_path / "told.json") == 0
    assert "0.80 s to 1.10 s: 4 covered: " in capsys.readouterr().out
    assert '"outcome": "covered"' in (tmp_path / "told.json").read_text()


@pytest.mark.parametrize(
    "arguments",
    [["in.mp4"], ["in.mp4", "out.mp4", "--photo", "a.jpg"], ["in.mp4", "out.mp4", "--start", "x"], ["--height"]],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "understudy.convert: error:" in capsys.readouterr().err
