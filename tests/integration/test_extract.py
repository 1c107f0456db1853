"""Extraction of real faces from real files, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.real_faces import SHARED, astronaut, astronaut_clip, astronaut_face, moved, write_clip
from training.data.find_faces import FindOptions
from training.extract import ExtractOptions, Summary, extract, main
from understudy.faceset.faceset import JOURNAL, Faceset, FacesetError
from understudy.vision.align import mean_mesh
from understudy.vision.dlib_landmarks import eye_distance
from understudy.vision.embedding import SFaceEmbedder

ROOT = Path(__file__).parents[2]


def run(*paths: Path, out: Path, **options: object) -> Summary:
    find = FindOptions(size=128, **options.pop("find", {}))  # type: ignore[arg-type]
    return extract(ExtractOptions(paths, out, find, is_quiet=True, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return astronaut_clip(tmp_path_factory.mktemp("clips") / "astronaut.mp4")


@pytest.fixture(scope="module")
def stranger() -> np.ndarray:
    faces = sorted((SHARED / "generated_faces/male").glob("*/*.jpg"))
    if not faces:
        pytest.skip("needs ../shared/data/generated_faces, which is not here")
    return cv2.imread(str(faces[0]))


def test_clip_becomes_a_faceset(clip: Path, tmp_path: Path) -> None:
    summary = run(clip, out=tmp_path / "faces")
    faceset = Faceset.open(tmp_path / "faces")
    faceset.verify()
    assert summary.kept == len(faceset) == 12 and summary.identities == {0: 12}
    assert [entry.frame_index for entry in faceset] == list(range(12))
    assert faceset[5].time_s == pytest.approx(0.5) and faceset[5].name == str(clip)
    assert faceset.info.is_finished and faceset.info.hash == faceset.hash()
    for name in ("sheet.jpg", "poses.png"):
        assert cv2.imread(str(tmp_path / "faces" / name)).std() > 10


def test_crops_are_aligned_and_hold_the_person(clip: Path, tmp_path: Path) -> None:
    run(clip, out=tmp_path / "faces")
    faceset, embedder = Faceset.open(tmp_path / "faces"), SFaceEmbedder()
    person = embedder.embed(astronaut(), astronaut_face())
    for entry in faceset:
        off = np.linalg.norm(entry.mesh[[33, 263, 2], :2] - mean_mesh()[[33, 263, 2], :2] * 128, axis=1)
        assert off.max() < 0.1 * eye_distance(entry.mesh)
        assert embedder.similarity(embedder.embed(faceset.crop(entry), entry.face_in_crop), person) > 0.6
    rolls = np.array([entry.pose.roll for entry in faceset])
    assert np.abs(rolls).max() < 6  # crops are upright though the frames sway by 12 degrees


def test_second_run_changes_nothing(clip: Path, tmp_path: Path) -> None:
    run(clip, out=tmp_path / "faces")
    before = {path.name: path.read_bytes() for path in (tmp_path / "faces").iterdir() if path.is_file()}
    again = run(clip, out=tmp_path / "faces")
    assert again.frames == 0 and again.kept == 12
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "faces").iterdir() if path.is_file()}


def test_new_clip_is_added_to_a_finished_faceset(clip: Path, tmp_path: Path) -> None:
    run(clip, out=tmp_path / "faces")
    other = write_clip(tmp_path / "more.mp4", [moved(astronaut(), a, 1.3) for a in (0, 5, 10)])
    summary = run(clip, other, out=tmp_path / "faces")
    assert (summary.frames, summary.kept, summary.identities) == (3, 15, {0: 15})


def test_odd_pictures_are_read_and_unreadable_ones_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    alpha = np.dstack([astronaut(), np.full((512, 512), 255, np.uint8)])
    alpha[300:, :, 3] = 0
    cv2.imwrite(str(photos / "alpha.png"), alpha)
    cv2.imwrite(str(photos / "gray.png"), cv2.cvtColor(astronaut(), cv2.COLOR_BGR2GRAY))
    cv2.imwrite(str(photos / "odd.jpg"), astronaut()[:333, :411])
    cv2.imwrite(str(photos / "deep.png"), astronaut().astype(np.uint16) * 257)
    cv2.imwrite(str(photos / "plain.png"), np.full((99, 99, 3), 90, np.uint8))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (photos / "notes.txt").write_text("hello")
    (photos / "copy.jpg").write_bytes((photos / "odd.jpg").read_bytes())
    assert main([str(photos), "--out", str(tmp_path / "faces"), "--quiet"]) == 0
    faceset, errors = Faceset.open(tmp_path / "faces"), capsys.readouterr().err
    kept = {Path(entry.name).name for entry in faceset}
    assert kept == {"alpha.png", "gray.png", "copy.jpg", "deep.png"} and len(faceset.identities) == 1
    assert "broken.jpg" in errors and "notes.txt" in errors and "odd.jpg' has the same content as" in errors
    assert "plain.png' has no face to keep (none was seen)" in errors and "Traceback" not in errors


def test_two_people_are_kept_apart_and_one_can_be_chosen(clip: Path, stranger: np.ndarray, tmp_path: Path) -> None:
    both = [np.hstack([moved(astronaut(), a, 1.2), cv2.resize(stranger, (512, 512))]) for a in (-5, 0, 5)]
    together = write_clip(tmp_path / "both.mp4", both)
    summary = run(clip, together, out=tmp_path / "faces")
    faceset = Faceset.open(tmp_path / "faces")
    assert summary.identities == {0: 15, 1: 3}
    assert {entry.identity for entry in faceset if entry.landmarks[2, 0] > 512} == {1}
    chosen = run(clip, together, out=tmp_path / "chosen", identity="largest")
    assert chosen.identities == {0: 15} and chosen.left_out["other people"] == 3
    only = Faceset.open(tmp_path / "chosen")
    only.verify()
    assert len(list((tmp_path / "chosen/crops").iterdir())) == 15


def test_faces_are_left_out_by_reason(tmp_path: Path) -> None:
    blurred = cv2.GaussianBlur(astronaut(), (0, 0), 3)
    tiny = cv2.copyMakeBorder(cv2.resize(astronaut(), (100, 100)), 0, 60, 0, 60, cv2.BORDER_REPLICATE)
    cut = np.ascontiguousarray(astronaut()[:, 200:])
    for name, image in (("good", astronaut()), ("blurred", blurred), ("tiny", tiny), ("cut", cut)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    summary = run(tmp_path, out=tmp_path.with_name("faces"), find={"min_sharpness": 20.0})
    assert summary.kept == 1
    assert summary.left_out == {"blurred": 1, "too small": 1, "cut off by the frame": 1}


def test_mesh_that_dlib_disagrees_with_is_left_out(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(FacesetError, match=r"all left out: 12 misaligned \(dlib disagrees\)"):
        run(clip, out=tmp_path / "faces", find={"max_disagreement": 0.005})


def test_clip_without_faces_is_an_error_that_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write_clip(tmp_path / "wall.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 5)
    for _ in range(2):  # the second run knows it from the journal
        assert main([str(empty), "--out", str(tmp_path / "faces"), "--quiet"]) == 1
        said = capsys.readouterr().err
        assert "wall.mp4 must show at least one usable face, but gave none (no face was seen)" in said


def test_shared_clip_without_faces_gives_none(tmp_path: Path) -> None:
    path = SHARED / "clips/no_face.mp4"
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not here")
    with pytest.raises(FacesetError, match="no face was seen"):
        run(path, out=tmp_path / "faces", every=4)


def test_missing_path_and_empty_folder_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for path, says in (("nowhere.mp4", "does not exist"), ("empty", "hold no file")):
        assert main([str(tmp_path / path), "--out", str(tmp_path / "faces"), "--quiet"]) == 1
        assert says in capsys.readouterr().err


def test_person_who_is_not_there_is_an_error(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(FacesetError, match="--identity must be below 1"):
        run(clip, out=tmp_path / "faces", identity="4")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return astronaut_clip(tmp_path_factory.mktemp("long") / "long.mp4", frames=320)


@pytest.fixture(scope="module")
def undisturbed(long_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("undisturbed") / "faces"
    run(long_clip, out=out)
    return Faceset.open(out).hash()


def killed_after(delay_s: float, clip: Path, out: Path) -> int:
    """Run the command line in a process, and kill it `delay_s` after its first sign of work."""
    command = [sys.executable, "-m", "training.extract", str(clip), "--out", str(out), "--size", "128", "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out / "faceset.json").exists():
        time.sleep(0.01)
    try:
        return process.wait(delay_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        return process.wait()


def kill_and_resume(times: int, clip: Path, out: Path, expected: str) -> None:
    rng, done, codes = np.random.default_rng(times), 0, []
    for _ in range(times):
        codes.append(killed_after(float(rng.uniform(0.2, 4.0)), clip, out))
        source = next(iter(Faceset.open(out).sources.values()), None)
        chunks = source.chunks if source else 0
        assert chunks >= done  # what was committed is never lost
        done = chunks
    assert -signal.SIGKILL in codes
    run(clip, out=out)
    faceset = Faceset.open(out)
    faceset.verify()
    assert faceset.hash() == expected
    assert len(list((out / "crops").iterdir())) == len(faceset)


def test_killed_extraction_goes_on_to_the_same_faceset(long_clip: Path, undisturbed: str, tmp_path: Path) -> None:
    kill_and_resume(3, long_clip, tmp_path / "faces", undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_extraction_killed_twenty_times_goes_on(long_clip: Path, undisturbed: str, tmp_path: Path) -> None:
    for attempt in range(5):
        kill_and_resume(4, long_clip, tmp_path / f"faces{attempt}", undisturbed)


def test_torn_journal_and_manifest_are_mended(long_clip: Path, undisturbed: str, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    run(long_clip, out=out)
    for name in (JOURNAL, "manifest.jsonl"):
        path = out / name
        path.write_bytes(path.read_bytes()[:-33])
    assert Faceset.open(out).hash() != undisturbed
    run(long_clip, out=out)
    assert Faceset.open(out).hash() == undisturbed
