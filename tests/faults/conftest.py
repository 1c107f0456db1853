"""The stage on which faults play: real networks, a real pipeline, a camera whose truth is known."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest

from liveframe.frame import Frame
from liveframe.gate import ShownState
from liveframe.model import FrameModel
from liveframe.pipeline import FramePipeline
from liveframe.policy import PipelinePolicy
from tests.faults.judge import Judge
from tests.faults.persona import DrawnCrop, drawn_persona
from tests.faults.scene import Camera, Head, Picture
from tests.faults.stage import FlakyRenderer, Stage, quick
from tests.support.fault_table import SHOWN, frames_per_fault
from understudy.swap.swapper import FaceSwapper, SwapSettings

Script = Callable[[Stage], Iterable[Picture]]
LEAST_SWAPPED = 0.05


@pytest.fixture(scope="session")
def swapper() -> FaceSwapper:
    """The real swapper, with a persona that needs no training; warm, as in an app that runs."""
    model = FaceSwapper(settings=SwapSettings("drawn"), renderers={"drawn": drawn_persona()})
    model.warm_up()
    return model


@pytest.fixture
def renderer() -> FlakyRenderer:
    """The same persona, with a switch."""
    return FlakyRenderer(DrawnCrop())


@pytest.fixture
def flaky(swapper: FaceSwapper, renderer: FlakyRenderer) -> FaceSwapper:
    """The swapper with the persona that fails on demand."""
    model = swapper.with_renderer("drawn", renderer)
    model.warm_up()
    return model


@pytest.fixture
def pace_s(swapper: FaceSwapper) -> float:
    """How long a frame takes on this machine now."""
    session, camera, times_s = swapper.open_session(), Camera(), []
    for index in range(8):
        picture = camera.take(Head())
        start_s = time.monotonic()
        session.process(Frame(picture.image, index, start_s))
        times_s.append(time.monotonic() - start_s)
    session.close()
    return statistics.median(times_s)


@pytest.fixture
def policy(pace_s: float) -> PipelinePolicy:
    """Quick limits that suit the machine as it is now."""
    return quick(pace_s)


@pytest.fixture
def soon_s(pace_s: float) -> float:
    """When a swap must be back after a fault: 3 s, or more where a machine is too busy to make frames in time."""
    return max(3.0, 2.2 + 30 * pace_s)


@pytest.fixture
def stage(record_property: Callable[[str, object], None]) -> Iterator[Callable[..., Stage]]:
    """Open a stage; what it has shown goes into the table, whether the test passes or not."""
    with ExitStack() as stack:

        def open_(fault: str, model: FrameModel, policy: PipelinePolicy | None = None) -> Stage:
            pipeline = stack.enter_context(FramePipeline(model, policy))
            opened = Stage(pipeline, Judge(), Camera(), policy)
            stack.callback(lambda: record_property(SHOWN, (fault, opened.judge.frames, len(opened.judge.raw))))
            return opened

        yield open_


@pytest.fixture
def play(
    request: pytest.FixtureRequest, stage: Callable[..., Stage], policy: PipelinePolicy
) -> Callable[[str, FrameModel, Script], Stage]:
    """Play a script of a fault for as many frames as the run asks for, and assert that no raw face was shown."""

    def run(fault: str, model: FrameModel, script: Script) -> Stage:
        opened = stage(fault, model, policy)
        opened.play(script(opened), frames_per_fault(request.config))
        assert_private(opened)
        return opened

    return run


def assert_private(stage: Stage) -> None:
    """No raw face, and not by covering everything."""
    judge, states = stage.judge, stage.states
    assert judge.raw == [], f"raw faces in {len(judge.raw)} of {judge.frames} frames: {judge.raw[:20]}; {dict(states)}"
    assert states[ShownState.OFF] == 0
    assert states[ShownState.SWAPPED] >= LEAST_SWAPPED * judge.frames, dict(states)
