"""The tiny bundle with records that count, and the operator's folder that says so, for tests of the serving tier."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS


@contextmanager
def served_bundle(directory: Path) -> Generator[Path]:
    """Return a bundle that may be served while this is open, here and in processes started here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_HOME", str(directory / "operator"))
        yield build_consented_bundle(directory / "bundle", PERSONAS, directory / "operator")
