"""What the product is made of is written down, and nothing of it is fetched unhashed."""

import importlib.util
from email.message import Message
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def supply_chain() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / ".ci" / "supply_chain.py"
    spec = importlib.util.spec_from_file_location("supply_chain", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_locked_file_is_hashed(supply_chain: ModuleType, tmp_path: Path) -> None:
    assert supply_chain.unhashed(supply_chain.ROOT / "uv.lock") == []
    lock = '[[package]]\nname = "{}"\nsource = {{ registry = "r" }}\nwheels = [{{ url = "u"{} }}]\n'
    text = (
        lock.format("good", ', hash = "sha256:ab"') + lock.format("bad", "") + lock.format("old", ', hash = "md5:ab"')
    )
    (tmp_path / "uv.lock").write_text(text)
    assert supply_chain.unhashed(tmp_path / "uv.lock") == ["bad", "old"]


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "a text")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License")], "BSD License"),
        ([("License", "Apache 2.0\nThe whole text")], "Apache 2.0"),
        ([("License-File", "LICENSE.txt")], "see LICENSE.txt"),
        ([("Name", "mute")], ""),
    ],
)
def test_licence_is_what_the_package_says(supply_chain: ModuleType, fields: list[Any], licence: str) -> None:
    message = Message()
    for key, value in fields:
        message[key] = value
    assert supply_chain.licence_of(SimpleNamespace(metadata=message)) == licence
