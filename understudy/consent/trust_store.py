"""Whose signatures count here, and what has been revoked: the operator's key and two short JSON files."""

import base64
import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from liveframe.errors import LiveframeError
from understudy.consent.private_file import is_open_to_others, write_private
from understudy.jobs.lock import LockedError, exclusive

KINDS = ("synthetic", "self", "person")
_MAX_FILE_BYTES = 4 << 20
_WAIT_S = 5.0


class TrustError(LiveframeError, ValueError):
    """A key or a trust file is missing, broken or readable by others."""


def trust_folder(environment: Mapping[str, str]) -> Path:
    """Where the operator's keys lie: `UNDERSTUDY_HOME`, or `.understudy` in the home directory.

    Args:
        environment: os.environ, handed in by the entry point.
    """
    named = environment.get("UNDERSTUDY_HOME", "")
    return Path(named).expanduser() if named else Path.home() / ".understudy"


def key_id(public_key: bytes) -> str:
    """Name a key: the first 16 hex digits of the SHA-256 of its 32 raw bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return a private key's public half: 32 raw bytes."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key whose records count.

    Attributes:
        public_key: 32 raw bytes, Ed25519.
        kinds: the kinds of subject that it may vouch for. The key of a release may vouch for
            synthetic personas alone; the operator's own for all.
        note: whose key it is, for people.
    """

    public_key: bytes
    kinds: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a check needs to know, read once.

    Attributes:
        keys: trusted keys by `key_id`.
        revoked: digests of records that count no more.
    """

    keys: Mapping[str, TrustedKey] = field(default_factory=dict[str, TrustedKey])
    revoked: frozenset[str] = frozenset()


def release_keys() -> dict[str, TrustedKey]:
    """Return the keys that signed the personas shipped with this release (synthetic ones alone)."""
    return _read_keys(Path(__file__).with_name("release_keys.json"))


class TrustStore:
    """The operator's folder of keys: `signing_key.pem` (mode 0600), `trusted_keys.json`, `revoked.json`.

    Nothing is read or made before the first call. Writes are atomic and take turns, so that neither a
    crash nor a second process at the same moment loses an entry.

    Args:
        folder: where it lies; made, for the owner alone, on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def signing_key(self) -> Ed25519PrivateKey:
        """Return the operator's key; made and trusted (for every kind) on first use.

        Raises:
            TrustError: the key file is broken, or others may read it.
        """
        path = self.folder / "signing_key.pem"
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_private(path, private, is_exclusive=True)
        key = _read_signing_key(path)
        if key_id(public_bytes(key)) not in self._own_keys():
            self.trust(public_bytes(key), KINDS, "this machine's operator")
        return key

    def trust(self, public_key: bytes, kinds: tuple[str, ...], note: str) -> str:
        """Let a key's records count from now on; returns its id.

        Raises:
            TrustError: not an Ed25519 public key, or an unknown kind.
        """
        if unknown := set(kinds) - set(KINDS):
            raise TrustError(f"A key's kinds must be of {', '.join(KINDS)}, but got {', '.join(sorted(unknown))}.")
        try:
            Ed25519PublicKey.from_public_bytes(public_key)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise TrustError(f"A public key must be 32 raw bytes of Ed25519, but {error}. Copy it again.") from error
        with self._alone():
            keys = self._own_keys() | {key_id(public_key): TrustedKey(public_key, kinds, note)}
            listed = [
                {"public_key": base64.b64encode(key.public_key).decode(), "kinds": list(key.kinds), "note": key.note}
                for key in keys.values()
            ]
            write_private(self.folder / "trusted_keys.json", _to_json({"schema": 1, "keys": listed}))
        return key_id(public_key)

    def revoke(self, digest: str, now: datetime, reason: str = "") -> None:
        """Refuse a record from now on, wherever this folder is asked.

        Args:
            digest: `ConsentRecord.digest`.
            now: noted beside it.
            reason: noted beside it.

        Raises:
            TrustError: the file is broken, or other processes write to the folder without a pause.
        """
        with self._alone():
            records = self._revocations() | {digest: {"at": now.isoformat(timespec="seconds"), "reason": reason}}
            write_private(self.folder / "revoked.json", _to_json({"schema": 1, "records": records}))

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Read, change and write while nobody else does."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with exclusive(self.folder / ".lock", f"The trust folder {self.folder}", wait_s=_WAIT_S):
                yield
        except LockedError as error:
            raise TrustError(str(error)) from error

    def read(self) -> Trust:
        """Return the trusted keys, those of the release included, and the revoked records, as they are now.

        Raises:
            TrustError: a file is broken. Nothing is trusted then.
        """
        return Trust(release_keys() | self._own_keys(), frozenset(self._revocations()))

    def _own_keys(self) -> dict[str, TrustedKey]:
        path = self.folder / "trusted_keys.json"
        return _read_keys(path) if path.exists() else {}

    def _revocations(self) -> dict[str, Any]:
        path = self.folder / "revoked.json"
        if not path.exists():
            return {}
        records = _read_json(path).get("records")
        if not isinstance(records, dict):
            raise TrustError(f"{path} must hold an object 'records', but does not. Restore it from a backup.")
        return records


def _read_signing_key(path: Path) -> Ed25519PrivateKey:
    if is_open_to_others(path):
        raise TrustError(f"{path} must be readable by its owner alone, but others may read it. Run: chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(f"{path} must hold a private key in PEM, but {error}. Restore it or remove it.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(f"{path} must hold an Ed25519 key, but holds another kind. Restore it or remove it.")
    return key


def _read_keys(path: Path) -> dict[str, TrustedKey]:
    try:
        return parse_keys(_read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, TrustError):
            raise
        raise TrustError(f"{path} must list keys, but is broken ({error!r}). Restore it from a backup.") from error


def parse_keys(content: Mapping[str, Any]) -> dict[str, TrustedKey]:
    """Read a list of keys, `{"keys": [{"public_key", "kinds", "note"}, ...]}`; the ids are computed, never believed.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no such list.
    """
    keys: dict[str, TrustedKey] = {}
    for entry in content["keys"]:
        public = base64.b64decode(entry["public_key"], validate=True)
        Ed25519PublicKey.from_public_bytes(public)
        kinds = tuple(kind for kind in KINDS if kind in entry["kinds"])
        keys[key_id(public)] = TrustedKey(public, kinds, str(entry.get("note", "")))
    return keys


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise TrustError(f"{path} must be a short list, but has over {_MAX_FILE_BYTES} bytes. Restore it.")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TrustError(f"{path} must hold JSON, but does not ({error}). Restore it from a backup.") from error
    if not isinstance(content, dict):
        raise TrustError(f"{path} must hold a JSON object, but holds another value. Restore it from a backup.")
    return content


def _to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
