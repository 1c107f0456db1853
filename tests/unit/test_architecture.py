"""The layout stays as drawn: packages know only those below them, heavy libraries live in their own rooms."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("ui", "pipelines", "training", "serving", "understudy", "liveframe")

# Who may import what; import-linter sees only a distribution's root, and `google` is shared by many.
ROOMS = {
    "tensorflow": ("training/",),
    "keras": ("training/",),
    "streamlit": ("app.py", "ui/"),
    "streamlit_webrtc": ("app.py", "ui/"),
    "mlflow": ("training/", "pipelines/", "ui/"),
    "google.cloud": ("serving/",),
    "vertexai": ("serving/",),
    "kfp": ("pipelines/",),
}


def imported_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def trespassers(files: dict[str, str], library: str, rooms: tuple[str, ...]) -> list[str]:
    return [
        path
        for path, source in files.items()
        if not path.startswith(rooms)
        and any(name == library or name.startswith(library + ".") for name in imported_names(source))
    ]


@pytest.fixture(scope="module")
def sources(repository: Path) -> dict[str, str]:
    paths = [repository / "app.py"] if (repository / "app.py").is_file() else []
    for package in PACKAGES:
        paths += (repository / package).rglob("*.py")
    return {str(path.relative_to(repository)): path.read_text() for path in paths}


def test_packages_import_only_those_below_them(repository):
    # In a process of its own: it holds on to the standard output that it first saw, which may be closed by now.
    command = [Path(sys.executable).with_name("lint-imports"), "--config", "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", ROOMS)
def test_heavy_library_stays_in_its_room(sources, library):
    assert trespassers(sources, library, ROOMS[library]) == []


def test_nothing_imports_the_app(sources):
    assert [path for path, source in sources.items() if "app" in set(imported_names(source))] == []


@pytest.mark.parametrize(
    "source",
    ["import google.cloud.aiplatform", "from google.cloud import aiplatform", "def f():\n import google.cloud as g"],
)
def test_an_import_in_the_wrong_room_is_seen(source):
    assert trespassers({"understudy/x.py": source}, "google.cloud", ROOMS["google.cloud"]) == ["understudy/x.py"]
    assert trespassers({"serving/x.py": source}, "google.cloud", ROOMS["google.cloud"]) == []
