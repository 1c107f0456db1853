"""Steps that are skipped when nothing they depend on has changed: kept by the hash of inputs, settings and code.

    CACHE/<step>/<key>/out/         what the step made
    CACHE/<step>/<key>/step.json    what the key was made of; there once the step is done
    CACHE/log.jsonl                 one line a step and run: done or skipped, and why

A step that was killed goes on in its folder when it can, and starts over when it cannot.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.code_digest import code_digest
from understudy.jobs.atomic_file import write_json
from understudy.jobs.lock import exclusive

_DONE, _LOG = "step.json", "log.jsonl"
_KEY_DIGITS = 20


@dataclass(frozen=True, slots=True)
class StepRun:
    """What came of one step in one run.

    Attributes:
        step: its name.
        key: hash of all it depends on.
        is_skipped: whether an earlier result was taken.
        why: why it ran, or why not.
        seconds: how long it took.
    """

    step: str
    key: str
    is_skipped: bool
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as far as its result depends on anything.

    Attributes:
        name: of the step.
        modules: what its code is, dotted; whatever they import counts as well.
        inputs: files and folders that it reads, by name; their contents count.
        settings: all else, JSON values.
        is_resumable: whether it can go on in the folder that a killed run left.
    """

    name: str
    modules: tuple[str, ...]
    inputs: Mapping[str, Sequence[Path]]
    settings: Mapping[str, Any]
    is_resumable: bool = False

    def parts(self) -> dict[str, str]:
        """Return the digest of everything that it depends on, by name."""
        parts = {"code": code_digest(self.modules)}
        parts |= {f"input {name}": hash_contents(paths) for name, paths in self.inputs.items()}
        return parts | {f"setting {name}": _text_digest(value) for name, value in self.settings.items()}


def run_step(
    step: Step,
    out: Path,
    cache: Path | None,
    work: Callable[[Path], None],
    still_holds: Callable[[Path], bool] = lambda _: True,
    check: Callable[[], None] = lambda: None,
) -> StepRun:
    """Do a step, or take what it made the last time.

    Args:
        step: what it depends on.
        out: where its result shall be found: a link into the cache, or a copy where links cannot be made.
        cache: where results are kept; None keeps none, and the step always runs.
        work: makes the result in the folder that it is given.
        still_holds: whether an earlier result is still true of the world outside, such as a registry.
        check: asks, at every run and before anything is done or taken, whether the step may be done at all: whether
            consent still covers it. It raises where not.

    Raises:
        LockedError: another run does the same step with the same inputs now.
    """
    check()
    if cache is None:
        return _run_uncached(step, out, work)
    parts = step.parts()
    key = _text_digest(parts)[:_KEY_DIGITS]
    folder = cache / step.name / key
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", f"The step {step.name} in {folder}"):
        run = _take_or_make(step, key, parts, folder, work, still_holds)
    _hand_over(folder / "out", out)
    with (cache / _LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(asdict(run)) + "\n")
    return _log_run(run)


def read_log(cache: Path, since: int = 0) -> list[StepRun]:
    """Return the runs of steps that a cache's log tells of, from a line on."""
    path = cache / _LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [StepRun(**json.loads(line)) for line in lines[since:]]


def hash_contents(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of files and folders: of their contents and of their names inside the folders.

    Hidden files do not count. A path that does not exist has its own digest.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _is_seen(p, path))
        for file in files:
            name = file.relative_to(path).as_posix() if file != path else "."
            with file.open("rb") as content:
                digest.update(f"{name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
        digest.update(b"folder\n" if path.is_dir() else b"file\n" if path.is_file() else b"nothing\n")
    return digest.hexdigest()


def _is_seen(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _text_digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _take_or_make(
    step: Step,
    key: str,
    parts: Mapping[str, str],
    folder: Path,
    work: Callable[[Path], None],
    still_holds: Callable[[Path], bool],
) -> StepRun:
    start = time.monotonic()
    made, note = folder / "out", folder / _DONE
    if note.is_file() and still_holds(made):
        return StepRun(step.name, key, True, "nothing that it depends on has changed", time.monotonic() - start)
    why = _rerun_reason(step.name, parts, folder)
    if made.exists() and (note.is_file() or not step.is_resumable):
        shutil.rmtree(made)
    note.unlink(missing_ok=True)
    made.mkdir(exist_ok=True)
    work(made)
    seconds = time.monotonic() - start
    write_json(note, {"step": step.name, "parts": dict(parts), "seconds": seconds, "finished_s": time.time()}, indent=1)
    return StepRun(step.name, key, False, why, seconds)


def _rerun_reason(name: str, parts: Mapping[str, str], folder: Path) -> str:
    """Say what differs from the step's latest result."""
    if (folder / _DONE).is_file():
        return "what it made does not hold any more"
    if (folder / "out").is_dir():
        return "it was stopped before its end"
    notes = sorted(folder.parent.glob(f"*/{_DONE}"), key=lambda path: path.stat().st_mtime)
    if not notes:
        return f"{name} was never done here"
    before: Mapping[str, str] = json.loads(notes[-1].read_bytes())["parts"]
    changed = [part for part in parts if parts[part] != before.get(part)]
    return f"changed: {', '.join(changed)}"


def _run_uncached(step: Step, out: Path, work: Callable[[Path], None]) -> StepRun:
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    work(out)
    return _log_run(StepRun(step.name, "", False, "nothing is kept", time.monotonic() - start))


def _log_run(run: StepRun) -> StepRun:
    word = "skipped" if run.is_skipped else f"done in {run.seconds:.1f} s"
    print(f"release: {run.step} {word} ({run.why})", file=sys.stderr, flush=True)
    return run


def _hand_over(made: Path, out: Path) -> None:
    """Show a kept result at another place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_symlink() or out.is_file():
        out.unlink()
    elif out.is_dir():
        shutil.rmtree(out)
    try:
        out.symlink_to(made.resolve(), target_is_directory=True)
    except OSError:  # object stores mounted as folders, and Windows without the right to make links
        shutil.copytree(made, out)
