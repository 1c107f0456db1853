"""What a release depends on, and how its steps hang together; the same for every runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from liveframe.errors import LiveframeError

STEPS = ("extract", "triplets", "train", "evaluate", "register", "promote", "deploy")


class ReleaseError(LiveframeError, RuntimeError):
    """A release cannot go on; says at which step and why."""


@dataclass(frozen=True, slots=True)
class Release:
    """All that a release depends on; for Kubeflow, the pipeline's one parameter, as a JSON object.

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

    clips: Sequence[str]
    held_out: Sequence[str]
    config: str
    trust: str
    tracking: str
    cache: str = ""
    overrides: Sequence[str] = ()
    deploy_options: Sequence[str] = ()
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

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Release:
        """Return the release that a JSON object describes; what it leaves out is as above.

        Raises:
            ReleaseError: an attribute is unknown or missing, or a number is not whole.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(values.keys() - known.keys()):
            raise ReleaseError(f"A release has no {', '.join(unknown)}. It has {', '.join(known)}.")
        needed = {name for name, field in known.items() if field.default is MISSING}
        if missing := sorted(needed - values.keys()):
            raise ReleaseError(f"A release needs {', '.join(missing)} too.")
        return cls(**{name: _whole(name, value) for name, value in values.items()})


def _whole(name: str, value: Any) -> Any:
    """Return 1 for 1.0: Vertex AI's numbers are all floats."""
    if not isinstance(value, float):
        return value
    if not value.is_integer():
        raise ReleaseError(f"A release's {name} must be a whole number, but it is {value}.")
    return int(value)


def chain(steps: Any, release: Any) -> dict[str, Any]:
    """Chain the steps.

    Args:
        steps: has one callable a step, which takes keywords and gives something whose `output` the next one takes.
        release: a Release, or what stands for one until the pipeline runs.

    Returns:
        What each step gave, by name.
    """
    extract = steps.extract(release=release)
    triplets = steps.triplets(release=release, faceset=extract.output)
    train = steps.train(release=release, triplets=triplets.output)
    evaluate = steps.evaluate(release=release, trained=train.output)
    register = steps.register(release=release, trained=train.output, figures=evaluate.output)
    promote = steps.promote(release=release, version=register.output)
    deploy = steps.deploy(release=release, version=register.output, decision=promote.output)
    return dict(zip(STEPS, (extract, triplets, train, evaluate, register, promote, deploy), strict=True))
