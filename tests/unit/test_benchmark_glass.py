"""The glass-to-glass run: what its sums make of what was seen, and where its table goes."""

from pathlib import Path

import pytest

from benchmarks.glass_to_glass import as_table, figures, fps, latencies
from benchmarks.harness.report_text import put_between


def test_latency_counts_from_the_numbers_last_presentation_and_repeats_once() -> None:
    sent = [(1, 0.0), (2, 33.0), (1, 10_000.0)]  # the clip begins anew
    shown = [(1, 70.0), (1, 87.0), (2, 113.0), (1, 10_050.0), (9, 10_060.0)]
    assert latencies(sent, shown) == [70.0, 80.0, 50.0]


def test_a_frame_shown_twice_is_one_frame_a_second() -> None:
    assert fps([(1, 0.0), (1, 100.0), (2, 200.0), (3, 1000.0)]) == pytest.approx(2.0)
    assert fps([(1, 0.0), (1, 100.0)]) == 0.0


def test_nothing_seen_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RuntimeError, match="none did"):
        figures([([(1, 0.0)], [])])


def test_table_goes_between_its_marks_and_says_the_load(tmp_path: Path) -> None:
    rows = [f"{relay}.{mode}" for relay in ("webrtc", "websocket") for mode in ("bare", "swap")]
    report = {
        f"{row}.{key}": 12.4 for row in [*rows, "server_720p"] for key in ("fps", "latency_p50_ms", "latency_p95_ms")
    }
    report |= {"machine": {"processor": "Test", "cores": 2, "load_average": [7.25]}, "niceness": 0}
    report |= {"load_average_after": [8.5]}
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- latency:begin -->\nold\n<!-- latency:end -->\nafter\n")
    for _ in range(2):
        put_between(page, "latency", as_table(report))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| WebRTC, swap | 12 | 12 | 12 |") == 1
    assert "7.2" in text and "8.5" in text
    with pytest.raises(ValueError, match="must hold"):
        put_between(_without_marks(tmp_path), "latency", as_table(report))


def _without_marks(folder: Path) -> Path:
    page = folder / "other.md"
    page.write_text("nothing here")
    return page
