"""Who plays: own personas by name or title, any photo with its record, and one persona for each of several people."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS, persona_colour
from liveframe.frame import Image
from tests.support.clips import read_clip, write_clip
from tests.support.real_faces import astronaut, astronaut_clip
from understudy.bundle.bundle import default_bundle
from understudy.consent.check import synthetic_record
from understudy.consent.trust_store import TrustStore
from understudy.convert import main
from understudy.personas import main as list_personas
from understudy.provenance.c2pa import provenance_from
from understudy.swap.own_personas import persona_of_photo
from understudy.swap.people import PeopleError, read_rule
from understudy.vision.detect import FaceDetector

_FACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "machine_faces"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, the operator's keys, a clip, a photo and its record."""
    folder = tmp_path_factory.mktemp("room")
    build_consented_bundle(folder / "bundle", PERSONAS, folder / "trust")
    astronaut_clip(folder / "in.mp4", 8)
    shutil.copy(next(default_bundle().glob("nils/reference.png")), folder / "me.png")  # somebody else than in the clip
    key = TrustStore(folder / "trust").signing_key()
    (folder / "me.json").write_text(json.dumps(synthetic_record("Nora", {"by": "a test"}, [folder / "me.png"], key)))
    return folder


@pytest.fixture(autouse=True)
def _operator(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(room / "trust"))
    monkeypatch.setenv("UNDERSTUDY_WORK", str(tmp_path / "work"))


def run(room: Path, *arguments: object) -> int:
    return main([*map(str, arguments), "--bundle", str(room / "bundle")])


def own_persona(room: Path, work: Path) -> Path:
    """Put a persona of one photo where the Studio keeps them."""
    folder = work / "viewers" / "operator" / "personas" / "nora-2"
    persona_of_photo(room / "me.png", room / "me.json", folder, room / "bundle")
    key = TrustStore(room / "trust").signing_key()
    (folder / "consent.json").write_text(
        json.dumps(synthetic_record("nora-2", {"by": "x"}, [folder / "still.png"], key))
    )
    (folder / "persona.json").write_text(json.dumps({"title": "Nora B."}))
    return folder


@pytest.mark.parametrize("word", ["nora-2", "NORA-2", "nora b."])
def test_own_personas_play_by_name_or_title(room: Path, tmp_path: Path, word: str) -> None:
    own_persona(room, tmp_path / "work")
    assert run(room, room / "in.mp4", tmp_path / "out.mp4", "--persona", word) == 0
    verdict = provenance_from({"UNDERSTUDY_HOME": str(room / "trust")}).verify(tmp_path / "out.mp4")
    assert verdict.is_trusted and verdict.facts is not None and verdict.facts["persona"] == "nora-2"


