"""The app's whole path, camera frame to shown frame, where the model is far away.

Frames go as the relays send them: into a FramePipeline by a FrameExecutor, several on their way where the session
allows it, the newest of those that find no room.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Frame
from liveframe.gate import Shown, ShownState
from liveframe.model import FrameModel, SplitSession
from liveframe.pipeline import FramePipeline
from liveframe.policy import PipelinePolicy
from liveframe.stats import Phase
from ui.relay.frame_executor import FrameExecutor

Image = NDArray[np.uint8]

FPS = 30
IN_FLIGHT = 3
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What came of one stream.

    Attributes:
        fps: frames a second whose own swap was shown.
        swapped: how many those were.
        stood_in: frames for which an older picture or a cover was shown.
        dropped: frames that found no room and were replaced by a newer one.
        wrong_order: pictures that show an earlier frame than the picture before.
    """

    fps: float
    swapped: int
    stood_in: int
    dropped: int
    wrong_order: int


class _Handler:
    """A pipeline as the relays see it (`ui.session.stream.FrameHandler`), but all of a Shown comes out."""

    def __init__(self, pipeline: FramePipeline) -> None:
        self._pipeline = pipeline

    @property
    def in_flight(self) -> int:
        return self._pipeline.in_flight

    def begin(self, image: Image, captured_s: float) -> Callable[[], Any]:
        return self._pipeline.start(image, captured_s)


def stream(
    model: FrameModel, pictures: Sequence[Image], seconds: float, policy: PipelinePolicy | None = None
) -> Stream:
    """Stream pictures, over and over, through a pipeline of their own at 30 a second; the app's limits by default."""
    with FramePipeline(model, policy) as pipeline:
        until_s = time.monotonic() + READY_S
        while pipeline.stats().phase is not Phase.READY:
            if time.monotonic() > until_s:
                raise RuntimeError(f"The model must be ready in {READY_S:g} s: {pipeline.stats().last_error}")
            time.sleep(0.01)
        for picture in pictures[:FPS]:  # the tracker settles, connections open
            pipeline.process(picture)
        line = FrameExecutor(_Handler(pipeline), "far-path")
        began_s = time.monotonic()
        shown = _feed(line, pictures, round(seconds * FPS))
        took_s = time.monotonic() - began_s
        line.close()
    return summed(shown, took_s, round(seconds * FPS) - len(shown))


def _feed(line: FrameExecutor, pictures: Sequence[Image], count: int) -> list[Shown]:
    """Send pictures as a camera does and wait for the last; returns what goes back for those that found room."""
    sent: list[Future[Shown]] = []
    under_way: deque[Future[Shown]] = deque()
    began_s = time.monotonic()
    for index in range(count):
        arrived_s = began_s + index / FPS
        time.sleep(max(0.0, arrived_s - time.monotonic()))
        while (left_s := arrived_s + 1 / FPS - time.monotonic()) > 0:
            while under_way and under_way[0].done():
                under_way.popleft()
            if len(under_way) < line.room:
                picture = pictures[index % len(pictures)]
                sent.append(line.start(lambda p=picture, s=arrived_s: (p, s), _whole, _raised))
                under_way.append(sent[-1])
                break
            wait([under_way[0]], timeout=left_s)
    return [future.result(READY_S) for future in sent]


def _whole(shown: Any) -> Shown:
    return shown


def _raised(error: Exception) -> Shown:
    raise error


def summed(shown: Sequence[Shown], took_s: float, dropped: int) -> Stream:
    """Count what came back, in the order that the viewer sees it."""
    own = {each.source_index for each in shown if each.state is ShownState.SWAPPED and each.source_index == each.index}
    sources = [each.source_index for each in shown if each.source_index >= 0]
    return Stream(
        fps=round(len(own) / took_s, 2),
        swapped=len(own),
        stood_in=len(shown) - len(own),
        dropped=dropped,
        wrong_order=sum(after < before for before, after in pairwise(sources)),
    )


def compare_rates(
    embedded: FrameModel, remote: FrameModel, pictures: Sequence[Image], seconds: float, rounds: int
) -> dict[str, float]:
    """Stream through both in turn.

    Returns:
        Medians over the rounds: frames a second of both, and their ratio in the same round; and the pictures of
        either in the wrong order, all rounds together.
    """
    pairs = [(stream(embedded, pictures, seconds), stream(remote, pictures, seconds)) for _ in range(rounds)]
    return {
        "embedded_fps": median([near.fps for near, _ in pairs]),
        "remote_fps": median([far.fps for _, far in pairs]),
        "ratio": round(median([far.fps / max(near.fps, 1e-3) for near, far in pairs]), 3),
        "wrong_order": sum(near.wrong_order + far.wrong_order for near, far in pairs),
    }


def compare_pixels(embedded: FrameModel, remote: FrameModel, pictures: Sequence[Image]) -> dict[str, int]:
    """Swap the same frames with both, untimed; the remote one's overlap.

    Returns:
        The largest difference of a pixel of whole frames, in 1/255, of the frames that both swapped in full, and how
        many frames those were.
    """
    embedded.warm_up()
    remote.warm_up()
    near, far = embedded.open_session(), remote.open_session()
    if not isinstance(far, SplitSession):
        raise TypeError(
            "The remote model's session must let frames overlap. Give its swapper the client as a renderer."
        )
    frames = [Frame(picture, index, index / FPS) for index, picture in enumerate(pictures)]
    under_way = deque(far.begin(frame) for frame in frames[:IN_FLIGHT])
    differences: list[int] = []
    for index, frame in enumerate(frames):
        one, other = near.process(frame), under_way.popleft()()
        if one.is_complete and other.is_complete:
            differences.append(int(np.abs(one.image.astype(np.int16) - other.image.astype(np.int16)).max()))
        if index + IN_FLIGHT < len(frames):
            under_way.append(far.begin(frames[index + IN_FLIGHT]))
    near.close()
    far.close()
    return {"largest_difference": max(differences, default=255), "frames_compared": len(differences)}
