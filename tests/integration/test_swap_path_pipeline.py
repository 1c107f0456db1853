"""The swapper behind the real gate: whatever the faces do, the camera's face is never shown."""

import time

import numpy as np
import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from tests.support.real_faces import astronaut, astronaut_face
from understudy.bundle.bundle import Bundle
from understudy.swap.swapper import FaceSwapper, SwapSettings


@pytest.fixture(scope="module")
def swapper(tmp_path_factory: pytest.TempPathFactory) -> FaceSwapper:
    bundle = Bundle.load(build_tiny_bundle(tmp_path_factory.mktemp("gate") / "tiny"))
    model = FaceSwapper(bundle, SwapSettings("ada", colour_match=False))
    model.warm_up()
    return model


def picture(*shifts: int) -> np.ndarray:
    image = np.full((480, 640, 3), 110, np.uint8)
    for shift in shifts:
        image[:360, shift : shift + 300] = astronaut()[:360, 70:370]
    return image


def is_raw(shown: np.ndarray, camera: np.ndarray, shift: int) -> bool:
    """Whether the middle of the face at that place is the camera's own."""
    mesh = astronaut_face().mesh
    assert mesh is not None
    x, y = int(mesh[1, 0]) - 70 + shift, int(mesh[1, 1])
    patch = np.s_[y - 20 : y + 20, x - 20 : x + 20]
    return float(np.abs(shown[patch].astype(int) - camera[patch]).mean()) < 5


@pytest.mark.faults
def test_faces_that_come_hide_and_go_are_never_shown_raw(swapper: FaceSwapper) -> None:
    script = [(0,)] * 6 + [(0, 320)] * 8 + [(320,)] * 4 + [()] * 3 + [(160,)] * 6 + [(0, 320)] * 6
    states: list[ShownState] = []
    leaks: list[tuple[int, int]] = []
    pipeline = FramePipeline(swapper)
    try:
        deadline_s = time.monotonic() + 20
        while pipeline.process(picture(0), time.monotonic()).state is not ShownState.SWAPPED:
            assert time.monotonic() < deadline_s
        for step, shifts in enumerate(script):
            camera = picture(*shifts)
            shown = pipeline.process(camera, time.monotonic())
            states.append(shown.state)
            leaks.extend((step, shift) for shift in shifts if is_raw(shown.image, camera, shift))
    finally:
        pipeline.close()
    assert leaks == []
    assert states.count(ShownState.SWAPPED) > 15
    assert ShownState.OFF not in states
    assert ShownState.SWAPPED not in states[18:21]
