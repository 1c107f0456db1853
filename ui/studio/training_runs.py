"""A persona's trainings: each a folder with its pairs, checkpoints, curves, previews and the bundle it ends with."""

import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ui.parts.job_card import Pace, words_for_eta
from ui.parts.job_entry import job_command
from ui.parts.notes import read_note
from ui.session.own_personas import ShelfPersona
from ui.session.settings import app_settings
from ui.session.workspace import job_queue
from understudy.jobs.atomic_file import write_json
from understudy.jobs.queue import ROOT, JobState, module_command

MODEL = "understudy"
_NOTE = "run.json"
_CONFIGS = ROOT / "training" / "configs"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to train.

    Attributes:
        name: identifier.
        title: what people read.
        config: the TOML.
        iterations: how many steps.
        report_every: steps between two points of the curves.
        drivers: pictures and frames a clip to learn from, at most.
        needs_encoder: whether the shipped bundle must hold an encoder to build on.
    """

    name: str
    title: str
    config: Path
    iterations: int
    report_every: int
    drivers: int
    needs_encoder: bool


RECIPES = (
    Recipe("quick", "Quick look: small and soft, in minutes", _CONFIGS / "quick.toml", 400, 20, 240, False),
    Recipe("full", "Full: sharp, on the shipped encoder", _CONFIGS / "persona.toml", 2800, 50, 1500, True),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        folder: holds everything about it.
        job_id: the job's.
        recipe: the recipe's name.
        iterations: steps in all.
    """

    folder: Path
    job_id: str
    recipe: str
    iterations: int

    @property
    def pairs(self) -> Path:
        """Drivers and the persona in their poses; large, and removed once the training is done."""
        return self.folder / "pairs"

    @property
    def out(self) -> Path:
        """Checkpoints, curves and previews."""
        return self.folder / "out"

    @property
    def bundle(self) -> Path | None:
        """What it ended with; None before."""
        bundle = self.out / "bundle"
        return bundle if (bundle / "manifest.json").is_file() else None

    @property
    def evaluation(self) -> Path:
        """Figures and clips of later comparisons."""
        return self.folder / "evaluation"


def usable_recipes() -> list[Recipe]:
    """The recipes that can run here, the best first."""
    has_encoder = (app_settings().bundle / "encoder.npz").is_file()
    return [recipe for recipe in reversed(RECIPES) if has_encoder or not recipe.needs_encoder]


def drivers_of(persona: ShelfPersona) -> list[Path]:
    """What a training can learn from now: the faces found in the persona's clips, and the operator's folder."""
    own = [persona.faceset] if (persona.faceset / "faceset.json").is_file() else []
    shared = app_settings().drivers
    return [*own, shared] if shared is not None and shared.is_dir() else own


def start(persona: ShelfPersona, recipe: Recipe, overrides: Sequence[str] = ()) -> Run:
    """Put a training at the end of the queue: first the pairs, then the network; it registers its result by itself.

    Args:
        persona: who is taught.
        recipe: how.
        overrides: more settings of the training, "key=value".
    """
    folder = persona.runs / f"{time.time_ns() // 1_000_000:014d}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700, parents=True)
    run = Run(folder, "", recipe.name, _iterations(recipe, overrides))
    commands = (_pairs_command(persona, recipe, run), _train_command(persona, recipe, run, overrides))
    job = job_queue().submit("train", f"Training of {persona.title}", job_command(*commands))
    run = Run(folder, job.id, recipe.name, run.iterations)
    write_json(folder / _NOTE, {key: value for key, value in asdict(run).items() if key != "folder"})
    job_queue().ensure_worker()
    return run


def runs(persona: ShelfPersona) -> list[Run]:
    """A persona's trainings, newest first."""
    found: list[Run] = []
    for note in sorted(persona.runs.glob(f"*/{_NOTE}"), reverse=True):
        with suppress(ValueError, TypeError):  # a torn note: the run is not listed
            found.append(Run(folder=note.parent, **json.loads(note.read_text())))
    return found


