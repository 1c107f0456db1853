"""A faceset keeps whole chunks only, whatever stops its writer."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import JOURNAL, MANIFEST, Faceset, FacesetError, FacesetInfo, Source
from understudy.faceset.writer import FacesetWriter, crop_digest
from understudy.vision.align import mean_mesh
from understudy.vision.pose import HeadPose

SIZE = 64
INFO = FacesetInfo(SIZE, ".png", options={"every": 1})


def make_face(frame: int, chunk: int = 0, sharpness: float = 10.0, yaw: float = 0.0) -> tuple[FaceEntry, bytes]:
    crop = np.full((SIZE, SIZE, 3), frame, np.uint8)
    content = cv2.imencode(".png", crop)[1].tobytes()
    entry = FaceEntry(
        id=f"clip-{frame}",
        crop=f"crops/clip-{frame}.png",
        sha256=crop_digest(content),
        source="clip",
        name="clip.mp4",
        chunk=chunk,
        frame_index=frame,
        time_s=frame / 25,
        box=np.array([10, 20, 110, 140], np.float32),
        score=0.9,
        landmarks=np.array([[30, 50], [70, 50], [50, 75], [35, 100], [65, 100]], np.float32),
        presence=1.0,
        mesh=mean_mesh() * np.float32(SIZE),
        frame_to_crop=np.array([[0.5, 0.1, -3], [-0.1, 0.5, 4]], np.float32),
        sharpness=sharpness,
        pose=HeadPose(yaw, -3.0, 1.5),
        track="clip-0-0",
    )
    return entry, content


def source(chunks: int, is_done: bool = False) -> Source:
    return Source("clip", "clip.mp4", "0" * 64, "clip", chunks, chunks * 3, chunks * 3, is_done)


def write(root: Path, faces: Sequence[tuple[FaceEntry, bytes]], chunks: int = 1) -> None:
    with FacesetWriter(root, INFO) as writer:
        writer.commit([source(chunks)], faces)


def test_face_comes_back_as_it_was_written(tmp_path: Path) -> None:
    entry, _ = make_face(7)
    write(tmp_path, [make_face(7)])
    [found] = Faceset.open(tmp_path)
    assert (found.id, found.frame_index, found.time_s, found.pose) == ("clip-7", 7, 0.28, HeadPose(0.0, -3.0, 1.5))
    np.testing.assert_allclose(found.mesh, entry.mesh, atol=SIZE / 8192)
    np.testing.assert_allclose(found.frame_to_crop, entry.frame_to_crop, atol=1e-6)
    np.testing.assert_array_equal(found.landmarks, entry.landmarks)
    aligned = Faceset.open(tmp_path).load(found)
    assert aligned.crop.shape == (SIZE, SIZE, 3) and (aligned.crop == 7).all()


def test_mesh_goes_back_to_the_frame_through_the_matrix(tmp_path: Path) -> None:
    entry, _ = make_face(0)
    in_frame = entry.face.mesh
    assert in_frame is not None
    back = in_frame[:, :2] @ entry.frame_to_crop[:, :2].T + entry.frame_to_crop[:, 2]
    np.testing.assert_allclose(back, entry.mesh[:, :2], atol=1e-3)
    assert entry.face_in_crop.landmarks[0] == pytest.approx([0.5 * 30 + 0.1 * 50 - 3, -0.1 * 30 + 0.5 * 50 + 4])


def test_torn_last_line_is_not_a_face(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0), make_face(1)])
    with (tmp_path / MANIFEST).open("a") as manifest:
        manifest.write(make_face(2)[0].to_line(SIZE)[:300])
    assert [entry.frame_index for entry in Faceset.open(tmp_path)] == [0, 1]
    with FacesetWriter.open(tmp_path) as writer:
        writer.commit([source(2)], [make_face(2, chunk=1)])
    assert [entry.frame_index for entry in Faceset.open(tmp_path)] == [0, 1, 2]


def test_chunk_that_the_journal_does_not_name_is_unseen_and_swept(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0)])
    entry, content = make_face(1, chunk=1)
    (tmp_path / entry.crop).write_bytes(content)
    (tmp_path / "crops/clip-2.png.part").write_bytes(b"half")
    with (tmp_path / MANIFEST).open("a") as manifest:
        manifest.write(entry.to_line(SIZE) + "\n")
    assert len(Faceset.open(tmp_path)) == 1
    FacesetWriter.open(tmp_path).close()
    assert [path.name for path in (tmp_path / "crops").iterdir()] == ["clip-0.png"]
    assert (tmp_path / MANIFEST).read_text().count("\n") == 1


def test_torn_journal_line_undoes_its_chunk(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0)])
    write(tmp_path, [make_face(1, chunk=1)], chunks=2)
    journal = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(journal[:-20])
    with FacesetWriter.open(tmp_path) as writer:
        assert writer.sources["clip"].chunks == 1
        assert [entry.frame_index for entry in writer.faceset()] == [0]


def test_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0), make_face(1)])
    first, second = (tmp_path / MANIFEST).read_text().splitlines()
    (tmp_path / MANIFEST).write_text(first[:99] + "\n" + second + "\n")
    with pytest.raises(FacesetError, match=r"manifest\.jsonl must hold a face in line 1"):
        Faceset.open(tmp_path)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with FacesetWriter(tmp_path, INFO), pytest.raises(FacesetError, match="another process writes there"):
        FacesetWriter(tmp_path, INFO)
    FacesetWriter(tmp_path, INFO).close()


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0)])
    with pytest.raises(FacesetError, match=r"begun with \(every 1\)"):
        FacesetWriter(tmp_path, replace(INFO, options={"every": 5}))


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops/holiday.jpg").write_bytes(b"precious")
    with pytest.raises(FacesetError, match="holds something else"):
        FacesetWriter(tmp_path, INFO)
    assert (tmp_path / "crops/holiday.jpg").read_bytes() == b"precious"


def test_missing_faceset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FacesetError, match=r"python -m training\.extract"):
        Faceset.open(tmp_path)


def test_other_alignment_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0)])
    values = json.loads((tmp_path / "faceset.json").read_text())
    (tmp_path / "faceset.json").write_text(json.dumps(values | {"alignment": 99}))
    with pytest.raises(FacesetError, match="Extract anew"):
        Faceset.open(tmp_path)


def test_dropped_face_is_gone_with_its_crop_and_changes_the_hash(tmp_path: Path) -> None:
    with FacesetWriter(tmp_path, INFO) as writer:
        writer.commit([source(1)], [make_face(0), make_face(1)])
        before = writer.finish().info.hash
        assert writer.drop(["clip-0"]) == 1
        with pytest.raises(FacesetError, match="clip-99"):
            writer.drop(["clip-99"])
    faceset = Faceset.open(tmp_path)
    assert [entry.id for entry in faceset] == ["clip-1"]
    assert faceset.info.is_finished and faceset.info.hash == faceset.hash() != before
    assert not (tmp_path / "crops/clip-0.png").exists()
    faceset.verify()


def test_more_faces_make_a_finished_faceset_unfinished(tmp_path: Path) -> None:
    with FacesetWriter(tmp_path, INFO) as writer:
        writer.commit([source(1)], [make_face(0)])
        assert writer.finish().info.is_finished
        writer.commit([source(2)], [make_face(1, chunk=1)])
    assert not Faceset.open(tmp_path).info.is_finished


def test_hash_does_not_depend_on_the_order_but_on_each_face(tmp_path: Path) -> None:
    write(tmp_path / "a", [make_face(0), make_face(1)])
    write(tmp_path / "b", [make_face(1), make_face(0)])
    write(tmp_path / "c", [make_face(0), make_face(1, yaw=2.0)])
    a, b, c = (Faceset.open(tmp_path / name).hash() for name in "abc")
    assert a == b != c


def test_changed_crop_is_found(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0)])
    Faceset.open(tmp_path).verify()
    (tmp_path / "crops/clip-0.png").write_bytes(make_face(1)[1])
    with pytest.raises(FacesetError, match=r"clip-0\.png must be as it was extracted"):
        Faceset.open(tmp_path).verify()


def test_views_sort_and_filter(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0, sharpness=5, yaw=9), make_face(1, sharpness=50, yaw=-9), make_face(2, sharpness=20)])
    faceset = Faceset.open(tmp_path)
    assert [entry.frame_index for entry in faceset.sorted_by("sharpness")] == [1, 2, 0]
    assert [entry.frame_index for entry in faceset.sorted_by("yaw")] == [1, 2, 0]
    assert [entry.frame_index for entry in faceset.filter(lambda entry: entry.sharpness > 10)] == [1, 2]
    assert faceset[1].frame_index == 1 and len(faceset[1:]) == 2
    with pytest.raises(FacesetError, match="sort key must be one of sharpness"):
        faceset.sorted_by("size")  # type: ignore[arg-type]


def test_disk_that_refuses_costs_nothing_of_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, [make_face(0)])
    with FacesetWriter.open(tmp_path) as writer:
        (tmp_path / "crops/clip-2.png.part").mkdir()
        with pytest.raises(FacesetError, match="Make room, then run the same command again"):
            writer.commit([source(2)], [make_face(1, chunk=1), make_face(2, chunk=1)])
        assert [entry.frame_index for entry in writer.faceset()] == [0]
    assert [entry.frame_index for entry in Faceset.open(tmp_path)] == [0]
