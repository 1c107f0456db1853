"""The soak benchmark in small: viewers come and go, and nothing of them stays behind."""

import json
from pathlib import Path

import pytest

from benchmarks.soak import main
from tests.tiny_bundle import build_tiny_bundle


@pytest.mark.timeout(300)
def test_viewers_who_come_and_go_leave_no_thread_and_no_open_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = build_tiny_bundle(tmp_path / "tiny")
    main(["--bundle", str(bundle), "--minutes", "0.34", "--reconnect-s", "4"])
    report = json.loads(capsys.readouterr().out)
    assert all(viewer["swapped"] > 0 for viewer in report["viewers"])
    assert sum(viewer["visits"] for viewer in report["viewers"]) >= 6
    assert report["verdict"]["no thread is left behind"], report["threads"]
    assert report["verdict"]["no file is left open"], report["files"]
    assert report["p95_first_ms"] > 0
    assert set(report["verdict"]) >= {"memory is flat", "latency stays"}


def test_missing_bundle_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
