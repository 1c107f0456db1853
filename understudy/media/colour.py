"""Colours of video: what a stream's tags say, its pixels as BGR, BGR as its pixels again, and HDR brought to SDR.

Numbers are those of ITU-T H.273, which H.264, HEVC and MP4 share.
"""

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Image

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

UNSPECIFIED = 2
BT709, BT601, BT2020 = 1, 5, 9
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18
# BT.470BG and SMPTE 170M are one matrix; BT.2020's constant-luminance one is read as the usual one.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_RGB_MATRIX = 0
_HD_WIDTH, _HD_HEIGHT = 1280, 720
# Bilinear, full chroma, accurate rounding: without the last two, swscale darkens by one to two levels.
_ACCURATE = 2 | 8192 | 16384 | 262144
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float64
)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
_UNIT_NITS = 1000.0  # what 1.0 means in "light" below: the nominal peak of HLG
_WHITE_NITS = 203.0  # diffuse white in HDR video (ITU-R BT.2408)
_KEY = 0.18  # where the log-average light is put (Reinhard et al. 2002, "Photographic tone reproduction")
_KNEE = 0.5
_LUT_POINTS = 33


@dataclass(frozen=True, slots=True)
class ColourTags:
    """How a stream's numbers mean colours.

    Attributes:
        matrix: between RGB and YUV; 2 where the stream does not say, 0 for RGB itself.
        primaries: which red, green and blue; 2 where not said.
        transfer: from numbers to light; 2 where not said. 16 is PQ, 18 is HLG.
        range: 1 limited (16 to 235), 2 full (0 to 255), 0 where not said.
    """

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    range: int = 0

    @classmethod
    def of(cls, tagged: Any) -> "ColourTags":
        """Read the tags of a decoder's context or of a frame."""
        return cls(int(tagged.colorspace), int(tagged.color_primaries), int(tagged.color_trc), int(tagged.color_range))

    @property
    def is_hdr(self) -> bool:
        """Whether numbers mean light beyond SDR's white."""
        return self.transfer in (PQ, HLG)

    def working_matrix(self, width: int, height: int) -> int:
        """Return the matrix to convert with: the stream's, else the one that players guess from the size."""
        guess = BT709 if width >= _HD_WIDTH or height >= _HD_HEIGHT else BT601
        return _MATRICES.get(self.matrix, guess)

    def written(self, is_rgb: bool = False) -> "ColourTags":
        """Return the tags of a result made from this stream.

        SDR video keeps what it says, and says nothing where it said nothing: its pixels go back the way they came,
        so that every player shows it as it shows the source. HDR (tone-mapped) and RGB become BT.709.
        """
        if self.is_hdr or is_rgb or self.matrix == _RGB_MATRIX:
            return ColourTags(BT709, BT709, BT709, LIMITED)
        return self


def to_bgr(frame: "VideoFrame", tone: "ToneMap | None" = None) -> Image:
    """Turn a decoded frame to pixels, by its own tags.

    Args:
        frame: in any pixel format.
        tone: brings HDR to SDR; left out, HDR numbers are taken as they are.

    Returns:
        uint8 [H, W, 3] BGR, as stored: not turned.
    """
    tags = ColourTags.of(frame)
    planar = "gbrp" if tone is None else "gbrp10le"
    rgb = frame.reformat(
        format=planar,
        src_colorspace=tags.working_matrix(frame.width, frame.height),
        src_color_range=tags.range or _usual_range(frame),
        dst_color_range=FULL,
        interpolation=_ACCURATE,
        threads=1,
    )
    if tone is not None:
        rgb = tone.apply(rgb).reformat(format="gbrp", threads=1)
    green, blue, red = (_plane(rgb, number) for number in range(3))
    return np.asarray(cv2.merge([blue, green, red]), np.uint8)


def from_bgr(image: Image, tags: ColourTags, pixel_format: str = "yuv420p") -> "VideoFrame":
    """Turn pixels to a frame for an encoder, tagged.

    Args:
        image: uint8 [H, W, 3] BGR; even sizes where the format halves chroma.
        tags: as `ColourTags.written` gives them.
        pixel_format: the encoder's, a YUV one.
    """
    import av

    height, width = image.shape[:2]
    frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
        format=pixel_format,
        dst_colorspace=tags.working_matrix(width, height),
        dst_color_range=tags.range or LIMITED,
        interpolation=_ACCURATE,
        threads=1,
    )
    frame.colorspace, frame.color_range = tags.matrix, tags.range or LIMITED
    frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
    return frame


