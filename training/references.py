"""A persona's clips to further references, used only where they make a better picture than its photo alone.

    uv run python -m training.references FACESET --persona FOLDER

FOLDER is a persona as the Studio makes it (`still.png`, `mesh.npy`, `consent.json`); FACESET holds faces of its clips
(`training.extract`). Sharp faces of the same person, in poses and expressions that differ most, become references. The
first frames of every clip are held out: both ways to play the persona, the photo alone and the nearest of many, are
measured on them, where the right answer is known: the clip itself. `FOLDER/references` gets the references, their
figures and what plays (`references.json`), `FOLDER/bundle` the same as a bundle. Exit status 2: refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import LiveframeError
from training.evaluate import Evaluator
from training.evaluation.clip_report import ClipReport
from training.evaluation.observer import five_landmarks
from training.evaluation.subject import Subject
from training.persona_folders import replace_folder, write_one_shot, write_persona, write_references
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.consent.check import check, extended, hash_files, read_record, write_record
from understudy.consent.record import ConsentRecord
from understudy.consent.trust_store import TrustStore, trust_folder
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset, FacesetError
from understudy.jobs.atomic_file import write_json
from understudy.jobs.command_line import command
from understudy.media.clip import describe, read_frames
from understudy.media.guard import VIDEO_EXTENSIONS, MediaError
from understudy.swap.nearest import unlikeness
from understudy.swap.one_shot import CONTROL_PX
from understudy.swap.own_personas import NOTE, REFERENCES, REFERENCES_NOTE
from understudy.swap.renderer import one_shot_persona, read_reference
from understudy.swap.settings import SwapSettings
from understudy.swap.swapper import FaceSwapper
from understudy.vision.embedding import SFaceEmbedder
from understudy.vision.face import Face
from understudy.vision.iris import iris_model
from understudy.vision.reference import ReferenceFace, reference_face

_MOST = 12
# Farther turned, a mesh is a guess; less unlike than this, px of 128, two references are one.
_MOST_TURN_DEG, _LEAST_UNLIKE_PX = 40.0, 1.0
# What of each clip is held out, and how closely it is looked at.
_HELD_OUT_SHARE, _HELD_OUT_FRAMES, _EVERY, _MOST_CLIPS = 0.4, 150, 5, 3
# By how much many references must be nearer to the truth, and how much more they may flicker where that would be seen.
_LEAST_GAIN, _FLICKER_SLACK, _CALM = 0.003, 0.1, 1.05


@dataclass(frozen=True, slots=True)
class Figures:
    """How one way to play a persona did on its held-out frames.

    Attributes:
        identity: likeness to the person in those frames (SFace), -1 to 1.
        ssim: likeness to the clip itself, 0 to 1.
        delta_e: colour difference from it, CIE 1976.
        flicker: change from frame to frame over the clip's own.
    """

    identity: float
    ssim: float
    delta_e: float
    flicker: float

    @classmethod
    def of(cls, reports: Sequence[ClipReport]) -> Figures:
        """Average reports; what could not be measured is NaN."""
        names = ("identity_to_persona", "self_ssim", "self_delta_e", "flicker_ratio")
        return cls(*(float(np.mean([getattr(report, name) for report in reports])) for name in names))


def is_better(many: Figures, one: Figures) -> bool:
    """Whether many references play a persona better than its photo alone: nearer to the truth, and as calm.

    What could not be measured is no proof: then the photo stays.
    """
    is_as_like = many.identity >= one.identity - _LEAST_GAIN
    is_nearer = many.ssim >= one.ssim + _LEAST_GAIN and many.delta_e <= one.delta_e
    return is_as_like and is_nearer and many.flicker <= max(one.flicker + _FLICKER_SLACK, _CALM)


def choose(
    still: ReferenceFace, faceset: Faceset, entries: Sequence[FaceEntry], most: int = _MOST
) -> list[ReferenceFace]:
    """Return references that differ most from a persona's still and from each other; sharp, with open eyes.

    Args:
        still: what the persona is played by already.
        faceset: where the faces lie.
        entries: those of them to choose from, of anybody: who is not the persona is left out.
        most: how many at most.
    """
    usable = [each for each in entries if max(abs(each.pose.yaw), abs(each.pose.pitch)) <= _MOST_TURN_DEG]
    usable = sorted(usable, key=lambda entry: -entry.sharpness)[: max(2 * most, len(usable) // 2)]
    if not usable:
        return []
    shapes = np.stack([_shape(entry.mesh, faceset.info.size) for entry in usable])
    # Twice as many as wanted: some turn out to be somebody else, or to have their eyes shut.
    candidates = [usable[index] for index in _unlike(_shape(still.mesh, still.image.shape[0]), shapes, 2 * most)]
    pictures, is_good = _pictures(candidates), _Judge(still)
    found = (reference_face(pictures[each.id], each.face) for each in candidates if each.id in pictures)
    return [reference for reference in found if is_good(reference)][:most]


def _shape(mesh: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return how a head is turned and what its face does: float32 [468, 2], px of a control crop."""
    return np.asarray(mesh[:, :2] * np.float32(CONTROL_PX / side), np.float32)


