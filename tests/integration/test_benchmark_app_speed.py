"""The pages' speed run in small: a switch and an instant persona really happen, and every figure is there."""

from pathlib import Path

import pytest

from benchmarks.app_speed import measure


@pytest.mark.timeout(300)
def test_every_wait_is_measured(tmp_path: Path) -> None:
    figures = measure(None, tmp_path, rounds=3)
    for page in ("studio", "models", "convert", "live"):
        assert figures[f"rerun.{page}_to_empty_ratio"] > 1
    for wait in ("rerun.live", "persona.switch", "instant.made"):
        assert 0 < figures[f"{wait}_p50_ms"] <= figures[f"{wait}_p95_ms"]
    assert figures["instant.made_p50_ms"] > figures["rerun.live_p50_ms"]
