"""The registry in one JSON file, for those who must not import MLflow: versions, aliases, judgements, pictures.

    uv run python -m pipelines.snapshot --out registry.json

Bundles and preview sheets of the newest versions are fetched, so that the file can name where they lie.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.registry import DEFAULT_NAME, Registry, VersionInfo
from understudy.bundle.bundle import BundleError
from understudy.jobs.atomic_file import write_json

_FETCHED = 12
_JUDGEMENTS = 50


def take_snapshot(registry: Registry, cache: Path) -> dict[str, Any]:
    """Ask the registry everything that a page shows.

    Args:
        registry: at MLflow's current tracking server.
        cache: where pictures are kept, by run.

    Returns:
        JSON values: taken_s, name, versions, history, problem.
    """
    found = registry.versions()
    decisions = _decisions(registry.name) if found else {}
    return {
        "taken_s": time.time(),
        "name": registry.name,
        "history": registry.history(),
        "problem": "",
        "versions": [
            _version(registry, info, decisions.get(info.version, []), cache if place < _FETCHED else None)
            for place, info in enumerate(found)
        ],
    }


def no_snapshot(name: str, problem: str) -> dict[str, Any]:
    """Return what stands in a snapshot's place when none can be taken: the problem, in a sentence."""
    sentence = f"{problem.rstrip('.')}. Check MLFLOW_TRACKING_URI."
    return {"taken_s": time.time(), "name": name, "versions": [], "history": [], "problem": sentence}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def _version(
    registry: Registry, info: VersionInfo, decisions: Sequence[Mapping[str, Any]], cache: Path | None
) -> dict[str, Any]:
    bundle = ""
    if cache is not None:
        try:
            bundle = str(registry.resolve(info.version))
        except BundleError as error:
            print(f"version {info.version}: {error}", file=sys.stderr)
    known = asdict(info)
    tags = known.pop("tags")
    return known | {
        "gates": tags.get("gates", ""),
        "gates_failed": tags.get("gates_failed", ""),
        "bundle": bundle,
        "sheet": _newest_sheet(registry, info.version, cache) if cache is not None else "",
        "decisions": list(decisions),
    }


def _newest_sheet(registry: Registry, version: int, cache: Path) -> str:
    """Fetch the last preview sheet of the run that logged a version; "" where it logged none."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    run_id = client.get_model_version(registry.name, str(version)).run_id
    if not run_id:
        return ""
    try:
        sheets = sorted(each.path for each in client.list_artifacts(run_id, "previews"))
        if not sheets:
            return ""
        kept = cache / run_id / Path(sheets[-1]).name
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            fetched = client.download_artifacts(run_id, sheets[-1], str(kept.parent))
            Path(fetched).replace(kept)
        return str(kept)
    except (MlflowException, OSError) as error:
        print(f"version {version}: {error}", file=sys.stderr)
        return ""


def _decisions(name: str) -> dict[int, list[Mapping[str, Any]]]:
    """Read the newest judgements of a model, by candidate, newest first."""
    import mlflow
    from mlflow.artifacts import load_text
    from mlflow.exceptions import MlflowException

    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"attributes.run_name LIKE 'promote {name} %'",
        order_by=["attributes.start_time DESC"],
        max_results=_JUDGEMENTS,
        output_format="list",
    )
    found: dict[int, list[Mapping[str, Any]]] = {}
    for run in runs:
        try:
            text = load_text(f"{run.info.artifact_uri}/decision.json")
        except (MlflowException, OSError):
            continue  # judged, but its artifacts were cleaned away
        decision = json.loads(text) | {"judged_s": run.info.start_time / 1000}
        found.setdefault(int(decision["candidate"]), []).append(decision)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 when the registry could not be asked."""
    parser = argparse.ArgumentParser(prog="pipelines.snapshot", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--name", default=DEFAULT_NAME, help="the registered model")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(arguments)
    try:
        snapshot = take_snapshot(Registry(options.name), options.out.resolve().parent / "registry")
    except Exception as error:  # MLflow's stores raise errors of their databases and transports, without a common base
        write_json(options.out, no_snapshot(options.name, f"MLflow could not be asked: {_first_line(error)}"))
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, snapshot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
