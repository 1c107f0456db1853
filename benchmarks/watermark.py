"""How well the live watermark is found: marked against unmarked clips, through codecs and scalings, in one run.

`python -m benchmarks.watermark --json` prints one object, keys `watermark.<treatment>.<figure>`. Every clip is cut
into pieces of 10 s; each piece is coded once marked and once plain, and detected with 60 frames. False alarms are
counted with keys that never marked anything, on marked and plain pieces alike.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.machine import machine
from understudy.draw.label import Label
from understudy.provenance.watermark import Code, Watermark
from understudy.provenance.watermark_detector import FOUND_Z, detect_in_map, feature_map

Image = NDArray[np.uint8]
CLIPS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "clips"
RATE_HZ = 30
HEIGHT_PX = 480
DETECTED_FRAMES = 60
KEY = b"benchmark key"
STRANGE_CODES = [Code.of(f"strange key {index}".encode()) for index in range(250)]


@dataclass(frozen=True, slots=True)
class Codec:
    """How a piece is coded."""

    name: str
    container: str
    options: dict[str, str] = field(default_factory=dict[str, str])

    def recode(self, frames: Sequence[Image]) -> list[Image]:
        """Encode at 500 kbit/s and decode again."""
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=self.container) as out:
            stream = out.add_stream(self.name, rate=RATE_HZ, options=self.options)
            stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *frames[0].shape[:2], "yuv420p", 500_000
            for index, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts, frame.time_base = index, Fraction(1, RATE_HZ)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        buffer.seek(0)
        with av.open(buffer) as coded:
            return [frame.to_ndarray(format="bgr24") for frame in coded.decode(video=0)]


H264 = Codec("libx264", "mp4", {"preset": "veryfast"})
VP8 = Codec("libvpx", "webm", {"deadline": "realtime", "cpu-used": "8"})


def _scaled(frames: Sequence[Image], width: int, height: int) -> list[Image]:
    return [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]


def treated(frames: Sequence[Image]) -> dict[str, NDArray[np.float32]]:
    """Put frames through every treatment; give each one's averaged feature map."""
    vp8 = VP8.recode(frames)
    return {
        "h264_500k": _averaged(H264.recode(frames)),
        "vp8_500k": _averaged(vp8),
        "vp8_500k_320x180": _averaged(_scaled(vp8, 320, 180)),
        "vp8_500k_h264_500k": _averaged(H264.recode(vp8)),
    }


def pieces(clip: Path, seconds: float, most: int) -> Iterator[list[Image]]:
    """Cut a clip into pieces of 480p; a shorter clip gives one shorter piece, if it has a second at least."""
    with av.open(str(clip)) as container:
        every = (frame.to_ndarray(format="bgr24") for frame in container.decode(video=0))
        for number in range(most):
            piece = [_to_480p(image) for image in islice(every, round(seconds * RATE_HZ))]
            if len(piece) < RATE_HZ or (number and len(piece) < seconds * RATE_HZ):
                return
            yield piece


