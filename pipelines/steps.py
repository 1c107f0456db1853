"""The steps of a release, each from files to files; `pipelines.release` chains them, here or on Vertex AI.

Arguments are paths, numbers and texts, so that a step is the same as a function call, a process or a
container. `gs://bucket/...` is read and written where Vertex AI mounts it: `/gcs/bucket/...`.
Every step keeps its result in `cache` (`pipelines.step_cache`); "" keeps nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from pipelines.step_cache import Step, StepRun, run_step
from training.model.tracking_uri import use_tracking
from understudy.consent.check import read_record

BUNDLE, VERSION, DECISION, CALLS = "bundle", "version.json", "decision.json", "calls.jsonl"
FIGURES = "figures.jsonl"


class ReleaseError(LiveframeError, RuntimeError):
    """A release cannot go on; says at which step and why."""


def local(path: str) -> Path:
    """Return where a path or a gs:// address lies on this machine."""
    # Not resolved: an earlier run's result is a link into the cache, and the link is what is replaced.
    return Path("/gcs/" + path.removeprefix("gs://")) if path.startswith("gs://") else Path(path).absolute()


# ---- faces -----------------------------------------------------------------------------------------------------


def extract(clips: Sequence[str], every: int, out: str, cache: str) -> StepRun:
    """Find the faces of clips and photos: a faceset.

    Args:
        clips: clips, photos and folders of them.
        every: look at every so-many-th frame of a clip.
        out: where the faceset shall be found.
        cache: see above, as for all steps.
    """

    def work(folder: Path) -> None:
        from training.extract import ExtractOptions, extract

        extract(ExtractOptions(tuple(paths), folder, every=every, is_quiet=True))

    paths = [local(clip) for clip in clips]
    # The faceset names its sources by their paths, and the next step reads them there again.
    settings = {"every": every, "paths": [str(path) for path in paths]}
    step = Step("extract", ("training.extract",), {"clips": paths}, settings, is_resumable=True)
    return run_step(step, local(out), _cache(cache), work)


def triplets(faceset: str, count: int, frames_per_clip: int, keep_spectacles: bool, out: str, cache: str) -> StepRun:
    """Make what the mixing network learns from: inverted pairs of the faceset's faces.

    Args:
        faceset: whose faces drive.
        count: triplets to make.
        frames_per_clip: how many drivers to take of one clip.
        keep_spectacles: do not look for faces that wear spectacles, which takes minutes.
        out: where the triplets shall be found.
        cache: as above.
    """

    def work(folder: Path) -> None:
        from training.data.drivers import DriversError
        from training.data.triplets import TripletError, make_triplets

        options = {"frames_per_clip": frames_per_clip, "keep_spectacles": keep_spectacles}
        try:
            make_triplets([local(faceset)], folder, count, **options)
        except (DriversError, TripletError) as error:
            raise ReleaseError(f"No triplets can be made of the clips: {error}") from error

    settings = {"count": count, "frames_per_clip": frames_per_clip, "keep_spectacles": keep_spectacles}
    inputs = {"faceset": [local(faceset)]}
    step = Step("triplets", ("training.data.triplets",), inputs, settings, is_resumable=True)
    return run_step(step, local(out), _cache(cache), work)


# ---- the model -------------------------------------------------------------------------------------------------


def train(
    triplets: str,
    persona: str,
    photo: str,
    consent: str,
    personas: str,
    config: str,
    overrides: Sequence[str],
    tracking: str,
    model: str,
    trust: str,
    out: str,
    cache: str,
) -> StepRun:
    """Train the mixing network and export it with its personas: a folder with checkpoints, curves, and `bundle`.

    Args:
        triplets: what to learn from.
        persona: name of a persona of one photo; "": those of `personas`.
        photo: its photo.
        consent: its consent record.
        personas: a folder of personas (`training.data.mosaic`); "": those that ship, or that the configuration names.
        config: TOML of the training.
        overrides: "key=value", as `training.train --set` takes them.
        tracking: MLflow's address; curves and previews go there; "" for nowhere.
        model: the registered model's name, and the MLflow experiment's.
        trust: folder of keys.
        out: where the folder shall be found.
        cache: as above.
    """

    def work(folder: Path) -> None:
        from training.model.config import load_config
        from training.model.mixing import MixTraining
        from training.one_shot_bundle import export_one_shot
        from training.persona_folders import write_persona
        from training.still import photo_still

        use_tracking(tracking, model)
        fixed = {"name": model, "triplets": str(local(triplets)), "out": str(folder), "tracking": tracking}
        given = [*overrides, *(f"{key}={json.dumps(value)}" for key, value in fixed.items())]
        training = MixTraining(load_config(local(config), given))
        with training.tracker.run():
            training.run()
            source = local(personas) if personas else None
            if persona:
                source = folder / "personas"
                write_persona(source / persona, photo_still(local(photo)), read_record(local(consent)))
            export_one_shot(training, source, folder / BUNDLE)

    def check() -> None:
        from training.still import consented_photo

        if persona:
            consented_photo(local(photo), persona, local(consent), local(trust))

    if persona and personas:
        raise ReleaseError("A release must be of one photo persona or of a folder of them. Give one of both.")
    named = {"triplets": triplets, "config": config, "photo": photo, "consent": consent, "personas": personas}
    step = Step(
        "train",
        ("training.model.mixing", "training.one_shot_bundle", "training.still"),
        {name: [local(path)] if path else [] for name, path in named.items()},
        {"persona": persona, "overrides": list(overrides), "model": model},
        is_resumable=True,
    )
    return run_step(step, local(out), _cache(cache), work, check=check)


