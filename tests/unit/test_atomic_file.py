"""A file is written whole or not at all."""

import os

import pytest

from understudy.jobs.atomic_file import write_json, write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    write_whole(tmp_path / "a", b"old")
    write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    write_json(tmp_path / "a.json", {"kind": "ä"}, indent=1)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "kind": "ä"\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", object())
    assert not (tmp_path / "b.json").exists()