def _unlike(first: NDArray[np.float32], shapes: NDArray[np.float32], count: int) -> list[int]:
    """Return places of shapes, each the one most unlike the first shape and those before it."""
    chosen: list[int] = []
    nearest = unlikeness(shapes, first)
    while len(chosen) < count and float(nearest.max()) >= _LEAST_UNLIKE_PX:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, unlikeness(shapes, shapes[chosen[-1]]))
    return chosen


def _pictures(entries: Sequence[FaceEntry]) -> dict[str, NDArray[np.uint8]]:
    """Read the frames that faces were found in, each clip once; what cannot be read any more is left out."""
    found: dict[str, NDArray[np.uint8]] = {}
    by_file: dict[str, dict[int, list[str]]] = {}
    for entry in entries:
        by_file.setdefault(entry.name, {}).setdefault(entry.frame_index, []).append(entry.id)
    for file, wanted in by_file.items():
        for index, image in _frames(Path(file), max(wanted)):
            found |= dict.fromkeys(wanted.get(index, ()), image)
    return found


def _frames(file: Path, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    if file.suffix.lower() not in VIDEO_EXTENSIONS:
        image = cv2.imread(str(file))
        yield from [] if image is None else [(0, np.asarray(image, np.uint8))]
        return
    try:
        for frame in read_frames(file):
            yield frame.index, frame.image
            if frame.index >= last:
                return
    except MediaError as error:
        print(f"{file}: skipped: {error}", file=sys.stderr)


class _Judge:
    """Tells whether a reference shows the still's person with open eyes."""

    def __init__(self, still: ReferenceFace) -> None:
        self._embedder = SFaceEmbedder()
        self._person = self._embedding(still)

    def __call__(self, reference: ReferenceFace) -> bool:
        if min(iris_model().both(reference.image, reference.mesh).openness) < 1:
            return False
        likeness = self._embedder.similarity(self._embedding(reference), self._person)
        return likeness >= 1 - self._embedder.same_person

    def _embedding(self, reference: ReferenceFace) -> NDArray[np.float32]:
        mesh = reference.mesh
        box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32)
        return self._embedder.embed(reference.image, Face(box, 1.0, five_landmarks(mesh)))


# ---- measuring -------------------------------------------------------------------------------------------------


def held_out(faceset: Faceset, frames: int = _HELD_OUT_FRAMES) -> tuple[list[Path], int]:
    """Return the clips to judge by, the longest first, and how many first frames of each are held out.

    Args:
        faceset: of clips and photos.
        frames: of each clip, at most.

    Returns:
        Clips and frames; no clip where there are only photos.
    """
    sources = [Path(each.name) for each in faceset.sources.values() if each.kind == "clip"]
    lengths = {path: describe(path).frames for path in sources if path.is_file()}
    clips = sorted(lengths, key=lambda path: -lengths[path])[:_MOST_CLIPS]
    held = min([frames, *(int(lengths[path] * _HELD_OUT_SHARE) for path in clips)])
    return (clips, held) if clips and held >= 2 * _EVERY else ([], 0)


def measure(
    name: str, ways: Mapping[str, Sequence[ReferenceFace]], bundle: Bundle, clips: Sequence[Path], frames: int
) -> dict[str, Figures]:
    """Play a persona in several ways on the first frames of its own clips, where the right answer is the clip.

    Args:
        name: the persona's.
        ways: references by what to call them.
        bundle: gives the mixing network.
        clips: of the persona.
        frames: of each clip.
    """
    evaluator = Evaluator(clips, _EVERY, frames, is_quiet=True)
    # The person as the held-out frames show them: against the still, nothing is as like as the still.
    person = evaluator.drivers[0].identity
    mixer = bundle.mixer() if bundle.manifest.is_one_shot else None
    found: dict[str, Figures] = {}
    for way, references in ways.items():
        settings = SwapSettings(persona=name, faces="all")
        model = FaceSwapper(settings=settings, renderers={name: one_shot_persona(references, mixer)})
        model.warm_up()
        subject = Subject(name, model, person)
        found[way] = Figures.of(list(evaluator.run_subject(subject, is_driver=True)))
    return found


