"""Streams that start and end at any moment: the first frames and the last ones are no raw faces either."""

import random
import threading
import time
from collections.abc import Callable

import pytest

from benchmarks.harness.waiting import wait_until
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from tests.faults.judge import Judge
from tests.faults.persona import drawn_persona
from tests.faults.scene import Camera
from tests.faults.stage import Stage
from tests.support.fault_table import SHOWN, frames_per_fault
from understudy.swap.swapper import FaceSwapper, SwapSettings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]  # for a thousand frames on a busy machine


def test_viewer_who_leaves_in_mid_frame_sees_no_raw_face(
    swapper: FaceSwapper, request: pytest.FixtureRequest, record_property: Callable[..., None]
) -> None:
    """Viewer after viewer: each one's stream is closed by another thread while frames go on, and some frames more."""
    chance, camera = random.Random(2), Camera()
    judges: list[Judge] = []
    while sum(judge.frames for judge in judges) < frames_per_fault(request.config):
        pipeline = FramePipeline(swapper)
        stage = Stage(pipeline, Judge(), camera)
        judges.append(stage.judge)
        stage.start()
        leaving = threading.Timer(chance.uniform(0.0, 0.3), pipeline.close)
        leaving.start()
        for picture in stage.sway():
            if "closed" in stage.show(picture).note:
                break
        for _, picture in zip(range(5), stage.sway(), strict=False):
            assert stage.show(picture).state is ShownState.COVERED
        leaving.join()
        assert pipeline.close(timeout_s=30), "a thread of the stream outlived it"
    frames, raw = sum(judge.frames for judge in judges), sum(len(judge.raw) for judge in judges)
    record_property(SHOWN, ("viewer gone", frames, raw))
    assert raw == 0
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("liveframe")], 30)


def test_first_frames_of_a_cold_model_show_no_raw_face(
    request: pytest.FixtureRequest, record_property: Callable[..., None]
) -> None:
    """The camera is faster than the model's first load: its frames are covered, and every stream comes to swap."""
    judges: list[Judge] = []
    while sum(judge.frames for judge in judges) < frames_per_fault(request.config):
        model = FaceSwapper(settings=SwapSettings("drawn"), renderers={"drawn": drawn_persona()})
        with FramePipeline(model) as pipeline:
            stage = Stage(pipeline, Judge(), Camera())
            judges.append(stage.judge)
            until_s = time.monotonic() + 60
            for picture in stage.sway():
                if stage.show(picture).state is ShownState.SWAPPED:
                    break
                time.sleep(1 / 120)
                assert time.monotonic() < until_s, pipeline.stats()
            assert stage.states[ShownState.COVERED] > 0
            stage.play(stage.sway(), 20)
    frames, raw = sum(judge.frames for judge in judges), sum(len(judge.raw) for judge in judges)
    record_property(SHOWN, ("first frames after start", frames, raw))
    assert raw == 0
