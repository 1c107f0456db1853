"""The steps of a release, each from files to files; `pipelines.release` chains them, here or on Vertex AI.

Each takes the release and the paths of what it works on, so that a step is the same as a function call, a process
or a container. `gs://bucket/...` is read and written where Vertex AI mounts it: `/gcs/bucket/...`.
Every step keeps its result in the release's `cache` (`pipelines.step_cache`).
"""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pipelines.chain import Release, ReleaseError
from pipelines.step_cache import Step, StepRun, run_step
from training.model.tracking_uri import use_tracking
from understudy.consent.check import read_record

BUNDLE, VERSION, DECISION, CALLS = "bundle", "version.json", "decision.json", "calls.jsonl"
FIGURES = "figures.jsonl"


def local(path: str) -> Path:
    """Return where a path or a gs:// address lies on this machine."""
    # Not resolved: an earlier run's result is a link into the cache, and the link is what is replaced.
    return Path("/gcs/" + path.removeprefix("gs://")) if path.startswith("gs://") else Path(path).absolute()


# ---- faces -----------------------------------------------------------------------------------------------------


def extract(release: Release, out: str) -> StepRun:
    """Find the faces of clips and photos: a faceset.

    Args:
        release: what to release, and how.
        out: where the faceset shall be found.
    """

    def work(folder: Path) -> None:
        from training.extract import ExtractOptions, extract

        extract(ExtractOptions(tuple(paths), folder, every=release.every, is_quiet=True))

    paths = [local(clip) for clip in release.clips]
    # The faceset names its sources by their paths, and the next step reads them there again.
    settings = {"every": release.every, "paths": [str(path) for path in paths]}
    step = Step("extract", ("training.extract",), {"clips": paths}, settings, is_resumable=True)
    return run_step(step, local(out), _cache(release), work)


def triplets(release: Release, faceset: str, out: str) -> StepRun:
    """Make what the mixing network learns from: inverted pairs of the faceset's faces.

    Args:
        release: what to release, and how.
        faceset: whose faces drive.
        out: where the triplets shall be found.
    """

    def work(folder: Path) -> None:
        from training.data.drivers import DriversError
        from training.data.triplets import TripletError, make_triplets

        try:
            make_triplets([local(faceset)], folder, release.count, **options)
        except (DriversError, TripletError) as error:
            raise ReleaseError(f"No triplets can be made of the clips: {error}") from error

    options = {"frames_per_clip": release.frames_per_clip, "keep_spectacles": release.keep_spectacles}
    settings = {"count": release.count, **options}
    inputs = {"faceset": [local(faceset)]}
    step = Step("triplets", ("training.data.triplets",), inputs, settings, is_resumable=True)
    return run_step(step, local(out), _cache(release), work)


# ---- the model -------------------------------------------------------------------------------------------------


def train(release: Release, triplets: str, out: str) -> StepRun:
    """Train the mixing network and export it with its personas: a folder with checkpoints, curves, and `bundle`.

    Args:
        release: what to release, and how.
        triplets: what to learn from.
        out: where the folder shall be found.
    """

    def work(folder: Path) -> None:
        from training.model.config import load_config
        from training.model.mixing import MixTraining
        from training.one_shot_bundle import export_one_shot
        from training.persona_folders import write_persona
        from training.still import photo_still

        use_tracking(release.tracking, release.model)
        fixed = {
            "name": release.model,
            "triplets": str(local(triplets)),
            "out": str(folder),
            "tracking": release.tracking,
        }
        given = [*release.overrides, *(f"{key}={json.dumps(value)}" for key, value in fixed.items())]
        training = MixTraining(load_config(local(release.config), given))
        with training.tracker.run():
            training.run()
            source = local(release.personas) if release.personas else None
            if release.persona:
                source = folder / "personas"
                write_persona(
                    source / release.persona, photo_still(local(release.photo)), read_record(local(release.consent))
                )
            export_one_shot(training, source, folder / BUNDLE)

    def check() -> None:
        from training.still import consented_photo

        if release.persona:
            consented_photo(local(release.photo), release.persona, local(release.consent), local(release.trust))

    if release.persona and release.personas:
        raise ReleaseError("A release must be of one photo persona or of a folder of them. Give one of both.")
    named = {"triplets": triplets} | {
        name: getattr(release, name) for name in ("config", "photo", "consent", "personas")
    }
    step = Step(
        "train",
        ("training.model.mixing", "training.one_shot_bundle", "training.still"),
        {name: [local(path)] if path else [] for name, path in named.items()},
        {"persona": release.persona, "overrides": list(release.overrides), "model": release.model},
        is_resumable=True,
    )
    return run_step(step, local(out), _cache(release), work, check=check)