def evaluate(
    trained: str, held_out: Sequence[str], every: int, frames: int, trust: str, out: str, cache: str
) -> StepRun:
    """Measure the trained bundle on clips that it has not seen: figures.jsonl, plots, side-by-side clips.

    Args:
        trained: the training's folder.
        held_out: clips.
        every: look closely at every so-many-th frame.
        frames: take so many frames of each clip; 0 for all.
        trust: folder of keys, which the clips are signed by.
        out: where the figures shall be found.
        cache: as above.
    """

    def work(folder: Path) -> None:
        from training.evaluate import Evaluator
        from understudy.bundle.bundle import Bundle

        evaluator = Evaluator(clips, every, frames, is_quiet=True, trust=local(trust))
        reports = evaluator.run(Bundle.load(local(trained) / BUNDLE), out=folder)
        (folder / FIGURES).write_text("".join(f"{report.to_json()}\n" for report in reports))

    clips = [local(clip) for clip in held_out]
    inputs = {"bundle": [local(trained) / BUNDLE], "held-out clips": clips}
    step = Step("evaluate", ("training.evaluate",), inputs, {"every": every, "frames": frames})
    return run_step(step, local(out), _cache(cache), work)


# ---- registry --------------------------------------------------------------------------------------------------


def register(trained: str, figures: str, tracking: str, model: str, out: str, cache: str) -> StepRun:
    """Register the bundle with its figures, once, as the model's challenger: version.json.

    Args:
        trained: the training's folder.
        figures: the evaluation's folder.
        tracking: MLflow's address.
        model: the registered model's name.
        out: where the answer shall be found.
        cache: as above.
    """
    from pipelines.registry import CHALLENGER, Registry

    def work(folder: Path) -> None:
        from training.model.log_model import find_version
        from understudy.bundle.bundle import Bundle

        use_tracking(tracking, model)
        registry, metrics = Registry(model), _mean_figures(local(figures) / FIGURES)
        digest = Bundle.load(local(trained) / BUNDLE).digest
        # A run that was killed after it registered leaves no note: the version is there, and no second one is made.
        version = registry.version_with(digest, metrics)
        if version is None:
            version = registry.register(local(trained) / BUNDLE, metrics).version
        registry.move_alias(CHALLENGER, version)
        run_id = find_version(registry.uri(version)).run_id
        note = {"name": model, "version": version, "run_id": run_id, "digest": digest}
        (folder / VERSION).write_text(json.dumps(note) + "\n")

    def still_holds(folder: Path) -> bool:
        use_tracking(tracking, model)
        note = json.loads((folder / VERSION).read_bytes())
        found = {each.version: each.digest for each in Registry(model).versions()}
        return found.get(note["version"]) == note["digest"]

    inputs = {"bundle": [local(trained) / BUNDLE], "figures": [local(figures) / FIGURES]}
    step = Step("register", ("pipelines.registry",), inputs, {"tracking": tracking, "model": model})
    return run_step(step, local(out), _cache(cache), work, still_holds)


