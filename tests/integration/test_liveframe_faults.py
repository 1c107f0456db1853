"""Whatever a model does, no picture that left while swapping was on shows the camera's detail."""

import threading
import time

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveframe.breaker import BreakerPolicy
from liveframe.cover import CoverStyle, blur_cover
from liveframe.frame import FrameResult
from liveframe.gate import GatePolicy, ShownState
from liveframe.pipeline import FramePipeline
from liveframe.policy import PipelinePolicy
from tests.support.faulty import FAULTS, HEIGHT, WIDTH, ScriptedModel, camera_picture, good, resemblance

RAW = 0.45  # resemblance above this is the camera; a cover of noise reaches about 0.3 by chance, the camera 1.0
QUICK = PipelinePolicy(
    GatePolicy(hold_s=0.06, freeze_s=0.12, breaker=BreakerPolicy(errors=5, open_s=0.02)), deadline_s=0.03, hang_s=0.15
)

pytestmark = pytest.mark.faults


def run(steps, cover, recovery_s=0.0):
    """Stream through a model that follows the script; give (camera, shown) of every frame, and the stats.

    After the script the model is good, until a swap is shown or `recovery_s` has passed.
    """
    script = dict(enumerate(steps))
    over = threading.Event()

    def answer(frame, session):
        fault = script.get(frame.index, "good")
        if fault == "hang":
            over.wait(20)
        return FAULTS[fault](frame, session) if fault in FAULTS else good(frame)

    seen = []
    with FramePipeline(ScriptedModel(answer), QUICK) as pipeline:
        pipeline.set_cover(cover)
        for index, step in enumerate(steps):
            if step == "promote":
                pipeline.replace_model(ScriptedModel(answer))
            turned = step == "turn"
            camera = camera_picture(index, *((WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)))
            seen.append((camera, pipeline.process(camera)))
        give_up_s = time.monotonic() + recovery_s
        while time.monotonic() < give_up_s and seen[-1][1].state is not ShownState.SWAPPED:
            time.sleep(0.005)  # a camera's pace
            camera = camera_picture(len(seen))
            seen.append((camera, pipeline.process(camera)))
        over.set()
        return seen, pipeline.stats()


def assert_private(seen):
    recent = []
    for index, (camera, shown) in enumerate(seen):
        recent = [*recent[-5:], camera]
        assert shown.index == index and shown.state is not ShownState.OFF
        assert shown.image.shape == camera.shape and shown.image.dtype == np.uint8
        for raw in recent:
            assert not np.shares_memory(shown.image, raw)
            assert resemblance(shown.image, raw) < RAW
    sources = [shown.source_index for _, shown in seen if shown.source_index >= 0]
    assert sources == sorted(sources)


def test_resemblance_tells_the_camera_from_a_swap_and_a_cover():
    camera = camera_picture(1)
    assert resemblance(camera, camera) > 0.99 and resemblance(camera // 2 + 40, camera) > 0.95
    patched = np.zeros_like(camera)
    patched[32:64, 32:64] = camera[32:64, 32:64]
    assert resemblance(patched, camera) > 0.95
    assert resemblance(camera_picture(2), camera) < RAW


def test_blur_cover_of_a_real_face_shows_none_of_its_detail(astronaut):
    face = np.ascontiguousarray(astronaut[:256, 60:400])
    assert resemblance(blur_cover(face), face) < RAW < 0.9 < resemblance(cv2.GaussianBlur(face, (3, 3), 0), face)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.sampled_from([*FAULTS, "good", "good", "good", "good", "turn", "promote"]), min_size=5, max_size=40
    ),
    hang_at=st.none() | st.integers(0, 39),
    cover=st.sampled_from(CoverStyle),
)
def test_no_fault_shows_the_camera(steps, hang_at, cover):
    if hang_at is not None and hang_at < len(steps):
        steps[hang_at] = "hang"
    seen, _ = run(steps, cover)
    assert_private(seen)


@pytest.mark.parametrize("fault", [*FAULTS, "hang", "promote", "turn"])
def test_fault_in_mid_stream_is_covered_and_the_swap_comes_back(fault):
    seen, stats = run(["good"] * 40 + [fault] * 8, CoverStyle.BLUR, recovery_s=3.0)
    assert_private(seen)
    assert seen[-1][1].state is ShownState.SWAPPED
    assert stats.frames == len(seen) == stats.swapped + stats.held + stats.covered


def test_a_gate_without_its_check_would_be_caught(monkeypatch):
    """The suite can fail: with the verification taken out, a model that returns the camera leaks."""
    monkeypatch.setattr("liveframe.gate.verified_copy", lambda frame, result, recent: result.image.copy())
    seen, _ = run(["good"] * 60 + ["camera copy"] * 3, CoverStyle.BLUR)
    with pytest.raises(AssertionError):
        assert_private(seen)


def test_flickering_model_never_leaks_between_its_good_frames():
    def flicker(frame, session):
        return good(frame) if frame.index % 3 else FrameResult(frame.image.copy(), frame.index, 1, 0)

    with FramePipeline(ScriptedModel(flicker), QUICK) as pipeline:
        seen = [(camera, pipeline.process(camera)) for camera in map(camera_picture, range(120))]
    assert_private(seen)
    assert {ShownState.SWAPPED, ShownState.HELD} <= {shown.state for _, shown in seen}
