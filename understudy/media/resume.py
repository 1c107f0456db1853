"""A conversion's unfinished work: whole segments in a folder beside the result; it goes on after any death."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from understudy.jobs.atomic_file import write_json, write_whole
from understudy.media.clip_gate import FrameOutcome

SCHEMA = 1
_PLAN = "plan.json"


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


class PartialClip:
    """The folder `TARGET.partial`: a plan, and segments numbered from 0, each with its tally.

    A segment counts once its tally is there; the tally is written after the segment, each by an atomic rename.
    """

    def __init__(self, target: Path, plan: str) -> None:
        """Open the folder, or start it anew where it belongs to another plan.

        Args:
            target: the result that is being made.
            plan: `fingerprint` of the conversion.
        """
        self.path = target.with_name(target.name + ".partial")
        self._tallies: list[FrameCounts] = []
        plan_file = self.path / _PLAN
        if self.path.is_dir() and not (plan_file.is_file() and plan_file.read_text() == plan):
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        if not plan_file.is_file():
            write_whole(plan_file, plan.encode())
        while self._tally_path(len(self._tallies)).is_file() and self.segment_path(len(self._tallies)).is_file():
            stored = json.loads(self._tally_path(len(self._tallies)).read_text())
            self._tallies.append(FrameCounts(**stored))

    @property
    def segments(self) -> list[Path]:
        """The finished segments, in showing order."""
        return [self.segment_path(number) for number in range(len(self._tallies))]

    @property
    def tally(self) -> FrameCounts:
        """What the finished segments hold."""
        return sum(self._tallies, FrameCounts())

    def segment_path(self, number: int) -> Path:
        """Where a segment belongs."""
        return self.path / f"segment-{number:06d}.nut"

    def finish_segment(self, tally: FrameCounts) -> None:
        """Count the next segment, which is written, as finished."""
        write_json(self._tally_path(len(self._tallies)), asdict(tally))
        self._tallies.append(tally)

    def remove(self) -> None:
        """Delete the folder: the result is published."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _tally_path(self, number: int) -> Path:
        return self.segment_path(number).with_suffix(".json")
