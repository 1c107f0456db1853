"""The paired recipe against the classic one: same network, same pictures, same minutes, measured on the same clips.

    uv run python -m benchmarks.recipes d3.mp4 d14.mp4 single_face.mp4 --pairs work/pairs --persona amara --minutes 10

Both train the network with the dense bottleneck that the classic recipe needs, on one paired faceset: the classic one
on its drivers and targets as if nobody knew which belong together. How many steps the minutes hold is measured first,
so that both see their whole schedule. Both are measured several times on the way: `minutes_to_gate` is when what plays
held all of GATE first, null where it never did. A run that was cut off goes on when the same command is run again.

With `--start-from BUNDLE` each does what it can best: the paired recipe trains a decoder on the bundle's encoder
(training/configs/persona.toml), the classic one cannot and starts randomly initialised.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.harness.machine import machine

RECIPES = ("paired", "classic")
# Of an identity, what is missing to the persona counts: 1 - cosine, as of an error.
_FIGURES = ("expression_pct", "mouth_pct", "eyes_pct", "pose_deg", "identity_to_persona", "retrieval_rank1")
_WARM_STEPS, _TIMED_STEPS = 3, 10
_PERSONA_CONFIG = Path(__file__).parents[1] / "training" / "configs" / "persona.toml"
# What a swap must reach to be worth showing: at most, but for retrieval.
GATE = {"pose_deg": 2.0, "mouth_pct": 2.8, "eyes_pct": 1.8, "retrieval_rank1": 0.95}


def compare(
    pairs: Path,
    persona: str,
    clips: Sequence[Path],
    minutes: float,
    out: Path,
    every: int = 10,
    frames: int = 0,
    looks: int = 3,
    is_fast: bool = False,
    start_from: Path | None = None,
) -> dict[str, Any]:
    """Train both recipes and measure both.

    Args:
        pairs: a paired faceset (training.reenact) with the persona in it.
        persona: whom both learn.
        clips: held-out videos with a face.
        minutes: of training steps, for each recipe.
        out: where both trainings and bundles lie.
        every: look closely at every n-th frame.
        frames: frames to take of each clip; 0 takes all.
        looks: how often each is measured, evenly over its minutes; the last time is at the end.
        is_fast: train the 128 px network of `--size fast`: more than twice the steps in the same minutes.
        start_from: a bundle whose encoder the paired recipe trains a decoder on; None starts both randomly initialised.

    Returns:
        The machine, figures by recipe (of the network alone, means over the clips), what plays at each look
        (`looks`), and `classic_to_paired` ratios of errors.
    """
    from training.evaluate import Evaluator

    evaluator = Evaluator(clips, every, frames)
    configs = {recipe: _config(recipe, pairs, persona, out, is_fast, start_from) for recipe in RECIPES}
    figures: dict[str, Any] = {}
    for recipe, config in configs.items():
        iterations = _iterations(config, minutes)
        config = replace(config, iterations=iterations, warm_up=min(config.warm_up, iterations // 10))
        seen = _looks(config, looks, evaluator, persona)
        held = [step for step, found in seen.items() if holds_gate(found["played"])]
        figures[recipe] = {
            "iterations": iterations,
            "minutes_to_gate": round(minutes * held[0] / iterations, 2) if held else None,
            **seen[iterations]["network"],
            "looks": [found["played"] for found in seen.values()],
        }
    told = {
        "minutes": minutes,
        "size": f"{configs['paired'].size.input_px} px",
        "start": str(start_from or "chance"),
        "clips": [clip.name for clip in clips],
        "frames": frames,
    }
    return {"machine": machine(), **told, **figures, "classic_to_paired": _ratios(figures)}


def _looks(config: Any, looks: int, evaluator: Any, persona: str) -> dict[int, dict[str, Any]]:
    """Train a recipe, or go on, and measure it at each look; those of a run before are kept.

    Returns:
        By step, in order: what the `network` alone paints, without detail of a still and eyes of the driver's own,
        and what is `played`.
    """
    from understudy.swap.swapper import SwapSettings

    ways = {"network": SwapSettings(persona, colour_match=0.0), "played": SwapSettings(persona)}
    kept = Path(config.out) / "looks.json"
    before = json.loads(kept.read_text()) if kept.is_file() else {}
    seen: dict[int, dict[str, Any]] = {int(step): found for step, found in before.items()}
    steps = [config.iterations * look // looks for look in range(1, looks + 1)]
    for step, bundle in _trained(config, [step for step in steps if step not in seen]):
        gallery = evaluator.gallery(bundle)
        seen[step] = {way: _measured(evaluator, bundle, settings, gallery) for way, settings in ways.items()}
        kept.write_text(json.dumps(seen))
    return dict(sorted(seen.items()))


def _measured(evaluator: Any, bundle: Any, settings: Any, gallery: Any) -> dict[str, float | None]:
    """Measure a swap, means over the clips."""
    from understudy.swap.swapper import FaceSwapper

    model = FaceSwapper(bundle, settings)
    model.warm_up()
    reports: list[dict[str, Any]] = []
    for driver in evaluator.drivers:
        session = model.open_session()
        reports.append(evaluator.measure(session, driver, settings.persona, gallery).figures())
        session.close()
    return {key: _mean(reports, key) for key in _FIGURES}


def holds_gate(figures: Mapping[str, float | None]) -> bool:
    """Whether figures, means over the clips, reach all of GATE."""
    values = {key: figures[key] for key in GATE}
    return all(
        value is not None and (value >= GATE[key] if key == "retrieval_rank1" else value <= GATE[key])
        for key, value in values.items()
    )


def _mean(reports: Sequence[dict[str, Any]], key: str) -> float | None:
    """Return a figure's mean over the clips; None where some clip has none: a face so bad that no judge sees it."""
    values = [report[key] for report in reports]
    return None if None in values else round(mean(values), 4)


