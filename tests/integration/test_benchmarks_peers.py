"""The same bundle behind other servers is answered by all of them, and compared in one run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving import measure_peers
from tests.support.serving_bundle import served_bundle

pytestmark = pytest.mark.timeout(300)  # three servers start, LitServe's with a process for each core


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    with served_bundle(tmp_path) as path:
        yield path


def test_all_three_answer_and_the_ratios_are_of_their_rates(bundle: Path) -> None:
    figures = measure_peers(bundle, 0.4, 1)
    for encoding in ("raw", "jpeg"):
        rates = figures[encoding]
        assert isinstance(rates, dict)
        assert all(rates[kind] > 5 for kind in ("ours", "fastapi", "litserve")), rates
        assert rates["ours_to_fastapi"] == pytest.approx(rates["ours"] / rates["fastapi"], rel=0.02)
        assert rates["ours_to_litserve"] == pytest.approx(rates["ours"] / rates["litserve"], rel=0.02)
