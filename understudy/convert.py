"""Clips and photos in, swapped ones out: `python -m understudy.convert IN OUT --persona NAME`.

Sound is kept, frames keep their times (variable rates included), rotation is applied. Frames without a swap are
covered, unless you say otherwise. Work goes on where it stopped when the command is run again. Results are labelled,
watermarked and signed. Many at once: `python -m understudy.convert FOLDER OUT_FOLDER --persona NAME...`.
`understudy.media.conversion.convert` is the same as a function.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from liveframe.cover import CoverStyle
from liveframe.errors import LiveframeError
from liveframe.frame import Image
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.consent.trust_store import TrustStore, trust_folder
from understudy.jobs.atomic_file import write_json
from understudy.jobs.command_line import FAILED, STOPPED, command, sentence_for
from understudy.jobs.stop_requests import stop_requests
from understudy.jobs.work_folder import work_folder
from understudy.media.batch import Task, find_sources, is_photo, plan
from understudy.media.clip_gate import OnMissedFace, OnNoFace, ScreenPolicy
from understudy.media.conversion import (
    Conversion,
    ConvertError,
    ConvertReport,
    ConvertStopped,
    Progress,
    convert,
)
from understudy.media.encoding import CODECS, CONTAINERS, QUALITY, Encoding
from understudy.media.photo import PHOTO_SUFFIXES
from understudy.media.photo_conversion import convert_photo, preview
from understudy.media.resume import FrameCounts
from understudy.provenance.c2pa import provenance_from
from understudy.swap.own_personas import Choice, choose_persona, own_personas, persona_of_photo
from understudy.swap.people import People, Rule, read_rule, rule_for
from understudy.swap.raw_face import RawFaceInspector
from understudy.swap.swapper import SwapSettings
from understudy.swap.verified_swapper import VerifiedSwapper

__all__ = [
    "STOPPED",
    "Conversion",
    "ConvertError",
    "ConvertReport",
    "ConvertStopped",
    "Progress",
    "convert",
    "main",
]

_PROGRESS_EVERY_S = 0.25
_SUSPICION = 0.3
_MOST_SCENES = 5


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

    def close(self, report: ConvertReport) -> None:
        """Write the end: with what was not swapped and what was left out."""
        if self._path is not None:
            tally = asdict(report.tally)
            scenes = [asdict(scene) for scene in report.scenes]
            done = {"frames": report.tally.frames, "done": report.tally.frames, "total": report.tally.frames}
            rest = {"eta_s": 0.0, "phase": "done", "scenes": scenes, "notes": list(report.notes)}
            write_json(self._path, done | {"tally": tally, "seconds": report.seconds} | rest)


# ------------------------------------------------------------------------------------------------ options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="understudy.convert",
        description="Clips and photos in, swapped ones out: sound kept, labelled, watermarked and signed.",
        epilog="Stopped or killed, the same command goes on where it was.",
    )
    parser.add_argument(
        "paths",
        metavar="IN... OUT",
        nargs="*",
        type=Path,
        help=f"a clip and its result ({', '.join(CONTAINERS)}), a photo and its result ({', '.join(PHOTO_SUFFIXES)}), "
        "or files, folders and patterns and the folder for their results",
    )
    _add_personas(parser)
    _add_appearance(parser)
    _add_part_and_encoding(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--threads", type=int, default=2, help="cores for the networks (default 2)")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="also write progress there, as JSON")
    return parser


def _add_personas(parser: argparse.ArgumentParser) -> None:
    names = "who plays, by name or title, your own from the Studio included (default: the bundle's first); several: "
    parser.add_argument("--persona", nargs="+", default=[], metavar="NAME", help=f"{names}each clip by each of them")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's directory or .zip")
    photo_persona = (
        "a persona made of one photo, as the Studio keeps it (still.png, mesh.npy, consent.json); its still plays"
    )
    parser.add_argument("--photo-persona", type=Path, metavar="FOLDER", help=photo_persona)
    rule = "who plays whom, told by the face through the whole clip: a picture of the person meant, or left, middle, "
    rule += "right for who is there at first; PERSONA or keep (as they are). Again for each; others get --persona"
    parser.add_argument("--map", action="append", default=[], metavar="REFERENCE.jpg=PERSONA", help=rule)
    photo = "any photo plays; its owner's consent goes with it (--consent)"
    parser.add_argument("--photo", type=Path, metavar="FACE.jpg", help=photo)
    parser.add_argument("--consent", type=Path, metavar="RECORD.json", help="the signed record for --photo")


def _add_appearance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faces", choices=("all", "largest"), default="all", help="whose faces are swapped")
    parser.add_argument("--strength", type=float, default=1.0, help="0 to 1: how much of the persona")
    parser.add_argument("--colour-match", type=float, default=1.0, help="0 to 1: how much of the scene's light")
    parser.add_argument("--shape", type=float, default=1.0, help="0 to 1: how far the face takes the persona's shape")
    eyes = "show the actor's own eyes, not the persona's with the actor's gaze"
    parser.add_argument("--own-eyes", action="store_true", help=eyes)
    parser.add_argument("--own-mouth", action="store_true", help="show the actor's own lips")
    before = "keep hands, hair and spectacles before the face (default: yes)"
    parser.add_argument("--keep-occluders", action=argparse.BooleanOptionalAction, default=True, help=before)
    parser.add_argument(
        "--on-miss",
        type=OnMissedFace,
        choices=list(OnMissedFace),
        default=OnMissedFace.COVER,
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


def _add_part_and_encoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start", type=_seconds, default=0.0, metavar="TIME", help="where the result begins")
    parser.add_argument("--end", type=_seconds, metavar="TIME", help="where it ends: seconds, or 1:02.5, or 1:00:00")
    shown = "do not convert: write the frame at --start, swapped, as a photo, and nothing else (OUT is not needed)"
    parser.add_argument("--preview", type=Path, metavar="FRAME.jpg", help=shown)
    parser.add_argument("--codec", choices=CODECS, default="", help="default: h264; vp9 in .webm")
    quality = f"1 to 100 (default {QUALITY}: looks like the source)"
    parser.add_argument("--quality", type=int, default=QUALITY, help=quality)
    parser.add_argument("--height", type=int, default=0, metavar="PX", help="scale to this height, before the swap")
    fast = "encode on the graphics card or processor where that works here"
    parser.add_argument("--hardware", action="store_true", help=fast)


def _seconds(text: str) -> float:
    """Read a time: seconds, minutes:seconds or hours:minutes:seconds."""
    parts = text.split(":")
    try:
        seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = -1.0
    if len(parts) > 3 or not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"a time must be like 12.5, 1:02.5 or 1:00:00, but got '{text}'")
    return seconds


def _sorted_out(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    """Tell paths from names: `--persona ada IN OUT` is read as it was meant; split sources from OUT.

    Ends the program with status 2, as argparse does, where something is missing or contradictory.
    """
    needed = 1 if options.preview else 2
    missing = needed - len(options.paths)
    if 0 < missing < len(options.persona):
        options.paths = [*options.paths, *map(Path, options.persona[-missing:])]
        options.persona = options.persona[:-missing]
    if len(options.paths) < needed:
        parser.error(f"IN{' and OUT' if needed == 2 else ''} must be given, but got {len(options.paths)} paths")
    if (options.photo is None) != (options.consent is None):
        parser.error("--photo and --consent must be given together, but one is")
    if sum(bool(each) for each in (options.photo, options.photo_persona, len(options.persona) > 1)) > 1:
        parser.error("--photo, --photo-persona and several --persona must not be given together, but two of them are")
    return options


# ------------------------------------------------------------------------------------------------ one result


@dataclass(frozen=True, slots=True)
class _Player:
    """Who plays in a run of results: the persona, ready, and how frames are treated."""

    verified: VerifiedSwapper
    others: Sequence[VerifiedSwapper]
    options: argparse.Namespace
    environment: Mapping[str, str]
    is_face_suspected: Callable[[Image], bool] | None

    def conversion(self, source: Path, target: Path) -> Conversion:
        options, verified = self.options, self.verified
        return Conversion(
            source=source,
            target=target,
            policy=ScreenPolicy(options.on_miss, options.no_face, options.cover),
            overlays=verified.overlays(),
            seal=verified.sealer(provenance_from(self.environment), self.others),
            is_face_suspected=self.is_face_suspected,
            inspect=RawFaceInspector(),
            fingerprint={
                "bundle": verified.bundle.digest,
                "settings": verified.swapper.settings,
                "personas": [each.check_consent() for each in (verified, *self.others)],  # records hold the hashes
                "map": tuple(options.map),
            },
            is_overwriting=options.overwrite,
            encoding=Encoding(options.codec, options.quality, options.height, options.hardware),
            start_s=options.start,
            end_s=options.end,
        )


def _suspects_faces() -> Callable[[Image], bool]:
    """A wary look: whatever resembles a face a little, of any size and at any roll."""
    from understudy.vision.detect import FaceDetector, far_detector
    from understudy.vision.roll import RollCheck

    detector, roll = FaceDetector(), RollCheck()

    def suspects(image: Image) -> bool:
        looks = (detector.detect, roll.turned_faces, far_detector(image.shape).detect)
        return any(look(image, _SUSPICION) for look in looks)

    return suspects


@contextmanager
def _chosen(options: argparse.Namespace, word: str, environment: Mapping[str, str]) -> Generator[Choice]:
    """Find who was asked for; a photo's persona lives as long as the block."""
    if options.photo is not None:
        with tempfile.TemporaryDirectory(prefix="understudy-") as room:
            made = persona_of_photo(options.photo, options.consent, Path(room, "photo_persona"), options.bundle)
            yield replace(made, name=word or made.name)
    elif options.photo_persona is not None:
        yield Choice(word or options.photo_persona.name, "", options.bundle, options.photo_persona)
    else:
        own = own_personas(work_folder(environment))
        yield choose_persona(word, options.bundle, Bundle.load(options.bundle), own)


