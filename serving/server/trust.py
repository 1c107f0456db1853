"""Whose consent records a replica counts: the list published beside its bundle, or the operator's own folder."""

import os
from pathlib import Path

from understudy.consent.published_trust import PublishedTrust, TrustSource, read_published
from understudy.consent.trust_store import TrustStore, trust_folder


def open_trust(where: str) -> TrustSource:
    """Follow a published list, or read the operator's folder where none is named.

    Args:
        where: `gs://bucket/folder/trust.json`, a path, or "" (`UNDERSTUDY_TRUST`).

    Raises:
        TrustError: the list cannot be read.
    """
    if not where:
        return TrustStore(trust_folder(os.environ))
    if not where.startswith("gs://"):
        return read_published(Path(where))
    from serving.storage import reader

    return PublishedTrust(reader(where), where)
