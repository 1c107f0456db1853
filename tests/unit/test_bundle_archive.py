"""A bundle's .zip: packed alike every time, unpacked without trust."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from understudy.bundle.bundle import Bundle, BundleError, pack


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("archive") / "tiny")


@pytest.fixture
def archive(directory: Path, tmp_path: Path) -> Path:
    return pack(directory, tmp_path / "tiny.zip")


def add(archive: Path, info: zipfile.ZipInfo, content: bytes = b"x") -> None:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(info, content, zipfile.ZIP_DEFLATED)


def test_zip_loads_as_its_directory_does(directory: Path, archive: Path) -> None:
    packed, loose = Bundle.load(archive), Bundle.load(directory)
    assert packed.digest == loose.digest
    assert packed.read("model_card.md") == loose.read("model_card.md")


def test_unpacked_files_go_with_the_bundle(archive: Path) -> None:
    bundle = Bundle.load(archive)
    path = bundle.path
    assert path.is_dir()
    del bundle
    assert not path.exists()


def test_packing_twice_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    first, second = pack(directory, tmp_path / "a.zip"), pack(directory, tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()


def test_directory_without_manifest_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="manifest"):
        pack(tmp_path, tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a\\evil.txt", "a/../../evil.txt", "C:evil.txt"])
def test_member_that_would_leave_the_directory_is_refused(archive: Path, name: str) -> None:
    add(archive, zipfile.ZipInfo(name))
    with pytest.raises(BundleError, match="relative"):
        Bundle.load(archive)


def test_link_is_refused(archive: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    add(archive, info, b"/etc/passwd")
    with pytest.raises(BundleError, match="link"):
        Bundle.load(archive)


def test_repeated_name_is_refused(archive: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        add(archive, zipfile.ZipInfo("model_card.md"), b"another card")
    with pytest.raises(BundleError, match="repeats"):
        Bundle.load(archive)


def test_member_not_in_the_manifest_is_refused(archive: Path) -> None:
    add(archive, zipfile.ZipInfo("extra.txt"))
    with pytest.raises(BundleError, match=r"extra\.txt"):
        Bundle.load(archive)


def test_bomb_that_declares_its_size_is_refused_by_its_ratio(archive: Path) -> None:
    add(archive, zipfile.ZipInfo("zeros.bin"), bytes(20 << 20))
    with pytest.raises(BundleError, match="declares 20971520"):
        Bundle.load(archive)


def test_bomb_that_lies_about_its_size_is_stopped(archive: Path) -> None:
    add(archive, zipfile.ZipInfo("zeros.bin"), bytes(20 << 20))
    content = bytearray(archive.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    assert content[entry + 46 : entry + 55] == b"zeros.bin"
    struct.pack_into("<I", content, entry + 24, 1000)
    archive.write_bytes(content)
    with pytest.raises(BundleError):
        Bundle.load(archive)


def test_too_many_members_are_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        for number in range(600):
            file.writestr(f"f{number}", b"")
    with pytest.raises(BundleError, match="at most 512 members"):
        Bundle.load(archive)


def test_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(BundleError, match=r"readable \.zip"):
        Bundle.load(path)


def test_refused_zip_leaves_nothing_behind(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    add(archive, zipfile.ZipInfo("extra.txt"))
    with pytest.raises(BundleError):
        Bundle.load(archive)
    assert list((tmp_path / "scratch").iterdir()) == []
