"""Fetches a bundle from Cloud Storage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy.bundle.manifest import MAX_BUNDLE_BYTES, MAX_FILES, BundleError, check_member_name
from understudy.consent.published_trust import TRUST_OBJECT


def download(uri: str, directory: Path) -> Path:
    """Copy all objects under a URI into a directory; what they hold is verified by whoever opens it.

    Args:
        uri: `gs://bucket/folder`.
        directory: an empty directory.

    Returns:
        `directory`.

    Raises:
        BundleError: nothing lies there, or too much, or under unsafe names.
    """
    from google.cloud import storage

    bucket, _, folder = uri.removeprefix("gs://").partition("/")
    prefix = f"{folder.strip('/')}/"
    client: Any = storage.Client()
    listed = [blob for blob in client.list_blobs(bucket, prefix=prefix) if not blob.name.endswith("/")]
    blobs = [blob for blob in listed if blob.name != f"{prefix}{TRUST_OBJECT}"]
    total = sum(blob.size or 0 for blob in blobs)
    if not blobs or len(blobs) > MAX_FILES or total > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{uri} must hold 1 to {MAX_FILES} objects of at most {MAX_BUNDLE_BYTES} bytes together, "
            f"but holds {len(blobs)} of {total}. Check the artifact URI of the model."
        )
    for blob in blobs:
        name = str(blob.name).removeprefix(prefix)
        check_member_name(name)
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(target), checksum="crc32c")
    return directory


def reader(uri: str) -> Callable[[], bytes]:
    """Return a function that reads one object, `gs://bucket/name`, anew at every call; any thread may call it."""
    from google.cloud import storage

    bucket, _, name = uri.removeprefix("gs://").partition("/")
    client: Any = storage.Client()
    return lambda: client.bucket(bucket).blob(name).download_as_bytes()
