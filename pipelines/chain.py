"""How the steps of a release hang together; the same for every runner."""

from dataclasses import dataclass
from typing import Any

STEPS = ("extract", "triplets", "train", "evaluate", "register", "promote", "deploy")


@dataclass(frozen=True, slots=True)
class Release:
    """All that a release depends on; on Vertex AI, the pipeline's parameters.

    Attributes:
        clips: clips, photos and folders of them, of any people: the drivers.
        held_out: clips that training never sees: judges by them.
        config: TOML of the training.
        overrides: "key=value", as `training.train --set` takes them.
        persona: name of a persona of one photo; "": `personas`.
        photo: the photo.
        consent: its consent record, which lists the photo and its still (`training.still`).
        personas: a folder of personas (`training.data.mosaic`); "": those that ship.
        every: look at every so-many-th frame of a clip in extraction.
        frames_per_clip: how many drivers to take of one clip.
        count: triplets to make.
        keep_spectacles: do not look for faces that wear spectacles, which takes minutes.
        judge_every: look closely at every so-many-th frame of held-out clips.
        judge_frames: take so many frames of each; 0 for all.
        gates: TOML of gates; "" for those that ship.
        model: the registered model's name.
        tracking: MLflow's address.
        trust: folder of keys (`understudy.consent.trust_store`).
        cache: where the steps' results are kept; "" for nowhere.
        project: Google Cloud's.
        region: Vertex AI's.
        is_dry_run: write the calls of the deployment down and send none.
        deploy_options: more of `python -m serving.deploy`.
    """

    clips: list[str]
    held_out: list[str]
    config: str
    trust: str
    tracking: str
    cache: str
    overrides: list[str]
    deploy_options: list[str]
    persona: str = ""
    photo: str = ""
    consent: str = ""
    personas: str = ""
    every: int = 1
    frames_per_clip: int = 120
    count: int = 16_000
    keep_spectacles: bool = False
    judge_every: int = 5
    judge_frames: int = 0
    gates: str = ""
    model: str = "understudy"
    project: str = "demo"
    region: str = "europe-west4"
    is_dry_run: bool = True


def chain(steps: Any, r: Any) -> dict[str, Any]:
    """Chain the steps.

    Args:
        steps: has one callable a step, which takes keywords and gives something whose `output` the next one takes.
        r: has a Release's attributes.

    Returns:
        What each step gave, by name.
    """
    extract = steps.extract(clips=r.clips, every=r.every, cache=r.cache)
    triplets = steps.triplets(
        faceset=extract.output,
        count=r.count,
        frames_per_clip=r.frames_per_clip,
        keep_spectacles=r.keep_spectacles,
        cache=r.cache,
    )
    train = steps.train(
        triplets=triplets.output,
        persona=r.persona,
        photo=r.photo,
        consent=r.consent,
        personas=r.personas,
        config=r.config,
        overrides=r.overrides,
        tracking=r.tracking,
        model=r.model,
        trust=r.trust,
        cache=r.cache,
    )
    evaluate = steps.evaluate(
        trained=train.output,
        held_out=r.held_out,
        every=r.judge_every,
        frames=r.judge_frames,
        trust=r.trust,
        cache=r.cache,
    )
    register = steps.register(
        trained=train.output, figures=evaluate.output, tracking=r.tracking, model=r.model, cache=r.cache
    )
    promote = steps.promote(
        version=register.output,
        held_out=r.held_out,
        gates=r.gates,
        every=r.judge_every,
        frames=r.judge_frames,
        tracking=r.tracking,
        model=r.model,
        trust=r.trust,
        cache=r.cache,
    )
    deploy = steps.deploy(
        version=register.output,
        decision=promote.output,
        project=r.project,
        region=r.region,
        is_dry_run=r.is_dry_run,
        options=r.deploy_options,
        tracking=r.tracking,
        model=r.model,
        cache=r.cache,
    )
    return dict(zip(STEPS, (extract, triplets, train, evaluate, register, promote, deploy), strict=True))
