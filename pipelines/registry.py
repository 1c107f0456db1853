"""Versions of bundles in MLflow: which there are, which one is the champion, and how to go back.

    uv run python -m pipelines.registry list
    uv run python -m pipelines.registry register BUNDLE --alias challenger
    uv run python -m pipelines.registry resolve models:/understudy@champion

The tracking server is MLFLOW_TRACKING_URI, or sqlite in the work folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from liveframe.errors import LiveframeError
from training.model.log_model import DIGEST_TAG, LoggedBundle, fetch_bundle, find_version, log_bundle
from training.model.tracking_uri import use_tracking
from understudy.bundle.bundle import BundleError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_NAME = "understudy"
CHAMPION = "champion"
CHALLENGER = "challenger"
ROLLED_BACK_TAG = "rolled_back"
# A registered model's tag holds the versions that an alias left behind, oldest first: rolling back pops the last.
_HISTORY = "history."
_MAX_HISTORY = 50


class RegistryError(LiveframeError, RuntimeError):
    """The registry has no such version, alias or history."""


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a registered bundle.

    Attributes:
        version: from 1 up.
        aliases: names that point to it now.
        digest: the bundle's.
        personas: names, in the bundle's order.
        metrics: of the run that logged it.
        tags: of the version.
        created_s: when it was registered, Unix seconds.
    """

    version: int
    aliases: tuple[str, ...]
    digest: str
    personas: tuple[str, ...]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    created_s: float


