"""The pages' speed run in small: a switch and an instant persona really happen, and every figure is there."""

from pathlib import Path

import pytest

from benchmarks.app_speed import measure


@pytest.mark.timeout(300)
def test_every_wait_is_measured(tmp_path: Path) -> None:
    figures = measure(None, tmp_path, rounds=3)
    for page in ("studio", "models", "convert", "live"):
        # Which is slower is for the benchmark to say: on a busy machine an empty page may wait longer than a full one.
        assert figures[f"rerun.{page}_to_empty_ratio"] > 0
    for wait in ("rerun.live", "persona.switch", "instant.made"):
        assert 0 < figures[f"{wait}_p50_ms"] <= figures[f"{wait}_p95_ms"]
    assert figures["instant.made_p50_ms"] > figures["rerun.live_p50_ms"]
