"""The bundle of a face-less model: settings for liveframe's pixelation, and no weights."""

import json
from pathlib import Path
from typing import Any, cast

from liveframe.models.pixelate import Pixelate
from understudy.bundle.manifest import MANIFEST, BundleError

FACTORY = "liveframe.pixelate"
MAX_SIDE = 1024
_KEYS = {"schema", "factory", "name", "version", "size", "columns", "licence"}


def write_pixelate_bundle(directory: Path, size: int = 256, columns: int = 32, version: str = "1") -> Path:
    """Write the bundle of a pixelation: a manifest and nothing else.

    Args:
        directory: made where missing.
        size: px, side of the pictures that the served model takes.
        columns: tiles along the longer side.
        version: free text.

    Returns:
        `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    manifest = {
        "schema": 1,
        "factory": FACTORY,
        "name": "pixelate",
        "version": version,
        "size": size,
        "columns": columns,
        "licence": "Apache-2.0",
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return directory


def load_pixelate(directory: Path) -> tuple[Pixelate, str, str]:
    """Read a pixelation's bundle.

    Returns:
        The model, the bundle's name and its version.

    Raises:
        BundleError: the manifest is not a pixelation's, or a file lies beside it.
    """
    fields = cast(dict[str, Any], json.loads((directory / MANIFEST).read_bytes()))
    extra = sorted(path.name for path in directory.iterdir() if path.name != MANIFEST)
    if set(fields) != _KEYS or fields["schema"] != 1 or extra:
        raise BundleError(
            f"A {FACTORY} bundle must have the keys {sorted(_KEYS)} in schema 1 and no other file, "
            f"but has {sorted(fields)} and {extra[:5]}. Write it with write_pixelate_bundle."
        )
    size, columns = fields["size"], fields["columns"]
    if not _is_count(size, 8, MAX_SIDE) or not _is_count(columns, 8, 96):
        raise BundleError(
            f"'size' must be 8 to {MAX_SIDE} and 'columns' 8 to 96, but got {size!r:.40} and {columns!r:.40}."
        )
    return Pixelate(columns, size), str(fields["name"])[:64], str(fields["version"])[:64]


def _is_count(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
