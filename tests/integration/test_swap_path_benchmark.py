"""The swap path's benchmark prints one JSON object, with the machine and a ratio."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.moving_face import frames
from benchmarks.harness.tiny_bundle import build_tiny_bundle
from benchmarks.swap_path import main, merge_whole_frame
from tests.support.real_faces import astronaut, astronaut_clip, astronaut_face
from understudy.swap.blend import Blender, BlendSettings
from understudy.vision.align import align


@pytest.fixture
def one_thread_of_cv2() -> object:
    """The benchmark sets OpenCV's threads for the process: put them back."""
    before = cv2.getNumThreads()
    yield None
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("one_thread_of_cv2")
def test_benchmark_reports_stages_ratio_and_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = build_tiny_bundle(tmp_path / "tiny")
    assert main(["--bundle", str(bundle), "--frames", "14", "--size", "320x240"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == report["faces_found"] == report["faces_swapped"] == 4
    assert set(report["ours"]) == {
        "total",
        "total_cpu",
        "detect",
        "mesh",
        "check",
        "smooth",
        "warp",
        "network",
        "blend",
    }
    assert 0 < report["ours"]["total"]["p50_ms"] <= report["ours"]["total"]["p95_ms"]
    assert report["ratio_to_naive"] > 1
    assert report["machine"]["cores"] >= 1
    assert len(report["machine"]["load_average"]) == 3


@pytest.mark.usefixtures("one_thread_of_cv2")
def test_for_a_profiler_ours_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = build_tiny_bundle(tmp_path / "tiny")
    assert main(["--bundle", str(bundle), "--frames", "4", "--size", "320x240", "--ours-for", "0.5"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"frames"} and report["frames"] > 0


@pytest.mark.usefixtures("one_thread_of_cv2")
def test_missing_bundle_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tmp_path / "nowhere"), "--frames", "1", "--size", "64x48"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--instant" in captured.err


def test_short_clip_runs_forth_and_back_at_the_size_asked_for(tmp_path: Path) -> None:
    clip = astronaut_clip(tmp_path / "clip.mp4", frames=4)
    pictures = frames(clip, 200, 120, 9)
    assert {picture.shape for picture in pictures} == {(120, 200, 3)}
    assert [int(np.abs(pictures[0].astype(int) - p).max()) == 0 for p in pictures[:7]] == [True] + 5 * [False] + [True]


def test_naive_merge_undoes_a_change_of_colour_as_ours_does() -> None:
    face = align(astronaut(), astronaut_face(), 128)
    swap = np.dstack([cv2.convertScaleAbs(face.crop, alpha=0.7, beta=20), np.full((128, 128), 255, np.uint8)])
    swap[:16, :, 3] = swap[-16:, :, 3] = swap[:, :16, 3] = swap[:, -16:, 3] = 0
    ours, unmatched = astronaut().copy(), astronaut().copy()
    Blender().blend(ours, face, swap, BlendSettings(use_hull=False))
    Blender().blend(unmatched, face, swap, BlendSettings(use_hull=False, colour_match=0))
    errors = [
        np.abs(out.astype(int) - astronaut()).mean()
        for out in (unmatched, ours, merge_whole_frame(astronaut(), face, swap))
    ]
    assert errors[1] < 0.2 * errors[0], errors
    assert errors[2] < 0.5 * errors[0], errors
