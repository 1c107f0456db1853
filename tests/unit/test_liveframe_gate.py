import math

import numpy as np
import pytest

from liveframe.breaker import Breaker, BreakerPolicy
from liveframe.cover import CoverStyle, blur_cover, slate
from liveframe.errors import FrameError, ModelError, OverloadedError
from liveframe.frame import Frame, FrameResult
from liveframe.gate import Gate, GatePolicy, ShownState, verified_copy
from tests.support.faulty import (
    HEIGHT,
    MALFORMED,
    WIDTH,
    ScriptedSession,
    camera_picture,
    good,
    missed,
    partial,
    persona_picture,
    resemblance,
)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def frame_of(index, **size):
    return Frame(camera_picture(index, **size), index, 0.0)


@pytest.fixture
def clock():
    return Clock()


def gate_at(clock, cover=CoverStyle.BLUR, overlays=()):
    return Gate(GatePolicy(cover=cover), overlays, clock)


def test_complete_result_is_shown_as_a_copy_of_our_own(clock):
    gate, frame = gate_at(clock), frame_of(0)
    result = good(frame, note="Fine.")
    shown = gate.show(frame, result)
    assert shown.state is ShownState.SWAPPED and (shown.index, shown.source_index) == (0, 0)
    assert np.array_equal(shown.image, result.image) and not np.shares_memory(shown.image, result.image)
    assert not shown.image.flags.writeable and shown.note == "Fine."


def test_model_that_reuses_its_buffer_cannot_change_what_was_shown(clock):
    gate, frame = gate_at(clock), frame_of(0)
    result = good(frame)
    shown = gate.show(frame, result)
    result.image[:] = frame.image
    assert np.array_equal(shown.image, persona_picture(frame))
    assert np.array_equal(gate.show(frame_of(1), None).image, persona_picture(frame))


def test_first_frame_without_an_answer_is_covered(clock):
    frame = frame_of(0)
    shown = gate_at(clock).show(frame, None)
    assert shown.state is ShownState.COVERED and shown.source_index == -1
    assert shown.image.shape == frame.image.shape and resemblance(shown.image, frame.image) < 0.3


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_result_is_discarded_counted_and_covered_at_once(clock, fault):
    gate = gate_at(clock)
    first, second = frame_of(0), frame_of(1)
    gate.show(first, good(first))
    shown = gate.show(second, MALFORMED[fault](second, ScriptedSession(None)))
    assert shown.state is ShownState.COVERED
    assert resemblance(shown.image, second.image) < 0.3
    assert gate.counts()[1] == {"FrameError": 1}


def test_earlier_camera_frame_returned_as_a_result_is_covered(clock):
    gate, frames = gate_at(clock), [frame_of(k) for k in range(4)]
    for frame in frames[:3]:
        gate.show(frame, good(frame))
    shown = gate.show(frames[3], FrameResult(frames[0].image.copy(), 3, 1, 1))
    assert shown.state is ShownState.COVERED and resemblance(shown.image, frames[0].image) < 0.3


def test_camera_that_repeats_its_picture_is_still_swapped(clock):
    gate, frame = gate_at(clock), frame_of(0)
    gate.show(frame, good(frame))
    again = Frame(frame.image, 1, 0.0)
    assert gate.show(again, good(again)).state is ShownState.SWAPPED


@pytest.mark.parametrize("answer", [missed, partial])
def test_incomplete_result_is_held_then_covered(clock, answer):
    gate, first = gate_at(clock), frame_of(0)
    gate.show(first, good(first))
    clock.now_s += 0.5
    held = gate.show(frame_of(1), answer(frame_of(1), None))
    assert held.state is ShownState.HELD and (held.index, held.source_index) == (1, 0)
    assert np.array_equal(held.image, persona_picture(first))
    clock.now_s += 0.01
    assert gate.show(frame_of(2), answer(frame_of(2), None)).state is ShownState.COVERED
    assert gate.counts()[0]["incomplete"] == 2 and gate.counts()[1] == {}


