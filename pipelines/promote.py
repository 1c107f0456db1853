"""Promote a candidate, if it holds every gate; or go back to the version before.

    uv run python -m pipelines.promote CLIP...
    uv run python -m pipelines.promote --candidate models:/understudy/7 --out compare CLIP...
    uv run python -m pipelines.promote --rollback

Candidate and champion swap the same clips in one run; then the bundle's hashes, its personas'
consent records and the gates of gates.toml decide. The alias moves only when all of them hold. A clip that
the candidate learned from is refused.
Exit status: 0 promoted (or already the champion), 1 a gate failed, 2 could not be judged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from liveframe.errors import LiveframeError
from pipelines.gates import DEFAULT_GATES, Gate, Verdict, judge_gates, load_gates
from pipelines.held_out import judge_held_out
from pipelines.registry import CHALLENGER, CHAMPION, DEFAULT_NAME, ROLLED_BACK_TAG, Registry, RegistryError
from training.model.log_model import fetch_bundle, find_version, logged_model_id
from training.model.tracking_uri import log_dataset, use_tracking
from understudy.bundle.bundle import Bundle, BundleError
from understudy.consent.persona import Persona
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import Trust, TrustStore, trust_folder

if TYPE_CHECKING:
    from training.evaluation.clip_report import ClipReport


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a candidate.

    Attributes:
        name: the registered model.
        candidate: its version.
        champion: the version that was champion before; None where there was none.
        is_promoted: whether the alias points to the candidate now.
        verdicts: every gate, in the order it was judged.
        candidate_reports: the candidate's figures; empty where it was refused before it ran.
        champion_reports: the champion's on the same clips.
    """

    name: str
    candidate: int
    champion: int | None
    is_promoted: bool
    verdicts: tuple[Verdict, ...]
    candidate_reports: tuple[ClipReport, ...] = ()
    champion_reports: tuple[ClipReport, ...] = ()

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The gates that failed."""
        return tuple(verdict for verdict in self.verdicts if not verdict.is_passed)

    def to_json(self) -> str:
        """Return the decision as one line of strict JSON."""
        return json.dumps(
            {
                "name": self.name,
                "candidate": self.candidate,
                "champion": self.champion,
                "promoted": self.is_promoted,
                "gates": [{"gate": v.gate, "passed": v.is_passed, "sentence": v.sentence} for v in self.verdicts],
                "candidate_figures": [report.figures() for report in self.candidate_reports],
                "champion_figures": [report.figures() for report in self.champion_reports],
            },
            allow_nan=False,
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """On what, and how closely, candidate and champion are compared.

    Attributes:
        clips: held out: one that the candidate learned from (by its manifest) is refused.
        every: identity, gaze and the seam are measured on every n-th frame.
        limit: frames to take of each clip; 0 takes all.
        out: where side-by-side clips and plots go, in `candidate` and `champion`; nowhere where None.
        is_quiet: whether to show no progress.
        trust: folder of the keys that side-by-side clips are signed by; the operator's where None.
        gallery: a folder of strangers' faces to retrieve personas from; personas and drivers alone where None.
    """

    clips: tuple[Path, ...]
    every: int = 5
    limit: int = 0
    out: Path | None = None
    is_quiet: bool = False
    trust: Path | None = None
    gallery: Path | None = None


def promote(
    registry: Registry,
    candidate_uri: str,
    trial: Trial,
    gates: Sequence[Gate],
    trust: Trust,
    alias: str = CHAMPION,
    is_again: bool = False,
) -> Decision:
    """Judge a candidate against the champion, and move the alias when every gate holds.

    Everything is logged to one MLflow run, and the verdict is tagged on the candidate's version.

    Args:
        registry: where both are registered.
        candidate_uri: models:/name@alias or models:/name/version.
        trial: the clips.
        gates: what must hold.
        trust: whose consent records count.
        alias: what to move.
        is_again: whether a version that was rolled back may be promoted once more.

    Raises:
        BundleError: there is no such candidate, or the champion's bundle is damaged.
        RegistryError: the alias was moved by somebody else meanwhile.
    """
    candidate = find_version(candidate_uri)
    version, before = int(candidate.version), registry.version_of(alias)
    if candidate.name != registry.name:
        raise RegistryError(f"The candidate must be a version of {registry.name!r}, but got {candidate_uri!r}.")
    if version == before:
        verdict = Verdict("version", True, f"Version {version} is the {alias} already.")
        return Decision(registry.name, version, before, True, (verdict,))
    if (when := candidate.tags.get(ROLLED_BACK_TAG)) and not is_again:
        sentence = (
            f"Version {version} was rolled back at {when}. Register a better one, or give --again to try this one."
        )
        return _concluded(
            registry, Decision(registry.name, version, before, False, (Verdict("rollback", False, sentence),)), trial
        )
    checks, bundle = check_bundle(candidate_uri, trust)
    if bundle is None or not all(verdict.is_passed for verdict in checks):
        return _concluded(registry, Decision(registry.name, version, before, False, checks), trial)
    checks = (*checks, judge_held_out(bundle, trial.clips))
    if not checks[-1].is_passed:
        return _concluded(registry, Decision(registry.name, version, before, False, checks), trial)
    mine, theirs = _compare(registry, bundle, before, trial)
    verdicts = checks + judge_gates(gates, mine, theirs)
    is_promoted = all(verdict.is_passed for verdict in verdicts)
    if is_promoted:
        registry.replace_alias(alias, version, before)
    return _concluded(registry, Decision(registry.name, version, before, is_promoted, verdicts, mine, theirs), trial)


def check_bundle(uri: str, trust: Trust) -> tuple[tuple[Verdict, ...], Bundle | None]:
    """Check what no figure tells: the bundle is what was registered, and its personas may go live.

    Args:
        uri: models:/name@alias or models:/name/version.
        trust: whose consent records count.

    Returns:
        The verdicts "bundle" and "consent", and the bundle; None where it was refused.
    """
    try:
        bundle = Bundle.load(fetch_bundle(uri))
    except BundleError as error:
        return (Verdict("bundle", False, str(error)),), None
    refusals: list[str] = []
    for info in bundle.personas:
        try:
            Persona.of(info).check("live", trust)
        except ConsentError as error:
            refusals.append(f"{info.name}: {error}")
    verified = Verdict("bundle", True, f"{len(bundle.manifest.files)} files match their hashes ({bundle.digest[:12]}).")
    granted = f"{len(bundle.personas)} consent records cover live use."
    return (verified, Verdict("consent", not refusals, " ".join(refusals) or granted)), bundle


def _compare(
    registry: Registry, candidate: Bundle, champion: int | None, trial: Trial
) -> tuple[tuple[ClipReport, ...], tuple[ClipReport, ...]]:
    """Swap the same clips with both; returns the candidate's reports and the champion's."""
    from training.evaluate import Evaluator

    evaluator = Evaluator(trial.clips, trial.every, trial.limit, trial.is_quiet, trial.trust, gallery=trial.gallery)
    mine = tuple(evaluator.run(candidate, out=trial.out / "candidate" if trial.out else None))
    if champion is None:
        return mine, ()
    bundle = Bundle.load(registry.resolve(champion))
    return mine, tuple(evaluator.run(bundle, out=trial.out / "champion" if trial.out else None))


def _concluded(registry: Registry, decision: Decision, trial: Trial) -> Decision:
    """Log a decision to an MLflow run of its own, beside the version's training, and tag the candidate with it."""
    import mlflow

    sentences = " ".join(verdict.sentence for verdict in decision.failed)
    registry.tag(
        decision.candidate,
        {"gates": "passed" if not decision.failed else "failed", "gates_failed": sentences[:4000]},
    )
    version = find_version(registry.uri(decision.candidate))
    experiment = mlflow.get_run(version.run_id).info.experiment_id if version.run_id else None
    name = f"promote {decision.name} {decision.candidate}"
    with mlflow.start_run(run_name=name, experiment_id=experiment):
        for clip in trial.clips:
            log_dataset(clip.stem, str(clip.absolute()), hashlib.sha256(clip.read_bytes()).hexdigest(), "evaluation")
        mlflow.log_params({"candidate": decision.candidate, "champion": decision.champion or "none"})
        mlflow.log_metrics(
            {"promoted": float(decision.is_promoted)} | _metrics(decision), model_id=logged_model_id(version)
        )
        mlflow.log_text(decision.to_json() + "\n", "decision.json")
    return decision


