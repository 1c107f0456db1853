"""What a bundle says about itself: its manifest, read with suspicion and written with hashes.

Schema 1 holds an autoencoder: an encoder, and a decoder for each persona (the classic recipe, models of others).
Schema 2 holds a one-shot swap: one mixing network, and for each persona its reference pictures.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, cast

from liveframe.errors import ModelError
from understudy.jobs.atomic_file import write_whole

FACTORY = "understudy.swap"
ONE_SHOT = "understudy.one_shot"
# What may be opened: factory -> schema.
SCHEMAS = {FACTORY: 1, ONE_SHOT: 2}
MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
MIXER = "mixer.onnx"
MAX_REFERENCES = 32

MAX_FILES = 256
MAX_FILE_BYTES = 64 << 20
MAX_BUNDLE_BYTES = 160 << 20
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIDE = 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PERSONA_FILES = {
    FACTORY: {
        "decoder": "decoder.onnx",
        "thumbnail": "thumbnail.jpg",
        "still": "still.png",
        "mesh": "mesh.npy",
        "consent": "consent.json",
    },
    ONE_SHOT: {
        "thumbnail": "thumbnail.jpg",
        "still": "reference.png",
        "mesh": "mesh.npy",
        "consent": "consent.json",
    },
}


class BundleError(ModelError, ValueError):
    """A bundle is damaged, unknown or unsafe, and was refused before use."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file of the bundle must be: its lower-case hex SHA-256 and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PersonaEntry:
    """One persona of a bundle; every file is a member name, relative to the bundle with forward slashes.

    Attributes:
        name: identifier: lower-case letters, digits, `-` and `_`.
        title: what people read.
        thumbnail: JPEG to pick the persona by.
        still: PNG, the reference: an aligned picture.
        mesh: .npy, float32 [468, 3], its mesh in px.
        consent: JSON, the consent record, or a machine-made persona's recipe.
        decoder: ONNX graph, latent -> swap; "" in a one-shot bundle.
        more: further references of a one-shot persona in other poses and expressions: (picture, mesh) each.
    """

    name: str
    title: str
    thumbnail: str
    still: str
    mesh: str
    consent: str
    decoder: str = ""
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's manifest.

    Attributes:
        name: the bundle's name.
        version: its version, free text.
        created: ISO 8601 time of the export.
        input_shape: (H, W, 3) of one crop, uint8 BGR.
        output_shape: (R, R, 4) of one swap, uint8 BGR and mask.
        factory: what kind of bundle this is: FACTORY or ONE_SHOT.
        network: member name of the graph that all personas share: the encoder's, or the mixing network's.
        personas: at least one, in the order to show them.
        training: recipe, iterations, metrics; free form.
        licence: under which the bundle may be used.
        files: every file of the bundle but the manifest, by member name.
    """

    name: str
    version: str
    created: str
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    factory: str
    network: str
    personas: tuple[PersonaEntry, ...]
    training: Mapping[str, Any]
    licence: str
    files: Mapping[str, FileEntry]

    @property
    def is_one_shot(self) -> bool:
        """Whether personas are pictures, and not networks of their own."""
        return self.factory == ONE_SHOT


def check_member_name(name: str) -> None:
    """Refuse a member name that could leave the bundle's directory or mean two things.

    Raises:
        BundleError: the name is absolute, climbs (`..`), or holds a backslash, colon or control character.
    """
    parts = name.split("/")
    has_bad_char = any(c in '\\:*?"<>|' or ord(c) < 32 or ord(c) == 127 for c in name)
    if not 0 < len(name) <= 200 or has_bad_char or any(part in ("", ".", "..") for part in parts):
        raise BundleError(
            f"A bundle's file names must be relative, with forward slashes and no '..', but got {name!r}. "
            "Export the bundle again."
        )


def parse_manifest(text: bytes) -> Manifest:
    """Read a manifest and check everything that it says, short of the files themselves.

    Raises:
        BundleError: it is too large, not JSON, or breaks its schema.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST} must be at most {MAX_MANIFEST_BYTES} bytes, but has {len(text)}. Refused.")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST} must be JSON, but cannot be read: {error}. Export the bundle again.") from error
    fields = _mapping(data, "the manifest")
    factory, schema = fields.get("factory"), fields.get("schema")
    if not isinstance(factory, str) or factory not in SCHEMAS or fields.get("colour") != "BGR":
        raise BundleError(
            f"The bundle must be made by one of {', '.join(SCHEMAS)} in BGR, but names factory {factory!r} "
            f"and colour {fields.get('colour')!r}. Only bundles of those kinds are loaded."
        )
    if schema != SCHEMAS[factory] or isinstance(schema, bool):
        raise BundleError(
            f"The bundle's schema must be {SCHEMAS[factory]}, but is {schema!r}. "
            "Update understudy, or export the bundle with this version."
        )
    files = _files(fields.get("files"))
    return Manifest(
        name=_identifier(fields, "name", "the manifest"),
        version=_text(fields, "version", "the manifest"),
        created=_text(fields, "created", "the manifest"),
        input_shape=_shape(fields, "input", channels=3),
        output_shape=_shape(fields, "output", channels=4),
        factory=factory,
        network=_member(fields, "mixer" if factory == ONE_SHOT else "encoder", "the manifest", files),
        personas=_personas(fields.get("personas"), files, factory),
        training=_mapping(fields.get("training", {}), "training"),
        licence=_text(fields, "licence", "the manifest"),
        files=files,
    )


