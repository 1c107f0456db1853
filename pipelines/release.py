r"""One command from clips to a deployed model; what has not changed since the last time is skipped.

    uv run python -m pipelines.release run --clips CLIPS --held-out CLIP --work work/release \
        --persona me --photo me.jpg --consent me.json
    uv run python -m pipelines.release compile --out release.yaml

extract -> triplets -> train -> evaluate -> register -> promote -> deploy, as a Kubeflow pipeline: compiled for
Vertex AI Pipelines, run here by Kubeflow's local runner in subprocesses, or with `--runner inline` by the same
steps in this process. The deployment is a rehearsal unless `--deploy` is given.
Exit status: 0 done, 1 a step failed (a gate that does not hold, say), 2 wrong options.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from liveframe.errors import LiveframeError
from pipelines import steps
from pipelines.chain import Release, ReleaseError, chain
from pipelines.code_digest import ROOT
from pipelines.held_out import shared_content
from pipelines.step_cache import StepRun, read_log
from training.model.tracking_uri import tracking_uri
from understudy.consent.trust_store import trust_folder
from understudy.media.clip import find_media

_CONFIGS = ROOT / "training" / "configs"


@dataclass(frozen=True, slots=True)
class _Made:
    """What an inline step made: where it lies."""

    output: str


class InlineSteps:
    """The steps as plain calls, one after the other, in this process.

    Args:
        work: each step's result is found in `results/<step>` here.
    """

    def __init__(self, work: Path) -> None:
        self._work = work

    def __getattr__(self, name: str) -> Callable[..., _Made]:
        step = getattr(steps, name)

        def call(**given: object) -> _Made:
            out = str(self._work / "results" / name)
            step(**given, out=out)
            return _Made(out)

        return call


def run_release(release: Release, work: Path, runner: str = "kfp") -> list[StepRun]:
    """Run a release here.

    Args:
        release: what to release, and how.
        work: the folder of its results.
        runner: "kfp" (Kubeflow's local runner, a process a step) or "inline" (this process).

    Returns:
        What came of each step, where `release.cache` keeps it.

    Raises:
        ReleaseError: a step failed under Kubeflow's runner, or a gate does not hold.
        LiveframeError: a step failed; inline, its own error passes.
    """
    work.mkdir(parents=True, exist_ok=True)
    before = len(read_log(Path(release.cache))) if release.cache else 0
    if runner == "inline":
        chain(InlineSteps(work), release)
    else:
        from pipelines import kubeflow

        try:
            kubeflow.run_locally(release, work)
        except RuntimeError as error:
            raise ReleaseError(f"{error} Its last lines above say why.") from error
    return read_log(Path(release.cache), before) if release.cache else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelines.release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compiling = commands.add_parser("compile", help="write the pipeline for Vertex AI Pipelines")
    compiling.add_argument("--out", type=Path, default=Path("release.yaml"))
    compiling.add_argument("--image", default="", help="of every step; holds this repository")
    running = commands.add_parser("run", help="run it here")
    running.set_defaults(**{each.name: each.default for each in fields(Release) if each.default is not MISSING})
    _add_what(running)
    _add_how(running)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--clips", nargs="+", required=True, metavar="CLIP_OR_FOLDER", help="drivers: clips and photos of any people")
    add("--held-out", nargs="+", required=True, metavar="CLIP", help="clips to judge by, not among --clips")
    add("--persona", metavar="NAME", help="a persona of one photo; else those that ship")
    add("--photo", help="the photo")
    add("--consent", help="its consent record (python -m training.still, then understudy.consent)")
    add("--personas", metavar="FOLDER", help="or a folder of personas (training.data.mosaic)")
    add("--config", default="oneshot.toml", help="of the training: a path, or a name in training/configs (%(default)s)")
    add("--set", nargs="*", dest="overrides", metavar="KEY=VALUE", help="override settings of the training")
    add("--gates", help="TOML of what must hold; pipelines/gates.toml where left out")
    add("--model", help="the registered model (%(default)s)")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--work", type=Path, default=Path("work/release"), help="results, cache and MLflow's file (%(default)s)")
    add("--runner", choices=("kfp", "inline"), default="kfp", help="Kubeflow's local runner, or plain calls")
    add("--no-cache", action="store_true", help="do every step, and keep nothing")
    add("--tracking", default="", help="MLflow's address (default: MLFLOW_TRACKING_URI, else the work folder's)")
    add("--trust", type=Path, help="folder of keys (default: UNDERSTUDY_HOME or ~/.understudy)")
    add("--every", type=int, metavar="N", help="extraction looks at every n-th frame (%(default)s)")
    add("--frames-per-clip", type=int, metavar="N", help="drivers of one clip (%(default)s)")
    add("--count", type=int, metavar="N", help="triplets to make (%(default)s)")
    add("--keep-spectacles", action="store_true", help="do not look for faces that wear them")
    add("--judge-every", type=int, metavar="N", help="look closely at every n-th frame (%(default)s)")
    add("--judge-frames", type=int, metavar="N", help="frames of each held-out clip; 0 for all")
    add("--project", help="Google Cloud's (%(default)s)")
    add("--region", help="Vertex AI's (%(default)s)")
    add("--deploy", action="store_false", dest="is_dry_run", help="really deploy; else the calls are only written down")


def _release(options: argparse.Namespace) -> Release:
    config = Path(options.config)
    found = {
        "clips": [_absolute(clip) for clip in options.clips],
        "held_out": [_absolute(clip) for clip in options.held_out],
        "config": str(config.resolve() if config.is_file() else _CONFIGS / config.name),
        "trust": str((options.trust or trust_folder(os.environ)).resolve()),
        "tracking": options.tracking or tracking_uri(os.environ),
        "cache": "" if options.no_cache else str(options.work.resolve() / "cache"),
        **{name: _absolute(getattr(options, name)) for name in ("photo", "consent", "personas", "gates")},
    }
    return Release(**{each.name: getattr(options, each.name) for each in fields(Release)} | found)


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if path and not path.startswith("gs://") else path


def _check(parser: argparse.ArgumentParser, release: Release) -> None:
    """End the process with a sentence where a file is missing or options do not fit, before anything runs."""
    if release.persona and release.personas:
        parser.error("give --persona NAME --photo --consent or --personas FOLDER, not both")
    if release.persona and not (release.photo and release.consent):
        parser.error("a --persona must have its --photo and its --consent record")
    named = [*release.clips, *release.held_out, release.config, release.photo, release.consent]
    for path in [*named, release.personas, release.gates]:
        if path and not path.startswith("gs://") and not Path(path).exists():
            parser.error(f"{path} must exist, but does not")
    if shared := shared_content(_local_media(release.held_out), _local_media(release.clips)):
        parser.error(f"--held-out must not be among --clips, but {', '.join(shared)} is in both")


def _local_media(paths: Sequence[str]) -> list[Path]:
    return list(find_media(Path(path) for path in paths if not path.startswith("gs://")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "compile":
        from pipelines import kubeflow

        kubeflow.compile_release(options.out, options.image or kubeflow.DEFAULT_IMAGE)
        print(f"{options.out}: submit it to Vertex AI Pipelines, or look at it.")
        return 0
    release = _release(options)
    _check(parser, release)
    try:
        runs = run_release(release, options.work.resolve(), options.runner)
    except (LiveframeError, ValueError, RuntimeError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    for run in runs:
        print(f"{run.step:<9} {'skipped' if run.is_skipped else 'done   '}  {run.seconds:7.1f} s  {run.why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
