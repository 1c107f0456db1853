"""Finds the mark of `understudy.watermark` in a recording.

Every frame is shrunk to 160 x 120, four by four samples a cell. A sliding checker filter answers strongly at the
centre of a chip, hardly in smooth content; its answers are taken relative to those around them (the mark is faint
where the picture is smooth, and edges must not outvote it) and averaged over frames, which leaves the mark and wears
the picture down. The averaged map, evened out once more, is then read at the cells' centres: as they are, mirrored,
and, when that finds nothing, as if the frame were a crop of the original.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image
from understudy.provenance.watermark import DEFAULT_KEY, GRID_HEIGHT, GRID_WIDTH, PAYLOAD_BITS, Code

FOUND_Z = 5.0
SEARCHED_Z = 6.5  # some ten thousand readings are tried: the chance of the best of them must stay as small
_SAMPLES = 4  # map px per cell
_SAMPLED = (GRID_WIDTH * _SAMPLES, GRID_HEIGHT * _SAMPLES)
_CROP_SHARES = (1.0, 0.975, 0.95, 0.925, 0.9, 0.875, 0.85)
_STEP = 1.0  # map px between tried offsets
_AROUND = 5  # map px, a cell and what touches it
_CLIP = 1.5
_ROUNDING = 0.3  # levels: answers below this are rounding
_LEAST_MEAN = 0.05  # of an averaged map's values: below this nothing stood still
Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the marked frame a recording shows, in shares of its width and height.

    Attributes:
        x: left edge.
        y: top edge.
        width: 1.0 when nothing was cut off.
        height: 1.0 when nothing was cut off.
        is_mirrored: whether the recording is mirrored left to right.
    """

    x: float = 0.0
    y: float = 0.0
    width: float = 1.0
    height: float = 1.0
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search found.

    Attributes:
        is_found: whether the mark of this key is there.
        z: how far the chips that say "present" stand out, in standard deviations of chance.
        payload: the 16 bits; meaningless unless found.
        frames: how many were looked at.
        window: how the recording was read.
    """

    is_found: bool
    z: float
    payload: int
    frames: int
    window: Window

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; the payload is null unless found."""
        return asdict(self) | {"payload": self.payload if self.is_found else None}

    def describe(self) -> str:
        """Say it in a sentence."""
        seen = f"z = {self.z:.1f}, {self.frames} frames"
        if not self.is_found:
            return f"no watermark of this key found ({seen}). Its absence proves nothing."
        how = " mirrored" if self.window.is_mirrored else ""
        how += " cropped" if self.window.width < 1 or self.window.height < 1 else ""
        return f"watermarked, payload {self.payload:04x}{',' + how if how else ''} ({seen})."


def feature_map(image: NDArray[np.uint8]) -> Map:
    """Return a frame's answers to the checker filter.

    Args:
        image: uint8 [H, W, 3] BGR, or its luma plane [H, W].

    Returns:
        float32 [119, 159], -1.5 to 1.5. Item [i, j] answers for the corner point (j + 1, i + 1) of the
        160 x 120 samples, so that a mirrored frame gives exactly the mirrored map, negated.
    """
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    small = cv2.resize(luma.astype(np.float32), _SAMPLED, interpolation=cv2.INTER_AREA)
    half = _SAMPLES // 2
    step = np.repeat(np.asarray([1.0, -1.0], np.float32), half) / _SAMPLES
    answer = cv2.sepFilter2D(small, cv2.CV_32F, step, step, anchor=(half - 1, half - 1))
    return np.clip(_evened(np.asarray(answer[:-1, :-1], np.float32), _ROUNDING), -_CLIP, _CLIP)


def _evened(values: Map, floor: float) -> Map:
    """Divide values by their root mean square around each."""
    around = cv2.blur(values * values, (_AROUND, _AROUND))
    return np.asarray(values / np.sqrt(around + np.float32(floor * floor)), np.float32)


def detect(frames: Iterable[Image], key: bytes = DEFAULT_KEY, is_thorough: bool = True) -> Finding:
    """Look for a key's mark in frames of one recording.

    Args:
        frames: uint8 [H, W, 3] BGR (or luma planes); 30 of them, spread over the clip, find it after hard coding.
        key: whose mark.
        is_thorough: whether to try crops too, of up to 15 %; some 0.1 s.

    Raises:
        ValueError: no frame.
    """
    total, count = np.zeros((_SAMPLED[1] - 1, _SAMPLED[0] - 1), np.float32), 0
    for image in frames:
        total += feature_map(image)
        count += 1
    if count == 0:
        raise ValueError("A watermark is looked for in frames, but there are none. Check the recording.")
    return detect_in_map(total / np.float32(count), Code.of(key), count, is_thorough)


def detect_in_map(averaged: Map, code: Code, frames: int, is_thorough: bool = True) -> Finding:
    """Look for a code in an averaged `feature_map`."""
    averaged = _evened(averaged, _LEAST_MEAN)
    z, window = _search(averaged, code, (1.0,))
    limit = FOUND_Z
    if z <= limit and is_thorough:
        z, window = _search(averaged, code, _CROP_SHARES)
        limit = SEARCHED_Z
    return Finding(z > limit, z, _payload(averaged, code, window), frames, window)


