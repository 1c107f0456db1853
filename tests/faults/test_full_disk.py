"""A disk that is full: a sentence that says what to do, nothing damaged, and the same command goes on afterwards."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import build_tiny_bundle
from tests.integration.test_convert import DiscSwapper
from tests.support.clips import read_clip, write_clip
from tests.support.real_faces import astronaut_clip
from tests.support.small_disk import small_disk
from training.extract import main as extract
from training.model.checkpoint import load_checkpoint, save_checkpoint
from understudy.bundle.bundle import Bundle, pack
from understudy.convert import main as convert_command
from understudy.faceset.faceset import Faceset
from understudy.media.conversion import Conversion, convert

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def disk(tmp_path: Path):
    with small_disk(tmp_path / "disk", 64) as mounted:
        yield mounted


def test_extraction_says_so_keeps_whole_chunks_and_goes_on(
    disk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = astronaut_clip(tmp_path / "clip.mp4", frames=40)
    command = [str(clip), "--out", str(disk.path / "faces"), "--size", "128", "--quiet"]
    assert extract(command) == 1
    says = capsys.readouterr().err
    assert "No space left" in says and "run the same command again" in says and "Traceback" not in says
    Faceset.open(disk.path / "faces").verify()
    disk.grow(4096)
    assert extract(command) == 0
    faceset = Faceset.open(disk.path / "faces")
    faceset.verify()
    assert len(faceset) == 40


def test_checkpointing_keeps_the_one_before(disk) -> None:
    disk.grow(500)
    for step in (1, 2):
        save_checkpoint(disk.path, step, [np.full(30_000, step, np.float64)])
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(disk.path, 3, [np.full(30_000, 3, np.float64)])
    found = load_checkpoint(disk.path)
    assert found is not None and found[0] == 2 and (found[1][0] == 2).all()
    disk.grow(1000)
    save_checkpoint(disk.path, 3, [np.full(30_000, 3, np.float64)])
    again = load_checkpoint(disk.path)
    assert again is not None and again[0] == 3


@pytest.mark.parametrize("kib", [4, 100, 400], ids=["first segment", "a later segment", "joining"])
def test_conversion_says_so_publishes_nothing_and_goes_on(disk, kib: int, tmp_path: Path) -> None:
    noise = [np.random.default_rng(index).integers(0, 255, (96, 160, 3), np.uint8) for index in range(60)]
    clip, target = write_clip(tmp_path / "in.mp4", noise, [index / 25 for index in range(60)]), disk.path / "out.mp4"
    disk.grow(kib)
    with pytest.raises(OSError, match="No space left"):
        convert(Conversion(clip, target, segment_frames=5), DiscSwapper())
    assert not target.exists()
    disk.grow(4096)
    report = convert(Conversion(clip, target, segment_frames=5), DiscSwapper())
    assert report.resumed_frames >= (0 if kib == 4 else 10)
    assert len(read_clip(target)[0]) == 60
    assert [path.name for path in disk.path.iterdir()] == ["out.mp4"]


def test_convert_command_says_what_to_do(
    disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "trust"))
    bundle = build_consented_bundle(tmp_path / "bundle", {"ada": "Ada"}, tmp_path / "trust")
    clip = astronaut_clip(tmp_path / "in.mp4", 12)
    assert convert_command([str(clip), str(disk.path / "out.mp4"), "--bundle", str(bundle)]) == 1
    says = capsys.readouterr().err
    assert "No space left on device" in says and "run the same command again" in says and "Traceback" not in says
    disk.grow(8192)
    assert convert_command([str(clip), str(disk.path / "out.mp4"), "--bundle", str(bundle)]) == 0
    assert len(read_clip(disk.path / "out.mp4")[0]) == 12


def test_packing_leaves_no_torn_archive(disk, tmp_path: Path) -> None:
    bundle, archive = build_tiny_bundle(tmp_path / "tiny"), disk.path / "tiny.zip"
    disk.grow(4)
    with pytest.raises(OSError, match="No space left"):
        pack(bundle, archive)
    assert list(disk.path.iterdir()) == []
    disk.grow(4096)
    assert Bundle.load(pack(bundle, archive)).digest == Bundle.load(bundle).digest


def test_registration_says_so_and_leaves_the_champion(disk, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    from pipelines.registry import Registry
    from tests.support.mlflow_store import mlflow_store

    disk.grow(20_000)
    first, second = (build_tiny_bundle(tmp_path / name, personas={name: name.title()}) for name in ("ada", "ben"))
    with mlflow_store(disk.path):
        registry = Registry("full", tmp_path / "cache")
        champion = registry.register(first, alias="champion")
        disk.fill(leave_kib=64)
        with pytest.raises((OSError, MlflowException)) as caught:
            registry.register(second, alias="champion")
        assert any(word in str(caught.value).lower() for word in ("space", "full", "disk"))
        disk.free()
        assert [version.version for version in registry.versions()] == [champion.version]
        assert Bundle.load(registry.resolve("champion")).digest == champion.digest
        assert registry.register(second, alias="champion").version == champion.version + 1