@contextmanager
def _engaged(options: argparse.Namespace, word: str, environment: Mapping[str, str]) -> Generator[_Player]:
    with _chosen(options, word, environment) as choice:
        verified = _performer(options, choice, environment)
        others: list[VerifiedSwapper] = []
        if options.map:
            verified, others = _with_people(options, verified, environment)
        suspects = _suspects_faces() if options.no_face is OnNoFace.KEEP else None
        yield _Player(verified, others, options, environment, suspects)


def _performer(options: argparse.Namespace, choice: Choice, environment: Mapping[str, str]) -> VerifiedSwapper:
    settings = SwapSettings(
        persona=choice.name,
        faces=options.faces,
        strength=options.strength,
        colour_match=options.colour_match,
        own_eyes=options.own_eyes,
        own_mouth=options.own_mouth,
        keep_occluders=options.keep_occluders,
        shape=options.shape,
    )
    store = TrustStore(trust_folder(environment))
    return VerifiedSwapper.open(choice.bundle, settings, "record", store, options.threads, choice.look, choice.photo)


def _with_people(
    options: argparse.Namespace, verified: VerifiedSwapper, environment: Mapping[str, str]
) -> tuple[VerifiedSwapper, list[VerifiedSwapper]]:
    """Make the rules of --map, and engage everybody whom they name."""
    own, bundle = own_personas(work_folder(environment)), Bundle.load(options.bundle)
    rules: list[Rule] = []
    others: dict[str, VerifiedSwapper] = {}
    for who, word in map(read_rule, options.map):
        name = word
        if word:
            choice = choose_persona(word, options.bundle, bundle, own)
            name = choice.name
            if name != verified.persona.name and name not in others:
                others[name] = _performer(options, choice, environment)
        rules.append(rule_for(who, name))
    swapper = verified.swapper
    for name, other in others.items():
        if other.bundle.digest != verified.bundle.digest or name not in swapper.personas:
            other.swapper.load([name])
            swapper = swapper.with_renderer(name, other.swapper.loaded(name))
    return replace(verified, swapper=swapper.with_people(People(tuple(rules)))), list(others.values())