def _ratios(figures: dict[str, Any]) -> dict[str, float | None]:
    paired, classic = (figures[recipe] for recipe in ("paired", "classic"))
    errors = {key: (classic[key], paired[key]) for key in _FIGURES[:4]}
    if None not in (classic["identity_to_persona"], paired["identity_to_persona"]):
        errors["identity_error"] = (1 - classic["identity_to_persona"], 1 - paired["identity_to_persona"])
    return {key: None if None in pair else round(pair[0] / pair[1], 3) for key, pair in errors.items()}


def _iterations(config: Any, minutes: float) -> int:
    """Return how many steps the minutes hold; measured once, then kept."""
    plan = Path(config.out) / "iterations.json"
    if not plan.is_file():
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps(round(minutes * 60 / _step_seconds(config))))
    return max(1, json.loads(plan.read_text()))


def _trained(config: Any, steps: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Train a recipe, or go on; give the bundle as it is at each of the steps that is still to come."""
    from training.export import export_bundle
    from training.train import Training
    from understudy.bundle.bundle import Bundle
    from understudy.consent.trust_store import TrustStore, trust_folder

    if not steps:
        return
    trust = trust_folder(os.environ)
    training = Training(config, trust)
    for step in steps:
        if training.step > step:
            continue
        training.run(step)
        yield step, Bundle.load(export_bundle(training, Path(config.out) / "bundle", TrustStore(trust)))


def _config(recipe: str, pairs: Path, persona: str, out: Path, is_fast: bool, start_from: Path | None) -> Any:
    from training.model.config import TrainingConfig, load_config
    from training.network import FAST, NetworkSize

    is_classic = recipe == "classic"
    config = TrainingConfig(size=FAST if is_fast else NetworkSize())
    if start_from:
        own = load_config(_PERSONA_CONFIG, [f'start_from="{start_from}"'])
        config = replace(config, augmentation=own.augmentation) if is_classic else own
    if is_classic or not start_from:
        config = replace(config, size=replace(config.size, bottleneck=256))
    return replace(
        config,
        name=f"recipe-{recipe}",
        recipe=recipe,
        pairs=str(pairs),
        personas=[persona],
        common=is_classic,
        out=str(out / recipe),
        iterations=1,
        tracking="",
    )


def _step_seconds(config: Any) -> float:
    """Time some steps of a throw-away network."""
    from training.train import Training, fed
    from understudy.consent.trust_store import trust_folder

    training = Training(replace(config, out=str(Path(config.out) / "timed")), trust_folder(os.environ))
    ends_s: list[float] = []
    for faces, targets in fed(training.batches, 0, _WARM_STEPS + _TIMED_STEPS):
        training.trainer.train_on_batch(faces, targets)
        ends_s.append(time.perf_counter())
    return (ends_s[-1] - ends_s[_WARM_STEPS - 1]) / _TIMED_STEPS


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare from the command line; one JSON object on stdout."""
    parser = argparse.ArgumentParser(prog="benchmarks.recipes", description=__doc__.split("\n\n")[0])
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="held-out videos with a face")
    parser.add_argument("--pairs", type=Path, default=Path("work/pairs"))
    parser.add_argument("--persona", required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each recipe (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("work/recipes"))
    parser.add_argument("--every", type=int, default=10, metavar="N", help="look closely at every n-th frame")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="take the first n frames of each clip")
    parser.add_argument("--looks", type=int, default=3, metavar="N", help="measure so often on the way (%(default)s)")
    parser.add_argument("--size", choices=("default", "fast"), default="default", help="as of training.train")
    parser.add_argument("--start-from", type=Path, metavar="BUNDLE", help="the paired recipe's encoder; else chance")
    options = parser.parse_args(arguments)
    if options.start_from and options.size == "fast":
        parser.error("--start-from must go without --size fast: the network is as large as the bundle's.")
    found = compare(
        options.pairs,
        options.persona,
        options.clips,
        options.minutes,
        options.out,
        options.every,
        options.frames,
        options.looks,
        options.size == "fast",
        options.start_from,
    )
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