def detect_file(path: Path, key: bytes = DEFAULT_KEY, frames: int = 60, is_thorough: bool = True) -> Finding:
    """Look for a key's mark in a recording or picture that the operator named.

    Args:
        path: the file.
        key: whose mark.
        frames: at least how many frames to look at, spread over the clip; fewer where it has fewer.
        is_thorough: whether to try crops too.

    Raises:
        MediaError: the file cannot be read.
    """
    from understudy.media.decode import decode_frames, upright
    from understudy.media.guard import TRUSTED_LIMITS, check_media
    from understudy.media.photo import decode_image

    info = check_media(path)
    if not info.is_video:
        return detect([decode_image(path, info.kind, TRUSTED_LIMITS)], key, is_thorough)
    stride = max(1, info.frames // max(1, frames))
    every = decode_frames(path, info.kind, TRUSTED_LIMITS)
    return detect((upright(frame) for frame in itertools.islice(every, 0, None, stride)), key, is_thorough)


@dataclass(frozen=True, slots=True)
class _Line:
    """One way to read the map along one axis: at the centres of its cells, linearly between two px.

    Attributes:
        start: where the window begins, as a share of the marked frame.
        share: how much of it the window holds.
        first: the px before each centre, int [cells].
        part: how far each centre lies beyond it, float32 [cells], 0 to 1.
        is_seen: whether the window holds the centre, [cells].
    """

    start: float
    share: float
    first: NDArray[np.intp]
    part: NDArray[np.float32]
    is_seen: NDArray[np.bool_]

    @classmethod
    def of(cls, cells: int, px: int, start: float, share: float) -> "_Line":
        """Put a window's cell centres on an axis of the map."""
        centres = ((np.arange(cells) + 0.5) / cells - start) / share * cells * _SAMPLES - 1.0
        first = np.clip(np.floor(centres), 0, px - 2).astype(np.intp)
        return cls(start, share, first, (centres - first).astype(np.float32), (centres >= 0) & (centres <= px - 1))

    def read(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Read along the last axis: [..., px] -> [..., cells], zeros where the centre was cut off."""
        between = values[..., self.first] * (1 - self.part) + values[..., self.first + 1] * self.part
        return np.where(self.is_seen, between, np.float32(0)).astype(np.float32, copy=False)


def _lines(cells: int, px: int, shares: Sequence[float]) -> list[_Line]:
    """Return every window of these sizes, in steps of `_STEP` px."""
    lines: list[_Line] = []
    for share in shares:
        room = (1 - share) * cells * _SAMPLES
        starts = np.linspace(0, room, 1 + round(room / _STEP)) / (cells * _SAMPLES)
        lines += [_Line.of(cells, px, float(start), share) for start in starts]
    return lines


def _search(averaged: Map, code: Code, shares: Sequence[float]) -> tuple[float, Window]:
    """Read a map through every window of these sizes, as it is and mirrored; the best z and its window."""
    rows = _lines(GRID_HEIGHT, averaged.shape[0], shares)
    columns = _lines(GRID_WIDTH, averaged.shape[1], shares)
    row_seen = np.stack([row.is_seen for row in rows])
    best = (-np.inf, Window())
    for is_mirrored in (False, True):
        source = _turned(averaged, is_mirrored)
        by_row = np.stack([row.read(source.T).T for row in rows])
        for column in columns:
            scores = _scores(column.read(by_row), code, row_seen, column.is_seen)
            at = int(np.argmax(scores))
            if scores[at] > best[0]:
                row = rows[at]
                best = float(scores[at]), Window(column.start, row.start, column.share, row.share, is_mirrored)
    return best


def _turned(averaged: Map, is_mirrored: bool) -> Map:
    """Turn a mirrored recording's map back; mirrored checkers are negative ones."""
    return np.negative(averaged[:, ::-1]) if is_mirrored else averaged


def _scores(
    cells: NDArray[np.float32], code: Code, row_seen: NDArray[np.bool_], column_seen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Say how far the "present" chips of each reading stand out from chance.

    Args:
        cells: float32 [N, 30, 40], zero where a cell is not seen.
        code: what to look for.
        row_seen: [N, 30].
        column_seen: [40].

    Returns:
        float64 [N], in standard deviations.
    """
    is_present = (code.groups == 0).reshape(GRID_HEIGHT, GRID_WIDTH)
    signs = code.signs.reshape(GRID_HEIGHT, GRID_WIDTH) * is_present
    seen = np.maximum(row_seen.sum(axis=1) * column_seen.sum(), 1)
    present = np.maximum(row_seen @ is_present.astype(int) @ column_seen, 1)
    mean = cells.sum(axis=(1, 2), dtype=np.float64) / seen
    spread = np.sqrt(np.maximum((cells**2).sum(axis=(1, 2), dtype=np.float64) / seen - mean**2, 0)) + 1e-9
    return (cells * signs).sum(axis=(1, 2), dtype=np.float64) / (np.sqrt(present) * spread)


def _payload(averaged: Map, code: Code, window: Window) -> int:
    """Read the 16 bits through one window: the sign of each group's sum."""
    row = _Line.of(GRID_HEIGHT, averaged.shape[0], window.y, window.height)
    column = _Line.of(GRID_WIDTH, averaged.shape[1], window.x, window.width)
    cells = column.read(row.read(_turned(averaged, window.is_mirrored).T).T).ravel()
    sums = np.bincount(code.groups, weights=cells * code.signs, minlength=1 + PAYLOAD_BITS)
    return sum(int(total > 0) << bit for bit, total in enumerate(sums[1:]))