def _to_480p(image: Image) -> Image:
    width = 2 * round(image.shape[1] * HEIGHT_PX / image.shape[0] / 2)
    return np.asarray(cv2.resize(image, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(slots=True)
class Scores:
    """What one treatment gave."""

    marked: list[float] = field(default_factory=list[float])
    plain: list[float] = field(default_factory=list[float])
    strange: list[float] = field(default_factory=list[float])
    payloads_right: int = 0

    def figures(self) -> dict[str, float]:
        """Sum it up."""
        marked, plain = np.asarray(self.marked), np.asarray(self.plain + self.strange)
        wins = (marked[:, None] > plain).mean() + 0.5 * (marked[:, None] == plain).mean()
        return {
            "clips": len(marked),
            "auc": float(wins),
            "detection_rate": float((marked > FOUND_Z).mean()),
            "payload_rate": self.payloads_right / len(marked),
            "false_alarm_rate": float((plain > FOUND_Z).mean()),
            "null_scores": len(plain),
            "z_marked_min": float(marked.min()),
            "z_marked_median": float(np.median(marked)),
            "z_null_max": float(plain.max()),
        }


def _averaged(frames: Sequence[Image]) -> NDArray[np.float32]:
    stride = max(1, len(frames) // DETECTED_FRAMES)
    return np.mean([feature_map(frame) for frame in frames[::stride]], axis=0).astype(np.float32)


def measure(clips: Sequence[Path], seconds: float, most: int) -> dict[str, Scores]:
    """Mark, treat and detect every piece of every clip."""
    scores: dict[str, Scores] = {}
    code, label, random = Code.of(KEY), Label(), np.random.default_rng(0)
    for clip in clips:
        for piece in pieces(clip, seconds, most):
            payload = int(random.integers(0, 1 << 16))
            mark = Watermark(KEY, payload)
            labelled = [label(frame) for frame in piece]
            plain, marked = treated(labelled), treated([mark(frame) for frame in labelled])
            for name in marked:
                _score(scores.setdefault(name, Scores()), marked[name], plain[name], code, payload)
        weakest = min(each.marked[-1] for each in scores.values()) if scores else 0.0
        print(f"{clip.name}: weakest z {weakest:.1f} of its last piece", file=sys.stderr)
    return scores


def _score(scores: Scores, marked: NDArray[np.float32], plain: NDArray[np.float32], code: Code, payload: int) -> None:
    found = detect_in_map(marked, code, DETECTED_FRAMES, is_thorough=False)
    scores.marked.append(found.z)
    scores.payloads_right += found.payload == payload
    scores.plain.append(detect_in_map(plain, code, DETECTED_FRAMES, is_thorough=False).z)
    for averaged in (marked, plain):
        scores.strange += [detect_in_map(averaged, c, DETECTED_FRAMES, is_thorough=False).z for c in STRANGE_CODES]


def cost(width: int, height: int, rounds: int = 200) -> dict[str, float]:
    """Time the mark and the label on one frame, ms, and measure how visible the mark is."""
    image = np.random.default_rng(0).integers(40, 216, (height, width, 3), np.uint8)
    mark, label, work = Watermark(KEY), Label(), image.copy()
    psnr_db = float(cv2.PSNR(image, mark(image.copy())))
    times: dict[str, list[float]] = {"bgr": [], "luma": [], "label": []}
    plane = np.ascontiguousarray(image[..., 0])
    label(work)
    for _ in range(rounds):
        for name, paint in (
            ("bgr", lambda: mark(work)),
            ("luma", lambda: mark.mark_luma(plane)),
            ("label", lambda: label(work)),
        ):
            started_s = time.perf_counter()
            paint()
            times[name].append(1e3 * (time.perf_counter() - started_s))
    figures = {f"{name}_ms_p50": float(np.median(values)) for name, values in times.items()}
    return figures | {"bgr_ms_p95": float(np.percentile(times["bgr"], 95)), "psnr_db": psnr_db}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit status: 2 where there are no clips."""
    parser = argparse.ArgumentParser(prog="benchmarks.watermark", description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path, help="clips to mark (those of ../shared)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a piece")
    parser.add_argument("--most", type=int, default=2, help="pieces of one clip at most")
    parser.add_argument("--quick", action="store_true", help="three clips, one piece each")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    clips = options.clips or sorted(CLIPS.glob("*.mp4"))
    if not clips:
        print(f"Clips to mark must be named or lie in {CLIPS}, but there are none. Name some.", file=sys.stderr)
        return 2
    clips, most = (clips[:3], 1) if options.quick else (clips, options.most)
    figures = {f"watermark.cost_480p.{name}": value for name, value in cost(640, 480).items()}
    for treatment, scores in measure(clips, options.seconds, most).items():
        figures |= {f"watermark.{treatment}.{name}": value for name, value in scores.figures().items()}
    if options.json:
        print(json.dumps({"machine": machine(), **figures}))
    else:
        print("\n".join(f"{name:48s} {value:.4g}" for name, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
