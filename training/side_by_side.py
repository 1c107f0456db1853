"""What a person looks at after an evaluation: source and swap side by side, and the figures over time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from training.clip_report import ClipReport

Image = NDArray[np.uint8]

_BAR_PX = 28
_PANELS = (
    ("pose_deg", "head pose, deg"),
    ("mouth_pct", "mouth, % of eye distance"),
    ("eyes_pct", "eyes, % of eye distance"),
    ("identity_to_persona", "cosine to persona"),
    ("ms", "ms a frame"),
)


class SideBySide:
    """Writes an H.264 clip: the source on the left, the swap on the right, each with a caption.

    Args:
        path: the .mp4 to write.
        fps: frames a second.
        captions: what stands under the source and under the swap.
    """

    def __init__(self, path: Path, fps: float, captions: tuple[str, str]) -> None:
        import av

        self._container: Any = av.open(str(path), "w")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._captions = captions
        self._stream: Any = None

    def add(self, source: Image, swapped: Image) -> None:
        """Take the next frame: uint8 [H, W, 3], BGR, both of one size."""
        import av

        pair = np.hstack([_captioned(s, c) for s, c in zip((source, swapped), self._captions, strict=True)])
        pair = np.ascontiguousarray(pair[: pair.shape[0] // 2 * 2, : pair.shape[1] // 2 * 2])
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "20"})
            self._stream.height, self._stream.width = pair.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pair, format="bgr24")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def plot_reports(reports: Sequence[ClipReport], path: Path) -> None:
    """Draw each persona's figures over a clip's frames, one panel a figure, as a PNG.

    Args:
        reports: of one clip.
        path: the .png to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2 * len(_PANELS)), layout="constrained")
    axes = figure.subplots(len(_PANELS), 1, sharex=True)
    for (name, title), axis in zip(_PANELS, axes, strict=True):
        for report in reports:
            values = np.asarray(report.series.get(name, ()), np.float64)
            known = np.flatnonzero(np.isfinite(values))
            axis.plot(known, values[known], label=report.persona, linewidth=1)
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper right", fontsize=8)
    axes[-1].set_xlabel(f"frame of {reports[0].clip}")
    figure.savefig(path, dpi=110)


def _captioned(image: Image, caption: str) -> Image:
    bar = np.full((_BAR_PX, image.shape[1], 3), 24, np.uint8)
    cv2.putText(bar, caption, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([image, bar])
