"""The sentinel: what a slow look sees is covered until a later look finds nothing, and never makes a frame wait."""

import threading

import numpy as np
import pytest

from benchmarks.harness.waiting import wait_until
from liveframe.frame import Frame, FrameResult
from liveframe.gate import Gate, ShownState
from liveframe.sentinel import PacedSentinel, Sentinel
from tests.support.faulty import camera_picture, good

SENTENCE = "Your own face is there."


def frame_of(index: int) -> Frame:
    return Frame(camera_picture(index), index, index / 30)


class Eye:
    """Sees the filmed face while it is told to."""

    def __init__(self) -> None:
        self.sees = False
        self.looks = 0
        self.regions: object = "never asked"

    def __call__(self, camera: np.ndarray, made: np.ndarray, regions: object) -> str:
        assert camera.shape == made.shape and not np.array_equal(camera, made)
        self.looks += 1
        self.regions = regions
        return SENTENCE if self.sees else ""


def test_what_a_look_saw_is_covered_and_uncovered_by_the_next_good_look() -> None:
    eye = Eye()
    sentinel = Sentinel(eye, every_s=0.0)
    gate = Gate(watch=sentinel.watch)
    shown = gate.show(frame_of(0), good(frame_of(0)))
    assert shown.state is ShownState.SWAPPED
    eye.sees = True
    index = iter(range(1, 10_000))

    def state() -> ShownState:
        frame = frame_of(next(index))
        return gate.show(frame, good(frame)).state

    wait_until(lambda: state() is ShownState.COVERED)
    covered = gate.show(frame_of(0), good(frame_of(0)))
    assert covered.state is ShownState.COVERED and covered.note == SENTENCE and covered.personas == ()
    assert gate.counts()[0]["suspected"] >= 2
    eye.sees = False
    wait_until(lambda: state() is ShownState.SWAPPED)
    assert sentinel.close()


def test_no_frame_waits_for_a_look() -> None:
    may_end, looks = threading.Event(), []

    def slow(*_: object) -> str:
        looks.append(1)
        may_end.wait(10)
        return ""

    sentinel = Sentinel(slow, every_s=0.0)
    gate = Gate(watch=sentinel.watch)
    for index in range(20):
        assert gate.show(frame_of(index), good(frame_of(index))).state is ShownState.SWAPPED
    assert len(looks) <= 1
    may_end.set()
    assert sentinel.close()


def test_a_look_that_fails_covers() -> None:
    gate = Gate(watch=PacedSentinel(lambda *_: [""][1], every=1).watch)
    shown = gate.show(frame_of(0), good(frame_of(0)))
    assert shown.state is ShownState.COVERED and "could not be checked" in shown.note


def test_clips_are_looked_at_every_so_many_frames_and_at_each_while_something_is_seen() -> None:
    eye = Eye()
    gate = Gate(watch=PacedSentinel(eye, every=4).watch)
    states = []
    for index in range(16):
        eye.sees = 5 <= index < 10
        states.append(gate.show(frame_of(index), good(frame_of(index))).state)
    covered = [index for index, state in enumerate(states) if state is ShownState.COVERED]
    assert covered == [8, 9], "seen at the look at 8, gone at 10"
    assert eye.looks == 6  # 0, 4, 8, 9, 10, 14


@pytest.mark.parametrize("is_mixed", [True, False])
def test_a_mix_that_the_viewer_chose_is_not_looked_at(is_mixed: bool) -> None:
    eye, frame = Eye(), frame_of(0)
    eye.sees = True
    gate = Gate(watch=PacedSentinel(eye, every=1).watch)
    picture = good(frame).image
    shown = gate.show(frame, FrameResult(picture, 0, 1, 1, personas=("ada",), is_mixed=is_mixed))
    assert shown.state is (ShownState.SWAPPED if is_mixed else ShownState.COVERED)
    assert shown.personas == (("ada",) if is_mixed else ())
    assert eye.looks == (0 if is_mixed else 1)


def test_the_look_is_told_what_was_replaced() -> None:
    eye, frame = Eye(), frame_of(0)
    box = np.array([1, 2, 3, 4], np.float32)
    gate = Gate(watch=PacedSentinel(eye, every=1).watch)
    gate.show(frame, FrameResult(good(frame).image, 0, 1, 1, regions=(box,)))
    assert eye.regions == (box,)
