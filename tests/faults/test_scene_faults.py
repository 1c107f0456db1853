"""Faces that come, go, cross and hide, and cameras that turn and change size: no raw face is shown."""

import random
from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice, product

import numpy as np
import pytest

from liveframe.frame import Frame
from liveframe.gate import Gate, ShownState
from tests.faults.conftest import LEAST_SWAPPED, Script
from tests.faults.judge import Judge
from tests.faults.scene import ASTRONAUT, HEIGHT, WIDTH, Camera, Head, Picture
from tests.faults.stage import MIDDLE, Stage
from tests.support.fault_table import SHOWN, frames_per_fault
from tests.support.real_faces import SHARED
from understudy.swap.swapper import FaceSwapper
from understudy.vision.detect import FaceDetector
from understudy.vision.mesh import FaceMesh

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]  # for a thousand frames on a busy machine
Play = Callable[[str, object, Script], Stage]
Scene = Callable[[Camera], Iterator[Picture]]

RIGHT_END = WIDTH / HEIGHT
LEFT_SEAT, RIGHT_SEAT = 0.33, RIGHT_END - 0.33
_SIDE = 0.62


def there_and_back(start: float, end: float, steps: int) -> list[float]:
    """Places on the way from start to end, slow at both, and back."""
    way = [start + (end - start) * (1 - np.cos(np.pi * step / (steps - 1))) / 2 for step in range(steps)]
    return [*way, *way[::-1]]


def face_leaves_and_enters(camera: Camera) -> Iterator[Picture]:
    """By the side, by the bottom, and from one frame to the next."""
    while True:
        yield from (camera.take(Head(x)) for x in there_and_back(MIDDLE, RIGHT_END + 0.5, 18))
        yield from (camera.take(Head(y=y)) for y in there_and_back(0.5, 1.6, 14))
        yield from (camera.take() for _ in range(4))
        yield from (camera.take(Head()) for _ in range(6))


def faces_cross(camera: Camera) -> Iterator[Picture]:
    """Side by side, one before the other, and apart again; slowly, then fast with the other one in front."""
    while True:
        for x in np.linspace(0.25, RIGHT_END - 0.25, 24):
            yield camera.take(Head(RIGHT_END - x, 0.48, _SIDE, is_mirrored=True), Head(x, 0.52, _SIDE))
        for x in np.linspace(0.25, RIGHT_END - 0.25, 12):
            yield camera.take(Head(RIGHT_END - x, 0.52, _SIDE), Head(x, 0.48, _SIDE, is_mirrored=True))


def face_half_hidden(camera: Camera) -> Iterator[Picture]:
    """A hand passes before the face, and stays before either half of it."""
    while True:
        yield from (camera.take(Head(), hand=(x, 0.55, 0.2)) for x in there_and_back(0.1, RIGHT_END - 0.1, 16))
        for x in (MIDDLE - 0.15, MIDDLE + 0.15):
            yield from (camera.take(Head(angle_deg=5 * np.sin(k / 5)), hand=(x, 0.5, 0.16)) for k in range(30))


def one_of_two_half_hidden(camera: Camera) -> Iterator[Picture]:
    """The same beside a face that goes on being swapped."""
    while True:
        for x in there_and_back(0.05, RIGHT_END - 0.05, 25):
            yield camera.take(Head(LEFT_SEAT, side=_SIDE), Head(RIGHT_SEAT, side=_SIDE), hand=(x, 0.55, 0.16))
        for x in (LEFT_SEAT - 0.12, LEFT_SEAT + 0.12):
            yield from (
                camera.take(
                    Head(LEFT_SEAT, 0.5, _SIDE, 5 * np.sin(k / 5)), Head(RIGHT_SEAT, side=_SIDE), hand=(x, 0.5, 0.14)
                )
                for k in range(30)
            )


