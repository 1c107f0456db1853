"""The tiny bundle with consent records that count, signed by a key of the test's own."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.tiny_bundle import INPUT_SIZE, OUTPUT_SIZE, build_tiny_bundle
from understudy.bundle.bundle import write_manifest
from understudy.consent.check import synthetic_record
from understudy.consent.trust_store import TrustStore


def build_consented_bundle(
    directory: Path, personas: dict[str, str], trust_folder: Path, sources: Sequence[str] = ()
) -> Path:
    """Write a tiny bundle whose personas' records are signed with the folder's key, made at first use.

    Args:
        directory: where to.
        personas: titles by name.
        trust_folder: holds the key.
        sources: SHA-256 of the files that the bundle is to have learned from.
    """
    key = TrustStore(trust_folder).signing_key()
    build_tiny_bundle(directory, personas=personas)
    for name in personas:
        record = synthetic_record(
            name, {"by": "benchmarks/harness/tiny_bundle.py"}, [directory / name / "still.png"], key
        )
        (directory / name / "consent.json").write_text(json.dumps(record))
    write_manifest(
        directory,
        name="tiny",
        version="1",
        personas=personas,
        input_shape=(INPUT_SIZE, INPUT_SIZE, 3),
        output_shape=(OUTPUT_SIZE, OUTPUT_SIZE, 4),
        licence="CC0-1.0",
        training={"recipe": "none", "iterations": 0, "sources": list(sources)},
        created="2026-11-23T00:00:00+00:00",
    )
    return directory
