import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from liveframe.cover import CoverStyle
from liveframe.errors import ModelError
from liveframe.frame import Frame
from liveframe.gate import GatePolicy, ShownState
from liveframe.model import FrameModel, FrameSession, SplitSession
from liveframe.models.pixelate import Pixelate, pixelate
from liveframe.pipeline import FramePipeline
from liveframe.policy import PipelinePolicy
from liveframe.stats import Phase
from tests.support.faulty import (
    ScriptedModel,
    camera_picture,
    good,
    missed,
    odd_stages,
    overloaded,
    raises,
    resemblance,
    wrong_size,
)

PATIENT = PipelinePolicy(GatePolicy(hold_s=5.0), deadline_s=5.0, hang_s=5.0)
HASTY = PipelinePolicy(GatePolicy(hold_s=0.1), deadline_s=0.05, hang_s=0.1)


def until(condition, timeout_s=10.0):
    """Wait for what no event tells."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, "waited in vain"
        time.sleep(0.002)


def started(model, policy=PATIENT, **more):
    """A pipeline whose model serves."""
    pipeline = FramePipeline(model, policy, **more)
    until(lambda: pipeline.stats().phase is Phase.READY)
    return pipeline


def test_scripted_model_and_pixelate_follow_the_protocols():
    for model in (ScriptedModel(), Pixelate()):
        assert isinstance(model, FrameModel) and isinstance(model.open_session(), FrameSession)


def test_each_frame_gets_its_own_answer_in_order():
    with started(ScriptedModel()) as pipeline:
        for index in range(20):
            shown = pipeline.process(camera_picture(index))
            assert shown.state is ShownState.SWAPPED and shown.index == shown.source_index == index
            assert tuple(shown.image[0, 0]) == (index, 0, 7)
        stats = pipeline.stats()
    assert (stats.swapped, stats.frames, stats.drops, stats.late) == (20, 20, 0, 0)
    assert stats.fps_in > 0 and stats.fps_out > 0 and stats.note == ""
    assert 0 < stats.stages["model"].p50_ms <= stats.stages["total"].p50_ms <= stats.stages["total"].p95_ms


def test_second_model_without_a_face_goes_through_the_same_seam():
    camera = camera_picture(3, 120, 160)
    with started(Pixelate(columns=16)) as pipeline:
        shown = pipeline.process(camera)
    assert shown.state is ShownState.SWAPPED and np.array_equal(shown.image, pixelate(camera, 16))


def test_frames_are_covered_while_the_model_warms_up():
    is_warm = threading.Event()
    with FramePipeline(ScriptedModel(warm=is_warm.wait), PATIENT) as pipeline:
        camera = camera_picture(0)
        start_s = time.monotonic()
        shown = pipeline.process(camera)
        assert time.monotonic() - start_s < 1
        assert shown.state is ShownState.COVERED and "loading" in shown.note
        assert resemblance(shown.image, camera) < 0.3
        assert pipeline.stats().phase is Phase.LOADING
        is_warm.set()
        until(lambda: pipeline.process(camera).state is ShownState.SWAPPED)


def test_model_that_cannot_warm_up_is_tried_again():
    tries = []

    def warm():
        tries.append(1)
        if len(tries) == 1:
            raise ModelError("No weights today.")

    policy = PipelinePolicy(GatePolicy(breaker=PATIENT.gate.breaker.__class__(open_s=0.05)))
    with FramePipeline(ScriptedModel(warm=warm), policy) as pipeline:
        until(lambda: pipeline.stats().last_error == "No weights today.")
        until(lambda: pipeline.process(camera_picture(0)).state is ShownState.SWAPPED)
    assert len(tries) == 2


def test_late_answer_is_dropped_and_counted():
    release = threading.Event()

    def late_once(frame, session):
        if frame.index == 0:
            release.wait(10)
        return good(frame)

    policy = PipelinePolicy(GatePolicy(hold_s=0.3), deadline_s=0.05, hang_s=9.0)
    with started(ScriptedModel(late_once), policy) as pipeline:
        start_s = time.monotonic()
        shown = pipeline.process(camera_picture(0))
        assert 0.05 <= time.monotonic() - start_s < 0.5
        assert shown.state is ShownState.COVERED and "deadline" in shown.note
        release.set()
        until(lambda: pipeline.stats().late == 1)
        shown = pipeline.process(camera_picture(1))
        assert shown.state is ShownState.SWAPPED and shown.source_index == 1
        assert pipeline.stats().errors == {}


def test_deadline_counts_from_the_capture():
    with started(ScriptedModel(lambda frame, session: time.sleep(0.02) or good(frame))) as pipeline:
        shown = pipeline.process(camera_picture(0), captured_s=time.monotonic() - 6)
    assert shown.state is ShownState.COVERED


def test_newest_frame_wins_and_the_displaced_one_is_counted():
    at_model, release = threading.Event(), threading.Event()

    def wait(frame, session):
        at_model.set()
        assert release.wait(10)
        return good(frame)

    model = ScriptedModel(wait)
    with started(model) as pipeline, ThreadPoolExecutor(4) as relay:
        first = relay.submit(pipeline.process, camera_picture(0))
        assert at_model.wait(5)
        others = []
        for index in (1, 2, 3):
            others.append(relay.submit(pipeline.process, camera_picture(index)))
            until(lambda index=index: pipeline.stats().frames == index + 1)
            until(lambda index=index: pipeline.stats().drops == index - 1)
        release.set()
        shown = [future.result(10) for future in (first, *others)]
        assert [one.index for one in shown] == [0, 1, 2, 3]
        assert [one.source_index for one in shown] == [0, 0, 0, 3]
        assert pipeline.stats().drops == 2
    assert model.sessions[0].seen == [0, 3]


def test_displaced_frame_does_not_overtake_the_one_before_it():
    at_model, release = threading.Event(), threading.Event()
    left = []

    def wait(frame, session):
        at_model.set()
        assert release.wait(10)
        return good(frame)

    with started(ScriptedModel(wait)) as pipeline, ThreadPoolExecutor(3) as relay:
        pipeline.tap(lambda shown: left.append(shown.index))
        futures = [relay.submit(pipeline.process, camera_picture(0))]
        assert at_model.wait(5)
        for index in (1, 2):
            futures.append(relay.submit(pipeline.process, camera_picture(index)))
            until(lambda index=index: pipeline.stats().frames == index + 1)
        until(lambda: pipeline.stats().drops == 1)
        assert left == []
        release.set()
        for future in futures:
            future.result(10)
    assert left == [0, 1, 2]


def test_hung_model_is_abandoned_and_a_fresh_session_takes_over():
    hang = threading.Event()

    def hang_once(frame, session):
        if session is session.model.sessions[0] and frame.index >= 3:
            hang.wait(30)
        return good(frame)

    model = ScriptedModel(hang_once)
    with started(model, HASTY) as pipeline:
        for index in range(3):
            pipeline.process(camera_picture(index))
        start_s = time.monotonic()
        states = []
        while not states or states[-1] is not ShownState.SWAPPED:
            camera = camera_picture(len(states) + 3)
            shown = pipeline.process(camera)
            states.append(shown.state)
            assert resemblance(shown.image, camera) < 0.3
            assert time.monotonic() - start_s < 3
        assert ShownState.COVERED in states
        assert pipeline.stats().abandoned == 1 and "hangs" in pipeline.stats().last_error
        hang.set()
        assert model.sessions[0].closed.wait(5)
        until(lambda: pipeline.stats().abandoned == 0)
        assert pipeline.stats().late == 1
        assert pipeline.process(camera_picture(99)).state is ShownState.SWAPPED


def test_number_of_hung_threads_is_bounded_and_recovers_when_they_end():
    hang = threading.Event()
    model = ScriptedModel(lambda frame, session: hang.wait(30) and good(frame))
    before = threading.active_count()
    with FramePipeline(model, HASTY) as pipeline:
        until(lambda: pipeline.process(camera_picture(0)) and pipeline.stats().phase is Phase.FAILED)
        for index in range(20):
            assert pipeline.process(camera_picture(index)).state is ShownState.COVERED
        assert pipeline.stats().abandoned == HASTY.max_abandoned == len(model.sessions)
        assert threading.active_count() <= before + HASTY.max_abandoned
        hang.set()
        until(lambda: pipeline.process(camera_picture(1)).state is ShownState.SWAPPED)


def test_five_errors_open_the_breaker_and_the_model_is_left_in_peace():
    model = ScriptedModel(raises)
    with started(model) as pipeline:
        for index in range(12):
            assert pipeline.process(camera_picture(index)).state is ShownState.COVERED
        stats = pipeline.stats()
        assert model.sessions[0].seen == [0, 1, 2, 3, 4]
        assert stats.errors == {"ModelError": 5} and stats.breaker_opens == 1
        assert stats.last_error == "The model failed on purpose."
        model.answer = lambda frame, session: good(frame)
        until(lambda: pipeline.process(camera_picture(1)).state is ShownState.SWAPPED, 3)


def test_overloaded_server_is_left_in_peace_for_as_long_as_it_asks():
    model = ScriptedModel(overloaded)
    with started(model) as pipeline:
        start_s = time.monotonic()
        pipeline.process(camera_picture(0))
        until(lambda: pipeline.process(camera_picture(1)) and len(model.sessions[0].seen) == 2)
        assert 0.2 <= time.monotonic() - start_s < 1.5


def test_malformed_answers_count_as_errors():
    with started(ScriptedModel(wrong_size)) as pipeline:
        for index in range(6):
            pipeline.process(camera_picture(index))
        assert pipeline.stats().errors == {"FrameError": 5} and pipeline.stats().breaker_opens == 1


def test_missed_subject_is_no_error():
    with started(ScriptedModel(missed)) as pipeline:
        for index in range(7):
            assert pipeline.process(camera_picture(index)).state is ShownState.COVERED
        assert pipeline.stats().errors == {} and pipeline.stats().incomplete == 7


def test_stage_times_that_make_no_sense_do_not_stop_the_stream():
    with started(ScriptedModel(odd_stages)) as pipeline:
        assert pipeline.process(camera_picture(0)).state is ShownState.SWAPPED
        assert pipeline.stats().errors == {"ValueError": 1}


@pytest.mark.parametrize(
    "image", [None, "text", np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))]
)
def test_what_is_no_picture_is_covered_and_never_raises(image):
    with started(ScriptedModel()) as pipeline:
        pipeline.process(camera_picture(0))
        shown = pipeline.process(image)
        assert shown.state is ShownState.COVERED and shown.index == 1 and shown.image.shape == (96, 128, 3)
        assert pipeline.process(camera_picture(2)).state is ShownState.SWAPPED


# ---------------------------------------------------------------------- replacing the model


def test_promotion_in_mid_stream_switches_between_frames():
    old, new = ScriptedModel(), ScriptedModel()
    with started(old) as pipeline:
        pipeline.process(camera_picture(0))
        done = pipeline.replace_model(new)
        states = []
        while not done.done():
            states.append(pipeline.process(camera_picture(len(states))).state)
        done.result()
        assert pipeline.process(camera_picture(7)).state is ShownState.SWAPPED
        assert set(states) <= {ShownState.SWAPPED}
        assert pipeline.stats().model_swaps == 1 and pipeline.session is new.sessions[-1]
    assert old.sessions[0].closed.wait(5) and new.warmed == 1
    assert new.sessions[0].closed.is_set() and len(new.sessions) == 2  # the trial's, and the stream's


@pytest.mark.parametrize("bad", [ScriptedModel(raises), ScriptedModel(wrong_size), ScriptedModel(warm=lambda: 1 / 0)])
def test_promotion_of_a_broken_model_leaves_the_old_one(bad):
    old = ScriptedModel()
    with started(old) as pipeline:
        pipeline.process(camera_picture(0))
        with pytest.raises(ModelError, match=r"could not be brought up|failed on purpose"):
            pipeline.replace_model(bad).result(10)
        assert pipeline.process(camera_picture(1)).state is ShownState.SWAPPED
        assert pipeline.session is old.sessions[0] and pipeline.stats().model_swaps == 0
        assert pipeline.stats().last_error


def test_model_still_warming_up_is_left_for_a_newer_one():
    never = threading.Event()
    with started(ScriptedModel()) as pipeline:
        stuck = pipeline.replace_model(ScriptedModel(warm=lambda: never.wait(30)))
        newest = ScriptedModel()
        pipeline.replace_model(newest).result(10)
        with pytest.raises(ModelError, match="Another model"):
            stuck.result(0)
        assert pipeline.session is newest.sessions[-1]
        never.set()
        until(lambda: pipeline.stats().abandoned == 0)
        assert pipeline.session is newest.sessions[-1]


def test_newest_of_many_quick_choices_wins_and_none_is_refused_for_good():
    """A viewer who toggles a view six times while one model loads."""
    ready = threading.Event()
    with started(ScriptedModel()) as pipeline:
        models = [ScriptedModel(warm=lambda: ready.wait(30)) for _ in range(8)]
        futures = [pipeline.replace_model(model) for model in models]
        assert not futures[-1].done()
        ready.set()
        futures[-1].result(10)
        assert pipeline.session is models[-1].sessions[-1]
        for future in futures[:-1]:
            with pytest.raises(ModelError, match="Another model"):
                future.result(0)
        until(lambda: pipeline.stats().abandoned == 0)
        assert pipeline.session is models[-1].sessions[-1]


def test_choice_is_refused_where_all_that_went_before_hang():
    never = threading.Event()
    policy = PipelinePolicy(GatePolicy(hold_s=5.0), deadline_s=5.0, hang_s=5.0, load_s=0.05)
    with started(ScriptedModel(), policy) as pipeline:
        for _ in range(4):
            pipeline.replace_model(ScriptedModel(warm=lambda: never.wait(30)))
        time.sleep(0.1)
        pipeline.process(camera_picture(0))
        with pytest.raises(ModelError, match="hang already"):
            pipeline.replace_model(ScriptedModel()).result(5)
        never.set()


def test_frame_waiting_at_the_switch_is_answered_by_the_new_model():
    at_model, release = threading.Event(), threading.Event()

    def wait(frame, session):
        at_model.set()
        assert release.wait(10)
        return good(frame)

    new = ScriptedModel()
    with started(ScriptedModel(wait)) as pipeline, ThreadPoolExecutor(2) as relay:
        first = relay.submit(pipeline.process, camera_picture(0))
        assert at_model.wait(5)
        second = relay.submit(pipeline.process, camera_picture(1))
        until(lambda: pipeline.stats().frames == 2)
        pipeline.replace_model(new).result(10)
        until(lambda: new.sessions[-1].seen == [1])
        assert not second.done()  # the old model's frame leaves first
        release.set()
        assert [first.result(5).source_index, second.result(5).source_index] == [0, 1]


def test_settings_reach_the_running_session_and_every_later_one():
    applied = []
    with started(ScriptedModel(), configure=lambda session: applied.append(("first", session))) as pipeline:
        running = pipeline.session
        pipeline.configure(lambda session: applied.append(("second", session)))
        new = ScriptedModel()
        pipeline.replace_model(new).result(10)
        assert applied == [("first", running), ("second", running), *(("second", one) for one in new.sessions)]


# ---------------------------------------------------------------------- controls and the end


def test_pass_through_shows_the_camera_and_asks_no_model():
    model = ScriptedModel()
    with started(model, overlays=[lambda image: 255 - image]) as pipeline:
        pipeline.set_swapping(False)
        camera = camera_picture(0)
        shown = pipeline.process(camera)
        assert shown.state is ShownState.OFF and shown.image is camera
        assert model.sessions[0].seen == []
        pipeline.set_swapping(True)
        assert pipeline.process(camera_picture(1)).state is ShownState.SWAPPED


def test_cover_style_and_block_act_from_the_next_frame():
    with started(ScriptedModel(missed)) as pipeline:
        pipeline.set_cover(CoverStyle.SLATE)
        pipeline.block("The consent has expired.")
        assert pipeline.process(camera_picture(0)).note == "The consent has expired."
        pipeline.unblock()
        assert pipeline.process(camera_picture(1)).note != "The consent has expired."


def test_tap_receives_what_was_shown_and_cannot_break_the_stream():
    taken = []
    with started(ScriptedModel()) as pipeline:
        pipeline.tap(taken.append)
        shown = pipeline.process(camera_picture(0))
        assert taken == [shown]
        pipeline.tap(lambda shown: 1 / 0)
        assert pipeline.process(camera_picture(1)).state is ShownState.SWAPPED
        assert pipeline.stats().errors == {"ZeroDivisionError": 1}


def test_close_ends_every_thread_closes_the_session_and_covers_what_still_comes():
    before = set(threading.enumerate())
    model = ScriptedModel()
    pipeline = started(model)
    pipeline.process(camera_picture(0))
    assert pipeline.close() and pipeline.close()
    assert model.sessions[0].closed.is_set()
    assert set(threading.enumerate()) <= before
    assert pipeline.process(camera_picture(1)).state is ShownState.COVERED
    assert pipeline.stats().phase is Phase.CLOSED
    with pytest.raises(ModelError, match="closed"):
        pipeline.replace_model(ScriptedModel()).result(0)


def test_close_does_not_wait_for_a_hung_model():
    hang = threading.Event()
    pipeline = started(ScriptedModel(lambda frame, session: hang.wait(30) and good(frame)), HASTY)
    pipeline.process(camera_picture(0))
    start_s = time.monotonic()
    assert not pipeline.close(timeout_s=0.05)
    assert time.monotonic() - start_s < 1
    hang.set()


def test_policy_refuses_a_deadline_that_a_held_picture_cannot_bridge():
    with pytest.raises(ValueError, match="deadline_s must be"):
        PipelinePolicy(deadline_s=0.6)
    with pytest.raises(ValueError, match="hang_s must be"):
        PipelinePolicy(hang_s=0.1)


# ---------------------------------------------------------------------- sessions in two halves


class RelayedModel(ScriptedModel):
    """Answers after a delay that frames may share, as a distant endpoint does."""

    def __init__(self, delay_s):
        super().__init__()
        self.delay_s = delay_s

    def open_session(self):
        self.sessions.append(RelayedSession(self))
        return self.sessions[-1]


class RelayedSession:
    def __init__(self, model):
        self.model = model
        self.closed = threading.Event()
        self.finished = []

    def begin(self, frame: Frame):
        if frame.index == 5:
            raise ModelError("The first half failed.")
        ready_s = time.monotonic() + self.model.delay_s

        def finish():
            time.sleep(max(0.0, ready_s - time.monotonic()))
            self.finished.append(frame.index)
            if frame.index == 7:
                raise ModelError("The second half failed.")
            return good(frame)

        return finish

    def process(self, frame):
        return self.begin(frame)()

    def close(self):
        self.closed.set()


def test_frames_share_a_slow_middle_and_leave_in_order():
    model = RelayedModel(delay_s=0.06)
    left = []
    with started(model) as pipeline, ThreadPoolExecutor(3) as relay:
        assert isinstance(pipeline.session, SplitSession) and pipeline.in_flight == 3
        pipeline.tap(left.append)
        start_s = time.monotonic()
        list(relay.map(pipeline.process, [camera_picture(index) for index in range(24)]))
        took_s = time.monotonic() - start_s
    assert [shown.index for shown in left] == list(range(24))
    fresh = [shown.source_index for shown in left if shown.state is ShownState.SWAPPED]
    assert fresh == sorted(set(range(24)) - {5, 7})
    assert took_s < 0.7 * 24 * 0.06
    assert model.sessions[0].closed.wait(5) and pipeline.stats().errors == {"ModelError": 2}