def second_face_appears(camera: Camera) -> Iterator[Picture]:
    """From the side, from below, from behind the first, and from one frame to the next."""
    first = Head(LEFT_SEAT, side=_SIDE)
    while True:
        yield from (camera.take(first) for _ in range(7))
        for x in there_and_back(RIGHT_END + 0.3, RIGHT_SEAT, 18):
            yield camera.take(first, Head(x, 0.5, _SIDE, is_mirrored=True))
        yield from (camera.take(first) for _ in range(5))
        yield from (camera.take(first, Head(RIGHT_SEAT, 0.5, _SIDE, is_mirrored=True)) for _ in range(5))
        for y in there_and_back(1.5, 0.5, 14):
            yield camera.take(first, Head(RIGHT_SEAT, y, _SIDE, is_mirrored=True))
        for x in there_and_back(LEFT_SEAT, RIGHT_SEAT, 18):
            yield camera.take(Head(x, 0.5, _SIDE, is_mirrored=True), first)


def resolution_changes(camera: Camera) -> Iterator[Picture]:
    """Every eight frames, larger, smaller and square."""
    for height, width in cycle([(240, 320), (180, 240), (480, 640), (360, 640), (240, 240)]):
        for step in range(8):
            yield camera.take(Head(width / height / 2 + 0.1 * np.sin(step / 4)), size=(height, width))


def camera_turns(camera: Camera) -> Iterator[Picture]:
    """A telephone that is turned: upright, on its sides and head down, the head turning with the picture or not."""
    for quarters in cycle([0, 1, 0, 3, 2, 0]):
        for step in range(8):
            yield camera.turned(camera.take(Head(MIDDLE + 0.1 * np.sin(step / 4))), quarters)
        for step in range(6):
            size = (WIDTH, HEIGHT) if quarters % 2 else (HEIGHT, WIDTH)
            yield camera.take(Head(size[1] / size[0] / 2 + 0.05 * np.sin(step / 4), side=0.6), size=size)


# ---------------------------------------------------------------- heads at any roll


def face_rolls_over(camera: Camera, person: str) -> Iterator[Picture]:
    """Slowly all the way round, then from one frame to the next."""
    while True:
        for step in range(72):
            yield camera.take(Head(angle_deg=5.0 * step, side=0.68, person=person))
        for angle_deg in range(0, 360, 45):
            yield camera.take()
            yield from (camera.take(Head(MIDDLE + 0.02 * k, 0.5, 0.68, angle_deg, person=person)) for k in range(6))


def at_roll(angle_deg: float) -> Callable[[Camera, str], Iterator[Picture]]:
    """A head that comes in turned, stays so, and goes."""

    def scene(camera: Camera, person: str) -> Iterator[Picture]:
        while True:
            for x in there_and_back(-0.4, MIDDLE, 14):
                yield camera.take(Head(x, 0.5, 0.66, angle_deg, person=person))
            for k in range(20):
                yield camera.take(
                    Head(MIDDLE + 0.08 * np.sin(k / 4), 0.5, 0.66, angle_deg + 6 * np.sin(k / 3), person=person)
                )

    return scene


def face_half_out(camera: Camera, person: str) -> Iterator[Picture]:
    """Cut by each edge of the picture in turn, upright and rolled."""
    edges = [(0.0, 0.5), (RIGHT_END, 0.5), (MIDDLE, 0.05), (MIDDLE, 1.0), (0.05, 0.95)]
    while True:
        for (x, y), angle_deg in product(edges, (0, 40, 180)):
            for k in range(7):
                yield camera.take(Head(x + 0.02 * np.sin(k), y + 0.02 * np.cos(k), 0.75, angle_deg, person=person))


def one_crosses_lying(camera: Camera, person: str) -> Iterator[Picture]:
    """Two people pass each other, one of them lying or head down."""
    for angle_deg in cycle([90, 180, 270, 135]):
        for x in np.linspace(0.2, RIGHT_END - 0.2, 30):
            still = Head(RIGHT_END - x, 0.46, _SIDE, is_mirrored=True)
            yield camera.take(still, Head(x, 0.54, _SIDE, angle_deg, person=person))


