"""A clip in, a swapped clip out: `python -m understudy.convert IN OUT --persona NAME`.

Sound is kept, frames keep their times (variable rates included), rotation is applied. Frames without a swap are
covered, unless you say otherwise. Work goes on where it stopped when the command is run again. The result is labelled,
watermarked and signed. `understudy.media.conversion.convert` is the same as a function.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from liveframe.cover import CoverStyle
from liveframe.errors import LiveframeError
from liveframe.frame import Image
from understudy.bundle.bundle import default_bundle
from understudy.consent.trust_store import TrustStore, trust_folder
from understudy.jobs.queue import write_json
from understudy.jobs.stop_requests import stop_requests
from understudy.media.clip_gate import OnMiss, OnNoFace, ScreenPolicy
from understudy.media.conversion import (
    Conversion,
    ConvertError,
    ConvertReport,
    ConvertStopped,
    Progress,
    convert,
)
from understudy.media.encoding import CONTAINERS
from understudy.swap.blend import DETAIL

__all__ = ["Conversion", "ConvertError", "ConvertReport", "ConvertStopped", "Progress", "convert", "main"]


STOPPED = 75  # exit status: stopped on request, run again to go on (EX_TEMPFAIL)
_PROGRESS_EVERY_S = 0.25
_SUSPICION = 0.3
_TRY_AGAIN = "Make room, then run the same command again: it goes on after the last whole segment."


class ProgressFile:
    """Writes progress as JSON for whoever watches from another process, a few times a second."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write, unless the last time was a moment ago and the phase is the same."""
        if self._path is None or (progress.phase == "swapping" and time.monotonic() < self._next_s):
            return
        self._next_s = time.monotonic() + _PROGRESS_EVERY_S
        write_json(self._path, asdict(progress) | {"done": progress.frames})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="understudy.convert",
        description="A clip in, a swapped clip out: sound kept, labelled, watermarked and signed.",
        epilog="Stopped or killed, the same command goes on where it was.",
    )
    parser.add_argument("source", metavar="IN", type=Path, help="a clip")
    parser.add_argument("target", metavar="OUT", type=Path, help=f"the result: {', '.join(CONTAINERS)}")
    parser.add_argument("--persona", default="", metavar="NAME", help="who plays (default: the bundle's first)")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's directory or .zip")
    look = "a persona made of one photo, as the Studio keeps it (still.png, mesh.npy, consent.json); its still plays"
    parser.add_argument("--look", type=Path, metavar="FOLDER", help=look)
    parser.add_argument("--faces", choices=("all", "largest"), default="all", help="whose faces are swapped")
    parser.add_argument("--strength", type=float, default=1.0, help="0 to 1: how much of the persona")
    parser.add_argument("--colour-match", type=float, default=1.0, help="0 to 1: how much of the scene's light")
    parser.add_argument("--detail", type=float, default=DETAIL, help="0 to 2: fine structure of the still")
    eyes = "show the actor's own eyes and teeth, not what the network paints there (default: yes)"
    parser.add_argument("--own-eyes", action=argparse.BooleanOptionalAction, default=True, help=eyes)
    parser.add_argument(
        "--on-miss",
        type=OnMiss,
        choices=list(OnMiss),
        default=OnMiss.COVER,
        help="a frame whose face was seen but not swapped is covered, replaced by the last one for up to half a "
        "second, or kept as it is (default cover)",
    )
    parser.add_argument(
        "--no-face",
        type=OnNoFace,
        choices=list(OnNoFace),
        default=OnNoFace.COVER,
        help="a frame without a face is covered too, or kept where none was near (default cover)",
    )
    parser.add_argument("--cover", type=CoverStyle, choices=list(CoverStyle), default=CoverStyle.BLUR)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--threads", type=int, default=2, help="cores for the networks (default 2)")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="also write progress there, as JSON")
    return parser


def _suspects_faces() -> Callable[[Image], bool]:
    """A wary look: whatever resembles a face a little."""
    from understudy.vision.detect import FaceDetector

    detector = FaceDetector()
    return lambda image: bool(detector.detect(image, _SUSPICION))


def _run_command(options: argparse.Namespace, environment: Mapping[str, str]) -> ConvertReport:
    from tqdm import tqdm

    from understudy.provenance.c2pa import provenance_from
    from understudy.swap.swapper import SwapSettings
    from understudy.swap.verified_swapper import Performer

    settings = SwapSettings(
        persona=options.persona,
        faces=options.faces,
        strength=options.strength,
        colour_match=options.colour_match,
        own_eyes=options.own_eyes,
        detail=options.detail,
    )
    store = TrustStore(trust_folder(environment))
    performer = Performer.engage(options.bundle, settings, "record", store, options.threads, options.look)
    conversion = Conversion(
        source=options.source,
        target=options.target,
        policy=ScreenPolicy(options.on_miss, options.no_face, options.cover),
        paints=performer.paints(),
        seal=performer.sealer(provenance_from(environment)),
        is_face_suspected=_suspects_faces() if options.no_face is OnNoFace.KEEP else None,
        identity={
            "bundle": performer.bundle.digest,
            "settings": performer.swapper.settings,
            **({"look": performer.check_consent()} if options.look else {}),  # whose record holds the still's hash
        },
        is_overwriting=options.overwrite,
    )
    write = ProgressFile(options.progress)
    with stop_requests() as should_stop, tqdm(unit="frame", disable=None, dynamic_ncols=True) as bar:

        def tell(progress: Progress) -> None:
            bar.total = progress.total or None
            bar.set_postfix(swapped=progress.tally.swapped, covered=progress.tally.covered, refresh=False)
            bar.update(progress.frames - bar.n)
            write(progress)

        return convert(conversion, performer.swapper, tell, should_stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status: 1 when it fails, `STOPPED` when it was asked to stop."""
    options = _parser().parse_args(arguments)
    try:
        report = _run_command(options, os.environ)
    except ConvertStopped as stop:
        print(stop, file=sys.stderr)
        return STOPPED
    except (LiveframeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        where, says = error.filename or options.target, error.strerror or error
        print(f"{where} must be readable and writable, but the system says: {says}. {_TRY_AGAIN}", file=sys.stderr)
        return 1
    tally = report.tally
    print(
        f"{report.target}: {tally.frames} frames in {report.seconds:.1f} s; {tally.swapped} swapped, "
        f"{tally.held} held, {tally.covered} covered, {tally.kept} kept"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
