"""One command over many clips, on many machines: Ray spreads the items, each done by the single command's own code.

    uv run --extra ray python -m pipelines.many convert clips.jsonl --ray local -- --persona amara
    uv run --extra ray python -m pipelines.many extract clips.jsonl --ray ray://head:10001
    uv run python -m pipelines.many evaluate clips.jsonl                  # without Ray: one after the other, here

MANIFEST has one JSON object a line: `{"in": ["a.mp4"], "out": "out/a.mp4"}`, with "options" of its own if need be; what
stands behind `--` is given to every item. An item that is done is marked beside its `out` (`a.mp4.done.json`) and not
done again unless its files or options changed; one that was broken off goes on as the single command does. Where a
worker is lost, another one takes its item. Paths must mean the same on every machine.
Exit status: 0 all done, 1 some failed (the table says why), 2 wrong options.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from pipelines.code_digest import ROOT

LOCAL = "local"
_RETRIES = 3
_LOOK_S = 1.0
_LONGEST_LINE = 300
# What the single commands need of this machine's environment on another one.
_CARRIED = ("UNDERSTUDY_", "MLFLOW_", "KERAS_BACKEND", "PYTHONPATH")


class ManifestError(LiveframeError, ValueError):
    """The manifest cannot be followed; nothing was begun."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is done to every item.

    Attributes:
        module: the single command.
        arguments: an item's files, its out, and its options, as that command takes them.
    """

    module: str
    arguments: Callable[[Sequence[str], str, Sequence[str]], list[str]]


TASKS: Mapping[str, Task] = {
    "convert": Task("understudy.convert", lambda files, out, options: [*files, out, *options]),
    "extract": Task("training.extract", lambda files, out, options: [*files, "--out", out, "--quiet", *options]),
    "evaluate": Task("training.evaluate", lambda files, out, options: [*files, "--out", out, "--json", *options]),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a manifest.

    Attributes:
        task: a key of TASKS.
        files: absolute paths.
        out: an absolute path.
        options: of the single command.
    """

    task: str
    files: tuple[str, ...]
    out: str
    options: tuple[str, ...]

    @property
    def mark(self) -> Path:
        """The file that says that the item is done."""
        return Path(f"{self.out}.done.json")

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that the result depends on: the files' bytes, the options, the command."""
        digest = hashlib.sha256(json.dumps([self.task, self.out, self.options]).encode())
        for name in self.files:
            for path in _files_of(Path(name)):
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an item.

    Attributes:
        out: the item's.
        state: "done", "skipped" or "failed".
        seconds: of work.
        worker: who did it: host and process.
        says: the command's last line.
    """

    out: str
    state: str
    seconds: float
    worker: str
    says: str = ""


def read_manifest(path: Path, task: str, options: Sequence[str] = ()) -> list[Item]:
    """Read a manifest; relative paths are as seen from its own folder.

    Args:
        path: JSON, one object a line.
        task: a key of TASKS.
        options: for every item, after its own.

    Raises:
        ManifestError: a line is wrong, a file is missing, or two items have one `out`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} must be a manifest, but cannot be read: {error}.") from error
    items = [_item(path, number, line, task, options) for number, line in enumerate(lines, 1) if line.strip()]
    outs = [item.out for item in items]
    if not items or len(set(outs)) < len(outs):
        twice = sorted({out for out in outs if outs.count(out) > 1})
        raise ManifestError(f"{path} must list items, each with an 'out' of its own, but {twice or 'it is empty'}.")
    return items


def _item(path: Path, number: int, line: str, task: str, options: Sequence[str]) -> Item:
    try:
        fields: Any = json.loads(line)
        files, out, own = fields["in"], fields["out"], fields.get("options", [])
        named = [files] if isinstance(files, str) else list(files)
        if set(fields) - {"in", "out", "options"} or not named or not isinstance(out, str):
            raise ValueError(f"it has {sorted(fields)}")
        given = tuple(str(option) for option in [*own, *options])
        absolute = tuple(str((path.parent / str(name)).resolve()) for name in named)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f'{path}, line {number}, must be like {{"in": ["a.mp4"], "out": "out/a.mp4"}}, but {error!r}. Correct it.'
        ) from error
    if missing := [name for name in absolute if not Path(name).exists()]:
        raise ManifestError(f"{path}, line {number}: {missing[0]} must exist, but does not. Correct it.")
    return Item(task, absolute, str((path.parent / out).resolve()), given)


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(each for each in path.rglob("*") if each.is_file())
    else:
        yield path


