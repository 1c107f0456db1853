"""A conversion's unfinished work: whole segments in a folder beside the result; it goes on after any death."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from understudy.jobs.atomic_file import write_json, write_whole
from understudy.media.clip_gate import FrameOutcome

SCHEMA = 2
_PLAN = "plan.json"
_LONGEST_NAME_BYTES = 240


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """How many frames were written, by what they are.

    Attributes:
        swapped: every face seen was swapped.
        held: the last swapped frame stood in.
        covered: nothing of the frame could be shown.
        kept: written as they are, by the user's choice.
    """

    swapped: int = 0
    held: int = 0
    covered: int = 0
    kept: int = 0

    @classmethod
    def of(cls, outcomes: Counter[FrameOutcome]) -> "FrameCounts":
        """Count outcomes."""
        return cls(**{outcome.value: outcomes[outcome] for outcome in FrameOutcome})

    @property
    def frames(self) -> int:
        """All of them."""
        return self.swapped + self.held + self.covered + self.kept

    def __add__(self, other: "FrameCounts") -> "FrameCounts":
        mine, theirs = asdict(self), asdict(other)
        return FrameCounts(**{name: mine[name] + theirs[name] for name in mine})


def fingerprint(source: Path, settings: Mapping[str, object]) -> str:
    """Identify a conversion: the same source file, model and settings give the same text, anything else another."""
    stat = source.stat()
    facts = {"schema": SCHEMA, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "settings": dict(settings)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Scene:
    """A run of frames of one clip that were not swapped.

    Attributes:
        start_s: when it begins, on the source's clock from 0.
        end_s: when its last frame begins.
        frames: how many.
        outcome: "held", "covered" or "kept".
        reason: why, as the model says it; may be empty.
    """

    start_s: float
    end_s: float
    frames: int
    outcome: str
    reason: str

    def joined(self, other: "Scene", gap_s: float) -> "Scene | None":
        """Return both as one where the other follows at once and is alike, else None."""
        if (self.outcome, self.reason) != (other.outcome, other.reason) or other.start_s - self.end_s > gap_s:
            return None
        return Scene(self.start_s, other.end_s, self.frames + other.frames, self.outcome, self.reason)


def merged(scenes: Iterable[Scene], gap_s: float = 0.5) -> list[Scene]:
    """Join scenes that follow one another, those half a second apart included."""
    out: list[Scene] = []
    for scene in scenes:
        whole = out[-1].joined(scene, gap_s) if out else None
        out[-1:] = [whole] if whole else [*out[-1:], scene]
    return out


class PartialClip:
    """The folder `TARGET.partial`: a plan, and segments numbered from 0, each with its tally.

    A segment counts once its tally is there; the tally is written after the segment, each by an atomic rename.
    """

    def __init__(self, target: Path, plan: str, suffix: str = ".nut") -> None:
        """Open the folder, or start it anew where it belongs to another plan.

        Args:
            target: the result that is being made.
            plan: `fingerprint` of the conversion.
            suffix: of the segments' container.
        """
        self.path = beside(target, ".partial")
        self._suffix = suffix
        self._tallies: list[FrameCounts] = []
        self._scenes: list[Scene] = []
        plan_file = self.path / _PLAN
        if self.path.is_dir() and not (plan_file.is_file() and plan_file.read_text() == plan):
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        if not plan_file.is_file():
            write_whole(plan_file, plan.encode())
        while self._tally_path(len(self._tallies)).is_file() and self.segment_path(len(self._tallies)).is_file():
            stored = json.loads(self._tally_path(len(self._tallies)).read_text())
            self._tallies.append(FrameCounts(**stored["tally"]))
            self._scenes += [Scene(**scene) for scene in stored["scenes"]]

    @property
    def segments(self) -> list[Path]:
        """The finished segments, in showing order."""
        return [self.segment_path(number) for number in range(len(self._tallies))]

    @property
    def tally(self) -> FrameCounts:
        """What the finished segments hold."""
        return sum(self._tallies, FrameCounts())

    @property
    def scenes(self) -> list[Scene]:
        """What of the finished segments was not swapped, in showing order."""
        return merged(self._scenes)

    def segment_path(self, number: int) -> Path:
        """Where a segment belongs."""
        return self.path / f"segment-{number:06d}{self._suffix}"

    def finish_segment(self, tally: FrameCounts, scenes: Iterable[Scene] = ()) -> None:
        """Count the next segment, which is written, as finished."""
        scenes = merged(scenes)
        note = {"tally": asdict(tally), "scenes": [asdict(scene) for scene in scenes]}
        write_json(self._tally_path(len(self._tallies)), note)
        self._tallies.append(tally)
        self._scenes += scenes

    def remove(self) -> None:
        """Delete the folder: the result is published."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _tally_path(self, number: int) -> Path:
        return self.segment_path(number).with_suffix(".json")


def beside(target: Path, suffix: str) -> Path:
    """Name a file beside a result for work on it; names that would grow too long for the system are shortened."""
    name = target.name + suffix
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        name = f"{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}{suffix}"
    return target.with_name(name)
