"""What a person looks at after an evaluation: source and swap side by side, and the figures over time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.clip_report import ClipReport
from understudy.consent.trust_store import TrustStore

if TYPE_CHECKING:
    from liveframe.gate import Paint
    from understudy.bundle.bundle import Bundle

Image = NDArray[np.uint8]

_BAR_PX = 28
_PANELS = (
    ("pose_deg", "head pose, deg"),
    ("mouth_pct", "mouth, % of eye distance"),
    ("eyes_pct", "eyes, % of eye distance"),
    ("identity_to_persona", "cosine to persona"),
    ("ms", "ms a frame"),
)


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What an exported clip of a persona must carry.

    Attributes:
        overlays: watermark and label, for every swapped picture.
        seal: signs the finished file, in place.
    """

    overlays: tuple[Paint, ...]
    seal: Callable[[Path], None]

    @classmethod
    def of(cls, bundle: Bundle, persona: str, trust: Path) -> Self:
        """Ask whether the persona may be recorded, and with which marks.

        Raises:
            LiveframeError: consent does not cover recording, or the operator's files cannot be followed.
        """
        from understudy.provenance.c2pa import provenance_from
        from understudy.swap.swapper import SwapSettings
        from understudy.swap.verified_swapper import VerifiedSwapper

        verified = VerifiedSwapper.open(bundle.path, SwapSettings(persona=persona), "record", TrustStore(trust))
        provenance = provenance_from({**os.environ, "UNDERSTUDY_HOME": str(trust)})
        return cls(verified.overlays(), verified.sealer(provenance))


class SideBySide:
    """Writes an H.264 clip: the source on the left, the swap on the right, marked, each with a caption.

    Like every export, the clip gets its name once it is signed; one that cannot be signed is not delivered.

    Args:
        path: the .mp4 to write.
        fps: frames a second.
        captions: what stands under the source and under the swap.
        disclosed: the marks of what is exported.
    """

    def __init__(self, path: Path, fps: float, captions: tuple[str, str], disclosed: Disclosed) -> None:
        import av

        self._path, self._disclosed = path, disclosed
        self._unsigned = path.with_name(f".{path.name}")
        self._container: Any = av.open(str(self._unsigned), "w")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._captions = captions
        self._stream: Any = None

    def add(self, source: Image, swapped: Image) -> None:
        """Take the next frame: uint8 [H, W, 3], BGR, both of one size."""
        import av

        for paint in self._disclosed.overlays:
            swapped = paint(swapped)
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
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if self._stream is not None and error is None:
                self._disclosed.seal(self._unsigned)
                self._unsigned.replace(self._path)
        finally:
            self._unsigned.unlink(missing_ok=True)


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