def test_own_personas_are_listed(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_persona(room, tmp_path / "work")
    assert list_personas(["--bundle", str(room / "bundle"), "--long"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("nora-2\tNora B.\tby its photo\t")


def test_any_photo_plays_with_its_record(room: Path, tmp_path: Path) -> None:
    options = ["--photo", room / "me.png", "--consent", room / "me.json"]
    assert run(room, room / "in.mp4", tmp_path / "out.mp4", *options) == 0
    verdict = provenance_from({"UNDERSTUDY_HOME": str(room / "trust")}).verify(tmp_path / "out.mp4")
    assert verdict.facts is not None and verdict.facts["persona"] == "Nora"


def test_a_photo_without_its_own_record_is_refused(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = np.ascontiguousarray(astronaut()[:, ::-1])
    cv2.imwrite(str(tmp_path / "other.png"), other)
    options = ["--photo", tmp_path / "other.png", "--consent", room / "me.json"]
    assert run(room, room / "in.mp4", tmp_path / "out.mp4", *options) == 1
    assert "must list 'other.png'" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_a_photo_of_two_people_is_refused(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "two.png"), np.hstack([astronaut(), astronaut()]))
    options = ["--photo", tmp_path / "two.png", "--consent", room / "me.json"]
    assert run(room, room / "in.mp4", tmp_path / "out.mp4", *options) == 1
    assert "must show one person, but shows 2" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ several people


@pytest.fixture(scope="module")
def two_people() -> tuple[Image, Image]:
    """Two machine-made faces, each 360 px square with one face in it."""
    if not _FACES.is_dir():
        pytest.skip("needs two different faces: ../shared/data/machine_faces is not there")
    found: list[Image] = []
    for path in sorted(_FACES.glob("*.webp"))[:12]:
        image = np.asarray(cv2.resize(cv2.imread(str(path)), (360, 360)), np.uint8)
        faces = FaceDetector().detect(image)
        if len(faces) == 1 and faces[0].score > 0.85:
            found.append(image)
    return found[0], found[-1]


@pytest.fixture
def crossing(two_people: tuple[Image, Image], tmp_path: Path) -> Path:
    """Six frames with one person left and one right, a cut, and six with their places exchanged."""
    one, two = two_people
    frames = [np.hstack([one, two])] * 6 + [np.hstack([two, one])] * 6
    return write_clip(tmp_path / "two.mp4", frames, [number / 10 for number in range(12)])


def towards(image: Image, raw: Image, half: int) -> int:
    """Which persona of the tiny bundle was painted in a half: 0, 1, or -1 for neither."""
    part = slice(half * 360 + 120, half * 360 + 240)
    change = image[120:240, part].astype(float).mean(axis=(0, 1)) - raw[120:240, part].astype(float).mean(axis=(0, 1))
    if np.abs(change).max() < 8:
        return -1
    painted = image[120:240, part].astype(float).mean(axis=(0, 1))
    return int(np.argmin([np.abs(painted - persona_colour(number)).sum() for number in range(2)]))


@pytest.mark.parametrize("by", ["place", "picture"])
def test_each_person_keeps_their_persona_through_a_cut(
    room: Path, tmp_path: Path, crossing: Path, two_people: tuple[Image, Image], by: str
) -> None:
    for number, image in enumerate(two_people):
        cv2.imwrite(str(tmp_path / f"who{number}.png"), image)
    first, second = ("left", "right") if by == "place" else (tmp_path / "who0.png", tmp_path / "who1.png")
    rules = ["--map", f"{first}=Ada", "--map", f"{second}=ben", "--colour-match", 0]
    assert run(room, crossing, tmp_path / "out.mp4", *rules) == 0
    before, after = read_clip(crossing)[0], read_clip(tmp_path / "out.mp4")[0]
    assert [towards(after[4], before[4], half) for half in (0, 1)] == [0, 1]
    assert [towards(after[11], before[11], half) for half in (0, 1)] == [1, 0]
    verdict = provenance_from({"UNDERSTUDY_HOME": str(room / "trust")}).verify(tmp_path / "out.mp4")
    assert verdict.facts is not None and set(verdict.facts["persona"].split(", ")) == {"ada", "ben"}


def test_a_person_may_be_left_as_they_are(
    room: Path, tmp_path: Path, crossing: Path, two_people: tuple[Image, Image]
) -> None:
    rules = ["--map", "right=keep", "--persona", "ben", "--colour-match", 0]
    assert run(room, crossing, tmp_path / "out.mp4", *rules) == 0
    before, after = read_clip(crossing)[0], read_clip(tmp_path / "out.mp4")[0]
    assert [towards(after[4], before[4], half) for half in (0, 1)] == [1, -1]
    assert [towards(after[11], before[11], half) for half in (0, 1)] == [-1, 1]


def test_rules_are_read_or_refused() -> None:
    assert read_rule("a=b.jpg=ada") == ("a=b.jpg", "ada")
    assert read_rule("left=Keep") == ("left", "")
    for text in ("", "left", "=ada", "left="):
        with pytest.raises(PeopleError, match="must be like"):
            read_rule(text)
