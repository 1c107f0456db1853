"""A model that fails in mid-stream, in its persona or in what its session answers: no raw face is shown."""

import threading
from collections.abc import Callable, Iterator
from itertools import islice

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from liveframe.errors import ModelError
from liveframe.frame import FrameResult
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from liveframe.policy import PipelinePolicy
from tests.faults.conftest import Script
from tests.faults.judge import Judge
from tests.faults.scene import Camera, Head, Picture
from tests.faults.stage import FlakyModel, FlakyRenderer, Stage, bursts, recovery_s
from tests.support import faulty
from understudy.swap.swapper import FaceSwapper
from understudy.vision.face import AlignedFace

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]  # for a thousand frames on a busy machine
Play = Callable[[str, object, Script], Stage]
Swap = NDArray[np.uint8]


def raises(face: AlignedFace) -> Swap:
    raise ModelError("The model failed on purpose.")


def exits(face: AlignedFace) -> Swap:
    raise SystemExit(3)


def wrong_shape(face: AlignedFace) -> Swap:
    return np.zeros((face.crop.shape[0], face.crop.shape[0] // 2, 3), np.uint8)


def not_a_number(face: AlignedFace) -> Swap:
    return np.full((*face.crop.shape[:2], 4), np.nan, np.float32)  # type: ignore[return-value]


def nothing(face: AlignedFace) -> Swap:
    return None  # type: ignore[return-value]


def the_camera_through_an_empty_mask(face: AlignedFace) -> Swap:
    return np.asarray(cv2.merge([*cv2.split(face.crop), np.zeros(face.crop.shape[:2], np.uint8)]), np.uint8)


def the_persona_through_a_glass_mask(face: AlignedFace) -> Swap:
    return np.full((*face.crop.shape[:2], 4), 90, np.uint8)


PERSONA_FAULTS = {
    "model raises": raises,
    "model exits": exits,
    "wrong shape": wrong_shape,
    "NaN": not_a_number,
    "no answer at all": nothing,
    "empty mask": the_camera_through_an_empty_mask,
    "transparent mask": the_persona_through_a_glass_mask,
}


@pytest.mark.parametrize("fault", PERSONA_FAULTS)
def test_persona_that_fails_is_covered(fault: str, play: Play, flaky: FaceSwapper, renderer: FlakyRenderer) -> None:
    stage = play(fault, flaky, lambda stage: bursts(stage, lambda: renderer.failing(PERSONA_FAULTS[fault])))
    assert stage.states[ShownState.COVERED] > 0


SESSION_FAULTS = {
    "frame of another size": faulty.wrong_size,
    "frame of NaN": faulty.not_a_number,
    "stale frame": faulty.stale,
    "camera's own frame": faulty.camera_itself,
    "copy of the camera's frame": faulty.camera_copy,
    "copy of an earlier camera frame": faulty.kept_camera,
    "face missed": faulty.missed,
    "one of two faces swapped": faulty.partial,
}


@pytest.mark.parametrize("fault", SESSION_FAULTS)
def test_answer_that_is_no_swap_is_covered(fault: str, play: Play, swapper: FaceSwapper) -> None:
    model = FlakyModel(swapper)
    stage = play(fault, model, lambda stage: bursts(stage, lambda: model.failing(SESSION_FAULTS[fault])))
    assert stage.states[ShownState.COVERED] > 0


def test_slow_model_is_covered(play: Play, flaky: FaceSwapper, renderer: FlakyRenderer, policy: PipelinePolicy) -> None:
    late = renderer.slow(3 * policy.deadline_s)
    stage = play(
        "slow, 3 x deadline", flaky, lambda stage: bursts(stage, lambda: renderer.failing(late), is_waiting=True)
    )
    assert stage.states[ShownState.COVERED] > 0


def test_hung_model_is_covered_and_left_behind(play: Play, flaky: FaceSwapper, renderer: FlakyRenderer) -> None:
    abandoned: list[int] = []

    def script(stage: Stage) -> Iterator[Picture]:
        """It hangs until it has been left behind, and for two frames more; then good until it is swapped; and again."""
        while True:
            with renderer.failing(renderer.hangs):
                yield from stage.sway_until(ShownState.COVERED, at_least=2)
                yield from stage.sway_while(lambda: stage.pipeline.stats().abandoned == 0, at_least=2)
                abandoned.append(stage.pipeline.stats().abandoned)
                yield from islice(stage.sway(), 2)
            yield from stage.sway_until(ShownState.SWAPPED)
            yield from islice(stage.sway(), 20)

    stage = play("model hangs", flaky, script)
    assert stage.states[ShownState.COVERED] > 0
    assert abandoned and min(abandoned) >= 1, "left behind every time"


def test_promotion_in_mid_stream_shows_no_raw_face(play: Play, swapper: FaceSwapper, renderer: FlakyRenderer) -> None:
    refused: list[BaseException | None] = []

    def script(stage: Stage) -> Iterator[Picture]:
        """A good model in place of the running one, then one that cannot answer its trial; and again."""
        while True:
            good = stage.pipeline.replace_model(swapper.with_renderer("drawn", FlakyRenderer(renderer)))
            yield from until_done(stage, good.done)
            assert good.exception() is None
            with renderer.failing(raises):
                bad = stage.pipeline.replace_model(swapper.with_renderer("drawn", renderer))
                yield from until_done(stage, bad.done)
            refused.append(bad.exception())

    stage = play("promotion", swapper, script)
    assert stage.pipeline.stats().model_swaps >= 1
    assert refused and all(isinstance(error, ModelError) for error in refused)
    assert stage.notes_since_start["The model is loading."] == 0, "the old model serves until the new one does"


def until_done(stage: Stage, is_done: Callable[[], bool]) -> Iterator[Picture]:
    for number, picture in enumerate(stage.sway()):
        if number >= 10 and is_done():
            return
        yield picture


# ---------------------------------------------------------------- with the limits that the app has


@pytest.mark.parametrize("fault", ["model raises", "slow, 3 x deadline", "model hangs", "wrong shape"])
def test_cover_comes_within_half_a_second_and_the_swap_returns_within_three(
    fault: str, stage: Callable[..., Stage], flaky: FaceSwapper, renderer: FlakyRenderer, soon_s: float
) -> None:
    opened = stage(fault, flaky)
    for_good = threading.Event()
    how: dict[str, Callable[[AlignedFace], Swap]] = {
        "slow, 3 x deadline": renderer.slow(3 * PipelinePolicy().deadline_s),
        "model hangs": lambda face: raises(face) if for_good.wait(60) else nothing(face),
    }
    try:
        took_s = recovery_s(opened, lambda: renderer.failing({**PERSONA_FAULTS, **how}[fault]))
        abandoned = opened.pipeline.stats().abandoned
    finally:
        for_good.set()
    assert took_s <= soon_s
    assert opened.judge.raw == []
    assert abandoned >= (1 if fault == "model hangs" else 0), "the swap came back while the hung call still hung"


# ---------------------------------------------------------------- what the suite is worth


def test_a_raw_face_would_be_found(swapper: FaceSwapper) -> None:
    """The control: where the viewer chose their own camera, every frame with a face is found raw."""
    with FramePipeline(swapper) as pipeline:
        pipeline.set_swapping(False)
        stage = Stage(pipeline, Judge(embed_every=7), Camera())
        stage.play(stage.sway(), 30)
    assert stage.judge.raw == list(range(stage.judge.frames))


def test_a_gate_that_trusts_its_model_would_be_found(
    swapper: FaceSwapper, policy: PipelinePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other control: with the gate's verification taken out, a model that gives the camera back leaks."""
    monkeypatch.setattr("liveframe.gate.verified_copy", lambda frame, result, recent: result.image.copy())
    model = FlakyModel(swapper)
    with FramePipeline(model, policy) as pipeline:
        stage = Stage(pipeline, Judge(), Camera())
        stage.play(stage.sway_until(ShownState.SWAPPED), 60)
        before = len(stage.judge.raw)
        with model.failing(lambda frame, session: FrameResult(frame.image.copy(), frame.index, 1, 1)):
            stage.play(stage.sway(), 5)
    assert before == 0
    assert len(stage.judge.raw) >= 4


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_face_that_shines_through_would_be_found(share: float) -> None:
    camera = Camera()
    picture = camera.take(Head())
    cover = np.full_like(picture.image, 90)
    shown = cv2.addWeighted(picture.image, share, cover, 1 - share, 0)
    assert Judge().look(np.asarray(shown, np.uint8), picture, -1)
    assert not Judge().look(cover, picture, -1)