def test_change_of_size_covers_until_a_swap_at_the_new_size(clock):
    gate, first = gate_at(clock, CoverStyle.HOLD), frame_of(0)
    gate.show(first, good(first))
    turned = frame_of(1, height=WIDTH, width=HEIGHT)
    covered = gate.show(turned, None)
    assert covered.state is ShownState.COVERED and covered.image.shape == turned.image.shape
    assert gate.show(turned, good(turned)).state is ShownState.SWAPPED
    assert gate.show(frame_of(2, height=WIDTH, width=HEIGHT), None).state is ShownState.HELD


def test_hold_cover_freezes_the_last_picture_then_shows_the_slate(clock):
    gate, first = gate_at(clock, CoverStyle.HOLD), frame_of(0)
    gate.show(first, good(first))
    clock.now_s += 4.9
    frozen = gate.show(frame_of(1), None, "The model is busy.")
    assert frozen.state is ShownState.COVERED and np.array_equal(frozen.image, persona_picture(first))
    clock.now_s += 0.2
    card = gate.show(frame_of(2), None, "The model is busy.")
    assert np.array_equal(card.image, slate(HEIGHT, WIDTH, "The model is busy."))


def test_pass_through_is_the_camera_only_after_the_viewer_chose_it(clock):
    gate, frame = gate_at(clock, overlays=[lambda image: 255 - image]), frame_of(0)
    gate.set_swapping(False)
    shown = gate.show(frame, None)
    assert shown.state is ShownState.OFF and shown.image is frame.image and frame.image.flags.writeable
    gate.set_swapping(True)
    assert gate.show(frame_of(1), None).state is ShownState.COVERED


def test_picture_from_before_a_pass_through_is_not_held(clock):
    gate, first = gate_at(clock), frame_of(0)
    gate.show(first, good(first))
    gate.set_swapping(False)
    gate.set_swapping(True)
    assert gate.show(frame_of(1), None).state is ShownState.COVERED


def test_block_covers_good_results_and_says_why(clock):
    gate, frame = gate_at(clock, CoverStyle.SLATE), frame_of(0)
    gate.block("The consent has expired.")
    assert not gate.should_infer()
    shown = gate.show(frame, good(frame))
    assert shown.state is ShownState.COVERED and shown.note == "The consent has expired."
    gate.unblock()
    assert gate.show(frame_of(1), good(frame_of(1))).state is ShownState.SWAPPED


def test_paints_reach_swaps_and_covers_once(clock):
    def mark(image):
        image[:4, -4:] += 1
        return image

    gate, frame = gate_at(clock, CoverStyle.SLATE, [mark]), frame_of(0)
    plain = persona_picture(frame)
    assert np.array_equal(gate.show(frame, good(frame)).image[:4, -4:], plain[:4, -4:] + 1)
    assert np.array_equal(gate.show(frame_of(1), None).image[:4, -4:], plain[:4, -4:] + 1)
    clock.now_s += 1
    card = slate(HEIGHT, WIDTH, "Why.")
    for index in (2, 3):
        assert np.array_equal(gate.show(frame_of(index), None, "Why.").image[:4, -4:], card[:4, -4:] + 1)


@pytest.mark.parametrize("paint", [lambda image: image[::2], lambda image: 1 / 0, lambda image: None])
def test_failing_paint_lets_nothing_but_a_slate_out(clock, paint):
    gate, frame = gate_at(clock, overlays=[paint]), frame_of(0)
    shown = gate.show(frame, good(frame))
    assert shown.state is ShownState.COVERED and shown.image.std() < 40
    assert gate.counts()[1]["LiveframeError"] >= 1 and gate.breaker.open_for_s() == 0


def test_missing_camera_picture_becomes_a_slate_of_the_last_size(clock):
    gate = gate_at(clock)
    assert gate.show(None, None).image.shape == (480, 640, 3)
    gate.show(frame_of(0), None)
    assert gate.show(None, None).image.shape == (HEIGHT, WIDTH, 3)


def test_everything_shown_is_counted(clock):
    gate = gate_at(clock)
    for index, answer in enumerate([good, lambda frame: None, lambda frame: wrong(frame), good]):
        gate.show(frame_of(index), answer(frame_of(index)))
    counts, errors, sentence = gate.counts()
    assert counts == {"swapped": 2, "held": 1, "covered": 1}
    assert errors == {"FrameError": 1} and "result must" in sentence


