"""Reads uv.lock: what a few packages need, pinned and hashed, for an image that holds no more than that."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What the image runs on, in the words of PEP 508.
IMAGE_PLATFORM: Mapping[str, str] = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.9",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.11.9",
    "python_version": "3.11",
    "sys_platform": "linux",
}


class LockError(RuntimeError):
    """The lock does not hold what is asked of it."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of the lock.

    Attributes:
        name: normalised name.
        version: the locked version.
        hashes: of its wheels and source, `sha256:...`.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    def to_line(self) -> str:
        """Return the line of a requirements file."""
        return " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash={digest}" for digest in self.hashes)])


def pins_for(lock: Path, requirements: Iterable[str]) -> list[Pin]:
    """Return everything that some packages need on the image's platform, by name.

    Args:
        lock: a uv.lock.
        requirements: names, extras allowed: `google-cloud-aiplatform[prediction]`.

    Raises:
        LockError: a package is not in the lock.
    """
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads(lock.read_text())["package"]:
        packages.setdefault(package["name"], []).append(package)
    pins: dict[str, Pin] = {}
    seen: set[tuple[str, str]] = set()
    wanted = [_Wanted(canonicalize_name(r.name), "", tuple(r.extras)) for r in map(Requirement, requirements)]
    while wanted:
        want = wanted.pop()
        package = _find(packages, want, lock)
        for extra in ("", *want.extras):
            if (want.name, extra) not in seen:
                seen.add((want.name, extra))
                wanted += _needs(package, extra)
        pins[want.name] = _pin(package)
    return [pins[name] for name in sorted(pins)]


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    version: str
    extras: tuple[str, ...]


def _find(packages: Mapping[str, list[dict[str, Any]]], want: _Wanted, lock: Path) -> dict[str, Any]:
    """Find a package; where the lock forks, the fork of the image's platform."""
    held = packages.get(want.name, [])
    named = [package for package in held if not want.version or package["version"] == want.version]
    fitting = [package for package in named if _is_for_image(package)]
    if len(fitting) != 1:
        raise LockError(
            f"{lock} must hold exactly one {want.name} {want.version} for the image, but holds {len(fitting)}. "
            "Run `uv lock`, or correct the names in serving/build.py."
        )
    return fitting[0]


def _is_for_image(package: Mapping[str, Any]) -> bool:
    markers = package.get("resolution-markers", [])
    return not markers or any(Marker(marker).evaluate(dict(IMAGE_PLATFORM)) for marker in markers)


def _needs(package: Mapping[str, Any], extra: str) -> list[_Wanted]:
    listed = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
    return [
        _Wanted(entry["name"], entry.get("version", ""), tuple(entry.get("extra", ())))
        for entry in listed
        if "marker" not in entry or Marker(entry["marker"]).evaluate({**IMAGE_PLATFORM, "extra": extra})
    ]


def _pin(package: Mapping[str, Any]) -> Pin:
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    return Pin(package["name"], package["version"], tuple(sorted(file["hash"] for file in files)))
