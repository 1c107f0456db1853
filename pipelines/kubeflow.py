"""The release as a Kubeflow pipeline: compiled for Vertex AI, or run here in subprocesses.

Each component's source is all that travels into its container, so it imports what it needs itself; the
image holds this repository on its PYTHONPATH. Imported only where Kubeflow is wanted: kfp takes seconds.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kfp import compiler, dsl, local

from pipelines.chain import STEPS, chain
from pipelines.code_digest import ROOT

DEFAULT_IMAGE = "europe-west4-docker.pkg.dev/demo/understudy/training-python:latest"
_NAME = "understudy-release"


def extract(clips: list, every: int, cache: str, out: dsl.Output[dsl.Dataset]) -> None:
    """Clips and photos to a faceset."""
    from pipelines import steps

    steps.extract(clips, every, out.path, cache)


def triplets(
    faceset: dsl.Input[dsl.Dataset],
    count: int,
    frames_per_clip: int,
    keep_spectacles: bool,
    cache: str,
    out: dsl.Output[dsl.Dataset],
) -> None:
    """A faceset to inverted pairs."""
    from pipelines import steps

    steps.triplets(faceset.path, count, frames_per_clip, keep_spectacles, out.path, cache)


def train(
    triplets: dsl.Input[dsl.Dataset],
    persona: str,
    photo: str,
    consent: str,
    personas: str,
    config: str,
    overrides: list,
    tracking: str,
    model: str,
    trust: str,
    cache: str,
    out: dsl.Output[dsl.Model],
) -> None:
    """Triplets and personas to a bundle."""
    from pipelines import steps

    who = (persona, photo, consent, personas)
    steps.train(triplets.path, *who, config, overrides, tracking, model, trust, out.path, cache)


def evaluate(
    trained: dsl.Input[dsl.Model],
    held_out: list,
    every: int,
    frames: int,
    trust: str,
    cache: str,
    out: dsl.Output[dsl.Artifact],
) -> None:
    """A bundle and held-out clips to figures, plots and side-by-side clips."""
    from pipelines import steps

    steps.evaluate(trained.path, held_out, every, frames, trust, out.path, cache)


def register(
    trained: dsl.Input[dsl.Model],
    figures: dsl.Input[dsl.Artifact],
    tracking: str,
    model: str,
    cache: str,
    out: dsl.Output[dsl.Artifact],
) -> None:
    """A bundle and its figures to a version in MLflow."""
    from pipelines import steps

    steps.register(trained.path, figures.path, tracking, model, out.path, cache)


def promote(
    version: dsl.Input[dsl.Artifact],
    held_out: list,
    gates: str,
    every: int,
    frames: int,
    tracking: str,
    model: str,
    trust: str,
    cache: str,
    out: dsl.Output[dsl.Artifact],
) -> None:
    """A version to the champion, if it holds every gate."""
    from pipelines import steps

    steps.promote(version.path, held_out, gates, every, frames, tracking, model, trust, out.path, cache)


def deploy(
    version: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    project: str,
    region: str,
    is_dry_run: bool,
    options: list,
    tracking: str,
    model: str,
    cache: str,
    out: dsl.Output[dsl.Artifact],
) -> None:
    """The champion to its endpoint."""
    from pipelines import steps

    place = (project, region, is_dry_run, options)
    steps.deploy(version.path, decision.path, *place, tracking, model, out.path, cache)


def build_pipeline(image: str = DEFAULT_IMAGE) -> Any:
    """Return the pipeline; its parameters are a Release's attributes.

    Args:
        image: of every step; holds this repository and its `train`, `serve` and `pipelines` groups.
    """
    functions = (extract, triplets, train, evaluate, register, promote, deploy)
    make = dsl.component(base_image=image, install_kfp_package=False)
    components = SimpleNamespace(**{name: make(function) for name, function in zip(STEPS, functions, strict=True)})

    @dsl.pipeline(name=_NAME, description="extract, triplets, train, evaluate, register, promote, deploy")
    def release(
        clips: list,
        held_out: list,
        config: str,
        trust: str,
        tracking: str,
        cache: str = "",
        overrides: list = [],  # noqa: B006 (kfp reads it, nobody changes it)
        deploy_options: list = [],  # noqa: B006
        persona: str = "",
        photo: str = "",
        consent: str = "",
        personas: str = "",
        every: int = 1,
        frames_per_clip: int = 120,
        count: int = 16_000,
        keep_spectacles: bool = False,
        judge_every: int = 5,
        judge_frames: int = 0,
        gates: str = "",
        model: str = "understudy",
        project: str = "demo",
        region: str = "europe-west4",
        is_dry_run: bool = True,
    ) -> None:
        tasks = chain(components, SimpleNamespace(**locals()))
        for name, task in tasks.items():
            task.set_display_name(name)
            # Vertex AI's own cache goes by the clips' addresses; ours (`cache`) by what they hold.
            task.set_caching_options(enable_caching=False)
        tasks["train"].set_cpu_limit("16").set_memory_limit("32G")

    return release


def compile_release(out: Path, image: str = DEFAULT_IMAGE) -> None:
    """Write the pipeline as YAML that Vertex AI Pipelines takes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build_pipeline(image), str(out))


def run_locally(arguments: Mapping[str, Any], work: Path) -> None:
    """Run the pipeline here, each step in a process of this environment.

    Args:
        arguments: a Release's attributes.
        work: Kubeflow's own files go into `kfp` here.

    Raises:
        RuntimeError: a step failed; Kubeflow names it.
    """
    # The steps' processes inherit it: a component's source lies in a temporary folder of Kubeflow's.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(work / "kfp"))
    build_pipeline()(**arguments)
