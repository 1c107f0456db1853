"""The soak benchmark in small: viewers come and go, and nothing of them stays behind."""

import json
from pathlib import Path

import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from benchmarks.soak import Samples, main


@pytest.mark.timeout(300)
def test_viewers_who_come_and_go_leave_no_thread_and_no_open_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = build_tiny_bundle(tmp_path / "tiny")
    out = tmp_path / "soak.json"
    main(["--bundle", str(bundle), "--minutes", "0.34", "--reconnect-s", "4", "--out", str(out)])
    report = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == report
    assert report["verdict"]["every viewer stayed to the end"]
    assert all(viewer["swapped"] > 0 for viewer in report["viewers"])
    assert sum(viewer["visits"] for viewer in report["viewers"]) >= 6
    assert report["verdict"]["no thread is left behind"], report["threads"]
    assert report["verdict"]["no file is left open"], report["files"]
    assert report["p95_first_ms"] > 0
    assert set(report["verdict"]) >= {"memory is flat", "latency stays"}


def test_too_few_samples_are_no_verdict_of_flatness() -> None:
    few = Samples([1.0, 2.0], [100.0, 100.0], [9, 9], [5, 5])
    assert few.slope_mb_per_min(0.0) is None
    assert few.climbs(few.threads, 10.0)


def test_threads_that_climb_while_viewers_come_and_go_are_seen() -> None:
    times_s = [float(second) for second in range(10)]
    samples = Samples(times_s, [100.0] * 10, [8, 9, 8, 9, 8, 10, 9, 10, 9, 10], [5] * 10)
    assert samples.climbs(samples.threads, 0.0)
    assert not samples.climbs(samples.files, 0.0)
    assert samples.slope_mb_per_min(0.0) == pytest.approx(0, abs=1e-6)


def test_missing_bundle_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
