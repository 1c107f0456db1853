"""Tell, line by line, which version an alias points to: for programs that must not import MLflow themselves.

    uv run python -m pipelines.follow models:/understudy@champion models:/understudy@challenger --every 10

Each time an address leads to another version, one JSON object is printed: `uri`, `version`, `digest`, and `bundle`,
the folder where the verified bundle lies on this machine. `problem` says why the registry could not be asked. It ends
when its standard input is closed, and so with whoever started it.
"""

from __future__ import annotations

import argparse
import json
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.model.log_model import DIGEST_TAG, fetch_bundle, find_version
from training.model.tracking_uri import use_tracking
from understudy.bundle.bundle import BundleError


class Follower:
    """Remembers where addresses led, and tells what is new.

    Args:
        uris: models:/NAME@ALIAS or models:/NAME/VERSION.
        cache: where fetched bundles are kept; the user's cache by default.
    """

    def __init__(self, uris: Sequence[str], cache: Path | None = None) -> None:
        self._sent: dict[str, dict[str, Any]] = {uri: {} for uri in uris}
        self._cache = cache

    def news(self) -> list[dict[str, Any]]:
        """Ask once; give an object for each address whose answer differs from the last one."""
        changed: list[dict[str, Any]] = []
        for uri, told in self._sent.items():
            answer = self._ask(uri, told)
            if answer != told:
                self._sent[uri] = answer
                changed.append(answer)
        return changed

    def _ask(self, uri: str, told: dict[str, Any]) -> dict[str, Any]:
        from mlflow.exceptions import MlflowException

        try:
            found = find_version(uri)
            if told.get("version") == int(found.version) and not told.get("problem"):
                return told
            bundle = fetch_bundle(f"models:/{found.name}/{found.version}", self._cache)
        except (BundleError, MlflowException, OSError) as error:
            return {"uri": uri, "version": None, "digest": "", "bundle": "", "problem": str(error)[:500]}
        digest = found.tags.get(DIGEST_TAG, "")
        return {"uri": uri, "version": int(found.version), "digest": digest, "bundle": str(bundle), "problem": ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command until standard input is closed."""
    parser = argparse.ArgumentParser(prog="pipelines.follow", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("uris", nargs="+", metavar="URI", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks (default 10)")
    options = parser.parse_args(arguments)
    use_tracking()
    follower = Follower(options.uris)
    while True:
        for answer in follower.news():
            print(json.dumps(answer), flush=True)
        readable, _, _ = select.select([sys.stdin], [], [], options.every)
        if readable and not sys.stdin.readline():
            return 0


if __name__ == "__main__":
    sys.exit(main())
