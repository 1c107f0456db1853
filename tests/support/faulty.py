"""Real, tiny frame models that fail on purpose, and a camera whose pictures are easy to recognise."""

import threading
import time
from collections.abc import Callable

import cv2
import numpy as np

from liveframe.errors import ModelError, OverloadedError
from liveframe.frame import Frame, FrameResult

HEIGHT, WIDTH = 96, 128


def camera_picture(index, height=HEIGHT, width=WIDTH):
    """A picture full of fine detail, another one for every index: uint8 [height, width, 3]."""
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


def persona_picture(frame):
    """What a good swap shows: stripes that owe nothing to the camera; the first pixel tells the frame."""
    height, width = frame.image.shape[:2]
    stripes = (np.arange(width) * 2 % 200 + 20).astype(np.uint8)
    picture = np.repeat(np.broadcast_to(stripes, (height, width))[..., None], 3, axis=2).copy()
    picture[0, 0] = (frame.index % 256, frame.index // 256, 7)
    return picture


def good(frame, found=1, done=1, **more):
    return FrameResult(persona_picture(frame), frame.index, found, done, **more)


def resemblance(shown, camera):
    """How much of the camera's detail a picture shows: the highest correlation of high-passed 16 px patches, 0 to 1."""
    if shown.shape != camera.shape:
        return 0.0
    best = 0.0
    fine = [image.astype(np.float32) - cv2.blur(image, (9, 9)).astype(np.float32) for image in (shown, camera)]
    for top in range(0, shown.shape[0] - 15, 16):
        for left in range(0, shown.shape[1] - 15, 16):
            one, other = (part[top : top + 16, left : left + 16].ravel() for part in fine)
            if one.std() > 2 and other.std() > 2:
                best = max(best, abs(float(np.corrcoef(one, other)[0, 1])))
    return best


class ScriptedModel:
    """Answers each frame by `answer(frame, session)`. Counts what the pipeline does to it."""

    def __init__(self, answer: Callable = lambda frame, session: good(frame), warm: Callable[[], None] = lambda: None):
        self.answer = answer
        self.warm = warm
        self.sessions: list[ScriptedSession] = []
        self.warmed = 0

    def warm_up(self):
        self.warmed += 1
        self.warm()

    def open_session(self):
        self.sessions.append(ScriptedSession(self))
        return self.sessions[-1]


class ScriptedSession:
    def __init__(self, model):
        self.model = model
        self.seen: list[int] = []
        self.kept: Frame | None = None
        self.closed = threading.Event()

    def process(self, frame):
        self.seen.append(frame.index)
        result = self.model.answer(frame, self)
        self.kept = frame
        return result

    def close(self):
        self.closed.set()


# ---------------------------------------------------------------------- ways to fail, each an `answer`


def raises(frame, session):
    raise ModelError("The model failed on purpose.")


def exits(frame, session):
    raise SystemExit(3)


def overloaded(frame, session):
    raise OverloadedError("Too busy.", retry_after_s=0.2)


def answers_none(frame, session):
    return None


def wrong_size(frame, session):
    return FrameResult(np.zeros((8, 8, 3), np.uint8), frame.index, 1, 1)


def grey(frame, session):
    return FrameResult(np.zeros(frame.image.shape[:2], np.uint8), frame.index, 1, 1)


def not_a_number(frame, session):
    return FrameResult(np.full(frame.image.shape, np.nan, np.float32), frame.index, 1, 1)


def camera_itself(frame, session):
    return FrameResult(frame.image, frame.index, 1, 1)


def camera_view(frame, session):
    return FrameResult(frame.image[:, ::-1], frame.index, 1, 1)


def camera_copy(frame, session):
    return FrameResult(frame.image.copy(), frame.index, 1, 1)


def camera_nearly(frame, session):
    return FrameResult(np.clip(frame.image, 1, 254), frame.index, 1, 1)


def kept_camera(frame, session):
    kept = session.kept or frame
    return FrameResult(kept.image.copy(), frame.index, 1, 1)


def stale(frame, session):
    return FrameResult(persona_picture(frame), frame.index - 1, 1, 1)


def missed(frame, session):
    return FrameResult(frame.image.copy(), frame.index, 0, 0)


def partial(frame, session):
    return FrameResult(frame.image.copy(), frame.index, 2, 1)


def odd_stages(frame, session):
    return good(frame, stages_ms={"warp": "soon"})


def slow(frame, session):
    time.sleep(0.08)
    return good(frame)


MALFORMED = {
    "wrong size": wrong_size,
    "grey": grey,
    "nan": not_a_number,
    "camera itself": camera_itself,
    "camera view": camera_view,
    "camera copy": camera_copy,
    "camera nearly": camera_nearly,
    "stale": stale,
}
FAULTS = {
    **MALFORMED,
    "none": answers_none,
    "raises": raises,
    "exits": exits,
    "overloaded": overloaded,
    "kept camera": kept_camera,
    "missed": missed,
    "partial": partial,
    "odd stages": odd_stages,
    "slow": slow,
}
