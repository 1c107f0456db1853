"""One picture's conversion: a photo, or a frame of a clip to look at before the clip is converted."""

import os
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from liveframe.frame import Frame, Image
from liveframe.model import FrameModel
from understudy.media.clip import read_lazily, read_photo
from understudy.media.clip_gate import ClipGate, FrameOutcome
from understudy.media.conversion import Conversion, ConvertError, ConvertReport, check_target, fitted
from understudy.media.photo import PHOTO_SUFFIXES, write_photo
from understudy.media.resume import FrameCounts

_LOOKS = 3  # at one picture: each fit of the mesh starts from the one before it
_PREVIEW_LEAD = 4


def convert_photo(conversion: Conversion, model: FrameModel) -> ConvertReport:
    """Convert a photo: upright, in sRGB, marked and signed, without the source's metadata.

    Args:
        conversion: source is a photo, target ends in one of `PHOTO_SUFFIXES`; segments, start and end do not count.
        model: swaps it; warmed up here.

    Raises:
        MediaError: the source is missing, too large, or broken.
        ConvertError: the target cannot be written, or not every face was swapped.
        ModelError: the model cannot run.
    """
    check_target(conversion, PHOTO_SUFFIXES)
    image = fitted(read_photo(conversion.source), conversion.encoding.height)
    return _show_and_write(conversion, model, [image] * _LOOKS, conversion.target)


def preview(conversion: Conversion, model: FrameModel, target: Path) -> ConvertReport:
    """Convert the one frame of a clip at its start, and write it as a photo, marked and signed.

    Args:
        conversion: as for `conversion.convert`; its own target is not written.
        model: swaps it; warmed up here.
        target: where the picture goes; ends in one of `PHOTO_SUFFIXES`, replaced where it exists.

    Raises:
        MediaError: the source is missing, too large, or broken.
        ConvertError: there is no frame at that time, or the target cannot be written.
        ModelError: the model cannot run.
    """
    if target.suffix.lower() not in PHOTO_SUFFIXES:
        raise ConvertError(f"A preview must end in {', '.join(PHOTO_SUFFIXES)}, but got '{target.name}'. Rename it.")
    images = [fitted(image, conversion.encoding.height) for image in _frames_up_to(conversion)]
    images = [image for image in images if image.shape == images[-1].shape]
    return _show_and_write(conversion, model, images + images[-1:] * (_LOOKS - 1), target, is_preview=True)


def _frames_up_to(conversion: Conversion) -> list[Image]:
    """The frame at the start, and a few before it, for the tracker."""
    waiting: list[Image] = []
    first_s: float | None = None
    with closing(read_lazily(conversion.source, from_s=conversion.start_s)) as frames:
        for frame in frames:
            first_s = frame.time_s if first_s is None and conversion.start_s == 0 else first_s
            if frame.time_s - (first_s or 0.0) < conversion.start_s - 0.5:
                continue
            waiting = [*waiting[-_PREVIEW_LEAD:], frame.image()]
            if frame.time_s - (first_s or 0.0) >= conversion.start_s - 1e-6:
                return waiting
    if not waiting:
        raise ConvertError(
            f"'{conversion.source.name}' must have a frame at {conversion.start_s:g} s, but ends before. "
            "Choose an earlier --start."
        )
    return waiting


def _show_and_write(
    conversion: Conversion, model: FrameModel, images: list[Image], target: Path, is_preview: bool = False
) -> ConvertReport:
    started_s = time.monotonic()
    model.warm_up()
    clip_gate = ClipGate(
        model.open_session(), conversion.policy, conversion.overlays, conversion.is_face_suspected, conversion.inspect
    )
    try:
        looks = [clip_gate.show(Frame(image, number, number / 25)) for number, image in enumerate(images)]
    finally:
        clip_gate.close()
    shown, outcome = looks[-1]
    if outcome not in (FrameOutcome.SWAPPED, FrameOutcome.KEPT) and not is_preview:
        raise ConvertError(
            f"'{conversion.source.name}' must show faces that can be swapped, but: {clip_gate.reason} Nothing was "
            "written. Use a photo with a larger or less hidden face."
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as room:
        written = Path(room, f"photo{target.suffix.lower()}")
        write_photo(written, shown)
        if conversion.seal is not None:
            conversion.seal(written)
        os.replace(written, target)
    tally = FrameCounts.of(Counter([outcome]))
    return ConvertReport(target, tally, 0, time.monotonic() - started_s)
