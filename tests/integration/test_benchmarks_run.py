"""The speed run: one JSON object whose keys and ratios hold together, whatever the machine does meanwhile."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.plot import plot
from benchmarks.harness.timing import exponent, in_turn, line, ratio, spread
from benchmarks.harness.tiny_bundle import build_tiny_bundle
from benchmarks.run import main
from benchmarks.tables.merge import made_swap, merge_as_the_seed, merge_figures, seed_crop
from benchmarks.tables.whole_path import crowd, forth_and_back, streamed
from tests.support.real_faces import astronaut, astronaut_face
from understudy.bundle.bundle import Bundle
from understudy.swap.settings import SwapSettings
from understudy.swap.swapper import FaceSwapper
from understudy.vision.align import align
from understudy.vision.detect import FaceDetector


def test_calls_take_turns_after_a_round_that_does_not_count() -> None:
    order: list[str] = []
    times = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=4)
    assert order == ["a", "b"] * 5
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}


def test_spent_budget_ends_the_rounds_but_two_are_made() -> None:
    times = in_turn({"a": lambda: None}, rounds=1000, budget_s=0)
    assert len(times["a"]) == 2


def test_ratio_is_of_the_same_round_so_a_slow_moment_cancels() -> None:
    assert ratio([20, 2000, 20], [10, 1000, 10]) == 2
    assert spread("x", [1, 2, 3]) == {"x_p50_ms": 2, "x_p95_ms": 2.9}


def test_growth_finds_the_power_and_the_line_it_was_given() -> None:
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert line([1, 2, 4], [5, 7, 11]) == pytest.approx((2, 3))


def test_crowd_shows_as_many_faces_as_asked_for() -> None:
    detector = FaceDetector()
    found = [len(detector.detect(crowd(640, 480, faces, 1)[0])) for faces in (1, 2, 4)]
    assert found == [1, 2, 4]


def test_pictures_go_forth_and_back_without_a_jump() -> None:
    pictures = [np.full((1, 1, 3), value, np.uint8) for value in range(4)]
    assert [int(forth_and_back(pictures, step)[0, 0, 0]) for step in range(8)] == [0, 1, 2, 3, 2, 1, 0, 1]


def test_seed_shifts_colours_to_the_crops_mean_and_pastes_its_box() -> None:
    face = align(astronaut(), astronaut_face(), 256)
    (swap, crop), matrix = seed_crop(face, made_swap(face))
    out = merge_as_the_seed(astronaut(), swap, crop, matrix)
    inside = cv2.warpAffine(out, matrix, (64, 64))[8:-8, 8:-8].astype(int)
    changed = (out != astronaut()).any(axis=2)
    assert np.abs(inside.mean((0, 1)) - crop[8:-8, 8:-8].mean((0, 1))).max() < 6
    assert 0 < changed.mean() < 0.3, "only the face's box changes"


def test_merge_figures_name_every_contestant_and_their_ratios() -> None:
    figures = merge_figures(astronaut(), align(astronaut(), astronaut_face(), 256), rounds=21)
    assert figures["merge_seed_to_ours_ratio"] > 1
    assert figures["merge_full_frame_to_ours_ratio"] > 1
    assert all(0 < figures[f"merge_{name}_p50_ms"] <= figures[f"merge_{name}_p95_ms"] for name in ("ours", "seed"))


def test_quick_run_prints_one_object_with_machine_and_keys_of_three_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "docs" / "speed.png"
    command = ["--quick", "--json", "--only", "merge", "--cache", str(tmp_path / "cache"), "--plot", str(picture)]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    keys = [key.split(".") for key in report if "." in key]
    assert {table for table, _, _ in keys} == {"merge"}
    assert {row for _, row, _ in keys} == {"480p", "720p"}
    assert {"merge.480p.merge_seed_to_ours_ratio", "merge.720p.detect_every_frame_to_track_ratio"} <= set(report)
    assert report["machine"]["cores"] >= 1 and len(report["load_average_after"]) == 3
    assert cv2.imread(str(picture)) is not None


@pytest.mark.slow
def test_whole_path_swaps_every_face_and_fits_how_cost_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # On the shipped bundle: a tiny one keeps up with 120 frames a second.
    command = ["--quick", "--json", "--only", "whole_path"]
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["whole_path.720p_4_faces.faces_swapped_per_frame"] > 3.5
    assert report["whole_path.480p_1_faces.frames_of_memory"] >= 1, "the answer is a new frame"
    assert {"whole_path.growth.pixels_exponent", "whole_path.viewers.second_to_first_cpu_ratio"} <= set(report)
    assert {"whole_path.growth.cpu_ms_per_viewer", "whole_path.growth.cpu_ms_at_no_faces"} <= set(report)
    for camera in ("480p_camera_30_fps", "480p_camera_120_fps"):
        assert report[f"whole_path.{camera}.wrong_order_frames"] == 0
        assert report[f"whole_path.{camera}.shown_fps"] > 5
    assert report["whole_path.480p_camera_120_fps.dropped_frames"] > 0, "nobody swaps 120 frames a second here"


@pytest.mark.slow
def test_frames_that_a_newer_one_overtakes_are_counted_and_none_is_shown_late(tmp_path: Path) -> None:
    swapper = FaceSwapper(Bundle.load(build_tiny_bundle(tmp_path / "tiny")), SwapSettings(faces="all"), 1)
    found = streamed(swapper, crowd(640, 480, 1, 4), seconds=1.0, fps=2000)
    assert found["dropped_frames"] > found["shown_fps"] > 5, "nobody swaps 2000 frames a second"
    assert found["wrong_order_frames"] == 0


def test_unknown_table_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "everything"])
    assert "networks" in capsys.readouterr().err


def test_missing_bundle_is_a_fault_that_spares_the_other_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--quick", "--json", "--only", "whole_path", "--bundle", str(tmp_path / "none")]
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 1
    assert "none" in json.loads(capsys.readouterr().out)["faults"]["whole_path"]


def test_plot_draws_what_a_report_holds_and_leaves_out_the_rest(tmp_path: Path) -> None:
    report = {
        "machine": {"processor": "test", "cores": 2, "load_average": [0.5, 0.5, 0.5]},
        "merge.480p.merge_seed_to_ours_ratio": 12.0,
        "serving.raw_batch_1.faces_per_s": 90.0,
    }
    plot(report, tmp_path / "speed.png")
    drawn = cv2.imread(str(tmp_path / "speed.png"))
    assert drawn is not None and drawn.std() > 10