def _convert_one(player: _Player, task: Task, should_stop: Callable[[], bool], write: ProgressFile) -> ConvertReport:
    from tqdm import tqdm

    conversion = player.conversion(task.source, task.target)
    if is_photo(task.source):
        report = convert_photo(conversion, player.verified.swapper)
        write.close(report)
        return report
    with tqdm(unit="frame", disable=None, dynamic_ncols=True, desc=task.source.name) as bar:

        def tell(progress: Progress) -> None:
            bar.total = progress.total or None
            bar.set_postfix(swapped=progress.tally.swapped, covered=progress.tally.covered, refresh=False)
            bar.update(progress.frames - bar.n)
            write(progress)

        report = convert(conversion, player.verified.swapper, tell, should_stop)
    write.close(report)
    return report


def _describe(tally: FrameCounts) -> str:
    return f"{tally.swapped} swapped, {tally.held} held, {tally.covered} covered, {tally.kept} kept"


def _tell_report(report: ConvertReport) -> None:
    for note in report.notes:
        print(note, file=sys.stderr)
    print(f"{report.target}: {report.tally.frames} frames in {report.seconds:.1f} s; {_describe(report.tally)}")
    for scene in report.scenes[:_MOST_SCENES]:
        reason = f": {scene.reason}" if scene.reason else ""
        print(f"  {scene.start_s:.2f} s to {scene.end_s:.2f} s: {scene.frames} {scene.outcome}{reason}")
    if len(report.scenes) > _MOST_SCENES:
        print(f"  and {len(report.scenes) - _MOST_SCENES} more scenes like these.")