def _metrics(decision: Decision) -> dict[str, float]:
    """Return every figure as role.clip.persona.figure, what could not be measured left out."""
    sides = (("candidate", decision.candidate_reports), ("champion", decision.champion_reports))
    return {
        f"{role}/{Path(report.clip).stem}/{report.persona}/{figure}": float(value)
        for role, reports in sides
        for report in reports
        for figure, value in report.figures().items()
        if isinstance(value, (int, float))
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipelines.promote", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", help="held-out videos with a face")
    parser.add_argument("--name", default=DEFAULT_NAME, help="the registered model")
    parser.add_argument("--alias", default=CHAMPION, help="the alias to move")
    parser.add_argument("--candidate", help="models:/NAME@ALIAS or models:/NAME/VERSION; @challenger where left out")
    parser.add_argument("--gates", type=Path, default=DEFAULT_GATES, help="what must hold, TOML")
    parser.add_argument("--every", type=int, default=5, metavar="N", help="look closely at every n-th frame")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="take the first n frames of each clip")
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="strangers' faces to retrieve the personas from")
    parser.add_argument("--out", type=Path, help="where to write side-by-side clips and plots of both")
    parser.add_argument("--json", action="store_true", help="print the decision as one JSON object")
    parser.add_argument("--again", action="store_true", help="also a version that was rolled back")
    parser.add_argument("--rollback", action="store_true", help="point the alias back to the version before")
    return parser


def _run(options: argparse.Namespace) -> int:
    use_tracking(experiment=options.name)
    registry = Registry(options.name)
    if options.rollback:
        left, now = registry.rollback(options.alias)
        print(f"{registry.uri(options.alias)} is version {now} again; it was {left}.")
        return 0
    trust = TrustStore(trust_folder(os.environ)).read()
    trial = Trial(tuple(options.clips), max(1, options.every), options.frames, options.out, gallery=options.gallery)
    candidate = options.candidate or registry.uri(CHALLENGER)
    decision = promote(registry, candidate, trial, load_gates(options.gates), trust, options.alias, options.again)
    if options.json:
        print(decision.to_json())
    else:
        for verdict in decision.verdicts:
            print(f"{'held  ' if verdict.is_passed else 'FAILED'}  {verdict.sentence}")
        outcome = f"is {registry.uri(options.alias)} now" if decision.is_promoted else "was not promoted"
        print(f"Version {decision.candidate} of {registry.name} {outcome}.")
    return 0 if decision.is_promoted else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.clips and not options.rollback:
        parser.error("give at least one held-out CLIP to judge by, or --rollback")
    try:
        return _run(options)
    except LiveframeError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
