"""Gates: what a candidate's figures must hold before it is promoted. Pure: figures in, verdicts out."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from training.evaluation.clip_report import FIGURES, ClipReport

DEFAULT_GATES = Path(__file__).with_name("gates.toml")

# Figures of which more is better; of all others less is.
_MORE_IS_BETTER = frozenset(
    f"{name}{suffix}"
    for name in (
        *("coverage", "identity_to_persona", "recognised_as_persona", "retrieval_rank1", "nearer_persona"),
        *("outside_psnr_db", "judged", "self_ssim", "mouth_followed", "eyes_followed"),
    )
    for suffix in ("", "_dlib")
)


class GateError(LiveframeError, ValueError):
    """The gates' file is wrong."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What one figure must hold.

    Attributes:
        figure: an attribute of ClipReport.
        limit: what it must reach, at least or at most; None where only the champion counts.
        slack: by how much it may be worse than the champion's; None where the champion does not count.
    """

    figure: str
    limit: float | None
    slack: float | None

    @property
    def is_more_better(self) -> bool:
        """Whether larger values are better."""
        return self.figure in _MORE_IS_BETTER


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a gate went.

    Attributes:
        gate: its name: a figure, or a check such as "consent".
        is_passed: whether the candidate may go on.
        sentence: the value, the limit, and by how much it was missed.
    """

    gate: str
    is_passed: bool
    sentence: str


def load_gates(path: Path = DEFAULT_GATES) -> tuple[Gate, ...]:
    """Read gates from TOML; `gates.toml` beside this file tells the format.

    Raises:
        GateError: the file is missing or broken, or has an unknown figure or key, or a limit in the wrong direction.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise GateError(f"Gates must be a readable TOML file, but {path}: {error}. Check the path.") from error
    if not tables:
        raise GateError(f"Gates must name a figure, but {path} is empty. Start from {DEFAULT_GATES}.")
    return tuple(_gate(figure, table, path) for figure, table in tables.items())


def _gate(figure: str, table: Any, path: Path) -> Gate:
    if figure not in FIGURES:
        raise GateError(f"A gate must be one of {', '.join(FIGURES)}, but {path} has {figure!r}. Check the spelling.")
    bound = "at_least" if figure in _MORE_IS_BETTER else "at_most"
    values: dict[str, Any] = table if isinstance(table, dict) else {}
    is_known = values and set(values) <= {bound, "slack"}
    if not is_known or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values.values()):
        raise GateError(f"The gate {figure} of {path} must set numbers for {bound!r} or 'slack', but has {table!r}.")
    return Gate(figure, values.get(bound), values.get("slack"))


def worst_of(reports: Sequence[ClipReport], gate: Gate) -> tuple[float, str]:
    """Return the worst persona's mean over its clips, and that persona; NaN where a clip gave no value."""
    by_persona: dict[str, list[float]] = {}
    for report in reports:
        by_persona.setdefault(report.persona, []).append(getattr(report, gate.figure))
    means = [(sum(values) / len(values), persona) for persona, values in by_persona.items()]
    unknown = [entry for entry in means if math.isnan(entry[0])]
    if unknown or not means:
        return unknown[0] if unknown else (math.nan, "nobody")
    return min(means) if gate.is_more_better else max(means)


def judge_gates(
    gates: Sequence[Gate], candidate: Sequence[ClipReport], champion: Sequence[ClipReport]
) -> tuple[Verdict, ...]:
    """Hold a candidate against every gate.

    Args:
        gates: what must hold.
        candidate: its reports.
        champion: the champion's on the same clips; empty where there is none, and limits alone count.
    """
    return tuple(_judge(gate, candidate, champion) for gate in gates)


def _judge(gate: Gate, candidate: Sequence[ClipReport], champion: Sequence[ClipReport]) -> Verdict:
    value, persona = worst_of(candidate, gate)
    if math.isnan(value):
        return Verdict(gate.figure, False, f"{gate.figure} could not be measured for {persona}.")
    bounds: list[tuple[float, str]] = []
    if gate.limit is not None:
        bounds.append((gate.limit, "the limit"))
    if gate.slack is not None and champion:
        mine, _ = worst_of(champion, gate)
        if not math.isnan(mine):
            allowed = mine - gate.slack if gate.is_more_better else mine + gate.slack
            bounds.append((allowed, f"the champion's {mine:.4g} with a slack of {gate.slack:.4g}"))
    missed = [(_miss(value, bound, gate), bound, what) for bound, what in bounds]
    by, bound, what = max(missed, default=(0.0, math.nan, "no bound"))
    side = "at least" if gate.is_more_better else "at most"
    if by > 0:
        sentence = f"{gate.figure} of {persona} is {value:.4g}, but must be {side} {bound:.4g} ({what}): by {by:.4g}."
        return Verdict(gate.figure, False, sentence)
    held = f"must be {side} {bound:.4g} ({what})" if bounds else "no champion to compare with"
    return Verdict(gate.figure, True, f"{gate.figure} of {persona} is {value:.4g}; {held}.")


def _miss(value: float, bound: float, gate: Gate) -> float:
    """Return by how much a bound is missed; 0 or less where it holds."""
    return bound - value if gate.is_more_better else value - bound
