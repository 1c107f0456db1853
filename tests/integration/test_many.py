"""Many clips by one command: here, on a local Ray of two workers, and with a worker killed in the middle."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.serving_process import ROOT
from benchmarks.harness.tiny_bundle import PERSONAS
from benchmarks.harness.waiting import wait_until
from pipelines.many import ManifestError, main, read_manifest
from tests.support.clips import read_clip
from tests.support.real_faces import astronaut_clip

CLIPS = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a bundle, the operator's keys and clips."""
    folder = tmp_path_factory.mktemp("many")
    build_consented_bundle(folder / "bundle", PERSONAS, folder / "trust")
    for number in range(CLIPS):
        astronaut_clip(folder / f"{number}.mp4", 30 + number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_HOME", str(folder / "trust"))
        yield folder


def manifest(home: Path, out: Path, numbers: range = range(CLIPS)) -> Path:
    path = out / "clips.jsonl"
    lines = [json.dumps({"in": [str(home / f"{n}.mp4")], "out": f"made/{n}.mp4"}) for n in numbers]
    path.write_text("\n".join(lines) + "\n")
    return path


def outcomes(text: str) -> dict[str, dict[str, object]]:
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {Path(str(each["out"])).stem: each for each in found}


def test_items_are_done_once_and_again_only_when_something_changed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(home, tmp_path, range(2))
    command = ["convert", str(path), "--json", "--", "--bundle", str(home / "bundle")]
    assert main([*command, "--persona", "ada"]) == 0
    assert {each["state"] for each in outcomes(capsys.readouterr().out).values()} == {"done"}
    assert [len(read_clip(tmp_path / "made" / f"{n}.mp4")[0]) for n in range(2)] == [30, 31]
    assert main([*command, "--persona", "ada"]) == 0
    assert {each["state"] for each in outcomes(capsys.readouterr().out).values()} == {"skipped"}
    (tmp_path / "made" / "1.mp4").unlink()
    assert main([*command, "--persona", "ada"]) == 0
    assert [each["state"] for each in outcomes(capsys.readouterr().out).values()] == ["skipped", "done"]
    assert main([*command, "--persona", "ben", "--overwrite"]) == 0
    assert {each["state"] for each in outcomes(capsys.readouterr().out).values()} == {"done"}


def test_broken_item_fails_alone_with_its_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(home, tmp_path, range(1))
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    with path.open("a") as file:
        file.write(json.dumps({"in": "broken.mp4", "out": "made/broken.mp4"}) + "\n")
        file.write(json.dumps({"in": str(home / "0.mp4"), "out": "made/odd.mp4", "options": ["--no-such"]}) + "\n")
    assert main(["convert", str(path), "--json", "--", "--bundle", str(home / "bundle")]) == 1
    found = outcomes(capsys.readouterr().out)
    assert (found["0"]["state"], found["broken"]["state"], found["odd"]["state"]) == ("done", "failed", "failed")
    assert "broken.mp4" in str(found["broken"]["says"]) and "--no-such" in str(found["odd"]["says"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        ("[]", "line 1"),
        ('{"in": [], "out": "x"}', "line 1"),
        ('{"in": "a.mp4", "out": "x", "outt": 1}', "line 1"),
        ('{"in": "missing.mp4", "out": "x"}', "missing.mp4 must exist"),
        ('{"in": "clips.jsonl", "out": "x"}\n{"in": "clips.jsonl", "out": "./x"}', "of its own"),
    ],
)
def test_wrong_manifest_is_refused_before_anything_begins(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text(text)
    with pytest.raises(ManifestError, match=sentence):
        read_manifest(tmp_path / "clips.jsonl", "convert")


@pytest.mark.slow  # a cluster starts, and a worker dies and is replaced
@pytest.mark.timeout(600)
def test_ray_of_two_workers_loses_nothing_when_one_is_killed(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    path = manifest(home, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pipelines.many",
        "convert",
        str(path),
        "--ray",
        "local",
        "--workers",
        "2",
        "--json",
    ]
    command += ["--", "--bundle", str(home / "bundle")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        killed: list[int] = []

        def kill_a_busy_worker() -> bool:
            for process in psutil.Process(run.pid).children(recursive=True):
                if process.name().startswith("ray::") and "convert" in process.name():
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    return True
            return run.poll() is not None

        wait_until(kill_a_busy_worker, 300)
        text, _ = run.communicate(timeout=280)
    assert run.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    found = outcomes(text)
    assert len(found) == CLIPS and {each["state"] for each in found.values()} == {"done"}
    workers = {str(each["worker"]) for each in found.values()}
    assert killed and len(workers) >= 2 and not any(name.endswith(f":{killed[0]}") for name in workers)
    assert [len(read_clip(tmp_path / "made" / f"{n}.mp4")[0]) for n in range(CLIPS)] == [30 + n for n in range(CLIPS)]
