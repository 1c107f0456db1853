"""The extraction's command line and measures."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, astronaut_face
from tests.unit.test_faceset import make_face
from training.data.cluster_people import gather, join_seams
from training.data.face_sheets import pose_histogram
from training.data.find_faces import box_overlap, sharpness
from training.extract import parse_options
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset, FacesetInfo
from understudy.vision.align import align
from understudy.vision.embedding import Embedding


def face_of(track: str, frame: int, left: float = 0.0) -> FaceEntry:
    from dataclasses import replace

    entry = make_face(frame)[0]
    box = entry.box + np.array([left, 0, left, 0], np.float32)
    return replace(entry, id=f"{track}-{frame}", track=track, box=box, time_s=frame / 25)


def vector(*parts: float) -> Embedding:
    return np.concatenate([parts, np.zeros(128 - len(parts))]).astype(np.float32)


def ids(groups: list[list[FaceEntry]]) -> list[list[str]]:
    return [[entry.id for entry in group] for group in groups]


def test_command_line_gives_options() -> None:
    options = parse_options(["a.mp4", "b", "--out", "f", "--size", "128", "--format", "png", "--identity", "largest"])
    assert options.paths == (Path("a.mp4"), Path("b")) and options.out == Path("f")
    assert (options.find.size, options.find.extension, options.identity) == (128, ".png", "largest")
    assert options.info.size == 128 and options.info.options["identity"] == "largest"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--every", "0"], "--every must be 1 or more"),
        (["--size", "8"], "--size must be 64 or more"),
        (["--identity", "me"], "--identity must be all, largest or a number"),
    ],
)
def test_wrong_option_ends_with_two_and_a_sentence(wrong: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(["a.mp4", "--out", "f", *wrong])
    assert ended.value.code == 2 and says in capsys.readouterr().err


def test_box_overlap_is_intersection_over_union() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    assert box_overlap(box, box) == pytest.approx(1)
    assert box_overlap(box, box + np.float32(5)) == pytest.approx(25 / 175)
    assert box_overlap(box, box + np.float32(20)) == 0


def test_blurred_crop_is_less_sharp() -> None:
    crop = align(astronaut(), astronaut_face(), 256).crop
    levels = [sharpness(crop), *(sharpness(cv2.GaussianBlur(crop, (0, 0), sigma)) for sigma in (1, 2, 4))]
    assert all(before > 1.5 * after for before, after in itertools.pairwise(levels))


def test_near_tracks_become_one_person_and_far_ones_two() -> None:
    tracks = [[face_of("a", 0)], [face_of("b", 1), face_of("b", 2)], [face_of("c", 3)]]
    vectors = {"a-0": vector(1.0), "b-1": vector(1.0, 0.3), "c-3": vector(0, 1.0)}
    expected = [["b-1", "b-2", "a-0"], ["c-3"]]
    assert ids(gather(tracks, vectors)) == expected
    assert ids(gather(tracks[::-1], vectors)) == expected


def test_two_faces_of_one_frame_are_two_people_however_alike() -> None:
    vectors = {"a-0": vector(1.0), "b-0": vector(1.0)}
    assert ids(gather([[face_of("a", 0)], [face_of("b", 0)]], vectors)) == [["a-0"], ["b-0"]]


def test_strangers_do_not_chain_through_a_mean() -> None:
    # Four strangers on a circle around one mean: each pair is farther than one person's faces are.
    corners = {"a": (0.6, 0.0), "b": (-0.6, 0.0), "c": (0.0, 0.6), "d": (0.0, -0.6)}
    tracks = [[face_of(name, number)] for number, name in enumerate(corners)]
    vectors: Mapping[str, Embedding] = {f"{n}-{i}": vector(*corners[n]) for i, n in enumerate(corners)}
    assert len(gather(tracks, dict(vectors))) == 4


def test_track_goes_on_over_a_seam_in_its_place_only() -> None:
    tracks = [[face_of("a", 0), face_of("a", 1)], [face_of("b", 2)], [face_of("c", 3, left=500)], [face_of("d", 99)]]
    vectors = {"a-0": vector(1.0), "b-2": vector(1.0, 0.55), "c-3": vector(1.0), "d-99": vector(1.0)}
    assert ids(join_seams(tracks, vectors)) == [["a-0", "a-1", "b-2"], ["c-3"], ["d-99"]]
    assert len(join_seams(tracks, vectors | {"b-2": vector(0, 1.0)})) == 4


def test_pose_histogram_is_bright_where_faces_look(tmp_path: Path) -> None:
    faces = [make_face(frame, yaw=-42.0)[0] for frame in range(9)]
    picture = pose_histogram(Faceset(tmp_path, FacesetInfo(64), faces, {}), step_deg=5, cell=10)
    y, x = np.unravel_index(int(picture.sum(axis=2).argmax()), picture.shape[:2])
    brightest = picture[((60 + 3) // 5 * 10 + 5), ((60 - 42) // 5 * 10 + 5)]
    assert brightest.sum() > 3 * picture[5, 5].sum() / 2
    assert picture.shape == (240, 240, 3) and y >= 0 and x >= 0
