"""What a machine that serves may know of the operator's trust: public keys and revocations, without any secret.

`publish` writes it, `serving.deploy` puts it beside the bundle, and every replica reads it again on a timer.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from liveframe.errors import LiveframeError
from understudy.consent.trust_store import Trust, TrustedKey, TrustError, parse_keys, release_keys

TRUST_OBJECT = "trust.json"  # its name, beside the bundle
REFRESH_S = 30.0
MAX_AGE_S = 3600.0
MAX_BYTES = 4 << 20
_SCHEMA = 1

_LOG = logging.getLogger(__name__)


class TrustSource(Protocol):
    """Whoever can say whose records count now: a `TrustStore`, or a `PublishedTrust`."""

    def read(self) -> Trust:
        """Return the trusted keys and the revoked records, as they are now.

        Raises:
            TrustError: they cannot be known. Nothing is trusted then.
        """
        ...


def publish(trust: Trust) -> bytes:
    """Write public keys and revocations as JSON; nobody's private key, note or reason is in it."""
    keys = [_key_fields(key) for name, key in sorted(trust.keys.items()) if name not in release_keys()]
    content = {"schema": _SCHEMA, "keys": keys, "revoked": sorted(trust.revoked)}
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def parse_published(content: bytes, where: str) -> Trust:
    """Read what `publish` wrote; the keys of this release count as well.

    Args:
        content: the file's bytes; anything may come.
        where: how errors name it.

    Raises:
        TrustError: it is something else.
    """
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has over {MAX_BYTES} bytes")
        fields = json.loads(content)
        if fields["schema"] != _SCHEMA:
            raise ValueError(f"its schema is {fields['schema']!r:.20}, not {_SCHEMA}")
        revoked = frozenset(str(digest) for digest in fields["revoked"])
        return Trust(release_keys() | parse_keys(fields), revoked)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TrustError(
            f"{where} must hold public keys and revocations, but is broken ({error}). "
            "Publish them again: python -m serving.deploy trust"
        ) from error


class PublishedTrust:
    """A published list, read again on a thread of its own. Thread-safe.

    A list that cannot be read keeps counting for an hour; then nothing is trusted until it can be read again, for a
    record may have been revoked meanwhile.

    Args:
        fetch: gives the bytes; called by this class's thread, and once by the caller's.
        where: how errors name the list.
        refresh_s: how often it is read.
        max_age_s: how long the last list that could be read counts.

    Raises:
        TrustError: the first reading failed.
    """

    def __init__(
        self, fetch: Callable[[], bytes], where: str, refresh_s: float = REFRESH_S, max_age_s: float = MAX_AGE_S
    ) -> None:
        self._fetch = fetch
        self._where = where
        self._refresh_s = refresh_s
        self._max_age_s = max_age_s
        self._closing = threading.Event()
        self._trust, self._read_s = self._load(), time.monotonic()
        self._thread = threading.Thread(target=self._refresh, name="published-trust", daemon=True)
        self._thread.start()

    def read(self) -> Trust:
        """Return the list as it was last read; never waits for the network.

        Raises:
            TrustError: that was too long ago.
        """
        age_s = time.monotonic() - self._read_s
        if age_s > self._max_age_s:
            raise TrustError(
                f"{self._where} must be readable at least every {self._max_age_s:.0f} s to know what was revoked, but "
                f"was not for {age_s:.0f} s. Check that the service account may read it."
            )
        return self._trust

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _load(self) -> Trust:
        try:
            content = self._fetch()
        except LiveframeError:
            raise
        except Exception as error:  # whatever a storage client raises
            raise TrustError(
                f"{self._where} must be readable, but is not ({type(error).__name__}: {error}). "
                "Check that it exists and that the service account may read it."
            ) from error
        return parse_published(content, self._where)

    def _refresh(self) -> None:
        while not self._closing.wait(self._refresh_s):
            try:
                self._trust, self._read_s = self._load(), time.monotonic()
            except LiveframeError as error:
                _LOG.warning("%s", error)


def read_published(path: Path) -> PublishedTrust:
    """Follow a list in a file (a mounted bucket, a test)."""
    return PublishedTrust(path.read_bytes, str(path))


def _key_fields(key: TrustedKey) -> dict[str, object]:
    return {"public_key": base64.b64encode(key.public_key).decode(), "kinds": list(key.kinds)}