class Registry:
    """The versions of one registered bundle, where `training.model.tracking_uri` says that MLflow is.

    Args:
        name: the registered model.
        cache: where fetched bundles are kept; the user's cache by default.
    """

    def __init__(self, name: str = DEFAULT_NAME, cache: Path | None = None) -> None:
        self.name = name
        self._cache = cache

    def register(
        self,
        bundle_dir: Path,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        alias: str = "",
    ) -> LoggedBundle:
        """Verify a bundle and register it as a new version. See `training.model.log_model.log_bundle`."""
        return log_bundle(bundle_dir, self.name, metrics=metrics, tags=tags, alias=alias)

    def version_with(self, digest: str, metrics: Mapping[str, float]) -> int | None:
        """Return the newest version of this very bundle with these very metrics; None where there is none."""
        same = (each for each in self.versions() if each.digest == digest and dict(each.metrics) == dict(metrics))
        return next((each.version for each in same), None)

    def uri(self, version_or_alias: int | str) -> str:
        """Return an address: models:/name/3 or models:/name@champion."""
        mark = "/" if isinstance(version_or_alias, int) else "@"
        return f"models:/{self.name}{mark}{version_or_alias}"

    def resolve(self, version_or_alias: int | str) -> Path:
        """Return a version's bundle directory, fetched once and verified at every call.

        Raises:
            BundleError: there is no such version, or it is not what was registered.
        """
        return fetch_bundle(self.uri(version_or_alias), self._cache)

    def version_of(self, alias: str) -> int | None:
        """Return the version that an alias points to; None where nobody set it.

        Raises:
            mlflow.exceptions.MlflowException: the tracking server cannot be asked.
        """
        from mlflow.exceptions import MlflowException

        try:
            return int(self._client().get_model_version_by_alias(self.name, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def versions(self) -> list[VersionInfo]:
        """List all versions, newest first; empty where nothing is registered."""
        client = self._client()
        found = client.search_model_versions(f"name = '{self.name}'")
        aliases = self._aliases()
        infos = [
            VersionInfo(
                version=int(each.version),
                aliases=tuple(sorted(alias for alias, number in aliases.items() if number == int(each.version))),
                digest=each.tags.get(DIGEST_TAG, ""),
                personas=tuple(filter(None, each.tags.get("personas", "").split(","))),
                metrics=dict(client.get_run(each.run_id).data.metrics) if each.run_id else {},
                tags=dict(each.tags),
                created_s=each.creation_timestamp / 1000,
            )
            for each in found
        ]
        return sorted(infos, key=lambda info: -info.version)

    def move_alias(self, alias: str, version: int) -> int | None:
        """Point an alias to a version, and remember which one it left.

        Readers see the old version or the new one, never none. Two writers at once are not kept apart.

        Returns:
            The version it pointed to before; None where it was new.

        Raises:
            BundleError: there is no such version.
        """
        find_version(self.uri(version))
        before = self.version_of(alias)
        if before == version:
            return before
        if before is not None:
            self._write_history(alias, [*self.history(alias), before])
        self._client().set_registered_model_alias(self.name, alias, str(version))
        return before

    def replace_alias(self, alias: str, version: int, expected: int | None) -> None:
        """Move an alias, unless somebody else did meanwhile.

        Args:
            alias: what to move.
            version: where to.
            expected: the version that it must still point to; None: it must not exist yet.

        Raises:
            RegistryError: it points elsewhere by now, and stays there.
            BundleError: there is no such version.
        """
        now = self.version_of(alias)
        if now != expected:
            raise RegistryError(
                f"{self.uri(alias)} must still be version {expected} to be replaced, but is {now}. Judge it again."
            )
        self.move_alias(alias, version)

    def rollback(self, alias: str = CHAMPION) -> tuple[int, int]:
        """Point an alias back to the version before, as often as there is one.

        The version that it leaves is tagged: it is not promoted again unless somebody asks for that very thing.
        The version before is fetched and verified first: a damaged one is refused, and the alias stays.

        Returns:
            The version it left, and the one it points to now.

        Raises:
            RegistryError: nothing was promoted before.
            BundleError: the version before cannot be fetched or is damaged.
        """
        current, past = self.version_of(alias), self.history(alias)
        while past and past[-1] == current:  # a move that was killed between its two writes
            past.pop()
        if current is None or not past:
            raise RegistryError(
                f"{self.uri(alias)} must have been moved at least once to be rolled back, but was not. "
                "List what there is with `python -m pipelines.registry list`."
            )
        self.resolve(past[-1])
        self._client().set_registered_model_alias(self.name, alias, str(past[-1]))
        self._write_history(alias, past[:-1])
        self.tag(current, {ROLLED_BACK_TAG: datetime.now(UTC).isoformat(timespec="seconds")})
        return current, past[-1]

    def history(self, alias: str = CHAMPION) -> list[int]:
        """Return the versions that an alias left behind, oldest first."""
        from mlflow.exceptions import MlflowException

        try:
            tags = self._client().get_registered_model(self.name).tags
        except MlflowException:
            return []
        return [int(number) for number in tags.get(_HISTORY + alias, "").split(",") if number]

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""
        for key, value in tags.items():
            self._client().set_model_version_tag(self.name, str(version), key, value)

    def _aliases(self) -> dict[str, int]:
        """Return all aliases and their versions; a search of versions leaves them out on sqlite."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client().get_registered_model(self.name).aliases
        except MlflowException:
            return {}
        return {alias: int(version) for alias, version in found.items()}

    def _write_history(self, alias: str, versions: Sequence[int]) -> None:
        kept = ",".join(str(version) for version in versions[-_MAX_HISTORY:])
        self._client().set_registered_model_tag(self.name, _HISTORY + alias, kept)

    @staticmethod
    def _client() -> MlflowClient:
        from mlflow import MlflowClient

        use_tracking()
        return MlflowClient()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipelines.registry", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--name", default=DEFAULT_NAME, help="the registered model")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="all versions, newest first")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    register = commands.add_parser("register", help="verify a bundle and register it as a new version")
    register.add_argument("bundle", type=Path, help="a bundle's directory or .zip")
    register.add_argument("--alias", default="", help="point this alias to it")
    resolve = commands.add_parser("resolve", help="fetch and verify a version; print where its bundle lies")
    resolve.add_argument("uri", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    return parser


def _line(info: VersionInfo, is_json: bool) -> str:
    if is_json:
        return json.dumps(asdict(info))
    aliases = " ".join(f"@{alias}" for alias in info.aliases)
    figures = "  ".join(f"{name} {value:.3g}" for name, value in sorted(info.metrics.items())[:6])
    return f"{info.version:>4}  {info.digest[:12]}  {','.join(info.personas)}  {aliases}  {figures}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 when it is refused."""
    options = _parser().parse_args(arguments)
    use_tracking(experiment=options.name)
    registry = Registry(options.name)
    try:
        if options.command == "list":
            lines = [_line(info, options.json) for info in registry.versions()]
        elif options.command == "register":
            lines = [registry.register(options.bundle, alias=options.alias).uri]
        else:
            lines = [str(fetch_bundle(options.uri))]
    except (BundleError, RegistryError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