def run_item(item: Item) -> Outcome:
    """Do one item, unless it is done: the single command, in this process."""
    worker = f"{os.uname().nodename}:{os.getpid()}"
    fingerprint = item.fingerprint()
    if _is_done(item, fingerprint):
        return Outcome(item.out, "skipped", 0.0, worker)
    Path(item.out).parent.mkdir(parents=True, exist_ok=True)
    item.mark.unlink(missing_ok=True)
    task, began_s, said = TASKS[item.task], time.monotonic(), io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            status = importlib.import_module(task.module).main(task.arguments(item.files, item.out, item.options))
    except SystemExit as end:  # argparse's, for options that the command does not know
        status = end.code
    except Exception as error:  # one broken clip must not end the others
        status, _ = 1, said.write(f"\n{type(error).__name__}: {error}")
    seconds, last = time.monotonic() - began_s, _last_line(said.getvalue())
    if status:
        return Outcome(item.out, "failed", seconds, worker, last)
    part = item.mark.with_suffix(".part")
    part.write_text(json.dumps({"fingerprint": fingerprint, "seconds": round(seconds, 2), "worker": worker}) + "\n")
    os.replace(part, item.mark)
    return Outcome(item.out, "done", seconds, worker, last)


def _is_done(item: Item, fingerprint: str) -> bool:
    try:
        return Path(item.out).exists() and json.loads(item.mark.read_text())["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _last_line(text: str) -> str:
    lines = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")[:_LONGEST_LINE]


def run_here(items: Sequence[Item]) -> Iterator[Outcome]:
    """Do items one after the other, in this process."""
    return (run_item(item) for item in items)


def run_on_ray(items: Sequence[Item], address: str, workers: int) -> Iterator[Outcome]:
    """Do items on a Ray cluster, in any order; an item whose worker is lost is given to another one.

    Args:
        items: what to do.
        address: of the cluster; LOCAL starts one here, for as long as this runs.
        workers: how many at once, where it is started here.
    """
    # Ray reports its usage to its makers unless it is told not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine takes its time
    import ray
    from ray.exceptions import RayError

    carried = {key: value for key, value in os.environ.items() if key.startswith(_CARRIED)}
    carried["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), carried.get("PYTHONPATH", "")]))
    size: dict[str, Any] = {"address": address}
    if address == LOCAL:
        size = {"address": LOCAL, "num_cpus": workers, "object_store_memory": 80 << 20, "include_dashboard": False}
    ray.init(**size, runtime_env={"env_vars": carried}, log_to_driver=False, logging_level=logging.ERROR)
    try:
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(run_item)
        waiting = {remote.options(name=item.task).remote(item): item for item in items}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK_S)
            for reference in ready:
                item = waiting.pop(reference)
                try:
                    yield ray.get(reference)
                except RayError as error:
                    yield Outcome(item.out, "failed", 0.0, "lost", _last_line(str(error)))
    finally:
        ray.shutdown()


def table(outcomes: Sequence[Outcome]) -> str:
    """Return what came of every item, one a line, and the sum."""
    lines = [
        f"{each.state:<8} {each.seconds:8.1f} s  {each.worker:<24} {each.out}  {each.says}".rstrip()
        for each in sorted(outcomes, key=lambda each: each.out)
    ]
    counts = {state: sum(each.state == state for each in outcomes) for state in ("done", "skipped", "failed")}
    workers = len({each.worker for each in outcomes if each.state == "done"})
    seconds = sum(each.seconds for each in outcomes)
    numbers = ", ".join(f"{number} {state}" for state, number in counts.items())
    return "\n".join([*lines, f"{numbers}; {seconds:.1f} s of work by {workers} workers"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelines.many", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("task", choices=sorted(TASKS))
    add("manifest", type=Path, help="one JSON object a line")
    add("--ray", metavar="ADDRESS", default="", help=f"a Ray cluster, or {LOCAL!r} for one on this machine")
    add("--workers", type=int, default=os.cpu_count() or 1, help="with --ray local: items at once (%(default)s)")
    add("--json", action="store_true", help="print one JSON object an item instead of the table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = _parser().parse_args(given[:cut])
    from tqdm import tqdm

    try:
        items = read_manifest(options.manifest, options.task, given[cut + 1 :])
        found = run_on_ray(items, options.ray, options.workers) if options.ray else run_here(items)
        outcomes = list(tqdm(found, total=len(items), desc=options.task, unit="item", disable=None))
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 2
    except ImportError:
        print("--ray needs Ray, but it is not installed. Run `uv sync --extra ray`.", file=sys.stderr)
        return 2
    except ConnectionError as error:
        print(f"The Ray cluster at {options.ray} cannot be reached: {error}", file=sys.stderr)
        return 2
    print("\n".join(json.dumps(asdict(each)) for each in outcomes) if options.json else table(outcomes))
    return 1 if any(each.state == "failed" for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