def wrong(frame):
    return FrameResult(np.zeros((2, 2, 3), np.uint8), frame.index, 1, 1)


def test_policy_refuses_a_hold_longer_than_the_freeze():
    with pytest.raises(ValueError, match="hold_s must be"):
        GatePolicy(hold_s=9.0)


# ---------------------------------------------------------------------- covers


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (200, 300), (90, 90)])
def test_blur_cover_holds_at_most_16_by_12_independent_colours(size):
    camera = camera_picture(5, *size)
    cover = blur_cover(camera)
    assert cover.shape == camera.shape and not np.shares_memory(cover, camera)
    assert np.linalg.matrix_rank(cover[..., 0].astype(float) - cover[..., 0].mean(), tol=size[1] * 1.0) <= 12


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (12, 16), (31, 31)])
def test_blur_cover_of_a_tiny_picture_is_one_flat_colour(size):
    assert len(np.unique(blur_cover(camera_picture(1, *size)).reshape(-1, 3), axis=0)) == 1


def test_slate_says_its_sentence_without_touching_the_edges():
    card = slate(480, 640, "The camera is covered until the model is back. Ein schöner Satz.")
    ink = np.argwhere((card != card[0, 0]).any(axis=2))
    assert len(ink) > 300 and ink[:, 1].min() > 20 and ink[:, 1].max() < 620
    assert not np.array_equal(card, slate(480, 640, "Another."))


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5)])
def test_slate_of_any_size_can_be_drawn(size):
    assert slate(*size, "A sentence with several words " * 30).shape == (*size, 3)


# ---------------------------------------------------------------------- breaker


def test_breaker_opens_after_five_errors_in_a_row_for_two_seconds(clock):
    breaker = Breaker(clock=clock)
    for _ in range(4):
        breaker.fail(ModelError("x"))
    assert breaker.open_for_s() == 0
    breaker.fail(ModelError("x"))
    assert breaker.open_for_s() == 2.0 and breaker.opened == 1
    clock.now_s += 2.0
    assert breaker.open_for_s() == 0
    breaker.fail(ModelError("x"))
    assert breaker.open_for_s() == 2.0 and breaker.opened == 2


def test_success_between_errors_keeps_the_breaker_closed(clock):
    breaker = Breaker(clock=clock)
    for _ in range(3):
        for _ in range(4):
            breaker.fail(ModelError("x"))
        breaker.succeed()
    assert breaker.open_for_s() == 0


@pytest.mark.parametrize(
    ("asked_s", "open_s"), [(0.7, 0.7), (1e9, 30.0), (-5.0, 0.0), (math.nan, 2.0), (math.inf, 2.0)]
)
def test_retry_after_is_honoured_within_bounds(clock, asked_s, open_s):
    breaker = Breaker(BreakerPolicy(), clock)
    breaker.fail(OverloadedError("busy", asked_s))
    assert breaker.open_for_s() == pytest.approx(open_s)


def test_gate_asks_no_model_while_the_breaker_is_open(clock):
    gate = gate_at(clock)
    for _ in range(5):
        gate.fail(ModelError("x"))
    assert not gate.should_infer()
    clock.now_s += 2.0
    assert gate.should_infer()


def test_verified_copy_names_what_was_expected():
    frame = frame_of(3)
    with pytest.raises(FrameError, match=r"must be \[96, 128, 3\] as its frame, but got \[2, 2, 3\]"):
        verified_copy(frame, wrong(frame))


def test_nothing_is_held_after_a_malformed_answer_until_the_next_swap(clock):
    gate = gate_at(clock)
    gate.show(frame_of(0), good(frame_of(0)))
    gate.show(frame_of(1), wrong(frame_of(1)))
    assert gate.show(frame_of(2), None).state is ShownState.COVERED
    gate.show(frame_of(3), good(frame_of(3)))
    assert gate.show(frame_of(4), None).state is ShownState.HELD