# ------------------------------------------------------------------------------------------------ one, many, a look


def _run_preview(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    source = options.paths[0]
    with _engaged(options, next(iter(options.persona), ""), environment) as player:
        report = preview(player.conversion(source, options.preview), player.verified.swapper, options.preview)
    print(f"{report.target}: {source.name} at {options.start:g} s; {_describe(report.tally)}")
    return 0


def _run_one(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    source, target = options.paths
    with (
        stop_requests() as should_stop,
        _engaged(options, next(iter(options.persona), ""), environment) as player,
    ):
        report = _convert_one(player, Task(source, target, ""), should_stop, ProgressFile(options.progress))
    _tell_report(report)
    return 0


def _run_many(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Make all results that are missing; what fails is told and does not stop the others."""
    *given, folder = options.paths
    suffix = ".mov" if options.codec == "prores" else ".mp4"
    tasks = plan(find_sources(given), folder, options.persona or [""], suffix)
    told: list[tuple[Task, str]] = []
    write, status = ProgressFile(options.progress), 0
    with stop_requests() as should_stop:
        for word in options.persona or [""]:
            own_tasks = [task for task in tasks if task.persona == word]
            outcome = _run_persona(options, environment, word, own_tasks, should_stop, write)
            for task, words, is_done in outcome:
                told.append((task, words))
                status = status if is_done else FAILED
            if should_stop():
                break
    _print_table(told)
    if should_stop():
        print(f"Stopped with {len(tasks) - len(told)} to go. Run the same command again to go on.", file=sys.stderr)
        return STOPPED
    return status


def _run_persona(
    options: argparse.Namespace,
    environment: Mapping[str, str],
    word: str,
    tasks: Sequence[Task],
    should_stop: Callable[[], bool],
    write: ProgressFile,
) -> Iterator[tuple[Task, str, bool]]:
    """Make one persona's results; give for each what became of it and whether that is well."""
    waiting = [task for task in tasks if options.overwrite or not task.target.exists()]
    yield from ((task, "there already", True) for task in tasks if task not in waiting)
    if not waiting:
        return
    try:
        with _engaged(options, word, environment) as player:
            for task in waiting:
                if should_stop():
                    return
                try:
                    task.target.parent.mkdir(parents=True, exist_ok=True)
                    report = _convert_one(player, task, should_stop, write)
                except ConvertStopped:
                    return
                except (LiveframeError, ValueError, OSError) as error:
                    yield task, sentence_for(error), False
                    continue
                notes = " ".join(report.notes)
                yield task, f"{_describe(report.tally)}; {report.seconds:.1f} s. {notes}".strip(), True
    except (LiveframeError, ValueError, OSError) as error:
        yield from ((task, sentence_for(error), False) for task in waiting)


def _print_table(rows: Sequence[tuple[Task, str]]) -> None:
    width = min(60, max((len(task.target.name) for task, _ in rows), default=0))
    for task, words in rows:
        print(f"{task.target.name:<{width}}  {words}")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 when it fails, `STOPPED` when it was asked to stop."""
    parser = _parser()
    options = _sorted_out(parser, parser.parse_args(arguments))
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise
    try:
        if options.preview is not None:
            return _run_preview(options, os.environ)
        is_many = len(options.paths) > 2 or len(options.persona) > 1 or _is_several(options.paths[0])
        return (_run_many if is_many or options.paths[-1].is_dir() else _run_one)(options, os.environ)
    except ConvertStopped as stop:
        print(stop, file=sys.stderr)
        return STOPPED


def _is_several(path: Path) -> bool:
    return path.is_dir() or (not path.exists() and any(sign in str(path) for sign in "*?["))


if __name__ == "__main__":
    sys.exit(main())
