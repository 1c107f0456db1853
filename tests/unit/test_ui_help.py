"""The Help page shows the guides of docs/, with nothing in them that leads nowhere."""

import re
from pathlib import Path

import pytest

from ui.parts.help import GUIDES, guide


@pytest.mark.parametrize("name", GUIDES)
def test_every_guide_is_there_without_pictures_and_links_to_files(repository: Path, name: str) -> None:
    text = guide(repository / "docs" / f"{name}.md")
    assert len(text) > 500 and not text.startswith("# ")
    assert "![" not in text
    assert all(target.startswith(("http", "#")) for target in re.findall(r"\]\(([^)]*)\)", text))


def test_an_installation_without_docs_says_so(tmp_path: Path) -> None:
    assert "this installation has none" in guide(tmp_path / "app.md")
