"""The release as a Kubeflow pipeline: compiled for Vertex AI, or run here in subprocesses.

Each component's source is all that travels into its container, so it imports what it needs itself; the
image holds this repository on its PYTHONPATH. Imported only where Kubeflow is wanted: kfp takes seconds.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kfp import compiler, dsl, local

from pipelines.chain import STEPS, Release, chain
from pipelines.code_digest import ROOT

DEFAULT_IMAGE = "europe-west4-docker.pkg.dev/demo/understudy/training-python:latest"
_NAME = "understudy-release"


def extract(release: dict, out: dsl.Output[dsl.Dataset]) -> None:
    """Clips and photos to a faceset."""
    from pipelines import steps

    steps.extract(steps.Release.from_json(release), out.path)


def triplets(release: dict, faceset: dsl.Input[dsl.Dataset], out: dsl.Output[dsl.Dataset]) -> None:
    """A faceset to inverted pairs."""
    from pipelines import steps

    steps.triplets(steps.Release.from_json(release), faceset.path, out.path)


def train(release: dict, triplets: dsl.Input[dsl.Dataset], out: dsl.Output[dsl.Model]) -> None:
    """Triplets and personas to a bundle."""
    from pipelines import steps

    steps.train(steps.Release.from_json(release), triplets.path, out.path)


def evaluate(release: dict, trained: dsl.Input[dsl.Model], out: dsl.Output[dsl.Artifact]) -> None:
    """A bundle and held-out clips to figures, plots and side-by-side clips."""
    from pipelines import steps

    steps.evaluate(steps.Release.from_json(release), trained.path, out.path)


def register(
    release: dict, trained: dsl.Input[dsl.Model], figures: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact]
) -> None:
    """A bundle and its figures to a version in MLflow."""
    from pipelines import steps

    steps.register(steps.Release.from_json(release), trained.path, figures.path, out.path)


def promote(release: dict, version: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact]) -> None:
    """A version to the champion, if it holds every gate."""
    from pipelines import steps

    steps.promote(steps.Release.from_json(release), version.path, out.path)


def deploy(
    release: dict, version: dsl.Input[dsl.Artifact], decision: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact]
) -> None:
    """The champion to its endpoint."""
    from pipelines import steps

    steps.deploy(steps.Release.from_json(release), version.path, decision.path, out.path)


def build_pipeline(image: str = DEFAULT_IMAGE) -> Any:
    """Return the pipeline; its one parameter, `release`, is a Release as a JSON object.

    Args:
        image: of every step; holds this repository and its `train`, `serve` and `pipelines` groups.
    """
    functions = (extract, triplets, train, evaluate, register, promote, deploy)
    make = dsl.component(base_image=image, install_kfp_package=False)
    components = SimpleNamespace(**{name: make(function) for name, function in zip(STEPS, functions, strict=True)})

    @dsl.pipeline(name=_NAME, description="extract, triplets, train, evaluate, register, promote, deploy")
    def pipeline(release: dict) -> None:
        tasks = chain(components, release)
        for name, task in tasks.items():
            task.set_display_name(name)
            # Vertex AI's own cache goes by the clips' addresses; ours (`cache`) by what they hold.
            task.set_caching_options(enable_caching=False)
        tasks["train"].set_cpu_limit("16").set_memory_limit("32G")

    return pipeline


def compile_release(out: Path, image: str = DEFAULT_IMAGE) -> None:
    """Write the pipeline as YAML that Vertex AI Pipelines takes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build_pipeline(image), str(out))


def run_locally(release: Release, work: Path) -> None:
    """Run the pipeline here, each step in a process of this environment.

    Args:
        release: what to release, and how.
        work: Kubeflow's own files go into `kfp` here.

    Raises:
        RuntimeError: a step failed; Kubeflow names it.
    """
    # The steps' processes inherit it: a component's source lies in a temporary folder of Kubeflow's.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(work / "kfp"))
    build_pipeline()(release=json.loads(json.dumps(asdict(release))))