def promote(
    version: str,
    held_out: Sequence[str],
    gates: str,
    every: int,
    frames: int,
    tracking: str,
    model: str,
    trust: str,
    out: str,
    cache: str,
) -> StepRun:
    """Compare the version with the champion, and make it champion if it holds every gate: decision.json.

    A promotion that was done once is not done again when somebody rolled it back since.

    Args:
        version: the registration's folder.
        held_out: clips.
        gates: TOML of gates; "" for those that ship.
        every: look closely at every so-many-th frame.
        frames: take so many frames of each clip; 0 for all.
        tracking: MLflow's address.
        model: the registered model's name.
        trust: folder of keys.
        out: where the decision shall be found.
        cache: as above.

    Raises:
        ReleaseError: a gate failed; names each, and by how much.
    """
    from pipelines.gates import DEFAULT_GATES

    def work(folder: Path) -> None:
        from pipelines.gates import load_gates
        from pipelines.promote import Trial, promote
        from pipelines.registry import Registry
        from understudy.consent.trust_store import TrustStore

        use_tracking(tracking, model)
        note = json.loads((local(version) / VERSION).read_bytes())
        trial = Trial(tuple(clips), every, frames, folder, is_quiet=True, trust=local(trust))
        registry, trusted = Registry(model), TrustStore(local(trust)).read()
        decision = promote(registry, registry.uri(int(note["version"])), trial, load_gates(wanted), trusted)
        (folder / DECISION).write_text(decision.to_json() + "\n")
        if not decision.is_promoted:
            sentences = " ".join(verdict.sentence for verdict in decision.failed)
            raise ReleaseError(f"Version {decision.candidate} of {model} was not promoted. {sentences}")

    def still_holds(folder: Path) -> bool:
        """Whether the version is sound and consent still covers it; where not, the gates are asked again and say so."""
        from pipelines.promote import check_bundle
        from pipelines.registry import Registry
        from understudy.consent.trust_store import TrustStore

        use_tracking(tracking, model)
        number = int(json.loads((local(version) / VERSION).read_bytes())["version"])
        verdicts, _ = check_bundle(Registry(model).uri(number), TrustStore(local(trust)).read())
        return all(verdict.is_passed for verdict in verdicts)

    clips, wanted = [local(clip) for clip in held_out], local(gates) if gates else DEFAULT_GATES
    inputs = {"version": [local(version) / VERSION], "held-out clips": clips, "gates": [wanted]}
    settings = {"every": every, "frames": frames, "tracking": tracking, "model": model}
    step = Step("promote", ("pipelines.promote",), inputs, settings)
    return run_step(step, local(out), _cache(cache), work, still_holds)


# ---- the cloud -------------------------------------------------------------------------------------------------


def deploy(
    version: str,
    decision: str,
    project: str,
    region: str,
    is_dry_run: bool,
    options: Sequence[str],
    tracking: str,
    model: str,
    out: str,
    cache: str,
) -> StepRun:
    """Put the promoted version behind the endpoint, or only write down the API calls that would do it: calls.jsonl.

    Args:
        version: the registration's folder.
        decision: the promotion's folder.
        project: Google Cloud's.
        region: Vertex AI's.
        is_dry_run: write the calls down and send none.
        options: more of `python -m serving.deploy`, such as "--max-replicas", "8".
        tracking: MLflow's address.
        model: the registered model's name.
        out: where the calls, or the outcome, shall be found.
        cache: as above.

    Raises:
        ReleaseError: the version was not promoted, or Vertex AI refused.
    """

    def work(folder: Path) -> None:
        from pipelines.registry import Registry
        from serving import deploy

        use_tracking(tracking, model)
        note = json.loads((local(version) / VERSION).read_bytes())
        if not json.loads((local(decision) / DECISION).read_bytes())["promoted"]:
            raise ReleaseError(f"Version {note['version']} of {model} was not promoted, so it is not deployed.")
        bundle = Registry(model).resolve(int(note["version"]))
        where = ["--project", project, "--region", region, *options, *(["--dry-run"] if is_dry_run else [])]
        what = ["--bundle", str(bundle), "--mlflow-run", note["run_id"], "--name", model]
        with (folder / CALLS).open("w") as answers, redirect_stdout(answers):
            # The gates have spoken: what is uploaded as challenger is promoted at once.
            status = deploy.main(["release", *where, *what]) or deploy.main(["promote", *where])
        if status:
            raise ReleaseError(f"Version {note['version']} of {model} could not be deployed; the line above says why.")

    inputs = {"version": [local(version) / VERSION], "decision": [local(decision) / DECISION]}
    settings = {"project": project, "region": region, "is_dry_run": is_dry_run, "options": list(options)}
    return run_step(Step("deploy", ("serving.deploy",), inputs, settings), local(out), _cache(cache), work)


# ---- small parts -----------------------------------------------------------------------------------------------


def _cache(cache: str) -> Path | None:
    return local(cache) if cache else None


def _mean_figures(path: Path) -> dict[str, float]:
    """Return each figure's mean over clips and personas; what could not be measured is left out."""
    reports: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    values: dict[str, list[float]] = {}
    for report in reports:
        for name, value in report.items():
            if isinstance(value, (int, float)):
                values.setdefault(name, []).append(float(value))
    return {name: sum(each) / len(each) for name, each in values.items()}