ROLLS: dict[str, Callable[[Camera, str], Iterator[Picture]]] = {
    "face rolls over": face_rolls_over,
    "face lying": at_roll(90),
    "face lying the other way": at_roll(270),
    "face upside down": at_roll(180),
    "face turned by 135 degrees": at_roll(135),
    "face half out of the frame": face_half_out,
    "two cross, one lying": one_crosses_lying,
}
PEOPLE = (ASTRONAUT, "d10", "franck", "single_face")


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("fault", ROLLS)
def test_face_at_any_roll_is_swapped_or_covered(
    fault: str, person: str, swapper: FaceSwapper, request: pytest.FixtureRequest, record_property: Callable[..., None]
) -> None:
    if person != ASTRONAUT and not (SHARED / "clips" / f"{person}.mp4").is_file():
        pytest.skip("the clips of ../shared are not here")
    frames = frames_per_fault(request.config)
    judge, states = on_film_time(swapper, islice(ROLLS[fault](Camera(), person), frames), 30)
    record_property(SHOWN, (fault, judge.frames, len(judge.raw)))
    assert judge.raw == [], f"raw faces in {len(judge.raw)} of {judge.frames} frames: {judge.raw[:20]}"
    assert states.count(ShownState.SWAPPED) >= LEAST_SWAPPED * frames


SCENES: dict[str, Scene] = {
    "face leaves and enters": face_leaves_and_enters,
    "two faces cross": faces_cross,
    "face half hidden": face_half_hidden,
    "one of two half hidden": one_of_two_half_hidden,
    "second face appears": second_face_appears,
    "resolution changes": resolution_changes,
    "camera turns": camera_turns,
}


@pytest.mark.parametrize("fault", SCENES)
def test_scene_shows_no_raw_face(fault: str, play: Play, swapper: FaceSwapper) -> None:
    """Through the whole pipeline, as fast as it goes."""
    play(fault, swapper, lambda stage: SCENES[fault](stage.camera))


@pytest.mark.parametrize("fps", [30, 12])
@pytest.mark.parametrize("fault", SCENES)
def test_scene_at_a_cameras_pace_shows_no_raw_face(
    fault: str, fps: int, swapper: FaceSwapper, request: pytest.FixtureRequest, record_property: Callable[..., None]
) -> None:
    """Through the swapper and the gate on the clip's own clock: what is held for a time is held as on a real camera."""
    frames = max(100, frames_per_fault(request.config) // 5)
    judge, states = on_film_time(swapper, islice(SCENES[fault](Camera()), frames), fps)
    record_property(SHOWN, (fault, judge.frames, len(judge.raw)))
    assert judge.raw == [], f"raw faces in {len(judge.raw)} of {judge.frames} frames: {judge.raw[:20]}"
    assert states.count(ShownState.SWAPPED) >= LEAST_SWAPPED * frames


def on_film_time(swapper: FaceSwapper, pictures: Iterator[Picture], fps: int) -> tuple[Judge, list[ShownState]]:
    """Show pictures frame by frame, every one with its answer, on a clock that counts frames."""
    now_s = 0.0
    judge, gate, states = Judge(), Gate(clock=lambda: now_s), []
    session = swapper.open_session()
    for index, picture in enumerate(pictures):
        now_s = index / fps
        frame = Frame(picture.image, index, now_s)
        shown = gate.show(frame, session.process(frame))
        judge.look(shown.image, picture, shown.source_index)
        states.append(shown.state)
    session.close()
    return judge, states


# ---------------------------------------------------------------- a tracker that fails


@pytest.mark.parametrize("part", [FaceMesh.fit, FaceDetector.detect], ids=["mesh", "detector"])
def test_tracker_that_raises_now_and_then_shows_no_raw_face(
    part: Callable[..., object], play: Play, swapper: FaceSwapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, owner = random.Random(4), FaceMesh if part is FaceMesh.fit else FaceDetector

    def flaky(*arguments: object) -> object:
        if chance.random() < 0.15:
            raise RuntimeError("The tracker failed on purpose.")
        return part(*arguments)

    def script(stage: Stage) -> Iterator[Picture]:
        calm = islice(second_face_appears(stage.camera), 12)
        yield from calm
        monkeypatch.setattr(owner, part.__name__, flaky)
        yield from chain.from_iterable(zip_scenes(stage.camera))

    stage = play("tracker raises", swapper, script)
    assert stage.pipeline.stats().errors["RuntimeError"] > 0


def zip_scenes(camera: Camera) -> Iterator[Iterator[Picture]]:
    """Parts of the scenes with two faces, in turn."""
    for scene in cycle([second_face_appears, faces_cross]):
        yield islice(scene(camera), 90)