def write_manifest(
    directory: Path,
    *,
    name: str,
    version: str,
    personas: Mapping[str, str],
    input_shape: tuple[int, int, int],
    output_shape: tuple[int, int, int],
    licence: str,
    training: Mapping[str, Any] | None = None,
    created: str | None = None,
    factory: str = FACTORY,
) -> Path:
    """Hash a directory's files into its manifest, atomically; the last step of an export.

    The directory holds `encoder.onnx`, any documents, and for each persona a folder of its name with `decoder.onnx
    thumbnail.jpg still.png mesh.npy consent.json`; or, one-shot, `mixer.onnx` and folders with `thumbnail.jpg
    reference.png mesh.npy consent.json` and, where there are more references, `more/NAME.png` and `more/NAME.npy`.

    Args:
        directory: the bundle to be.
        name: identifier of the bundle.
        version: its version, free text.
        personas: name -> title, in the order to show them.
        input_shape: (H, W, 3) of the encoder's input.
        output_shape: (R, R, 4) of the decoders' output.
        licence: under which the bundle may be used.
        training: recipe, iterations, metrics: anything JSON can hold.
        created: ISO 8601; now, where not given.
        factory: what kind of bundle it is.

    Returns:
        The manifest's path.

    Raises:
        BundleError: what would be written could not be loaded again.
    """
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST)
    entries = [
        {"name": key, "title": title, **{k: f"{key}/{v}" for k, v in _PERSONA_FILES[factory].items()}}
        | ({"more": _more_references(directory, key)} if factory == ONE_SHOT else {})
        for key, title in personas.items()
    ]
    manifest = {
        "schema": SCHEMAS[factory],
        "factory": factory,
        "name": name,
        "version": version,
        "created": created or datetime.now(UTC).isoformat(timespec="seconds"),
        "input": list(input_shape),
        "output": list(output_shape),
        "colour": "BGR",
        **({"mixer": MIXER} if factory == ONE_SHOT else {"encoder": ENCODER}),
        "personas": entries,
        "training": dict(training or {}),
        "licence": licence,
        "files": {p.relative_to(directory).as_posix(): _hash_file(p) for p in paths},
    }
    text = (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    parse_manifest(text)
    write_whole(directory / MANIFEST, text)
    return directory / MANIFEST


def _more_references(directory: Path, name: str) -> list[dict[str, str]]:
    pictures = sorted((directory / name / "more").glob("*.png"))
    return [{"still": f"{name}/more/{each.name}", "mesh": f"{name}/more/{each.stem}.npy"} for each in pictures]


def _hash_file(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{what} must be a JSON object, but is {type(value).__name__}. Export the bundle again.")
    return cast(dict[str, Any], value)


def _text(fields: Mapping[str, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 500:
        raise BundleError(f"{key!r} of {where} must be a text of 1 to 500 letters, but is {value!r:.80}.")
    return value


def _identifier(fields: Mapping[str, Any], key: str, where: str) -> str:
    value = _text(fields, key, where)
    if not _NAME.fullmatch(value):
        raise BundleError(f"{key!r} of {where} must be lower-case letters, digits, '-' or '_', but is {value!r:.80}.")
    return value


def _shape(fields: Mapping[str, Any], key: str, channels: int) -> tuple[int, int, int]:
    value = fields.get(key)
    items = cast(list[object], value) if isinstance(value, list) else []
    sizes = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    is_square = len(sizes) == len(items) == 3 and sizes[0] == sizes[1] and sizes[2] == channels
    if not is_square or not 8 <= sizes[0] <= MAX_SIDE:
        raise BundleError(f"{key!r} must be [S, S, {channels}] with S from 8 to {MAX_SIDE}, but is {value!r:.80}.")
    return sizes[0], sizes[1], sizes[2]


def _files(value: object) -> Mapping[str, FileEntry]:
    listed = _mapping(value, "'files'")
    if not 0 < len(listed) <= MAX_FILES:
        raise BundleError(f"A bundle must list 1 to {MAX_FILES} files, but lists {len(listed)}. Refused.")
    files: dict[str, FileEntry] = {}
    for name, item in listed.items():
        check_member_name(name)
        entry = _mapping(item, f"the entry of {name!r}")
        digest, size = entry.get("sha256"), entry.get("bytes")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise BundleError(f"{name!r} must have a lower-case hex SHA-256, but has {digest!r:.80}.")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
            raise BundleError(f"{name!r} must have 0 to {MAX_FILE_BYTES} bytes, but says {size!r:.40}. Refused.")
        files[name] = FileEntry(digest, size)
    total = sum(entry.size_bytes for entry in files.values())
    if total > MAX_BUNDLE_BYTES or len({name.lower() for name in files}) < len(files) or MANIFEST in files:
        raise BundleError(
            f"A bundle's files must hold at most {MAX_BUNDLE_BYTES} bytes under distinct names, "
            f"none of them {MANIFEST}, but hold {total} under {len(files)}. Refused."
        )
    return files


def _member(fields: Mapping[str, Any], key: str, where: str, files: Mapping[str, FileEntry]) -> str:
    value = _text(fields, key, where)
    check_member_name(value)
    if value not in files:
        raise BundleError(f"{key!r} of {where} must be one of the bundle's files, but {value!r} is not listed.")
    return PurePosixPath(value).as_posix()


def _personas(value: object, files: Mapping[str, FileEntry], factory: str) -> tuple[PersonaEntry, ...]:
    if not isinstance(value, list) or not 0 < len(cast(list[object], value)) <= 64:
        raise BundleError("'personas' must be a list of 1 to 64 personas. Export the bundle again.")
    entries: list[PersonaEntry] = []
    for item in cast(list[object], value):
        fields = _mapping(item, "each of 'personas'")
        name = _identifier(fields, "name", "a persona")
        where = f"persona {name!r}"
        members = {key: _member(fields, key, where, files) for key in _PERSONA_FILES[factory]}
        more = _more(fields.get("more", []), where, files) if factory == ONE_SHOT else ()
        entries.append(PersonaEntry(name=name, title=_text(fields, "title", where), more=more, **members))
    if len({entry.name for entry in entries}) < len(entries):
        raise BundleError("A bundle's personas must have distinct names. Export the bundle again.")
    return tuple(entries)


def _more(value: object, where: str, files: Mapping[str, FileEntry]) -> tuple[tuple[str, str], ...]:
    items = cast(list[object], value) if isinstance(value, list) else None
    if items is None or len(items) >= MAX_REFERENCES:
        raise BundleError(f"'more' of {where} must list {MAX_REFERENCES - 1} references at most. Export it again.")
    found = (_mapping(item, f"each of 'more' of {where}") for item in items)
    return tuple((_member(each, "still", where, files), _member(each, "mesh", where, files)) for each in found)