def evaluate(release: Release, trained: str, out: str) -> StepRun:
    """Measure the trained bundle on clips that it has not seen: figures.jsonl, plots, side-by-side clips.

    Args:
        release: what to release, and how.
        trained: the training's folder.
        out: where the figures shall be found.
    """

    def work(folder: Path) -> None:
        from training.evaluate import Evaluator
        from understudy.bundle.bundle import Bundle

        evaluator = Evaluator(
            clips, release.judge_every, release.judge_frames, is_quiet=True, trust=local(release.trust)
        )
        reports = evaluator.run(Bundle.load(local(trained) / BUNDLE), out=folder)
        (folder / FIGURES).write_text("".join(f"{report.to_json()}\n" for report in reports))

    clips = [local(clip) for clip in release.held_out]
    inputs = {"bundle": [local(trained) / BUNDLE], "held-out clips": clips}
    step = Step(
        "evaluate", ("training.evaluate",), inputs, {"every": release.judge_every, "frames": release.judge_frames}
    )
    return run_step(step, local(out), _cache(release), work)


# ---- registry --------------------------------------------------------------------------------------------------


def register(release: Release, trained: str, figures: str, out: str) -> StepRun:
    """Register the bundle with its figures, once, as the model's challenger: version.json.

    Args:
        release: what to release, and how.
        trained: the training's folder.
        figures: the evaluation's folder.
        out: where the answer shall be found.
    """
    from pipelines.registry import CHALLENGER, Registry

    def work(folder: Path) -> None:
        from training.model.log_model import find_version
        from understudy.bundle.bundle import Bundle

        use_tracking(release.tracking, release.model)
        registry, metrics = Registry(release.model), _mean_figures(local(figures) / FIGURES)
        digest = Bundle.load(local(trained) / BUNDLE).digest
        # A run that was killed after it registered leaves no note: the version is there, and no second one is made.
        version = registry.version_with(digest, metrics)
        if version is None:
            version = registry.register(local(trained) / BUNDLE, metrics).version
        registry.move_alias(CHALLENGER, version)
        run_id = find_version(registry.uri(version)).run_id
        note = {"name": release.model, "version": version, "run_id": run_id, "digest": digest}
        (folder / VERSION).write_text(json.dumps(note) + "\n")

    def still_holds(folder: Path) -> bool:
        use_tracking(release.tracking, release.model)
        note = json.loads((folder / VERSION).read_bytes())
        found = {each.version: each.digest for each in Registry(release.model).versions()}
        return found.get(note["version"]) == note["digest"]

    inputs = {"bundle": [local(trained) / BUNDLE], "figures": [local(figures) / FIGURES]}
    step = Step("register", ("pipelines.registry",), inputs, {"tracking": release.tracking, "model": release.model})
    return run_step(step, local(out), _cache(release), work, still_holds)


