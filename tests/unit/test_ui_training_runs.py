"""How far a training is, told from the files that it leaves; what a finished one no longer needs."""

import json
from pathlib import Path

import pytest

from ui.parts.job_card import words_for_eta
from ui.studio.training_runs import Run, curves, pace, sweep
from understudy.jobs.queue import JobState


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "out").mkdir()
    return Run(tmp_path, "job", "quick", 400)


def report(run: Run, *points: dict[str, float]) -> None:
    with (run.out / "curves.jsonl").open("a") as file:
        file.writelines(json.dumps(point) + "\n" for point in points)


def point(step: int, seconds: float) -> dict[str, float]:
    return {"step": step, "seconds": seconds, "loss": 1.0 / step}


def test_a_training_tells_its_stages_before_its_first_step(run: Run) -> None:
    assert pace(run, JobState.RUNNING).words == "Finding faces to learn from"
    (run.pairs / "pairs.json").write_text(json.dumps({"count": 100, "done": {"maps": 100, "me": 50}}))
    assert pace(run, JobState.RUNNING).words == "Making pairs: 75%"
    (run.pairs / "pairs.json").write_text(json.dumps({"count": 100, "done": {"maps": 100, "me": 100}}))
    assert pace(run, JobState.RUNNING).words == "Warming up the network"


def test_time_left_leaves_the_slow_first_stretch_out(run: Run) -> None:
    report(run, point(20, 90.0), point(40, 10.0), point(60, 10.0))
    told = pace(run, JobState.RUNNING)
    assert told.share == 0.15
    assert told.words == "Step 60 of 400, about 3 min left"  # 340 steps of half a second


def test_time_left_is_told_of_running_trainings_only(run: Run) -> None:
    report(run, point(20, 90.0))
    assert pace(run, JobState.PAUSED).words == "Step 20 of 400"


def test_a_resumed_training_reports_a_step_twice_and_the_last_word_counts(run: Run) -> None:
    report(run, point(20, 9.0), point(40, 9.0), point(20, 5.0))
    assert [(each["step"], each["seconds"]) for each in curves(run)] == [(20, 5.0), (40, 9.0)]


def test_a_line_that_is_being_written_is_not_read_yet(run: Run) -> None:
    report(run, point(20, 9.0))
    with (run.out / "curves.jsonl").open("a") as file:
        file.write('{"step": 40, "sec')
    assert [each["step"] for each in curves(run)] == [20]


def test_pairs_and_checkpoints_go_only_once_there_is_a_bundle(run: Run) -> None:
    checkpoint = run.out / "checkpoint-0000400.npz"
    checkpoint.touch()
    sweep(run)
    assert checkpoint.exists() and run.pairs.exists()
    (run.out / "bundle").mkdir()
    (run.out / "bundle" / "manifest.json").touch()
    sweep(run)
    assert not checkpoint.exists() and not run.pairs.exists()


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (0.2, "about 1 s left"), (80, "about 80 s left"), (600, "about 10 min left")]
)
def test_time_left_in_words(seconds: float | None, words: str) -> None:
    assert words_for_eta(seconds) == words