def curves(run: Run) -> list[dict[str, float]]:
    """What was reported so far, by step; a resumed training reports some steps again, and the last word counts."""
    by_step: dict[int, dict[str, float]] = {}
    with suppress(FileNotFoundError):
        for line in (run.out / "curves.jsonl").read_text().splitlines():
            with suppress(ValueError, KeyError):  # the line being written now
                point = json.loads(line)
                by_step[int(point["step"])] = point
    return [by_step[step] for step in sorted(by_step)]


def previews(run: Run) -> list[Path]:
    """The preview sheets, oldest first."""
    return sorted(run.out.glob("preview-*.jpg"))


def pace(run: Run, state: JobState) -> Pace:
    """How far a training is."""
    points = curves(run)
    if points:
        step = int(points[-1]["step"])
        step_s = _step_seconds(points)
        since_s = time.time() - (run.out / "curves.jsonl").stat().st_mtime
        left_s = max(0.0, (run.iterations - step) * step_s - since_s)
        eta = words_for_eta(left_s) if state is JobState.RUNNING and step < run.iterations else ""
        words = f"Step {step} of {run.iterations}" if step < run.iterations else "Packing and registering"
        return Pace(step / run.iterations, ", ".join(filter(None, [words, eta])))
    index = read_note(run.pairs / "pairs.json")
    if not index:
        return Pace(0.0, "Finding faces to learn from")
    done = index.get("done", {})
    rows, wanted = sum(int(value) for value in done.values()), int(index["count"]) * 2
    if len(done) < 2 or rows < wanted:
        return Pace(0.0, f"Making pairs: {min(1.0, rows / max(1, wanted)):.0%}")
    return Pace(0.0, "Warming up the network")


def _step_seconds(points: Sequence[Mapping[str, float]]) -> float:
    """Return the latest pace, seconds a step; the first stretch builds the graph and counts only while it is alone."""
    recent = points[-5:] if len(points) > 5 else points[1:] or points
    before = points[len(points) - len(recent) - 1]["step"] if len(recent) < len(points) else 0
    return sum(point["seconds"] for point in recent) / max(1.0, recent[-1]["step"] - before)


def sweep(run: Run) -> None:
    """Free what a finished training no longer needs: pairs and checkpoints, most of its size."""
    if run.bundle is None:
        return
    shutil.rmtree(run.pairs, ignore_errors=True)
    for checkpoint in run.out.glob("checkpoint-*.npz"):
        checkpoint.unlink(missing_ok=True)


def _pairs_command(persona: ShelfPersona, recipe: Recipe, run: Run) -> tuple[str, ...]:
    return module_command(
        "training.reenact",
        *("--drivers", *drivers_of(persona)),
        *("--out", run.pairs, "--name", persona.name, "--trust", app_settings().trust.resolve()),
        *("--photo", persona.folder / "photo.png", "--consent", persona.info.consent),
        *("--frames-per-clip", str(recipe.drivers), "--pictures", str(recipe.drivers)),
    )


def _train_command(persona: ShelfPersona, recipe: Recipe, run: Run, overrides: Sequence[str]) -> tuple[str, ...]:
    settings = [
        f"name={MODEL}",
        f"pairs={run.pairs}",
        f"out={run.out}",
        f"personas={json.dumps([persona.name])}",
        f"tracking={app_settings().tracking_uri}",
        f"iterations={recipe.iterations}",
        f"preview_every={recipe.report_every}",
        *([f"start_from={app_settings().bundle.resolve()}"] if recipe.needs_encoder else []),
        *overrides,
    ]
    trust = app_settings().trust.resolve()
    return module_command("training.train", "--config", recipe.config, "--trust", trust, "--set", *settings)


def _iterations(recipe: Recipe, overrides: Sequence[str]) -> int:
    given = [part.partition("=")[2] for part in overrides if part.startswith("iterations=")]
    return int(given[-1]) if given else recipe.iterations
