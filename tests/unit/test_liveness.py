"""The live check leads through its steps in order, starts over when unsure, and keeps a fingerprint alone."""

import random
from datetime import UTC, datetime

import numpy as np
import pytest

from understudy.consent.liveness import LiveCheck, LivePrompt, Step, choose_line
from understudy.consent.record import Consent
from understudy.vision.align import mean_mesh
from understudy.vision.face import Points
from understudy.vision.pose import head_pose

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def mesh(yaw_deg: float = 0.0, gap: float = 0.0, shift_px: float = 0.0) -> Points:
    """A face of 200 px, turned (above 0: nose to the picture's right), its lips apart by a share of the eyes."""
    points = mean_mesh().astype(np.float64) * 200
    centre = points.mean(0)
    angle = np.radians(-yaw_deg)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    middle, eyes = points[[13, 14]].mean(0), np.linalg.norm(points[33] - points[263])
    half_gap = np.array([0, gap * eyes / 2, 0])
    points[13], points[14] = middle - half_gap, middle + half_gap
    return ((points - centre) @ turn.T + centre + [shift_px, 0, 0]).astype(np.float32)


class Person:
    """Somebody in front of the camera, at 10 frames a second."""

    def __init__(self, seed: int = 1) -> None:
        self.check = LiveCheck(random.Random(seed))
        self.now_s = 0.0

    def show(self, face: Points | None, frames: int = 1) -> LivePrompt:
        """Show one face for some frames."""
        prompt = LivePrompt(Step.LOOK, "", 0.0)
        for _ in range(frames):
            self.now_s += 0.1
            prompt = self.check.update(IMAGE, face, self.now_s)
        return prompt

    def speak(self) -> LivePrompt:
        """Open and shut the mouth five times."""
        for _ in range(5):
            self.show(mesh(gap=0.2))
            prompt = self.show(mesh(gap=0.01))
        return prompt

    def turn(self, step: Step) -> LivePrompt:
        """Turn as asked."""
        return self.show(mesh(yaw_deg=30 if step is Step.TURN_LEFT else -30))

    def do_all(self) -> LivePrompt:
        """Do what is asked, to the end."""
        self.show(mesh(), 10)
        return self.turn(self.turn(self.speak().step).step)


def test_the_test_face_turns_as_named() -> None:
    assert head_pose(mesh(yaw_deg=30)).yaw == pytest.approx(30, abs=2)


@pytest.mark.parametrize("seed", range(4))
def test_all_steps_lead_to_evidence_that_a_record_takes(seed: int) -> None:
    person = Person(seed)
    prompt = person.do_all()
    assert (prompt.step, prompt.share_done) == (Step.DONE, 1.0)
    evidence = person.check.evidence(NOW)
    assert evidence["line"] == person.check.line
    assert sorted(evidence["steps"]) == ["look", "speak", "turn left", "turn right"]
    assert len(evidence["sha256"]) == 64
    Consent("me", "self", "Me", "I agree.", ("live",), NOW, NOW.replace(year=2027), ("0" * 64,), {}, evidence)


def test_steps_must_be_done_in_order_and_as_asked() -> None:
    person = Person()
    assert person.show(mesh(yaw_deg=30), 20).step is Step.LOOK
    asked = person.show(mesh(), 10)
    assert asked.step is Step.SPEAK and person.check.line in asked.sentence
    assert person.show(mesh(gap=0.2), 20).step is Step.SPEAK
    turn = person.speak().step
    wrong = Step.TURN_RIGHT if turn is Step.TURN_LEFT else Step.TURN_LEFT
    assert person.turn(wrong).step is turn
    assert person.turn(turn).step is wrong
    with pytest.raises(ValueError, match="must be done first"):
        person.check.evidence(NOW)


def test_order_of_the_turns_and_the_line_differ_between_people() -> None:
    checks = [Person(seed) for seed in range(12)]
    for person in checks:
        person.show(mesh(), 10)
    assert len({person.speak().step for person in checks}) == 2
    assert len({choose_line(random.Random(seed)) for seed in range(50)}) > 45


@pytest.mark.parametrize("trouble", ["gone", "jump", "late"])
def test_it_starts_over_with_a_new_line_when_unsure(trouble: str) -> None:
    person = Person()
    person.show(mesh(), 10)
    line = person.check.line
    if trouble == "gone":
        prompt = person.show(None, 12)
    elif trouble == "jump":
        prompt = person.show(mesh(shift_px=250))
    else:
        prompt = person.show(mesh(), 600)
    assert prompt.step in (Step.LOOK, Step.SPEAK)
    assert person.check.line != line


def test_a_blink_of_the_tracker_is_forgiven() -> None:
    person = Person()
    person.show(mesh(), 10)
    line = person.check.line
    person.show(None, 5)
    assert person.speak().step is not Step.SPEAK
    assert person.check.line == line


def test_the_fingerprint_is_of_the_take() -> None:
    first, same, other = Person(), Person(), Person()
    other.now_s = 0.05
    for person in (first, same, other):
        person.do_all()
    digests = [person.check.evidence(NOW)["sha256"] for person in (first, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_frames_after_the_end_change_nothing() -> None:
    person = Person()
    person.do_all()
    evidence = person.check.evidence(NOW)
    assert person.show(None, 30).step is Step.DONE
    assert person.check.evidence(NOW) == evidence
