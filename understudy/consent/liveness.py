"""A short check before a record of kind "self": look, say the shown line, turn the head both ways.

The take is hashed frame by frame and never stored; the record keeps the hash, the line and the time. It shows that
somebody sat before the camera and meant it; it does not prove who, and it does not listen to what is said.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np

from liveframe.frame import Image, check_image
from understudy.vision.face import Points
from understudy.vision.pose import head_pose

_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_COLOURS = ("amber", "blue", "copper", "green", "ivory", "red", "silver", "violet")
_THINGS = ("boats", "bridges", "candles", "feathers", "lanterns", "maps", "stones", "violins")
_EYE_CORNERS = (33, 263)  # Face Mesh: the outer corners
_INNER_LIPS = (13, 14)
_FORWARD_DEG = 12.0
_TURNED_DEG = 20.0
_OPEN, _SHUT = 0.10, 0.05  # gap of the inner lips, in outer-eye distances
_OPENINGS = 4
_FORWARD_FRAMES = 10


class Step(StrEnum):
    """What the person is asked for."""

    LOOK = "look"
    SPEAK = "speak"
    TURN_LEFT = "turn left"
    TURN_RIGHT = "turn right"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class LivePrompt:
    """Where the check stands.

    Attributes:
        step: what is asked for now.
        sentence: the same for the person.
        share_done: 0 to 1.
    """

    step: Step
    sentence: str
    share_done: float


def choose_line(chance: random.Random) -> str:
    """Return a line to say that nobody can have recorded before: one of some 32,000."""
    first, second = chance.sample(_THINGS, 2)
    numbers, colours = chance.sample(_NUMBERS, 2), chance.sample(_COLOURS, 2)
    return f"{numbers[0]} {colours[0]} {first} and {numbers[1]} {colours[1]} {second}"


class LiveCheck:
    """Leads one person through the steps. Not thread-safe: fed from the thread that tracks the face.

    It starts over, with a new line and order, when the face is gone for a second, jumps (another face may have
    taken its place), or the take gets too long.

    Args:
        chance: source of the line and the order; `random.SystemRandom()` outside tests.
        limit_s: how long one take may last, in seconds.
        patience_s: how long the face may be gone, in seconds.
    """

    def __init__(self, chance: random.Random, limit_s: float = 60.0, patience_s: float = 1.0) -> None:
        self._chance = chance
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._start_over()

    def update(self, image: Image, mesh: Points | None, now_s: float) -> LivePrompt:
        """Look at one camera frame.

        Args:
            image: uint8 [H, W, 3], BGR, as the camera gave it: neither mirrored nor swapped.
            mesh: float32 [468, 3], frame px, of the only face in it; None where there is none, or several.
            now_s: monotonic seconds.
        """
        check_image(image)
        if self._steps[self._at] is Step.DONE:
            return self._prompt()
        if self._is_lost(mesh, now_s):
            self._start_over()
        elif mesh is not None:
            self._started_s = now_s if self._started_s is None else self._started_s
            self._seen_s, self._centre = now_s, mesh[:, :2].mean(axis=0)
            self._take.update(f"{image.shape} {now_s:.3f}\0".encode())
            self._take.update(image.tobytes())
            self._frames += 1
            if self._has_done(mesh):
                self._at += 1
        return self._prompt()

    def evidence(self, now: datetime) -> dict[str, Any]:
        """Return what a consent record keeps of the take (`Consent.evidence`).

        Raises:
            ValueError: the check is not done.
        """
        if self._steps[self._at] is not Step.DONE:
            raise ValueError(f"The live check must be done first, but stands at '{self._steps[self._at]}'. Finish it.")
        return {
            "method": "live check",
            "line": self.line,
            "steps": [str(step) for step in self._steps[:-1]],
            "frames": self._frames,
            "at": now.isoformat(timespec="seconds"),
            "sha256": self._take.hexdigest(),
        }

    def _start_over(self) -> None:
        self.line = choose_line(self._chance)
        turns = [Step.TURN_LEFT, Step.TURN_RIGHT]
        self._chance.shuffle(turns)
        self._steps: Sequence[Step] = (Step.LOOK, Step.SPEAK, *turns, Step.DONE)
        self._at = 0
        self._take = hashlib.sha256()
        self._frames = self._forward_frames = self._openings = 0
        self._is_open = False
        self._started_s: float | None = None
        self._seen_s: float | None = None
        self._centre = np.zeros(2, np.float32)

    def _is_lost(self, mesh: Points | None, now_s: float) -> bool:
        if self._started_s is None or self._seen_s is None:
            return False
        if now_s - self._started_s > self._limit_s or now_s - self._seen_s > self._patience_s:
            return True
        if mesh is None:
            return False
        return float(np.linalg.norm(mesh[:, :2].mean(axis=0) - self._centre)) > 1.5 * _eye_distance(mesh)

    def _has_done(self, mesh: Points) -> bool:
        """Whether this frame completes the step that is asked for."""
        step, yaw = self._steps[self._at], head_pose(mesh).yaw
        if step is Step.LOOK:
            self._forward_frames = self._forward_frames + 1 if abs(yaw) < _FORWARD_DEG else 0
            return self._forward_frames >= _FORWARD_FRAMES
        if step is Step.SPEAK:
            gap = float(np.linalg.norm(mesh[_INNER_LIPS[0]] - mesh[_INNER_LIPS[1]])) / _eye_distance(mesh)
            if self._is_open and gap < _SHUT:
                self._openings += 1
            self._is_open = gap > _OPEN or (self._is_open and gap >= _SHUT)
            return self._openings >= _OPENINGS
        # The nose of who turns to their own left points to the right of an unmirrored picture.
        return yaw > _TURNED_DEG if step is Step.TURN_LEFT else yaw < -_TURNED_DEG

    def _prompt(self) -> LivePrompt:
        step = self._steps[self._at]
        sentences = {
            Step.LOOK: "Look into the camera.",
            Step.SPEAK: f"Say aloud: “{self.line}”.",
            Step.TURN_LEFT: "Turn your head to your left.",
            Step.TURN_RIGHT: "Turn your head to your right.",
            Step.DONE: "Thank you. Nothing of this was stored but its fingerprint.",
        }
        return LivePrompt(step, sentences[step], self._at / (len(self._steps) - 1))


def _eye_distance(mesh: Points) -> float:
    return max(float(np.linalg.norm(mesh[_EYE_CORNERS[0]] - mesh[_EYE_CORNERS[1]])), 1e-3)