def promote(release: Release, version: str, out: str) -> StepRun:
    """Compare the version with the champion, and make it champion if it holds every gate: decision.json.

    A promotion that was done once is not done again when somebody rolled it back since.

    Args:
        release: what to release, and how.
        version: the registration's folder.
        out: where the decision shall be found.

    Raises:
        ReleaseError: a gate failed; names each, and by how much.
    """
    from pipelines.gates import DEFAULT_GATES

    def work(folder: Path) -> None:
        from pipelines.gates import load_gates
        from pipelines.promote import Trial, promote
        from pipelines.registry import Registry
        from understudy.consent.trust_store import TrustStore

        use_tracking(release.tracking, release.model)
        note = json.loads((local(version) / VERSION).read_bytes())
        trial = Trial(
            tuple(clips), release.judge_every, release.judge_frames, folder, is_quiet=True, trust=local(release.trust)
        )
        registry, trusted = Registry(release.model), TrustStore(local(release.trust)).read()
        decision = promote(registry, registry.uri(int(note["version"])), trial, load_gates(wanted), trusted)
        (folder / DECISION).write_text(decision.to_json() + "\n")
        if not decision.is_promoted:
            sentences = " ".join(verdict.sentence for verdict in decision.failed)
            raise ReleaseError(f"Version {decision.candidate} of {release.model} was not promoted. {sentences}")

    def still_holds(folder: Path) -> bool:
        """Whether the version is sound and consent still covers it; where not, the gates are asked again and say so."""
        from pipelines.promote import check_bundle
        from pipelines.registry import Registry
        from understudy.consent.trust_store import TrustStore

        use_tracking(release.tracking, release.model)
        number = int(json.loads((local(version) / VERSION).read_bytes())["version"])
        verdicts, _ = check_bundle(Registry(release.model).uri(number), TrustStore(local(release.trust)).read())
        return all(verdict.is_passed for verdict in verdicts)

    clips, wanted = [local(clip) for clip in release.held_out], local(release.gates) if release.gates else DEFAULT_GATES
    inputs = {"version": [local(version) / VERSION], "held-out clips": clips, "gates": [wanted]}
    settings = {
        "every": release.judge_every,
        "frames": release.judge_frames,
        "tracking": release.tracking,
        "model": release.model,
    }
    step = Step("promote", ("pipelines.promote",), inputs, settings)
    return run_step(step, local(out), _cache(release), work, still_holds)


# ---- the cloud -------------------------------------------------------------------------------------------------


def deploy(release: Release, version: str, decision: str, out: str) -> StepRun:
    """Put the promoted version behind the endpoint, or only write down the API calls that would do it: calls.jsonl.

    Args:
        release: what to release, and how.
        version: the registration's folder.
        decision: the promotion's folder.
        out: where the calls, or the outcome, shall be found.

    Raises:
        ReleaseError: the version was not promoted, or Vertex AI refused.
    """

    def work(folder: Path) -> None:
        from pipelines.registry import Registry
        from serving import deploy

        use_tracking(release.tracking, release.model)
        note = json.loads((local(version) / VERSION).read_bytes())
        if not json.loads((local(decision) / DECISION).read_bytes())["promoted"]:
            raise ReleaseError(f"Version {note['version']} of {release.model} was not promoted, so it is not deployed.")
        bundle = Registry(release.model).resolve(int(note["version"]))
        where = ["--project", release.project, "--region", release.region, *release.deploy_options]
        where += ["--dry-run"] if release.is_dry_run else []
        what = ["--bundle", str(bundle), "--mlflow-run", note["run_id"], "--name", release.model]
        with (folder / CALLS).open("w") as answers, redirect_stdout(answers):
            # The gates have spoken: what is uploaded as challenger is promoted at once.
            status = deploy.main(["release", *where, *what]) or deploy.main(["promote", *where])
        if status:
            raise ReleaseError(
                f"Version {note['version']} of {release.model} could not be deployed; the line above says why."
            )

    inputs = {"version": [local(version) / VERSION], "decision": [local(decision) / DECISION]}
    settings = {
        "project": release.project,
        "region": release.region,
        "is_dry_run": release.is_dry_run,
        "options": list(release.deploy_options),
    }
    return run_step(Step("deploy", ("serving.deploy",), inputs, settings), local(out), _cache(release), work)


# ---- small parts -----------------------------------------------------------------------------------------------


def _cache(release: Release) -> Path | None:
    return local(release.cache) if release.cache else None


def _mean_figures(path: Path) -> dict[str, float]:
    """Return each figure's mean over clips and personas; what could not be measured is left out."""
    reports: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    values: dict[str, list[float]] = {}
    for report in reports:
        for name, value in report.items():
            if isinstance(value, (int, float)):
                values.setdefault(name, []).append(float(value))
    return {name: sum(each) / len(each) for name, each in values.items()}