# ---- the command -----------------------------------------------------------------------------------------------


def learn(persona: Path, faceset: Faceset, bundle: Bundle, store: TrustStore, frames: int = _HELD_OUT_FRAMES) -> str:
    """Choose a persona's references, measure them, and write them, their figures and the bundle into its folder.

    Args:
        persona: its folder.
        faceset: faces of its clips.
        bundle: gives the mixing network.
        store: the operator's key signs the record that lists the references.
        frames: of each clip that are held out, at most.

    Returns:
        What came of it, in a sentence.

    Raises:
        ConsentError: the record does not cover training.
        ModelError: the persona has no still.
    """
    record = read_record(persona / "consent.json")
    check(record, "train", store.read(), faces=hash_files([persona / "still.png"]), persona=record.consent.persona)
    still = read_reference(persona / "still.png", persona / "mesh.npy")
    clips, held = held_out(faceset, frames)
    entries = [each for each in faceset if each.frame_index >= held or Path(each.name) not in clips]
    more = choose(still, faceset, entries)
    figures: dict[str, Figures] = {}
    if more and clips:
        ways = {"one": [still], "many": [still, *more]}
        figures = measure(record.consent.persona, ways, bundle, clips, held)
    is_used = bool(figures) and is_better(figures["many"], figures["one"])
    note = {"count": len(more), "is_used": is_used, "is_better": is_used}
    note["figures"] = {way: asdict(each) for way, each in figures.items()}
    with tempfile.TemporaryDirectory(dir=persona, prefix=".references-") as folder:
        new = Path(folder) / REFERENCES
        pictures = write_references(new, more)
        write_json(new / REFERENCES_NOTE, note)
        if pictures:  # first: a record that lists more than there is does no harm
            record = extended(record, pictures, store.signing_key())
            write_record(persona / "consent.json", record)
        replace_folder(new, persona / REFERENCES)
    if bundle.manifest.is_one_shot:
        _write_bundle(persona, record, more if is_used else [], faceset, bundle, note)
    return _told(note)


def _write_bundle(
    persona: Path,
    record: ConsentRecord,
    more: Sequence[ReferenceFace],
    faceset: Faceset,
    bundle: Bundle,
    note: Mapping[str, object],
) -> None:
    name = record.consent.persona
    facts = dict(bundle.manifest.training)
    facts["sources"] = sorted({*facts.get("sources", ()), *(each.sha256 for each in faceset.sources.values())})
    with tempfile.TemporaryDirectory(dir=persona, prefix=".bundle-") as folder:
        still = read_reference(persona / "still.png", persona / "mesh.npy")
        write_persona(Path(folder) / name, still, record, more)
        shutil.copyfile(persona / "still.png", Path(folder) / name / "reference.png")  # the very bytes that are listed
        write_one_shot(
            persona / "bundle",
            Path(folder),
            lambda path: path.write_bytes(bundle.read(bundle.manifest.network)),
            name=bundle.manifest.name,
            version=bundle.manifest.version,
            training={**facts, "references": note},
            titles={name: _title(persona) or name.title()},
        )


def _title(persona: Path) -> str:
    path = persona / NOTE
    return str(json.loads(path.read_text())["title"]) if path.is_file() else ""


def _told(note: Mapping[str, Any]) -> str:
    count, figures = note["count"], note["figures"]
    if not count:
        return "The clips show nothing of the persona that its photo does not: the photo plays."
    if not figures:
        return f"{count} references were chosen, but there is no clip to judge them by: the photo plays."
    one, many = figures["one"], figures["many"]
    told = ", ".join(f"{key} {one[key]:.3g} to {many[key]:.3g}" for key in one)
    plays = f"{count} references play besides the photo" if note["is_used"] else "they are no better: the photo plays"
    return f"{plays} ({told})."


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 when it is refused."""
    parser = argparse.ArgumentParser(prog="training.references", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("faceset", type=Path)
    parser.add_argument("--persona", type=Path, required=True, metavar="FOLDER", help="as the Studio makes it")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="gives the mixing network")
    parser.add_argument("--trust", type=Path, help="folder of keys (default: UNDERSTUDY_HOME or ~/.understudy)")
    parser.add_argument("--frames", type=int, default=_HELD_OUT_FRAMES, help="of each clip to judge by (%(default)s)")
    options = parser.parse_args(arguments)
    store = TrustStore(options.trust or trust_folder(os.environ))
    try:
        faceset, bundle = Faceset.open(options.faceset), Bundle.load(options.bundle)
        print(learn(options.persona, faceset, bundle, store, options.frames))
    except (LiveframeError, FacesetError) as error:
        print(f"training.references: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
