"""Smoothing over time: steady while still, no visible lag while moving."""

import numpy as np
from numpy.typing import NDArray

from understudy.vision.align import crop_matrix, transform
from understudy.vision.face import Matrix, Points

Values = NDArray[np.float64]

_LONGEST_GAP_S = 0.5
_SHORTEST_STEP_S = 1 / 240


class OneEuro:
    """The 1-Euro filter, vectorised: a low-pass whose cutoff rises with speed.

    Casiez, Roussel and Vogel 2012, "1 Euro Filter", CHI. Time comes from the caller, so the
    filter adapts to the frame rate and to dropped frames. Not thread-safe.

    Args:
        min_cutoff_hz: cutoff at rest; lower is steadier.
        beta: how fast the cutoff rises, in Hz per (unit per second); higher lags less.
        speed_cutoff_hz: cutoff of the speed's own low-pass.
    """

    def __init__(self, min_cutoff_hz: float, beta: float, speed_cutoff_hz: float) -> None:
        self._min_cutoff_hz = min_cutoff_hz
        self._beta = beta
        self._speed_cutoff_hz = speed_cutoff_hz
        self._value: Values | None = None
        self._speed: Values | None = None

    def step(self, value: Values, elapsed_s: float) -> Values:
        """Return the smoothed value.

        Args:
            value: float64 [K, D]: K points of D coordinates; each point has one speed.
            elapsed_s: time since the last step, in seconds.
        """
        if self._value is None or self._speed is None:
            self._value, self._speed = value.copy(), np.zeros_like(value)
            return value.copy()
        raw_speed = (value - self._value) / elapsed_s
        self._speed = self._speed + _weight(self._speed_cutoff_hz, elapsed_s) * (raw_speed - self._speed)
        speed = np.sqrt(np.einsum("kd,kd->k", self._speed, self._speed))[:, None]  # a third of linalg.norm's time
        cutoff_hz = self._min_cutoff_hz + self._beta * speed
        self._value = self._value + _weight(cutoff_hz, elapsed_s) * (value - self._value)
        return self._value.copy()


class MeshSmoother:
    """Smooths a face's mesh in two parts: where the head is, and what the face does.

    Place, size and roll are filtered together, in units of the crop's side; the rest (expression
    and turning) point by point in the crop's coordinates, with a quicker filter, so that a blink
    is not lost. Not thread-safe: one per track.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pose = OneEuro(min_cutoff_hz=1.0, beta=15.0, speed_cutoff_hz=2.0)
        self._shape = OneEuro(min_cutoff_hz=1.5, beta=20.0, speed_cutoff_hz=4.0)
        self._last_s: float | None = None
        self._angle = 0.0
        self._anchor = np.zeros(2)
        self._unit: float | None = None

    def step(self, mesh: Points, now_s: float) -> Points:
        """Return the smoothed mesh.

        Args:
            mesh: float32 [468, 3], frame px, as fitted.
            now_s: when the frame was taken, on any monotonic clock, in seconds. After a gap of
                half a second, or when time runs backwards, the filter starts anew.
        """
        if self._last_s is None or not 0 <= now_s - self._last_s <= _LONGEST_GAP_S:
            self._reset()
        elapsed_s = _SHORTEST_STEP_S if self._last_s is None else max(now_s - self._last_s, _SHORTEST_STEP_S)
        self._last_s = now_s
        to_crop = crop_matrix(mesh, 1)
        pose = self._pose.step(self._pose_of(to_crop), elapsed_s).ravel()
        shape = self._shape.step(transform(mesh, to_crop).astype(np.float64), elapsed_s)
        return transform(shape.astype(np.float32), self._to_frame(pose))

    def _pose_of(self, to_crop: Matrix) -> Values:
        """The crop's centre (in units of its first side, from its first place), log side, and roll: [1, 4]."""
        scale = float(np.hypot(to_crop[0, 0], to_crop[1, 0]))
        angle = float(np.arctan2(to_crop[1, 0], to_crop[0, 0]))
        centre = np.linalg.solve(to_crop[:, :2].astype(np.float64), 0.5 - to_crop[:, 2].astype(np.float64))
        if self._unit is None:
            self._anchor, self._unit, self._angle = centre, 1 / scale, angle
        # Roll passes +-180 degrees without a jump.
        self._angle += (angle - self._angle + np.pi) % (2 * np.pi) - np.pi
        return np.array([[*((centre - self._anchor) / self._unit), -np.log(scale), self._angle]])

    def _to_frame(self, pose: Values) -> Matrix:
        centre, side, angle = pose[:2] * (self._unit or 1.0) + self._anchor, np.exp(pose[2]), pose[3]
        cos, sin = np.cos(angle) * side, np.sin(angle) * side
        matrix = np.array([[cos, sin, 0], [-sin, cos, 0]])
        matrix[:, 2] = centre - matrix[:, :2] @ (0.5, 0.5)
        return matrix.astype(np.float32)


def _weight(cutoff_hz: float | Values, elapsed_s: float) -> float | Values:
    """The share of the new value in an exponential low-pass of that cutoff."""
    turn = 2 * np.pi * cutoff_hz * elapsed_s
    return turn / (turn + 1)