def _usual_range(frame: "VideoFrame") -> int:
    return FULL if frame.format.name.startswith("yuvj") else LIMITED


def _plane(frame: "VideoFrame", number: int) -> NDArray[np.uint8]:
    plane: Any = frame.planes[number]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


class ToneMap:
    """Brings HDR video (BT.2020 with PQ or HLG) to SDR (BT.709): one exposure and one curve for a whole clip.

    The clip's log-average light is brought to middle grey, within two bounds: the peak is never darker than white,
    and diffuse white (203 nits) never lighter. Above the knee, light rolls off to white (Reinhard's extended curve) by
    the largest channel, so that hues stay. Not thread-safe.

    Args:
        transfer: 16 (PQ) or 18 (HLG).
        samples: uint16 [H, W, 3] RGB pictures of the clip, full range, still in BT.2020: small ones will do.
    """

    def __init__(self, transfer: int, samples: Iterable[NDArray[np.uint16]]) -> None:
        self._transfer = transfer
        light = [_light(sample.reshape(-1, 3) / 65535.0, transfer) for sample in samples]
        lumas = np.concatenate([each @ _BT2020_LUMA for each in light]) if light else np.array([_KEY])
        self._peak = max(1.0, float(np.percentile(np.concatenate(light).max(axis=1), 99.9))) if light else 1.0
        average = float(np.exp(np.mean(np.log(np.maximum(lumas, 1e-4)))))
        self._exposure = min(max(_KEY / average, 1.0 / self._peak), _UNIT_NITS / _WHITE_NITS)
        self._graph: Any = None
        self._size = (0, 0)

    def sdr(self, signal_rgb: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map HDR numbers, [N, 3] RGB 0 to 1, to SDR ones."""
        light = np.maximum(_light(signal_rgb, self._transfer) @ _BT2020_TO_BT709.T, 0.0) * self._exposure
        brightest = np.maximum(light.max(axis=1, keepdims=True), 1e-9)
        mapped = np.clip(light * (_rolled_off(brightest, self._peak * self._exposure) / brightest), 0.0, 1.0)
        return np.where(mapped <= 0.0031308, 12.92 * mapped, 1.055 * mapped ** (1 / 2.4) - 0.055)

    def apply(self, frame: "VideoFrame") -> "VideoFrame":
        """Map a frame in planar RGB of ten bits."""
        if self._graph is None or self._size != (frame.width, frame.height):
            self._graph, self._size = self._new_graph(frame), (frame.width, frame.height)
        frame.pts = None
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _new_graph(self, frame: "VideoFrame") -> Any:
        from av.filter import Graph

        graph = Graph()
        graph.threads = 2
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
        with tempfile.TemporaryDirectory(prefix="understudy-") as room:
            path = Path(room, "tone.cube")
            path.write_text(self._cube)
            table = graph.add("lut3d", f"file={path}:interp=tetrahedral")
        sink = graph.add("buffersink")
        source.link_to(table)
        table.link_to(sink)
        graph.configure()
        return graph

    @cached_property
    def _cube(self) -> str:
        """The map as an Adobe .cube table: red runs fastest."""
        steps = np.linspace(0.0, 1.0, _LUT_POINTS)
        blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
        rows = self.sdr(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1))
        lines = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in rows.tolist())
        return f"LUT_3D_SIZE {_LUT_POINTS}\n{lines}\n"


def _light(signal: NDArray[np.float64], transfer: int) -> NDArray[np.float64]:
    """Turn numbers, [N, 3] 0 to 1, to light on the display, 1.0 for 1,000 nits (ITU-R BT.2100)."""
    if transfer == PQ:
        root = signal ** (1 / 78.84375)
        return 10.0 * (np.maximum(root - 0.8359375, 0.0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    low = signal**2 / 3
    high = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    scene = np.where(signal <= 0.5, low, high)
    return scene * np.maximum(scene @ _BT2020_LUMA, 1e-9)[:, None] ** 0.2


def _rolled_off(light: NDArray[np.float64], white: float) -> NDArray[np.float64]:
    """Bend light above the knee so that `white` becomes 1."""
    if white <= 1.0 or math.isclose(white, 1.0):
        return light
    above, most = np.maximum(light - _KNEE, 0.0) / (1 - _KNEE), (white - _KNEE) / (1 - _KNEE)
    return np.minimum(light, _KNEE) + (1 - _KNEE) * above * (1 + above / most**2) / (1 + above)
