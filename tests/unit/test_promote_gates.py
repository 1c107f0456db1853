"""Gates say which figure failed and by how much."""

import dataclasses
import math
from pathlib import Path

import pytest

from pipelines.gates import Gate, GateError, judge_gates, load_gates
from training.evaluation.clip_report import FIGURES, ClipReport
from understudy.bundle.bundle import Bundle, default_bundle

_GOOD = {
    "recognised_as_persona": 1.0,
    "recognised_as_driver": 0.0,
    "identity_to_persona": 0.6,
    "identity_to_driver": 0.2,
    "retrieval_rank1": 1.0,
    "pose_motion_deg": 1.5,
    "mouth_motion_pct": 1.2,
    "eyes_motion_pct": 0.5,
    "mouth_followed": 0.8,
    "eyes_followed": 0.7,
    "gaze_pct": 4.0,
    "jitter_ratio": 1.0,
    "flicker_ratio": 1.0,
    "background_jitter_ring": 0.1,
    "coverage": 1.0,
    "outside_psnr_db": 60.0,
    "ms_p50": 12.0,
    "ms_p95": 20.0,
}


def _report(persona: str = "ada", clip: str = "a.mp4", **figures: float) -> ClipReport:
    values = dict.fromkeys(FIGURES, 0.0) | _GOOD | figures
    return ClipReport(clip=clip, persona=persona, frames=10, faces=10, **values)


def test_what_ships_holds_every_gate_but_speed_which_depends_on_the_machine() -> None:
    measured = Bundle.load(default_bundle()).manifest.training["evaluation"]
    names = {field.name for field in dataclasses.fields(ClipReport)}
    reports = [
        ClipReport(**{key: math.nan if v is None else v for key, v in r.items() if key in names}) for r in measured
    ]
    failed = [verdict.sentence for verdict in judge_gates(load_gates(), reports, []) if not verdict.is_passed]
    assert not [sentence for sentence in failed if not sentence.startswith("ms_")], failed


def test_a_good_candidate_holds_every_shipped_gate() -> None:
    assert all(verdict.is_passed for verdict in judge_gates(load_gates(), [_report()], [_report()]))


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("recognised_as_persona", 0.97),
        ("recognised_as_driver", 0.31),
        ("identity_to_driver", 0.33),
        ("retrieval_rank1", 0.94),
        ("pose_motion_deg", 2.01),
        ("mouth_motion_pct", 1.7),
        ("mouth_followed", 0.49),
        ("gaze_pct", 6.1),
        ("flicker_ratio", 1.26),
        ("coverage", 0.97),
        ("outside_psnr_db", 29.0),
        ("ms_p50", 26.0),
        ("ms_p95", 41.0),
    ],
)
def test_each_shipped_gate_fails_alone(figure: str, value: float) -> None:
    verdicts = judge_gates(load_gates(), [_report(**{figure: value})], [])
    assert [verdict.gate for verdict in verdicts if not verdict.is_passed] == [figure]


def test_a_failed_gate_says_who_missed_what_and_by_how_much() -> None:
    (verdict,) = judge_gates([Gate("pose_deg", 2.0, None)], [_report(), _report("ben", pose_deg=2.5)], [])
    assert not verdict.is_passed
    assert verdict.sentence == "pose_deg of ben is 2.5, but must be at most 2 (the limit): by 0.5."


def test_the_worst_persona_counts_by_its_mean_over_the_clips() -> None:
    reports = [_report(pose_deg=1.0), _report(clip="b.mp4", pose_deg=2.6), _report("ben", pose_deg=1.9)]
    (verdict,) = judge_gates([Gate("pose_deg", 1.85, None)], reports, [])
    assert "of ben is 1.9" in verdict.sentence  # ada's mean is 1.8, though one of her clips is worse


def test_a_candidate_may_be_worse_than_the_champion_by_the_slack_only() -> None:
    gate = Gate("coverage", None, 0.01)
    assert judge_gates([gate], [_report(coverage=0.985)], [_report(coverage=0.99)])[0].is_passed
    (verdict,) = judge_gates([gate], [_report(coverage=0.97)], [_report(coverage=0.99)])
    assert not verdict.is_passed
    assert "at least 0.98 (the champion's 0.99 with a slack of 0.01): by 0.01" in verdict.sentence


def test_the_stricter_of_limit_and_champion_is_named() -> None:
    (verdict,) = judge_gates([Gate("mouth_pct", 2.8, 0.25)], [_report(mouth_pct=3.0)], [_report(mouth_pct=1.0)])
    assert "by 1.75" in verdict.sentence


def test_without_a_champion_limits_alone_count() -> None:
    (verdict,) = judge_gates([Gate("identity_to_persona", None, 0.05)], [_report(identity_to_persona=0.1)], [])
    assert verdict.is_passed
    assert "no champion" in verdict.sentence


def test_what_could_not_be_measured_fails() -> None:
    reports = [_report(), _report("ben", clip="b.mp4", pose_deg=math.nan)]
    (verdict,) = judge_gates([Gate("pose_deg", 2.0, None)], reports, [])
    assert not verdict.is_passed
    assert verdict.sentence == "pose_deg could not be measured for ben."
    assert not judge_gates([Gate("pose_deg", 2.0, None)], [], [])[0].is_passed


def test_an_infinite_jitter_fails() -> None:
    (verdict,) = judge_gates([Gate("jitter_ratio", 1.05, None)], [_report(jitter_ratio=math.inf)], [])
    assert not verdict.is_passed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("[pose]\nat_most = 1", "has 'pose'"),
        ("[pose_deg]\nat_least = 1", "'at_most'"),
        ("[coverage]\nat_most = 1", "'at_least'"),
        ("[pose_deg]\nat_most = 'two'", "must set numbers"),
        ("[pose_deg]\nat_most = true", "must set numbers"),
        ("[pose_deg]", "must set numbers"),
        ("pose_deg = 3", "must set numbers"),
        ("[pose_deg", "readable TOML"),
    ],
)
def test_a_wrong_gates_file_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(GateError, match=complaint):
        load_gates(path)


def test_a_missing_gates_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="readable TOML"):
        load_gates(tmp_path / "none.toml")


def test_figures_not_measured_are_null_in_json() -> None:
    report = dataclasses.replace(_report(), pose_deg=math.nan, jitter_ratio=math.inf, series={"pose_deg": [1.0]})
    figures = report.figures()
    assert figures["pose_deg"] is None and figures["jitter_ratio"] is None
    assert "series" not in figures
    assert list(figures)[:2] == ["clip", "persona"]
    assert "NaN" not in report.to_json()


@pytest.mark.parametrize("figure", ["recognised_as_persona", "self_ssim", "mouth_followed", "eyes_followed"])
def test_of_likeness_to_the_persona_more_is_better(figure: str) -> None:
    gate = Gate(figure, limit=0.9, slack=None)
    better, worse = (judge_gates([gate], [_report(**{figure: value})], [])[0] for value in (0.95, 0.85))
    assert better.is_passed and not worse.is_passed
    assert not judge_gates([Gate("recognised_as_driver", 0.05, None)], [_report(recognised_as_driver=0.1)], [])[
        0
    ].is_passed
