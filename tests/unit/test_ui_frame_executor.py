"""A stream's frames on their way through the handler: in order, overlapping where there is room, never half done."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from benchmarks.harness.waiting import wait_until
from liveframe.frame import Image
from tests.support.one_at_a_time import OneAtATime
from ui.relay.frame_executor import MOST, FrameExecutor
from ui.session.stream import FrameHandler


def numbered(number: int) -> Image:
    return np.full((2, 2, 3), number, np.uint8)


class FarHandler:
    """Holds all that has begun until `release`; notes what happens, by frame."""

    def __init__(self, in_flight: int = 3) -> None:
        self.in_flight = in_flight
        self.begun: list[int] = []
        self.finished: list[int] = []
        self.release = threading.Event()

    def begin(self, image: Image, captured_s: float) -> Callable[[], Image]:
        number = int(image[0, 0, 0])
        if number == 99:
            raise ValueError("the first half broke")
        self.begun.append(number)

        def finish() -> Image:
            assert self.release.wait(10)
            self.finished.append(number)
            return image

        return finish


@pytest.fixture
def far() -> FarHandler:
    return FarHandler()


@pytest.fixture
def line(far: FarHandler) -> Iterator[FrameExecutor]:
    line = FrameExecutor(far, "line")
    yield line
    far.release.set()
    line.close()


def start(line: FrameExecutor, number: int) -> Future[str]:
    return line.start(
        lambda: (numbered(number), 0.0), lambda image: f"frame {image[0, 0, 0]}", lambda error: f"cover: {error}"
    )


def test_frames_enter_in_order_and_wait_together(far: FarHandler, line: FrameExecutor) -> None:
    answers = [start(line, number) for number in range(3)]
    wait_until(lambda: len(far.begun) == 3)
    assert far.begun == [0, 1, 2] and far.finished == []
    far.release.set()
    assert [answer.result(5) for answer in answers] == ["frame 0", "frame 1", "frame 2"]


def test_without_room_one_frame_follows_the_other_on_one_thread(far: FarHandler, line: FrameExecutor) -> None:
    far.in_flight = 1
    names: set[str] = set()
    far.release.set()
    for number in range(4):
        answer = line.start(
            lambda number=number: (numbered(number), 0.0),
            lambda image: names.add(threading.current_thread().name),
            lambda error: pytest.fail(str(error)),
        )
        answer.result(5)
    assert len(names) == 1 and far.begun == far.finished == [0, 1, 2, 3]


@pytest.mark.parametrize(("says", "room"), [(1, 1), (3, 3), (0, 1), (1000, MOST)])
def test_room_is_what_the_screen_says_within_bounds(far: FarHandler, line: FrameExecutor, says: int, room: int) -> None:
    far.in_flight = says
    assert line.room == room


@pytest.mark.parametrize("in_flight", [1, 3])
def test_error_of_any_step_is_covered_and_the_next_frame_goes_on(
    far: FarHandler, line: FrameExecutor, in_flight: int
) -> None:
    def broken(image: Image) -> str:
        raise ValueError("the answer broke")

    far.in_flight = in_flight
    far.release.set()
    assert start(line, 99).result(5) == "cover: the first half broke"
    assert line.start(lambda: (numbered(1), 0.0), broken, str).result(5) == "the answer broke"
    assert start(line, 2).result(5) == "frame 2"


def test_what_has_begun_is_finished_after_the_end_and_nothing_else_begins(far: FarHandler, line: FrameExecutor) -> None:
    answers = [start(line, number) for number in range(3)]
    line.close()
    with pytest.raises(RuntimeError):
        start(line, 3)
    far.release.set()
    assert [answer.result(5) for answer in answers] == ["frame 0", "frame 1", "frame 2"]
    assert far.finished and sorted(far.finished) == far.begun == [0, 1, 2]


def test_function_is_a_screen_for_one_frame_at_a_time() -> None:
    handler: FrameHandler = OneAtATime(lambda image, captured_s: np.asarray(255 - image, np.uint8))
    assert handler.in_flight == 1 and handler.begin(numbered(5), 0.0)()[0, 0, 0] == 250
